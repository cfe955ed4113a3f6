"""Values of video frames at the times of sound rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LONGEST_GAP_FRAMES = 3.0


def resample_rows(
    values: NDArray[np.floating], times_s: NDArray[np.float64], valid: NDArray[np.bool_], at_s: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Linear interpolation of ``values [T, ...]`` at new times; True where both neighbouring frames are valid.

    Args:
        values: of the frames; those of invalid ones may be anything.
        times_s: ``[T]`` ascending, at least two.
        valid: ``[T]`` bool.
        at_s: ``[R]`` times wanted.
    """
    right = np.clip(np.searchsorted(times_s, at_s, side="right"), 1, len(times_s) - 1)
    left = right - 1
    gap = np.maximum(times_s[right] - times_s[left], 1e-9)
    weight = np.clip((at_s - times_s[left]) / gap, 0.0, 1.0)
    filled = np.nan_to_num(values.astype(np.float64))
    shape = (-1,) + (1,) * (values.ndim - 1)
    rows = filled[left] * (1 - weight).reshape(shape) + filled[right] * weight.reshape(shape)
    frame_s = float(np.median(np.diff(times_s)))
    inside = (at_s >= times_s[0] - frame_s) & (at_s <= times_s[-1] + frame_s)
    return rows.astype(np.float32), inside & valid[left] & valid[right] & (gap < _LONGEST_GAP_FRAMES * frame_s)
