"""Bring an expected face to the exposure and colour of the picture it is compared with."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

MATCH_SIZE = 64
"""The field is fitted to a picture of this size: it has no detail."""
LEAST_GAIN, MOST_GAIN = 0.4, 2.5
LEAST_PIXELS = 50
"""Of that size; fewer cannot tell."""
TUKEY = 4.685
"""Tukey's biweight ends at this many spreads (95 % efficient for normal residuals)."""
REACHES = tuple(TUKEY * max(1.0, 1.6 - 0.2 * turn) for turn in range(6))
"""Spreads at which it ends in each round: the scale starts wide and narrows."""
LEAST_EXPECTED = 0.02
"""Least value that ratios are taken of."""
WITNESSES = 1 / 12
"""Neighbouring pixels err alike: so many of them are independent witnesses."""
FIELD_STD = 0.04
"""How far gain is expected to vary over a face beyond its mean; a hand must not be explained as light."""


def matched_exposure(
    expected: NDArray[np.float32],
    observed: NDArray[np.float32],
    spread: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """``expected`` times a smooth gain per channel so that most of it agrees with ``observed``.

    The gain is a quadratic over the picture, fitted by iteratively re-weighted least squares with Tukey's biweight
    (Beaton and Tukey, 1974): ``w = (1 - (r / c s)²)²``. The scale starts wide and narrows, so that what
    covers less than half of the face does not pull it.

    Args:
        expected: ``[S, S, 3]`` 0..1.
        observed: ``[S, S, 3]`` 0..1.
        spread: ``[S, S]`` 0..1, standard deviation of ``observed - expected`` that is to be expected.
        weight: ``[S, S]`` 0..1, how far a pixel may take part.

    Returns:
        float32 ``[S, S, 3]``, not clipped.
    """
    gains = exposure_gains(expected, observed, spread, weight)
    if gains is None:
        return expected
    grown = cv2.resize(gains, expected.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return (expected * np.clip(grown, LEAST_GAIN, MOST_GAIN)).astype(np.float32)


def exposure_gains(
    expected: NDArray[np.float32],
    observed: NDArray[np.float32],
    spread: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> NDArray[np.float32] | None:
    """The field of gains ``[M, M, 3]`` of ``matched_exposure``, neither enlarged nor clipped; None without enough."""
    size = min(MATCH_SIZE, expected.shape[0])
    before, after = _reduced(expected, size), _reduced(observed, size)
    scale, chosen = _reduced(spread, size), _reduced(weight, size) > 0.5
    if chosen.sum() < LEAST_PIXELS:
        return None
    terms = field_terms(size)
    squares = field_squares(size)[chosen.ravel()]
    spreads = scale[chosen].astype(np.float64)
    gains = [_channel_gain(terms[chosen], squares, before[chosen, c], after[chosen, c], spreads) for c in range(3)]
    return (terms @ np.stack(gains, axis=1)).astype(np.float32)


def _reduced(picture: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.float32)


def _channel_gain(
    terms: NDArray[np.float64],
    squares: NDArray[np.float64],
    expected: NDArray[np.float32],
    observed: NDArray[np.float32],
    spread: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Coefficients ``[K]`` of one channel's gain, by pixels' terms ``[N, K]`` and their products ``[N, K²]``."""
    count = terms.shape[1]
    gain = np.zeros(count)
    gain[0] = float(np.median(observed / np.maximum(expected, LEAST_EXPECTED)))
    before, after = expected.astype(np.float64), observed.astype(np.float64)
    lit, prior = before * before, field_prior(count)
    certain = WITNESSES / (spread * spread)
    for reach in REACHES:
        residual = (after - before * (terms @ gain)) / (spread * reach)
        weights = np.clip(1 - residual * residual, 0, None)
        weights *= weights * certain
        normal = ((weights * lit) @ squares).reshape(count, count) + prior
        gain = np.linalg.solve(normal, (weights * before * after) @ terms)
    return np.asarray(gain, np.float64)


def field_prior(count: int) -> NDArray[np.float64]:
    """Inverse covariance ``[K, K]`` of a gain's coefficients before anything is seen: its mean is free."""
    return np.diag([1e-6, *[FIELD_STD**-2 + 1e-6] * (count - 1)])


@lru_cache(maxsize=4)
def field_terms(size: int) -> NDArray[np.float64]:
    """1, x, y, x², xy, y² over a square in -1..1: ``[size, size, 6]``."""
    line = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(line, line)
    return np.stack([np.ones_like(x), x, y, x * x - 1 / 3, x * y, y * y - 1 / 3], axis=-1)


@lru_cache(maxsize=4)
def field_squares(size: int) -> NDArray[np.float64]:
    """Products of any two of them: ``[size², 36]``."""
    terms = field_terms(size).reshape(size * size, -1)
    return (terms[:, :, None] * terms[:, None, :]).reshape(len(terms), -1)
