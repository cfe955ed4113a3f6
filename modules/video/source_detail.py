"""What a mouth rendered into a source takes over of the source's picture: its sharpness and its grain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from modules.structures.carried_patch import CarriedPatch
from modules.structures.frames import FramePatch, PlaneLayout
from modules.video.detail import DetailMatcher, Gains, refined
from modules.video.grain import Grain, GrainMatcher, Strengths, code_step

Floats = NDArray[np.float32]

_HALF = 0.5
_MOUTH = 0.95
"""Sharpness is learnt from the mouth and the lips alone: a beard around them is carried over, not rendered."""
_STEP_8BIT = 1 / 255


class SourceDetail:
    """Of one face, frame by frame in order.

    Args:
        seed: of the grain.
    """

    def __init__(self, seed: int = 0) -> None:
        self._sharpness = DetailMatcher()
        self._step = _STEP_8BIT
        self._missing = GrainMatcher(self._step)
        self.grain = Grain(seed)

    def reset(self) -> None:
        """Forget earlier frames; call it at cuts."""
        self._sharpness.reset()
        self._missing.reset()

    def state(self) -> dict[str, NDArray]:
        """What is remembered, as arrays; empty when there is nothing."""
        return self._sharpness.state() | self._missing.state()

    def resume(self, state: dict[str, NDArray]) -> None:
        """Remember what another's ``state`` says."""
        self._sharpness.resume(state)
        self._missing.resume(state)

    def sharpened(
        self, source: NDArray[np.float32], carried: CarriedPatch, free: NDArray[np.float32] | None, time_s: float
    ) -> CarriedPatch:
        """The renderings with the new mouth as sharp as the source's is.

        Args:
            source: RGB ``[h, w, 3]`` 0..1 of the window.
            carried: in the source's light.
            free: ``[h, w]`` 1 - what stands in front; None = nothing does.
            time_s: when the frame is shown.
        """
        gains = self.gains(source, carried.shown, carried.mouth_shown, free, time_s)
        rgb = refined(carried.patch.rgb, gains, carried.rendered)
        return replace(carried, patch=replace(carried.patch, rgb=rgb))

    def gains(self, source: Floats, shown: Floats, mouth_shown: Floats, free: Floats | None, time_s: float) -> Gains:
        """The gains of the new mouth's fine bands, see ``DetailMatcher``.

        Args:
            source: see ``sharpened``.
            shown: RGB ``[h, w, 3]`` the rendering of the motion that the source shows, in the source's light.
            mouth_shown: ``[h, w]`` of ``CarriedPatch``.
            free: see ``sharpened``.
            time_s: likewise.
        """
        seen = mouth_shown > _MOUTH
        if free is not None:
            seen &= free > _HALF
        return self._sharpness.update(source, shown, seen.astype(np.float32), time_s)

    def grainy(
        self,
        source: NDArray[np.float32],
        carried: CarriedPatch,
        patch: FramePatch,
        free: NDArray[np.float32] | None,
        place: tuple[int, float, PlaneLayout],
    ) -> FramePatch:
        """The patch with the source's grain where it was rendered.

        Args:
            source: see ``sharpened``.
            carried: likewise.
            patch: what the renderings became.
            free: see ``sharpened``.
            place: number of the frame, when it is shown, and its layout.
        """
        strengths = self.strengths(source, carried.shown, carried.compared, carried.mouth_shown, free, place)
        return replace(patch, rgb=self.grain.add(patch.rgb, patch.alpha, carried.rendered, strengths, place[0]))

    def strengths(
        self,
        source: Floats,
        shown: Floats,
        compared: Floats,
        mouth_shown: Floats,
        free: Floats | None,
        place: tuple[int, float, PlaneLayout],
    ) -> Strengths:
        """The grain that renderings lack, see ``GrainMatcher``.

        Args:
            source: see ``gains``.
            shown: likewise.
            compared: ``[h, w]`` of ``CarriedPatch``.
            mouth_shown: likewise.
            free: see ``gains``.
            place: see ``grainy``.
        """
        _, time_s, layout = place
        if code_step(layout) != self._step:
            self._step, remembered = code_step(layout), self._missing.state()
            self._missing = GrainMatcher(self._step)
            self._missing.resume(remembered)
        skin = (compared > _HALF) & (mouth_shown < _HALF)
        if free is not None:
            skin &= free > _HALF
        return self._missing.update(source, shown, skin, time_s)
