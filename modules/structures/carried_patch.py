"""A region of a frame rendered twice, as it is shown and as it is to be, with the way its skin moves in between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.structures.frames import FramePatch


@dataclass(frozen=True, slots=True, eq=False)
class CarriedPatch:
    """What is needed to change a source's own pixels by a difference of motions. Arrays are ``[h, w]`` of the window.

    Attributes:
        patch: the new motion's rendering on the frame's grid, with the alpha of the region that may change.
        shown: float32 ``[h, w, 3]`` in 0..1 the rendering of the motion that the source shows.
        flow: float32 ``[h, w, 2]`` px; what stands at x in the new picture stood at ``x + flow`` in the source.
        rendered: float32 0..1, how far the new rendering itself is used: inside the mouth and close to it.
        paintable: float32 0..1, where the new rendering may be used at all.
        compared: float32 0..1 *over the source's picture*: where ``shown`` and the source show the same skin.
        matched: float32 0..1 over the source's picture: where their difference tells the light of the mouth.
        mouth_shown: float32 0..1 over the source's picture: its mouth, as ``rendered`` is the new one's.
        edge_px: half width of a soft edge at the face's size.
        real: uint8 ``[h, w, 4]`` the person's own mouth, filmed in another frame: RGB as it was filmed, and how far it
            is used where ``rendered`` is; None = the rendering alone.
    """

    patch: FramePatch
    shown: NDArray[np.float32]
    flow: NDArray[np.float32]
    rendered: NDArray[np.float32]
    paintable: NDArray[np.float32]
    compared: NDArray[np.float32]
    matched: NDArray[np.float32]
    mouth_shown: NDArray[np.float32]
    edge_px: float
    real: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        size = self.patch.alpha.shape
        for name, depth in (("shown", (3,)), ("flow", (2,)), *((n, ()) for n in _MAPS)):
            values = getattr(self, name)
            if values.shape != (*size, *depth) or values.dtype != np.float32:
                raise ValueError(f"{name} must be float32 {(*size, *depth)}, got {values.dtype} {values.shape}")
        if self.real is not None and (self.real.shape != (*size, 4) or self.real.dtype != np.uint8):
            raise ValueError(f"real must be uint8 {(*size, 4)}, got {self.real.dtype} {self.real.shape}")
        if not self.edge_px > 0:
            raise ValueError(f"edge_px must be above 0, got {self.edge_px}")

    def __repr__(self) -> str:
        return f"CarriedPatch({self.patch!r}, moves up to {float(np.abs(self.flow).max()):.1f} px)"


_MAPS = ("rendered", "paintable", "compared", "matched", "mouth_shown")
