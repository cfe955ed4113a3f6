"""Soft masks with the space they live in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class OcclusionMask:
    """What stands in front of the face: float32 ``[H, W]`` in 0..1 (1 = occluder), in frame or crop pixels.

    ``hands`` holds hand landmarks ``[N, 21, 2]`` px in the same space (N = 0 when none were found).
    """

    values: NDArray[np.float32]
    space: Literal["frame", "crop"]
    hands: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ValueError(f"mask must be float32 [H, W], got {self.values.dtype} {self.values.shape}")
        if self.values.size and not (self.values.min() >= 0.0 and self.values.max() <= 1.0):
            raise ValueError("mask values outside 0..1")
        if self.hands.ndim != 3 or self.hands.shape[1:] != (21, 2):
            raise ValueError(f"hands must be [N, 21, 2], got {self.hands.shape}")

    @property
    def coverage(self) -> float:
        """Mean of the mask, 0..1."""
        return float(self.values.mean()) if self.values.size else 0.0
