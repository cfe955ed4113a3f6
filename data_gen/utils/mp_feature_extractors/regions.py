"""Rotated squares that MediaPipe's networks look through: how they follow from boxes, key points and landmarks.

A region is a ``CropRegion``: centre and side in pixels, angle clockwise on screen. Rules and constants are MediaPipe's.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from modules.structures.crops import CropRegion

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
