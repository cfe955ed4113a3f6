"""Landmark errors by region, the widest-open frames, and what MediaPipe's jaw score says of the fitted one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modules.metrics.statistics import block_bootstrap
from modules.structures.landmarks import (
    BROWS,
    EYES,
    FACE_OVAL,
    INNER_LIP,
    N_MEDIAPIPE,
    OUTER_LIP,
    Landmarks2D,
    inter_ocular_px,
)
from modules.structures.scores import Measure

REGIONS: dict[str, tuple[int, ...]] = {
    "face": tuple(range(N_MEDIAPIPE)),
    "lips": INNER_LIP + OUTER_LIP,
    "inner_lips": INNER_LIP,
    "eyes": EYES,
    "brows": BROWS,
    "oval": FACE_OVAL,
}
"""Points of each region that an error is told of."""

OPEN_SHARE = 0.1
"""The widest-open tenth of the frames."""
BLOCK_S = 0.2
"""Seconds of neighbouring frames that the bootstrap draws together: held-out stretches last a second or two."""
DRAWS = 1000


def relative_errors(
    fitted: NDArray[np.floating], tracked: NDArray[np.floating], visible: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Distance of each fitted point from the tracked one, % of the tracked inter-ocular distance of its frame.

    Args:
        fitted: ``[T, 478, 2]`` px.
        tracked: ``[T, 478, 2]`` px.
        visible: ``[T, 478]``; other points are no evidence.

    Returns:
        ``[T, 478]``, NaN where the point is not visible or not finite.
    """
    eyes = np.maximum(inter_ocular_px(tracked.astype(np.float64)), 1e-6)
    errors = 100.0 * np.linalg.norm(fitted.astype(np.float64) - tracked, axis=2) / eyes[:, None]
    return np.where(visible & np.isfinite(errors), errors, np.nan)


def region_errors(errors: NDArray[np.floating], points: Sequence[int]) -> NDArray[np.float64]:
    """Mean of the visible points of a region in each frame: ``[T, 478]`` to ``[T]``, NaN where there are none."""
    chosen = errors[:, list(points)]
    known = ~np.isnan(chosen)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, chosen, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def widest_open(opening: NDArray[np.floating], share: float = OPEN_SHARE) -> NDArray[np.int64]:
    """Rows of the ``share`` of frames whose lips are farthest apart (at least one), ascending; NaN never counts."""
    known = np.flatnonzero(np.isfinite(opening))
    count = min(len(known), max(1, round(share * len(known))))
    return np.sort(known[np.argsort(opening[known], kind="stable")[len(known) - count :]])


def visible_points(landmarks: Landmarks2D, weights: NDArray[np.floating] | None = None) -> NDArray[np.bool_]:
    """Points that are evidence: of a valid frame, finite, not hidden (weight above a half), ``[T, 478]``."""
    seen = np.isfinite(landmarks.points).all(axis=2) & landmarks.valid[:, None]
    return seen if weights is None else seen & (weights > 0.5)


def mean_measure(values: NDArray[np.floating], frame_s: float = BLOCK_S, seed: int = 0) -> Measure:
    """Mean over frames with its 95 % block-bootstrap interval; NaN frames are left out.

    Args:
        values: ``[T]``.
        frame_s: seconds between frames; blocks last ``BLOCK_S``. Rows that are independent (persons, not frames): leave
            it out, and blocks hold one row.
        seed: of the draws.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return Measure.missing("no frame could be measured")
    length = max(1, round(BLOCK_S / frame_s))
    block = np.zeros(len(values), np.int64)
    low, high = block_bootstrap(values, block, length, np.random.default_rng(seed), DRAWS)
    return Measure(float(known.mean()), low, high, len(known))


def correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Pearson's r of the rows where both are finite; NaN where one of them does not vary."""
    both = np.isfinite(first) & np.isfinite(second)
    a, b = (values[both].astype(np.float64) for values in (first, second))
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def frame_seconds(times_s: NDArray[np.floating]) -> float:
    """Median seconds between frames; 1/25 where there is only one."""
    steps = np.diff(times_s)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else 0.04
