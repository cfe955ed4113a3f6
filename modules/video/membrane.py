"""Seamless cloning by a fast membrane: the mismatch along the border, carried smoothly over the inside.

Poisson cloning (Pérez et al. 2003, eq. 5) adds to the pasted picture the harmonic function that equals ``source -
patch`` on the border. Here it is found by pull-push (Gortler et al. 1996, sec. 3.4): border values are averaged into
ever coarser grids, then filled in from coarse to fine. On the coarse grids a few relaxation sweeps make the filling
harmonic; on the two finest there is nothing left to gain, because the membrane is smooth away from the border.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LOW = 0.02
"""Alpha from which a pixel belongs to the pasted region."""
RIM_PX = 2
"""Width of the border along which source and patch are compared, inside the region."""
SUPPORT = 0.1
SWEEPS = 12
RELAXED_FROM = 2
"""Grids from this level on (each half as fine as the one before) are relaxed."""
_HALF_KNOWN = 0.25
_NEIGHBOURS = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4


def seamless(rgb: NDArray[np.float32], source: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """A patch whose border equals the source's, with its own gradients inside.

    Blend it with ``support(alpha)``: the border does not need a soft edge.

    Args:
        rgb: ``[h, w, 3]`` 0..1; read where alpha is above ``LOW``.
        source: ``[h, w, 3]`` 0..1 of the frame.
        alpha: ``[h, w]`` 0..1; what it covers is pasted.
    """
    inside = np.greater(alpha, LOW).view(np.uint8)
    if not inside.any():
        return rgb
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM_PX + 1, 2 * RIM_PX + 1))
    core = cv2.erode(inside, disc, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    rim = cv2.subtract(inside, np.asarray(core, np.uint8))
    if not rim.any():
        return rgb
    mismatch = harmonic(np.asarray(cv2.subtract(source, rgb), np.float32), np.asarray(rim, np.uint8))
    mismatch += rgb
    return np.clip(mismatch, 0.0, 1.0, out=mismatch)


def support(alpha: NDArray[np.float32]) -> NDArray[np.float32]:
    """The alpha for patches whose seam is dealt with already: 1 wherever the region is more than faintly covered."""
    return np.minimum(alpha / np.float32(SUPPORT), np.float32(1))


def harmonic(values: NDArray[np.float32], known: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``values`` where they are known, and between them a nearly harmonic function, free at the picture's border.

    Args:
        values: ``[h, w, 3]``, read where ``known``.
        known: uint8 ``[h, w]``, 0 or 1; at least one is 1.

    Returns:
        float32 ``[h, w, 3]``. Where nothing else is near, the mean of all known values.
    """
    pyramid = [(values, known, known.astype(np.float32))]
    while max(known.shape) > 1:
        pyramid.append(_pulled(pyramid[-1][0], pyramid[-1][2]))
        known = pyramid[-1][1]
    filled = pyramid[-1][0]
    for level in range(len(pyramid) - 2, -1, -1):
        own, held, _ = pyramid[level]
        height, width = held.shape
        filled = _image(cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR), held.shape)
        filled = _image(cv2.copyTo(own, held, filled), held.shape)
        for _ in range(SWEEPS if level >= RELAXED_FROM else 0):
            mean = _image(cv2.filter2D(filled, -1, _NEIGHBOURS, borderType=cv2.BORDER_REPLICATE), held.shape)
            filled = _image(cv2.copyTo(own, held, mean), held.shape)
    return filled


def _pulled(
    values: NDArray[np.float32], weight: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    """Means of known values on a grid half as fine, which of them are held to, and how well they are known."""
    height, width = weight.shape
    size = max((width + 1) // 2, 1), max((height + 1) // 2, 1)
    mass = np.asarray(cv2.resize(weight, size, interpolation=cv2.INTER_AREA), np.float32).reshape(size[::-1])
    # Unknown values may be anything, NaN too, so they are left out by copying and not by a product with 0.
    known = _image(cv2.copyTo(values, (weight > 0).view(np.uint8), np.zeros_like(values)), weight.shape)
    sums = cv2.resize(cv2.multiply(known, cv2.merge([weight] * 3)), size, interpolation=cv2.INTER_AREA)
    means = _image(sums, mass.shape) / np.maximum(mass, np.float32(1e-6))[..., None]
    weight = np.minimum(2 * mass, np.float32(1))
    return np.asarray(means, np.float32), (weight > _HALF_KNOWN).view(np.uint8), weight


def _image(values: object, size_hw: tuple[int, ...]) -> NDArray[np.float32]:
    """OpenCV's answer as ``[h, w, 3]``; it drops axes of length 1."""
    return np.asarray(values, np.float32).reshape(*size_hw, 3)
