"""Taking out what landmarks cannot show: the size of a head, and where inside it the axes sit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.structures.cameras import CAMERA_DISTANCE, rotation_matrices

Array = NDArray[np.float64]
CAMERA_PLACE = np.array([0.0, 0.0, CAMERA_DISTANCE])


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """``target ≈ scale · source · rotation + shift`` for points in rows."""

    scale: float
    rotation: Array
    shift: Array

    def apply(self, points: NDArray[np.floating]) -> Array:
        """Moved points ``[N, 3]``."""
        return self.scale * points.astype(np.float64) @ self.rotation + self.shift

    @classmethod
    def between(cls, source: NDArray[np.floating], target: NDArray[np.floating]) -> Similarity:
        """The least-squares one (Umeyama) of points ``[N, 3]`` that span more than a line."""
        source, target = source.astype(np.float64), target.astype(np.float64)
        source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
        centred = source - source_mean
        left, size, right = np.linalg.svd(centred.T @ (target - target_mean))
        signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
        rotation = (left * signs) @ right
        scale = float((size * signs).sum() / (centred**2).sum())
        return cls(scale, rotation, target_mean - scale * source_mean @ rotation)


@dataclass(frozen=True, slots=True, eq=False)
class HeadPath:
    """Where a head is and how it is turned, seen from the camera.

    Attributes:
        rotation: ``[T, 3, 3]`` for rows. place: ``[T, 3]`` of the head's origin from the camera, dm.
    """

    rotation: Array
    place: Array

    @classmethod
    def of(cls, euler: NDArray[np.floating], translation: NDArray[np.floating]) -> HeadPath:
        """Of coefficients ``[T, 3]`` each."""
        return cls(rotation_matrices(euler.astype(np.float64)), translation.astype(np.float64) - CAMERA_PLACE)

    def in_axes_of(self, alignment: Similarity) -> HeadPath:
        """The same head in the axes of another that ``alignment`` maps this one's neutral shape to.

        With ``X' = s·X·A + b`` a point seen at ``X·R + p`` is, all lengths times s, at ``X'·(Aᵀ·R) + s·p - b·Aᵀ·R``.
        """
        rotation = alignment.rotation.T @ self.rotation
        return HeadPath(rotation, alignment.scale * self.place - alignment.shift @ rotation)


def angles_between(first: Array, second: Array) -> Array:
    """Degrees of the turn from one rotation to the other: ``[T, 3, 3]`` each to ``[T]``."""
    turn = first @ np.swapaxes(second, -1, -2)
    across = np.stack([turn[..., 2, 1] - turn[..., 1, 2], turn[..., 0, 2] - turn[..., 2, 0],
                       turn[..., 1, 0] - turn[..., 0, 1]], axis=-1)  # fmt: skip
    return np.degrees(np.arctan2(np.linalg.norm(across, axis=-1), np.trace(turn, axis1=-2, axis2=-1) - 1))


def scale_to(source: Array, target: Array) -> float:
    """The number that brings ``source`` nearest to ``target``, both ``[T, 3]``."""
    return float((source * target).sum() / max((source**2).sum(), 1e-12))
