"""How far each landmark can be seen: inside the picture, and on the side of the face that is turned to the camera.

MediaPipe always gives all 478 points; those outside the picture and on the far side of a turned head are its guesses.
What covers a face (hands, objects) is another matter: see ``occlusion_detector``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial import Delaunay

from modules.structures.landmarks import EYES, IRISES, N_MEDIAPIPE, N_MESH, inter_ocular_px

EDGE = 0.1
"""Points this far inside the picture, in inter-ocular distances, count in full."""
FACING = (-0.1, 0.25)
"""Cosine between the surface and the line of sight from which a point begins to count, and counts in full.

The jaw line of a face seen from the front has 0.1, and is seen; at a yaw of 25° its far side has -0.4.
"""
_BEHIND_DM = 0.3
_BATCH = 256


def inside_frame(points: NDArray, size_wh: tuple[int, int]) -> NDArray[np.float32]:
    """How surely landmarks lie in the picture: 0 beyond its edge, rising to 1 a little way inside.

    Args:
        points: ``[T, 478, 2]`` px, NaN allowed.
        size_wh: of the picture, px.

    Returns:
        float32 ``[T, 478]`` 0..1; NaN points are 0.

    Raises:
        ValueError: the points or the size are of no picture.
    """
    points = _checked(points)
    if min(size_wh) <= 0:
        raise ValueError(f"a picture of {size_wh[0]} × {size_wh[1]} px shows no landmarks")
    size = np.array(size_wh, np.float64)
    within = np.minimum(points, size - points).min(axis=2)
    eyes = inter_ocular_px(points)[:, None]
    rise = np.maximum(EDGE * np.where(np.isfinite(eyes), eyes, 1.0), 1.0)
    return np.nan_to_num(np.clip(within / rise, 0.0, 1.0)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class FaceSurface:
    """The face as triangles between landmarks, to tell which way it faces at each of them.

    Attributes:
        triangles: int64 ``[F, 3]`` landmark numbers, anticlockwise seen from outside in y-up axes.
        gather: sparse ``[478, F]``, 1 where a triangle counts for a landmark; none has an empty row.
    """

    triangles: NDArray[np.int64]
    gather: csr_array

    @classmethod
    def of(cls, places: NDArray) -> FaceSurface:
        """Triangulate landmarks on the cylinder around a head.

        Args:
            places: ``[478, 3]`` a face at rest in head space (dm, x image-right, y up, z to the camera), such as
                ``LandmarkRows.mean``.

        Raises:
            ValueError: these are no places of a face.
        """
        places = np.asarray(places, np.float64)
        if places.shape != (N_MEDIAPIPE, 3) or not np.isfinite(places).all():
            raise ValueError(f"a face's places must be finite [478, 3], got {places.shape}")
        axis_z = places[[234, 454], 2].mean() - _BEHIND_DM
        radius = np.hypot(places[:N_MESH, 0], places[:N_MESH, 2] - axis_z)
        angle = np.arctan2(places[:N_MESH, 0], places[:N_MESH, 2] - axis_z)
        flat = np.stack([angle * radius.mean(), places[:N_MESH, 1]], axis=1)
        triangles = Delaunay(flat).simplices.astype(np.int64)
        a, b, c = (flat[triangles[:, k]] for k in range(3))
        clockwise = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] < 0
        triangles[clockwise] = triangles[clockwise][:, ::-1]
        return cls(triangles, _gather(triangles, flat))

    def facing(self, points: NDArray, depth: NDArray) -> NDArray[np.float32]:
        """Cosine between the surface at each landmark and the line of sight: 1 seen head-on, below 0 from behind.

        Args:
            points: ``[T, 478, 2]`` px.
            depth: ``[T, 478]`` px, smaller = nearer (``Landmarks2D``).

        Returns:
            float32 ``[T, 478]``, NaN where a point the surface needs is NaN, or the surface has no area.
        """
        points, depth = _checked(points), np.asarray(depth, np.float64)
        cosines = np.empty(depth.shape, np.float32)
        for start in range(0, len(points), _BATCH):
            rows = slice(start, start + _BATCH)
            # to axes x right, y up, z to the camera
            places = np.stack([points[rows, :, 0], -points[rows, :, 1], -depth[rows]], axis=-1)
            a, b, c = (places[:, self.triangles[:, k]] for k in range(3))
            areas = np.cross(b - a, c - a)
            count = len(areas)
            sums = self.gather @ areas.transpose(1, 0, 2).reshape(len(self.triangles), count * 3)
            normals = sums.reshape(N_MEDIAPIPE, count, 3)
            length = np.linalg.norm(normals, axis=2)
            with np.errstate(invalid="ignore", divide="ignore"):
                cosines[rows] = (normals[..., 2] / length).T
        return cosines


def _gather(triangles: NDArray[np.int64], flat: NDArray[np.float64]) -> csr_array:
    """Which triangles count for which landmark: those it is a corner of; an iris takes those of its eye."""
    corners: list[set[int]] = [set() for _ in range(N_MEDIAPIPE)]
    for number, triangle in enumerate(triangles.tolist()):
        for point in triangle:
            corners[point].add(number)
    for point in range(N_MESH):
        if not corners[point]:  # it lies on another point, as closed lips do
            near = np.argsort(np.linalg.norm(flat - flat[point], axis=1), kind="stable")
            corners[point] = next(corners[other] for other in near if corners[other])
    half = len(EYES) // 2
    for irises, eye in ((IRISES[:5], EYES[:half]), (IRISES[5:], EYES[half:])):
        around = set[int]().union(*(corners[point] for point in eye))
        for point in irises:
            corners[point] = around
    rows = [point for point, mine in enumerate(corners) for _ in mine]
    columns = [number for mine in corners for number in sorted(mine)]
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(N_MEDIAPIPE, len(triangles)))


def landmark_visibility(
    points: NDArray, depth: NDArray, size_wh: tuple[int, int], surface: FaceSurface
) -> NDArray[np.float32]:
    """How far each landmark can be seen, 0..1: in the picture, and not on the far side of the face.

    Args:
        points: ``[T, 478, 2]`` px; NaN rows are wholly unseen.
        depth: ``[T, 478]`` px, smaller = nearer.
        size_wh: of the picture, px.
        surface: of the face model's landmarks; built once.

    Returns:
        float32 ``[T, 478]``.

    Raises:
        ValueError: the shapes do not go together.
    """
    points = _checked(points)
    if depth.shape != points.shape[:2]:
        raise ValueError(f"depth must be {points.shape[:2]} like the points, got {depth.shape}")
    begins, full = FACING
    turned = np.clip((surface.facing(points, depth) - begins) / (full - begins), 0.0, 1.0)
    return inside_frame(points, size_wh) * np.nan_to_num(turned).astype(np.float32)


def _checked(points: NDArray) -> NDArray[np.float64]:
    if points.ndim != 3 or points.shape[1:] != (N_MEDIAPIPE, 2):
        raise ValueError(f"landmarks must be [T, 478, 2], got {points.shape}")
    return points.astype(np.float64)
