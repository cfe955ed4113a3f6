"""The colour match followed through a video: steady in shape, at once in exposure, forgotten at cuts.

The field of one frame is noisy: hair, a jaw that opens, a pose the person was not trained on. So it is smoothed over
time. But when the light itself changes or flickers, the whole face changes together, and a patch that follows late
would flicker against its surroundings. What all places of the field agree on is therefore followed at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.video.colour_match import Field, RingConfig, estimate_field
from modules.video.linear_light import BT709, LightCurve

Bounds = tuple[int, int, int, int]
Floats = NDArray[np.float32]
FieldEstimator = Callable[[Floats, Floats, Floats, Floats], "Field | None"]
"""From source, patch, alpha and weight, as ``estimate_field`` takes them."""

LONGEST_GAP_S = 1.0
SAME_FACE_IOU = 0.3
NO_CHANGE = 1e-12
"""Squared change of a field below which nothing has changed."""


@dataclass(frozen=True, slots=True, eq=False)
class _Memory:
    """The colour field last applied, and when and where."""

    field: Field
    time_s: float
    bounds: Bounds


class ColourFollower:
    """The colour field of one face, frame by frame in order.

    Args:
        ring: which pixels are compared.
        smoothing_s: time constant over which the field's shape follows; 0: every frame stands alone.
        light: what coded values mean.
        estimate: makes one frame's field instead of ``estimate_field``.

    Raises:
        ValueError: for a negative time.
    """

    def __init__(
        self,
        ring: RingConfig,
        smoothing_s: float,
        light: LightCurve = BT709,
        estimate: FieldEstimator | None = None,
    ) -> None:
        if smoothing_s < 0:
            raise ValueError(f"smoothing_s must not be negative, got {smoothing_s}")
        self.light = light
        self._ring, self._smoothing_s = ring, smoothing_s
        self._estimate = estimate or self._membrane
        self._memory: _Memory | None = None

    def reset(self) -> None:
        """Forget the colour of earlier frames; call it at cuts."""
        self._memory = None

    def state(self) -> dict[str, NDArray]:
        """The colour of earlier frames as arrays; empty when there is none."""
        memory = self._memory
        if memory is None:
            return {}
        return {"field": memory.field, "time_s": np.array(memory.time_s), "bounds": np.array(memory.bounds)}

    def resume(self, state: dict[str, NDArray]) -> None:
        """Remember what another follower's ``state`` says."""
        self._memory = None
        if state:
            x0, y0, x1, y1 = (int(value) for value in state["bounds"])
            self._memory = _Memory(state["field"], float(state["time_s"]), (x0, y0, x1, y1))

    def update(
        self, source: NDArray[np.float32], rgb: NDArray[np.float32], alpha: NDArray[np.float32],
        weight: NDArray[np.float32], time_s: float, bounds: Bounds,
    ) -> Field | None:  # fmt: skip
        """The field to be applied to this frame's patch; None while nothing is known.

        Args:
            source: see ``estimate_field``.
            rgb: the patch there.
            alpha: see there.
            weight: see there.
            time_s: when the frame is shown.
            bounds: of the patch in the frame.
        """
        found = self._estimate(source, rgb, alpha, weight)
        before = self._memory
        if before is not None and not _continues(before, time_s, bounds):
            before = None
        if found is None:
            return None if before is None else before.field
        if before is not None and self._smoothing_s > 0:
            share = 1 - math.exp(-(time_s - before.time_s) / self._smoothing_s)
            found = followed(before.field, found, share)
        self._memory = _Memory(found, time_s, bounds)
        return found

    def _membrane(self, source: Floats, rgb: Floats, alpha: Floats, weight: Floats) -> Field | None:
        return estimate_field(source, rgb, alpha, weight, self._ring, self.light)


def followed(before: Field, found: Field, share: float) -> Field:
    """The field that follows ``before`` when this frame alone would have ``found``.

    The change's mean over the face counts fully where it outweighs the change's scatter (a change of light), as
    ``mean² / (mean² + variance)`` says, and like everything else by ``share`` where it does not.

    Args:
        before: the last field.
        found: this frame's own.
        share: how far a change of shape is followed, 0..1.
    """
    change = found - before
    common = change.mean(axis=(0, 1))
    agreed = float((common**2).sum())
    scatter = float(change.var(axis=(0, 1)).sum())
    trust = agreed / max(agreed + scatter, NO_CHANGE)
    return (before + np.float32(share) * change + np.float32((1 - share) * trust) * common).astype(np.float32)


def _continues(memory: _Memory, time_s: float, bounds: Bounds) -> bool:
    """Whether a frame goes on where the last one stopped: soon after it, and the face about where it was."""
    ax0, ay0, ax1, ay1 = memory.bounds
    bx0, by0, bx1, by1 = bounds
    shared = max(min(ax1, bx1) - max(ax0, bx0), 0) * max(min(ay1, by1) - max(ay0, by0), 0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    return 0 <= time_s - memory.time_s <= LONGEST_GAP_S and shared / union >= SAME_FACE_IOU
