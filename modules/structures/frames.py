"""Video facts and decoded frames: planes are kept as decoded, RGB is made only where it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """How Y'CbCr planes are laid out and what their numbers mean.

    ``chroma_shift`` is (log2 horizontal, log2 vertical) subsampling: 4:2:0 = (1, 1), 4:2:2 = (1, 0), 4:4:4 = (0, 0).
    ``siting`` is where a chroma sample sits in its luma block: ``left`` (MPEG-2/H.264), ``center`` (JPEG), ``topleft``.
    """

    pixel_format: str
    chroma_shift: tuple[int, int]
    siting: Literal["left", "center", "topleft"]
    full_range: bool
    matrix: Literal["bt601", "bt709", "bt2020"]
    bit_depth: int = 8


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a reader knows before decoding; header frame counts are never trusted, so there is none.

    ``rotation_deg`` is the display rotation found in the file (frames are delivered upright).
    ``color_tags`` are the raw FFmpeg numbers (primaries, transfer, space, range), written back as they were.
    """

    path: Path
    width: int
    height: int
    frame_rate: Fraction
    time_base: Fraction
    rotation_deg: int
    layout: PlaneLayout
    color_tags: tuple[int, int, int, int]
    has_audio: bool
    duration_s: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded, upright frame.

    Attributes:
        index: position in presentation order, from 0.
        pts: presentation time in units of ``time_base``.
        planes: Y ``[H, W]``, Cb and Cr at chroma size, uint8 (or uint16 above 8 bits).
    """

    index: int
    pts: int
    time_base: Fraction
    planes: tuple[NDArray, NDArray, NDArray]
    layout: PlaneLayout

    @property
    def time_s(self) -> Fraction:
        return self.pts * self.time_base

    @property
    def size_hw(self) -> tuple[int, int]:
        height, width = self.planes[0].shape
        return height, width

    def __repr__(self) -> str:
        height, width = self.size_hw
        return f"Frame(index={self.index}, t={float(self.time_s):.3f}s, {width}x{height} {self.layout.pixel_format})"


RgbImage = NDArray[np.uint8]
"""RGB uint8 ``[H, W, 3]``."""
