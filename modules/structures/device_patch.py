"""A rendered piece of a frame that is still on the GPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from modules.structures.frames import FramePatch


@dataclass(frozen=True, slots=True, eq=False)
class DevicePatch:
    """``FramePatch`` as tensors of one device; nothing is checked, because looking would wait for the GPU.

    Attributes:
        bounds: integer half-open (x0, y0, x1, y1) inside the frame.
        rgb: float32 ``[h, w, 3]`` in 0..1; what it holds where ``alpha`` is 0 is never read.
        alpha: float32 ``[h, w]`` in 0..1.
    """

    bounds: tuple[int, int, int, int]
    rgb: Tensor
    alpha: Tensor

    def to_patch(self) -> FramePatch:
        """The patch as arrays; waits for the GPU."""
        return FramePatch(
            self.bounds, np.ascontiguousarray(self.rgb.cpu().numpy()), np.ascontiguousarray(self.alpha.cpu().numpy())
        )

    def __repr__(self) -> str:
        return f"DevicePatch(bounds={self.bounds}, device={self.rgb.device})"
