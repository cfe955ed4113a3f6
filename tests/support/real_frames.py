"""Frames of real clips for tests, read through the project's own reader."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from modules.structures.frames import Frame
from modules.video.reader import VideoReader

DEMO_CLIP = "WolfgangLanger_Pexels.mp4"
"""A woman in close-up; a hand covers part of her face in frames 57 to 230."""


def read_frames(path: Path, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
    """Frames ``start, start + step, … < stop`` of a clip."""
    with VideoReader(path) as reader:
        yield from islice(reader.frames(), start, stop, step)


def read_frame(path: Path, index: int) -> Frame:
    """One frame of a clip."""
    return next(read_frames(path, index, index + 1))
