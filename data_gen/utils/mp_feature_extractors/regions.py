"""Rotated squares that MediaPipe's networks look through: how they follow from boxes, key points and landmarks.

A region is a ``CropRegion``: centre and side in pixels, angle clockwise on screen. Rules and constants are MediaPipe's.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.crops import CropRegion, warp_affine

Point = NDArray[np.floating]


def angle_between(start: Point, end: Point, target_rad: float = 0.0) -> float:
    """Clockwise turn in radians, -pi..pi, that the line ``start`` → ``end`` shows over its ``target_rad`` (y up)."""
    turn = target_rad - math.atan2(-(float(end[1]) - float(start[1])), float(end[0]) - float(start[0]))
    return math.remainder(turn, 2 * math.pi)


def region_of_points(points: NDArray, angle_rad: float, scale: float, shift_y: float = 0.0) -> CropRegion:
    """Square around points ``[N, 2]`` measured in axes turned by ``angle_rad``.

    Args:
        points: what the square is to hold.
        angle_rad: its turn, clockwise on screen.
        scale: side over the longer extent of the points.
        shift_y: move along the turned y axis, in extents along it before scaling (negative = up).
    """
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    image_from_turned = np.array([[cos, -sin], [sin, cos]])
    turned = np.asarray(points, dtype=np.float64) @ image_from_turned
    low, high = turned.min(axis=0), turned.max(axis=0)
    size = high - low
    center = (low + high) / 2 + np.array([0.0, shift_y * size[1]])
    x, y = image_from_turned @ center
    return CropRegion(float(x), float(y), float(size.max() * scale), angle_rad)


def sample_region(
    rgb: NDArray[np.uint8],
    region: CropRegion,
    size: int,
    *,
    flags: int = cv2.INTER_LINEAR,
    border_mode: int = cv2.BORDER_REPLICATE,
) -> NDArray[np.uint8]:
    """RGB ``[size, size, 3]`` seen through ``region``; reductions of 2× and more are area-filtered first.

    Plain bilinear sampling of a large face skips pixels, and the skipped ones change with every sub-pixel move: the
    landmarks of a 4K face would jitter for no reason in the picture.
    """
    matrix = region.crop_from_frame(size)
    reduction = int(region.side / size)
    bounds = region.bounding_box().pixel_bounds(rgb.shape[1], rgb.shape[0])
    if bounds is None:
        return np.zeros((size, size, 3), dtype=np.uint8)
    if reduction >= 2:
        rgb, image_from_small = _reduce(rgb, bounds, reduction)
        matrix = matrix @ image_from_small
    return np.asarray(warp_affine(rgb, matrix, (size, size), flags=flags, border_mode=border_mode), dtype=np.uint8)


def _reduce(
    rgb: NDArray[np.uint8], bounds: tuple[int, int, int, int], reduction: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of an image inside ``bounds`` at 1/``reduction``, with the ``[3, 3]`` map back to the image."""
    x0, y0, x1, y1 = bounds
    width, height = math.ceil((x1 - x0) / reduction), math.ceil((y1 - y0) / reduction)
    small = cv2.resize(rgb[y0:y1, x0:x1], (width, height), interpolation=cv2.INTER_AREA)
    image_from_small = np.array([[(x1 - x0) / width, 0, x0], [0, (y1 - y0) / height, y0], [0, 0, 1.0]])
    return np.asarray(small, dtype=np.uint8), image_from_small
