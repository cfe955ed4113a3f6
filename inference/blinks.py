"""Blinks of one's own: eyes held open, or open with GeneFace++'s periodic blink, on the face model's units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.controls import BlinkMode
from modules.face_model.keypoints import BLINK_CURVE, BLINK_PERIOD, BLINK_PHASE
from modules.face_model.model import ARKIT_NAMES

EYE_ROWS = np.array([ARKIT_NAMES.index(f"eyeBlink{side}") for side in ("Left", "Right")])
CURVE_RATE_HZ = 25.0
"""GeneFace++'s frame rate, in which the curve and its period are given."""
OPEN_PERCENTILE = 25.0
"""Of a person's eyelids over a clip: open, but not wide."""


def eyes_open(expression: NDArray[np.floating]) -> NDArray[np.float32]:
    """The two blink units of a person's open eyes, of all their tracked frames ``[T, E]``; 0 when there are none."""
    if not len(expression):
        return np.zeros(len(EYE_ROWS), np.float32)
    return np.percentile(expression[:, EYE_ROWS], OPEN_PERCENTILE, axis=0).astype(np.float32)


def blink_strength(times_s: NDArray[np.floating]) -> NDArray[np.float32]:
    """How far the lids are shut, 0..1, ``[T]`` at any times: a blink of 0.28 s every 4 s, the first after 3 s."""
    frames = np.asarray(times_s, np.float64) * CURVE_RATE_HZ
    since_start = np.mod(frames + BLINK_PHASE, BLINK_PERIOD)
    # the curve's own frames, linear between them, open one frame before and after
    curve = np.concatenate([[0.0], BLINK_CURVE, [0.0]])
    shut = np.interp(since_start, np.arange(len(curve)) - 1.0, curve)
    shut = np.maximum(shut, np.interp(since_start - BLINK_PERIOD, [-1.0, 0.0], [0.0, curve[1]]))
    return np.where(frames > BLINK_PERIOD - BLINK_PHASE - 1, shut, 0.0).astype(np.float32)


def with_blinks(
    expression: NDArray[np.float32],
    times_s: NDArray[np.floating],
    mode: BlinkMode,
    open_eyes: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """The expression ``[T, E]`` with other eyelids; with ``source`` as it is.

    Args:
        expression: ``[T, E]`` ARKit's units.
        times_s: ``[T]`` seconds.
        mode: 'none' holds the eyes open, 'period' lets them blink by the clock.
        open_eyes: ``[2]`` blink units of open eyes; None = 0.
    """
    if mode == "source":
        return expression
    rest = np.zeros(len(EYE_ROWS), np.float32) if open_eyes is None else open_eyes
    shut = blink_strength(times_s)[:, None] if mode == "period" else np.float32(0.0)
    result = expression.copy()
    result[:, EYE_ROWS] = rest * (1.0 - shut) + shut
    return result
