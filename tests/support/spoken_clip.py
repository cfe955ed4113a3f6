"""A small clip of the demo person with sound: frames of the demo clip, scaled down, the last one black."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from modules.structures.frames import Frame
from modules.video.reader import VideoReader
from modules.video.sound import AudioTrack
from modules.video.writer import EncodeConfig, VideoWriter
from tests.support.tiny_run import DEMO

FRAMES = (10, 43)
"""Of the demo clip: before her hand comes up, and not from its start, so that an offset cannot hide."""
SIZE_WH = (320, 180)
PRESET = """# Teaches nothing: enough to be a person.
base_config: egs/egs_bases/radnerf/cpu.yaml
max_updates: 3
rays_per_step: 64
state_interval: 0
val_interval: 0
val_images: 0
"""


def spoken_clip(target: Path, speech: Path) -> Path:
    """Frames ``FRAMES`` at ``SIZE_WH`` and at their own times, with ``speech`` from the first of them on."""
    first, stop = FRAMES
    with VideoReader(DEMO / "WolfgangLanger_Pexels.mp4") as reader:
        info = replace(reader.info, width=SIZE_WH[0], height=SIZE_WH[1])
        with VideoWriter(target, info, quality=EncodeConfig(lossless=True), audio=AudioTrack(speech)) as writer:
            for frame in islice(reader.frames(), first, stop):
                small = _scaled(frame)
                writer.write(_blackened(small) if frame.index == stop - 1 else small)
    return target


def with_sound(source: Path, target: Path, sound: Path, start_s: Fraction | None = None) -> Path:
    """The frames of a clip, without loss, with ``sound`` heard from ``start_s`` of the file on."""
    with (
        VideoReader(source) as reader,
        VideoWriter(
            target, reader.info, quality=EncodeConfig(lossless=True), audio=AudioTrack(sound, start_s=start_s)
        ) as writer,
    ):
        for frame in reader.frames():
            writer.write(frame)
    return target


def _scaled(frame: Frame) -> Frame:
    half = (SIZE_WH[0] // 2, SIZE_WH[1] // 2)
    luma, *chroma = (
        cv2.resize(p, size, interpolation=cv2.INTER_AREA)
        for p, size in zip(frame.planes, (SIZE_WH, half, half), strict=True)
    )
    return replace(frame, planes=(luma, chroma[0], chroma[1]))


def _blackened(frame: Frame) -> Frame:
    luma, *chroma = (np.full_like(p, value) for p, value in zip(frame.planes, (16, 128, 128), strict=True))
    return replace(frame, planes=(luma, chroma[0], chroma[1]))
