"""Multi-band blending at the frame's own scale: coarse differences fade over a wide rim, fine ones over a narrow one.

Burt and Adelson's (1983) blend of two Laplacian pyramids under a Gaussian pyramid of the alpha is linear in the
pictures, so only the pyramid of their difference is needed. Nothing outside the region is resampled.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

MOST_LEVELS = 5
LEVEL_PX = 24
"""A region so many pixels wide gets one level, twice as wide two, and so on."""


def multiband(
    rgb: NDArray[np.float32], source: NDArray[np.float32], alpha: NDArray[np.float32], levels: int | None = None
) -> NDArray[np.float32]:
    """The blended picture where ``alpha`` covers; blend it with ``membrane.support(alpha)``.

    Args:
        rgb: ``[h, w, 3]`` 0..1 patch; read where alpha is above 0.
        source: ``[h, w, 3]`` 0..1 of the frame.
        alpha: ``[h, w]`` 0..1.
        levels: bands below the coarsest; None = by the region's size.

    Returns:
        float32 ``[h, w, 3]`` 0..1: the source where alpha is 0.

    Raises:
        ValueError: when levels are negative.
    """
    covered = alpha > 0
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    if not len(rows):
        return source
    if levels is None:
        shorter = min(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
        levels = int(np.clip(np.log2(max(shorter / LEVEL_PX, 1)) + 1, 1, MOST_LEVELS))
    if levels < 0:
        raise ValueError(f"levels must not be negative, got {levels}")
    box = _around(rows, levels), _around(columns, levels)
    mask = np.ascontiguousarray(covered[box]).view(np.uint8)
    own = source[box].copy()
    # What the patch holds where alpha is 0 may be anything, NaN too.
    difference = cv2.copyTo(cv2.subtract(np.ascontiguousarray(rgb[box]), own), mask, np.zeros_like(own))
    blended = _blended(np.asarray(difference, np.float32), inward(alpha[box]), levels)
    blended += own
    result = source.copy()
    result[box] = cv2.copyTo(np.clip(blended, 0, 1, out=blended), mask, own)  # into ``own``
    return result


def inward(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """The alpha whose pyramid is used: its edge lies in the inner half of the soft one, because coarse bands reach
    beyond it, and where the soft one ends everything has to end.
    """
    return np.clip(2 * alpha - 1, 0, 1)


def _around(covered: NDArray[np.integer], levels: int) -> slice:
    """What the coarsest alpha reaches, beginning on its grid: one that moved with the region would flicker."""
    step = 1 << levels
    return slice(max((int(covered[0]) // step - 2) * step, 0), int(covered[-1]) + 1 + 2 * step)


def _blended(difference: NDArray[np.float32], alpha: NDArray[np.float32], levels: int) -> NDArray[np.float32]:
    """Sum of the difference's bands, each under the alpha of its own scale."""
    if levels == 0 or min(alpha.shape) < 2:
        return np.asarray(cv2.multiply(difference, cv2.merge([alpha] * 3)), np.float32)
    size = alpha.shape[1], alpha.shape[0]
    coarser = np.asarray(cv2.pyrDown(difference), np.float32)
    band = cv2.subtract(difference, cv2.pyrUp(coarser, dstsize=size))
    below = _blended(coarser, np.asarray(cv2.pyrDown(alpha), np.float32), levels - 1)
    own = cv2.multiply(band, cv2.merge([alpha] * 3))
    return np.asarray(cv2.add(own, cv2.pyrUp(below, dstsize=size)), np.float32)
