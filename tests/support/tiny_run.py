"""One whole run of the main command on forty real frames, made once per session and shared by tests."""

from __future__ import annotations

import functools
import logging
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference import identity
from inference.genefacepp_infer_arbitrary import GeneFace2InferArbitrary
from inference.prepared import PreparedSource
from modules.commons import workspace
from modules.structures.audio import AudioClip
from modules.structures.frames import Frame
from modules.video.reader import VideoReader
from modules.video.writer import EncodeConfig, VideoWriter

DEMO = workspace.DEMO_DIR
FRAMES = (30, 70)
"""Of the demo clip; from 57 on her hand is in front of her face."""
SPEECH_S = (0.9, 2.2)
"""Of the demo speech: shorter than the clip."""
STEPS = 60
STATE_EVERY = 20
INTERRUPTED_AT = 30
PRESET = f"""# Enough to see that everything fits together; far too little for a good picture.
base_config: egs/egs_bases/radnerf/cpu.yaml
max_updates: {STEPS}
rays_per_step: 2048
state_interval: {STATE_EVERY}
val_interval: 0
val_images: 0
"""


class InterruptedForTest(KeyboardInterrupt):
    """Stands for Ctrl-C."""


class Messages(logging.Handler):
    """Collects what was logged, as (level, text)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.levelname, record.getMessage()))


@dataclass(frozen=True)
class TinyRun:
    """A finished run: its files and what it said. ``interrupted`` are the messages of the try that was cut off."""

    root: Path
    clip: Path
    speech: Path
    preset: Path
    out: Path
    masks: Path
    overlay: Path
    interrupted: list[tuple[str, str]]
    messages: list[tuple[str, str]]

    @property
    def identity(self) -> Path:
        (found,) = (self.root / "identities").glob("*/checkpoint.json")
        return found.parent

    def job(self, **changes: object) -> dict[str, object]:
        """The job that was run, to run again with changes; hands alone count: the clip shows no 2 s of clean face."""
        given = {"src_video": self.clip, "audio": self.speech, "out_name": self.out, "occlusion": "hands"}
        return {**given, **changes}


def mouth_in_view(source: PreparedSource) -> PreparedSource:
    """The source as if hands never hid its mouth: then its frames are edited beside the hand, not passed through."""
    visible = replace(source.occlusion, mouth=np.zeros_like(source.occlusion.mouth))
    return replace(source, occlusion=visible, unsure=None)


@contextmanager
def own_folders(root: Path) -> Iterator[None]:
    """Prepared data and trained people go below ``root`` instead of the repository."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace.VideoWorkspace.__init__, "__defaults__", (root / "data", 0))
        for function in (identity.find_identity, identity.train_identity):
            assert function.__defaults__ is not None
            patch.setattr(function, "__defaults__", (*function.__defaults__[:-1], root / "identities"))
        yield


@contextmanager
def listening() -> Iterator[list[tuple[str, str]]]:
    """What is logged meanwhile, at level INFO and above."""
    handler, logger = Messages(), logging.getLogger()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.seen
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@functools.cache
def tiny_run(root: Path) -> TinyRun:
    """Prepare and train (interrupted once, then again to the end) and edit, losslessly and with masks."""
    root.mkdir(parents=True)
    preset = root / "tiny.yaml"
    preset.write_text(PRESET)
    clip = remux(DEMO / "WolfgangLanger_Pexels.mp4", root / "clip.mp4", *FRAMES)
    speech = write_wav(root / "speech.wav", cut(load_audio_16k(DEMO / "obama_speech.wav"), *SPEECH_S))
    run = TinyRun(
        root,
        clip,
        speech,
        preset,
        root / "out" / "out.mp4",
        root / "out" / "masks.mkv",
        root / "out" / "overlay.mp4",
        [],
        [],
    )
    job = run.job(config=preset, lossless=True, save_masks=run.masks, debug_masks=run.overlay)
    with own_folders(root):
        with listening() as said, pytest.raises(InterruptedForTest):
            GeneFace2InferArbitrary(_interrupting).infer_once_arbitrary(job)
        run.interrupted.extend(said)
        with listening() as said:
            GeneFace2InferArbitrary().infer_once_arbitrary(job)
        run.messages.extend(said)
    return run


def _interrupting(what: str, done: int, total: int) -> None:
    if what == "train" and done >= INTERRUPTED_AT:
        raise InterruptedForTest


def remux(source: Path, target: Path, first: int, stop: int) -> Path:
    """Frames ``first`` to ``stop`` of a video, sample by sample, at their own times."""
    with (
        VideoReader(source) as reader,
        VideoWriter(target, reader.info, quality=EncodeConfig(lossless=True), comment="") as writer,
    ):
        for frame in islice(reader.frames(), first, stop):
            writer.write(frame)
    return target


def scaled(source: Path, target: Path, size_wh: tuple[int, int], count: int) -> Path:
    """The first ``count`` frames of a 4:2:0 video at another size, without loss."""
    width, height = size_wh
    chroma = (-(-width // 2), -(-height // 2))
    with VideoReader(source) as reader:
        info = replace(reader.info, width=width, height=height)
        with VideoWriter(target, info, quality=EncodeConfig(lossless=True), comment="") as writer:
            for frame in islice(reader.frames(), count):
                sizes = (size_wh, chroma, chroma)
                planes = [
                    cv2.resize(p, s, interpolation=cv2.INTER_AREA) for p, s in zip(frame.planes, sizes, strict=True)
                ]
                writer.write(replace(frame, planes=(planes[0], planes[1], planes[2])))
    return target


def cut(clip: AudioClip, start_s: float, stop_s: float) -> AudioClip:
    """A stretch of a sound."""
    first, stop = (round(t * clip.sample_rate_hz) for t in (start_s, stop_s))
    return AudioClip(clip.samples[first:stop], clip.sample_rate_hz)


def write_wav(path: Path, clip: AudioClip) -> Path:
    """16-bit mono WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sample_rate_hz)
        file.writeframes(np.round(np.clip(clip.samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def all_frames(path: Path) -> list[Frame]:
    """Every frame of a short video."""
    with VideoReader(path) as reader:
        return list(reader.frames())
