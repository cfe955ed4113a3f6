"""Video facts and decoded frames: planes are kept as decoded, RGB is made only where it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Siting = Literal[
    "left", "center", "topleft", "top", "right", "bottom", "topright", "bottomleft", "bottomright"
]  # fmt: skip

FieldOrder = Literal["progressive", "top", "bottom", "unknown"]
"""Which field of an interlaced frame is shown first; ``unknown`` = interlaced, but the file does not say."""


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """How Y'CbCr planes are laid out and what their numbers mean.

    ``chroma_shift`` is (log2 horizontal, log2 vertical) subsampling: 4:2:0 = (1, 1), 4:2:2 = (1, 0), 4:4:4 = (0, 0).
    ``siting`` is where a chroma sample sits in its luma block: ``left`` (MPEG-2/H.264), ``center`` (JPEG), ``topleft``;
    the other names arise when a display rotation turns the planes.
    """

    pixel_format: str
    chroma_shift: tuple[int, int]
    siting: Siting
    full_range: bool
    matrix: Literal["bt601", "bt709", "bt2020"]
    bit_depth: int = 8


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    """HDR10's static description of the display a video was graded on and of its brightest pictures.

    Attributes:
        display: green x, y, blue x, y, red x, y, white x, y in steps of 1/50000, then the highest and the lowest
            luminance in steps of 1/10000 cd/m2; None = not stated.
        light: MaxCLL and MaxFALL in cd/m2; None = not stated.
    """

    display: tuple[int, ...] | None = None
    light: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.display is not None and len(self.display) != 10:
            raise ValueError(f"a mastering display has 10 numbers, got {len(self.display)}")


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a reader knows before decoding; header frame counts are never trusted, so there is none.

    ``width`` and ``height`` are those of the upright frames. ``rotation_deg`` is the display rotation found in the
    file: 0, 90, 180 or 270, counter-clockwise (frames are delivered upright). ``sample_aspect_ratio`` is that of the
    coded pixels, None when the file says nothing.
    ``color_tags`` are the raw FFmpeg numbers (primaries, transfer, space, range), written back as they were; ``hdr``
    is what HDR10 states beside them. ``field_order`` is of the coded, not yet turned frames.
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
    sample_aspect_ratio: Fraction | None = None
    field_order: FieldOrder = "progressive"
    hdr: HdrMetadata | None = None

    @property
    def is_interlaced(self) -> bool:
        return self.field_order != "progressive"


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


@dataclass(frozen=True, slots=True, eq=False)
class FramePatch:
    """A rendered piece of a frame on the frame's own pixel grid.

    Attributes:
        bounds: integer half-open (x0, y0, x1, y1) inside the frame.
        rgb: float32 ``[h, w, 3]`` in 0..1; what it holds where ``alpha`` is 0 is never read.
        alpha: float32 ``[h, w]`` in 0..1 (1 = the patch, 0 = the source).
    """

    bounds: tuple[int, int, int, int]
    rgb: NDArray[np.float32]
    alpha: NDArray[np.float32]

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.bounds
        if not (0 <= x0 < x1 and 0 <= y0 < y1):
            raise ValueError(f"empty, inverted or negative patch bounds: {self.bounds}")
        size = (y1 - y0, x1 - x0)
        if self.rgb.shape != (*size, 3) or self.alpha.shape != size:
            raise ValueError(f"patch arrays must be {size}, got rgb {self.rgb.shape}, alpha {self.alpha.shape}")
        if self.rgb.dtype != np.float32 or self.alpha.dtype != np.float32:
            raise ValueError(f"patch arrays must be float32, got rgb {self.rgb.dtype}, alpha {self.alpha.dtype}")
        if not (self.alpha.min() >= 0.0 and self.alpha.max() <= 1.0):
            raise ValueError("patch alpha outside 0..1")
        if not (np.isfinite(self.rgb).all() or np.isfinite(self.rgb[self.alpha > 0]).all()):
            raise ValueError("patch colour is not finite where alpha is above 0")

    def __repr__(self) -> str:
        return f"FramePatch(bounds={self.bounds}, covered={float((self.alpha > 0).mean()):.3f})"


RgbImage = NDArray[np.uint8]
"""RGB uint8 ``[H, W, 3]``."""
