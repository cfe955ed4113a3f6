"""Soft vertex regions of the face, from the landmarks' places on the mean shape."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import splev, splprep

from data_gen.utils.build_face_model.geometry import HeadGeometry
from modules.face_model.model import LABEL_EAR, LABEL_EYE, LABEL_LIP, LABEL_MEMBRANE
from modules.structures.landmarks import JAW_LINE, OUTER_LIP

# fmt: off
LOWER_FACE_TOP = (454, 366, 411, 425, 327, 2, 98, 205, 187, 137, 234)
"""Upper border of the lower face, image-right ear → under the nose → image-left ear; a spline runs through it."""
FACE_TOP = (454, 356, 389, 251, 284, 332, 297, 338, 10, 109, 67, 103, 54, 21, 162, 127, 234)
# fmt: on
FALL_OFF_DM = 0.09
"""A region rises from 0 at its border to 1 this far inside."""
UNDER_JAW_DM = 0.16
MOUTH_FULL_DM, MOUTH_REACH_DM = 0.03, 0.12
"""The mouth region is 1 up to the first distance from the lips and 0 beyond the second."""
SMOOTHING_ROUNDS = 2


def build_regions(geometry: HeadGeometry, places: NDArray[np.float64]) -> dict[str, NDArray]:
    """Weights 0..1 per vertex: ``region_mouth``, ``region_lower_face``, ``region_face``.

    Args:
        places: ``[478, 3]`` landmarks on the mean shape.
    """
    mean, labels, triangles = geometry.mean, geometry.patch.labels, geometry.patch.triangles
    chart = _Chart(places)
    jaw = chart.pushed_down(_curve(places[list(JAW_LINE)]), UNDER_JAW_DM)[::-1]  # image-left ear → chin → right ear
    top = chart(_curve(places[list(LOWER_FACE_TOP)]))
    brow = chart(_curve(places[list(FACE_TOP)]))
    on_lips = (labels == LABEL_LIP) | (labels == LABEL_MEMBRANE)
    lip_gap = _distance_to_curve(mean, mean[geometry.patch.outer_lip])
    regions = {
        "mouth": _smooth((MOUTH_REACH_DM - lip_gap) / (MOUTH_REACH_DM - MOUTH_FULL_DM)),
        "lower_face": chart.inside(mean, np.concatenate([top, jaw])),
        "face": chart.inside(mean, np.concatenate([brow, jaw])),
    }
    for name, weight in regions.items():
        for _ in range(SMOOTHING_ROUNDS):
            weight = _averaged(weight, triangles)
        weight[on_lips] = 1.0
        weight[labels == LABEL_EAR] = 0.0
        weight[labels == LABEL_EYE] = float(name == "face")
        regions[name] = weight
    return {f"region_{name}": weight.astype(np.float16) for name, weight in regions.items()}


class _Chart:
    """Directions seen from inside the lower head, laid flat: x = azimuth, y = elevation, scaled to dm at the face."""

    def __init__(self, places: NDArray[np.float64]) -> None:
        lips = places[list(OUTER_LIP)].mean(axis=0)
        ears = 0.5 * (places[234] + places[454])
        self._center = np.array([0.0, lips[1], ears[2] + 0.25])
        self._radius = float(np.linalg.norm(places[[152, 172, 397, 205, 425]] - self._center, axis=1).mean())

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y, z = (points - self._center).T
        return np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], axis=1) * self._radius

    def pushed_down(self, points: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
        """The flat curve of ``points`` (ear → chin → ear), moved ``reach`` dm down the neck, less towards its ends."""
        flat = self(points)
        along = np.linspace(0, 1, len(flat))
        flat[:, 1] -= reach * _smooth(np.minimum(along, 1 - along) / 0.12)
        return flat

    def inside(self, vertices: NDArray[np.float64], border: NDArray[np.float64]) -> NDArray[np.float64]:
        """Soft membership of vertices in the flat polygon ``border``, 0 at the border and outside."""
        contour = border.astype(np.float32)[:, None]
        flat = self(vertices).astype(np.float32)
        distance = np.array([cv2.pointPolygonTest(contour, (float(x), float(y)), True) for x, y in flat])
        return _smooth(distance / FALL_OFF_DM)


def _curve(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth curve near ``points [N, 3]``, mirror-symmetric when they are: ``[200, 3]``."""
    spline, _ = splprep(points.T, s=len(points) * 0.02**2)
    return np.stack(splev(np.linspace(0, 1, 200), spline), axis=1)


def _distance_to_curve(points: NDArray[np.float64], loop: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of ``points [N, 3]`` to a closed polyline ``[M, 3]``."""
    edge = np.roll(loop, -1, axis=0) - loop
    t = np.clip(((points[:, None] - loop) * edge).sum(-1) / (edge * edge).sum(-1), 0, 1)
    return np.linalg.norm(loop + t[..., None] * edge - points[:, None], axis=-1).min(axis=1)


def _averaged(weight: NDArray[np.float64], triangles: NDArray[np.int64]) -> NDArray[np.float64]:
    """Half each vertex' own weight, half its neighbours' mean."""
    total, count = np.zeros_like(weight), np.zeros_like(weight)
    for k in range(3):
        for other in (k - 1, k - 2):
            np.add.at(total, triangles[:, k], weight[triangles[:, other]])
            np.add.at(count, triangles[:, k], 1)
    return 0.5 * (weight + total / np.maximum(count, 1))


def _smooth(t: NDArray[np.float64]) -> NDArray[np.float64]:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
