"""What is done to per-frame values before they are drawn: gaps, means, scales, and fewer points with the same extremes.

NaN = not measured there. ``block`` numbers the unbroken stretches; nothing is computed across two of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FLAT = 1e-6
"""Below this spread an opening (in distances between the eyes) does not move."""


def matching_scale(predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> tuple[float, float]:
    """``scale, offset`` that give ``predicted`` the 10th and 90th percentile of ``measured``; never upside down.

    A scale of 0 where the prediction does not move (silence). Rows that are NaN in either are left out.
    """
    known = np.isfinite(predicted) & np.isfinite(measured)
    if not known.any():
        return 1.0, 0.0
    low, high = np.percentile(predicted[known], (10, 90))
    target_low, target_high = np.percentile(measured[known], (10, 90))
    scale = float((target_high - target_low) / (high - low)) if high - low > FLAT else 0.0
    return scale, float(target_low - scale * low)


def running_mean(
    times_s: NDArray[np.floating], values: NDArray[np.floating], block: NDArray[np.integer], width_s: float
) -> NDArray[np.float64]:
    """Mean of the measured frames within ``width_s / 2`` of each frame ``[N]``; NaN where the frame itself is NaN."""
    known = np.isfinite(values)
    count, total = _window_sums(times_s, block, width_s, known, np.where(known, values, 0.0))
    return np.where(known, total / np.maximum(count, 1), np.nan)


def running_correlation(
    times_s: NDArray[np.floating],
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    block: NDArray[np.integer],
    width_s: float,
) -> NDArray[np.float64]:
    """Pearson's r of ``a`` and ``b`` within ``width_s / 2`` of each frame ``[N]``.

    NaN where a frame is NaN in either, where fewer than half of the window's usual frames were measured, and where
    one of the two does not move.
    """
    known = np.isfinite(a) & np.isfinite(b)
    if not known.any():
        return np.full(len(a), np.nan)
    x = np.where(known, a - a[known].mean(), 0.0)
    y = np.where(known, b - b[known].mean(), 0.0)
    sums = _window_sums(times_s, block, width_s, known, x, y, x * x, y * y, x * y)
    count = np.maximum(sums[0], 1)
    mean_x, mean_y, xx, yy, xy = (s / count for s in sums[1:])
    var_x, var_y = xx - mean_x**2, yy - mean_y**2
    usable = known & (sums[0] >= np.median(sums[0]) / 2) & (sums[0] >= 3) & (var_x > FLAT**2) & (var_y > FLAT**2)
    r = (xy - mean_x * mean_y) / np.sqrt(np.where(usable, var_x * var_y, 1.0))
    return np.where(usable, r.clip(-1.0, 1.0), np.nan)


def _window_sums(
    times_s: NDArray[np.floating], block: NDArray[np.integer], width_s: float, *columns: NDArray
) -> list[NDArray[np.float64]]:
    """Of each column ``[N]``, the sum over the frames of the same block within ``width_s / 2`` of each frame."""
    sums = [np.zeros(len(times_s)) for _ in columns]
    for number in np.unique(block):
        rows = np.flatnonzero(block == number)
        times = times_s[rows]
        first = np.searchsorted(times, times - width_s / 2 - 1e-9, side="left")
        stop = np.searchsorted(times, times + width_s / 2 + 1e-9, side="right")
        for out, column in zip(sums, columns, strict=True):
            running = np.concatenate([[0.0], np.cumsum(column[rows], dtype=np.float64)])
            out[rows] = running[stop] - running[first]
    return sums


def broken(
    times_s: NDArray[np.floating], values: NDArray[np.floating], block: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and values with a NaN between blocks, so that no line bridges what was not measured."""
    cuts = np.flatnonzero(np.diff(block)) + 1
    between = (times_s[cuts - 1] + times_s[cuts]) / 2
    times = np.insert(np.asarray(times_s, np.float64), cuts, between)
    return times, np.insert(np.asarray(values, np.float64), cuts, np.nan)


def envelope(
    times_s: NDArray[np.floating], values: NDArray[np.floating], max_points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most ``max_points`` points with the same extremes: the least and the largest value of each equal bin of time.

    Bins without a measured value become a gap. Short lines come back as they are.
    """
    times, values = np.asarray(times_s, np.float64), np.asarray(values, np.float64)
    if len(times) <= max_points:
        return times, values
    edges = np.linspace(times[0], times[-1], max_points // 2 + 1)
    bounds = [*np.searchsorted(times, edges[:-1]).tolist(), len(times)]
    kept_times, kept_values = [], []
    for first, stop, edge in zip(bounds[:-1], bounds[1:], edges[:-1], strict=True):
        rows = first + np.flatnonzero(np.isfinite(values[first:stop]))
        if len(rows) == 0:
            kept_times.append(edge)
            kept_values.append(np.nan)
            continue
        extremes = sorted({int(rows[values[rows].argmin()]), int(rows[values[rows].argmax()])})
        kept_times += times[extremes].tolist()
        kept_values += values[extremes].tolist()
    return np.array(kept_times), np.array(kept_values)


def runs_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Half-open index ranges ``[K, 2]`` in which ``mask`` holds."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)
