"""What a mouth rendered into a source takes over of the source's picture: its sharpness, its coding and its grain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from modules.structures.carried_patch import CarriedPatch
from modules.structures.frames import Frame, FramePatch
from modules.video.blocks import BlockMatcher, Coding, coded
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
        self._blocks = BlockMatcher()
        self.grain = Grain(seed)

    def reset(self) -> None:
        """Forget earlier frames; call it at cuts."""
        self._sharpness.reset()
        self._missing.reset()
        self._blocks.reset()

    def state(self) -> dict[str, NDArray]:
        """What is remembered, as arrays; empty when there is nothing."""
        return self._sharpness.state() | self._missing.state() | self._blocks.state()

    def resume(self, state: dict[str, NDArray]) -> None:
        """Remember what another's ``state`` says."""
        self._sharpness.resume(state)
        self._missing.resume(state)
        self._blocks.resume(state)

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

    def as_filmed(
        self,
        source: NDArray[np.float32],
        carried: CarriedPatch,
        patch: FramePatch,
        free: NDArray[np.float32] | None,
        frame: Frame,
        window: tuple[int, int, int, int],
    ) -> FramePatch:
        """The patch coded as the source is and with its grain, where it was rendered.

        Args:
            source: see ``sharpened``.
            carried: likewise.
            patch: what the renderings became.
            free: see ``sharpened``.
            frame: the source frame.
            window: bounds around the face.
        """
        strengths = self.strengths(source, carried.shown, carried.compared, carried.mouth_shown, free, frame)
        rgb = coded(patch.rgb, carried.rendered, patch.bounds, self.coding(frame, window), frame.layout)
        return replace(patch, rgb=self.grain.add(rgb, patch.alpha, carried.rendered, strengths, frame.index))

    def coding(self, frame: Frame, bounds: tuple[int, int, int, int]) -> Coding:
        """How luma is rounded, see ``BlockMatcher``; ask for the grain's ``strengths`` first.

        Args:
            frame: the source frame.
            bounds: of the window around the face.
        """
        return self._blocks.update(frame, bounds, self._missing.relative_noise())

    def strengths(
        self,
        source: Floats,
        shown: Floats,
        compared: Floats,
        mouth_shown: Floats,
        free: Floats | None,
        frame: Frame,
    ) -> Strengths:
        """The grain that renderings lack, see ``GrainMatcher``.

        Args:
            source: see ``gains``.
            shown: likewise.
            compared: ``[h, w]`` of ``CarriedPatch``.
            mouth_shown: likewise.
            free: see ``gains``.
            frame: the source frame.
        """
        time_s, layout = float(frame.time_s), frame.layout
        if code_step(layout) != self._step:
            self._step, remembered = code_step(layout), self._missing.state()
            self._missing = GrainMatcher(self._step)
            self._missing.resume(remembered)
        skin = (compared > _HALF) & (mouth_shown < _HALF)
        if free is not None:
            skin &= free > _HALF
        return self._missing.update(source, shown, skin, time_s)
