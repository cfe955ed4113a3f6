"""Does the seam show? Figures over the edge of the blended region, always result against source.

No metric of this kind is established; these follow from what a seam looks like. The edge is where the alpha is soft,
and a ring around its contour, so that a hard alpha has an edge too. Both are read off the alpha relative to its peak:
an edit that fades in over time is weaker, but its edge lies where it always does, and the mouth never counts as edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.metrics.picture import delta_e, luma
from modules.structures.frames import PlaneLayout, RgbImage
from modules.video.colour import chroma_alpha

Planes = tuple[NDArray, NDArray, NDArray]
"""Y ``[H, W]``, Cb and Cr at chroma size, uint8 or uint16."""

LOW = 0.02
"""Alpha up to which a pixel counts as untouched by eye."""
HIGH = 0.98
"""Alpha from which a pixel counts as wholly replaced."""
RING_PX = 8
"""How far the ring reaches to either side of the contour."""
JAW_AGREES_PX = 2.0
"""In dubbing the colour difference means something only where the old and the new jaw contour are this near: beyond
it, skin replaces background (or the other way round) as it should."""
_DIRECTION_SIGMA = RING_PX / 2
_FLAT = 1e-5


def edge_band(alpha: NDArray[np.float32], low: float = LOW, high: float = HIGH) -> NDArray[np.bool_]:
    """Where a seam can be seen: ``soft_band`` united with ``ring``.

    Args:
        alpha: ``[H, W]`` in 0..1 the result was blended with; all 0 and all 1 have no edge.
        low: share of the peak alpha above which a pixel is edited.
        high: share of the peak alpha from which it is wholly edited.

    Returns:
        bool ``[H, W]``.
    """
    return soft_band(alpha, low, high) | ring(alpha, low)


def soft_band(alpha: NDArray[np.float32], low: float = LOW, high: float = HIGH) -> NDArray[np.bool_]:
    """Pixels where source and patch mix, ``low < alpha / peak < high``; the arguments of ``edge_band``."""
    relative = _relative(alpha, low)
    return (relative > low) & (relative < high)


def ring(alpha: NDArray[np.float32], low: float = LOW, radius_px: float = RING_PX) -> NDArray[np.bool_]:
    """Pixels within ``radius_px`` of the contour alpha = peak / 2.

    The contour runs half way between pixels on its two sides, so a pixel belongs when the nearest pixel of the other
    side is at most ``radius_px + 0.5`` away, centre to centre: 16 pixels across a straight edge for 8. The border of
    the picture is no contour.

    Args:
        alpha: ``[H, W]`` in 0..1.
        low: a peak up to here is no edit at all, and has no contour.
        radius_px: to either side.
    """
    inside = _relative(alpha, low) >= 0.5
    if inside.all() or not inside.any():
        return np.zeros(alpha.shape, np.bool_)
    distance = np.where(inside, _to_nearest_zero(inside), _to_nearest_zero(~inside))
    return distance <= radius_px + 0.5


def gradient_ratio(result: RgbImage, source: RgbImage, alpha: NDArray[np.float32], band: NDArray[np.bool_]) -> float:
    """Mean absolute luma gradient across the edge over the band, result over source.

    Across = along the direction in which the alpha, smoothed over the width of the ring, rises; central differences.
    A visible seam lifts it above 1, a blurred one lowers it, equal pictures give exactly 1.

    Args:
        result: uint8 ``[H, W, 3]``.
        source: uint8 ``[H, W, 3]``.
        alpha: ``[H, W]`` in 0..1; gives the direction.
        band: bool ``[H, W]``; pixels where the alpha has no direction are left out.

    Returns:
        The ratio; NaN when no pixel is left or the source is flat there.
    """
    _check_sizes(alpha.shape, result=result.shape[:2], source=source.shape[:2], band=band.shape)
    across_x, across_y = _directions(alpha)
    pixels = band & ((across_x != 0) | (across_y != 0))
    if not pixels.any():
        return math.nan
    of_result, of_source = (
        float(np.abs(across_x * slope_x + across_y * slope_y)[pixels].mean(dtype=np.float64))
        for slope_x, slope_y in (_slopes(luma(image)) for image in (result, source))
    )
    return of_result / of_source if of_source > 0 else math.nan


def colour_difference(result: RgbImage, source: RgbImage, band: NDArray[np.bool_]) -> float:
    """Mean Delta E*ab (CIE 1976) over the band; NaN when it is empty.

    Args:
        result: uint8 ``[H, W, 3]``.
        source: uint8 ``[H, W, 3]``.
        band: bool ``[H, W]``.
    """
    _check_sizes(band.shape, result=result.shape[:2], source=source.shape[:2])
    if not band.any():
        return math.nan
    return float(delta_e(result[band][None], source[band][None]).mean(dtype=np.float64))


def alpha_area_ratio(alpha: NDArray[np.float32], lower_face_px: float) -> float:
    """Edited area over the projected lower face: how much more than needed is touched (about 1 is right).

    Args:
        alpha: ``[H, W]`` in 0..1; edited = above ``LOW``.
        lower_face_px: area of the projected lower face, px.

    Returns:
        The ratio; NaN when there is no lower face.
    """
    return float((alpha > LOW).sum()) / lower_face_px if lower_face_px > 0 else math.nan


@dataclass(frozen=True, slots=True)
class Exactness:
    """How untouched the untouched samples are.

    Attributes:
        changed_share: of the samples whose plane's alpha is 0, those that differ from the source, 0..1; NaN when
            there is no such sample.
        largest: difference among them, code values.
        samples: how many there are, over all planes.
    """

    changed_share: float
    largest: int
    samples: int


def exactness(
    result_planes: Planes, source_planes: Planes, alpha: NDArray[np.float32], layout: PlaneLayout
) -> Exactness:
    """Compare every sample of every plane whose own alpha is exactly 0.

    Args:
        result_planes: of the window.
        source_planes: of the same window.
        alpha: ``[H, W]`` luma alpha; the window begins on even frame coordinates, and around it nothing is edited
            that is not edited at its border.
        layout: gives the chroma planes' alpha.

    Raises:
        ValueError: when sizes disagree.
    """
    chroma = chroma_alpha(alpha, layout)
    changed, largest, samples = 0, 0, 0
    for result, source, own_alpha in zip(result_planes, source_planes, (alpha, chroma, chroma), strict=True):
        _check_sizes(own_alpha.shape, result=result.shape, source=source.shape)
        difference = cv2.absdiff(result, source)[own_alpha == 0]
        changed += int(np.count_nonzero(difference))
        largest = max(largest, int(difference.max(initial=0)))
        samples += difference.size
    return Exactness(changed / samples if samples else math.nan, largest, samples)


def _relative(alpha: NDArray[np.float32], low: float) -> NDArray[np.float32]:
    """Alpha over its peak; all 0 when the peak is at most ``low``."""
    peak = np.float32(alpha.max(initial=0))
    return alpha / peak if peak > low else np.zeros_like(alpha)


def _to_nearest_zero(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance of each True pixel's centre to that of the nearest False one, px."""
    return np.asarray(cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def _directions(alpha: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors (x, y), each ``[H, W]``, in which the smoothed alpha rises; 0 where it is flat."""
    smooth = cv2.GaussianBlur(alpha, (0, 0), _DIRECTION_SIGMA, borderType=cv2.BORDER_REPLICATE)
    x, y = _slopes(np.asarray(smooth, np.float32))
    steepness = np.hypot(x, y)
    scale = np.where(steepness > _FLAT, 1 / np.maximum(steepness, _FLAT), np.float32(0))
    return x * scale, y * scale


def _slopes(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Central differences (d/dx, d/dy) per px of ``[H, W]``; edge values continue outside."""
    x, y = (
        cv2.Sobel(values, cv2.CV_32F, dx, dy, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
        for dx, dy in ((1, 0), (0, 1))
    )
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def _check_sizes(expected: tuple[int, ...], **found: tuple[int, ...]) -> None:
    wrong = {name: size for name, size in found.items() if size != expected}
    if wrong:
        raise ValueError(f"sizes disagree: expected {expected}, got {wrong}")
