"""Frames of every plane layout with structure and noise, for tests that compare two ways to work on planes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from modules.structures.frames import Frame, PlaneLayout

LAYOUTS = [
    PlaneLayout("yuv420p", (1, 1), "left", full_range=False, matrix="bt709"),
    PlaneLayout("yuv420p", (1, 1), "center", full_range=True, matrix="bt601"),
    PlaneLayout("yuv420p", (1, 1), "bottomright", full_range=False, matrix="bt601"),
    PlaneLayout("yuv420p10le", (1, 1), "topleft", full_range=False, matrix="bt2020", bit_depth=10),
    PlaneLayout("yuv420p12le", (1, 1), "left", full_range=True, matrix="bt2020", bit_depth=12),
    PlaneLayout("yuv422p", (1, 0), "left", full_range=False, matrix="bt709"),
    PlaneLayout("yuv422p10le", (1, 0), "center", full_range=False, matrix="bt709", bit_depth=10),
    PlaneLayout("yuv444p", (0, 0), "center", full_range=True, matrix="bt709"),
    PlaneLayout("yuv444p10le", (0, 0), "left", full_range=False, matrix="bt2020", bit_depth=10),
]


def noisy_frame(layout: PlaneLayout, size_hw: tuple[int, int], seed: int, index: int = 0) -> Frame:
    """Smooth structure with noise, in every code the range allows."""
    rng = np.random.default_rng(seed)
    top = (1 << layout.bit_depth) - 1
    dtype = np.uint8 if layout.bit_depth == 8 else np.uint16
    height, width = size_hw
    chroma = tuple((n + s) >> s for n, s in zip(size_hw, layout.chroma_shift[::-1], strict=True))
    planes = []
    for h, w in ((height, width), chroma, chroma):
        y, x = np.mgrid[:h, :w] / 30
        wave = 0.5 + 0.2 * np.sin(3 * x + y + seed) + rng.normal(0, 0.08, (h, w))
        planes.append(np.rint(np.clip(wave, 0, 1) * top).astype(dtype))
    return Frame(index, index, Fraction(1, 25), tuple(planes), layout)
