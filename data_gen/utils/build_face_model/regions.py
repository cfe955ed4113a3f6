"""Soft vertex regions of the face, from the landmarks' places on the mean shape."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.build_face_model.geometry import HeadGeometry
from modules.face_model.model import LABEL_EAR, LABEL_EYE, LABEL_LIP, LABEL_MEMBRANE
from modules.structures.landmarks import JAW_LINE, OUTER_LIP

# fmt: off
LOWER_FACE_TOP = (454, 366, 376, 411, 425, 371, 358, 327, 326, 2, 97, 98, 129, 142, 205, 187, 147, 137, 234)
"""Upper border of the lower face, subject's left ear → under the nose → right ear."""
FACE_TOP = (454, 356, 389, 251, 284, 332, 297, 338, 10, 109, 67, 103, 54, 21, 162, 127, 234)
# fmt: on
FALL_OFF_DM = 0.09
"""A region rises from 0 at its border to 1 this far inside."""
UNDER_JAW_DM = 0.12
MOUTH_REACH_DM = 0.11
_GRID = 0.005


def build_regions(geometry: HeadGeometry, places: NDArray[np.float64]) -> dict[str, NDArray]:
    """Weights 0..1 per vertex: ``region_mouth``, ``region_lower_face``, ``region_face``.

    Args:
        places: ``[478, 3]`` landmarks on the mean shape.
    """
    mean, labels = geometry.mean, geometry.patch.labels
    chart = _Chart(places)
    jaw = chart.outward(places[list(JAW_LINE)], UNDER_JAW_DM)[::-1]  # right ear → chin → left ear
    lower = chart.inside(mean, np.concatenate([chart(places[list(LOWER_FACE_TOP)]), jaw]))
    face = chart.inside(mean, np.concatenate([chart(places[list(FACE_TOP)]), jaw]))
    lip = np.linalg.norm(mean[:, None] - places[list(OUTER_LIP)][None], axis=2).min(axis=1)
    on_lips = (labels == LABEL_LIP) | (labels == LABEL_MEMBRANE)
    mouth = np.where(on_lips, 1.0, _smooth(1 - lip / MOUTH_REACH_DM))
    regions = {"mouth": np.minimum(mouth, 1), "lower_face": lower, "face": face}
    for name, weight in regions.items():
        weight[on_lips] = 1.0
        weight[labels == LABEL_EAR] = 0.0
        if name != "face":
            weight[labels == LABEL_EYE] = 0.0
    regions["face"][labels == LABEL_EYE] = 1.0
    return {f"region_{name}": weight.astype(np.float16) for name, weight in regions.items()}


class _Chart:
    """Directions seen from inside the lower head, laid flat: x = azimuth, y = elevation, scaled to dm at the face."""

    def __init__(self, places: NDArray[np.float64]) -> None:
        lips = places[list(OUTER_LIP)].mean(axis=0)
        ears = 0.5 * (places[234] + places[454])
        self._center = np.array([0.0, lips[1], ears[2] + 0.15])
        self._radius = float(np.linalg.norm(places[[152, 172, 397, 205, 425]] - self._center, axis=1).mean())

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y, z = (points - self._center).T
        return np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], axis=1) * self._radius

    def outward(self, points: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
        """The flat polyline of ``points`` (ear → chin → ear), pushed away from the face by ``reach`` dm below."""
        flat = self(points)
        flat[1:-1, 1] -= reach
        return flat

    def inside(self, vertices: NDArray[np.float64], border: NDArray[np.float64]) -> NDArray[np.float64]:
        """Soft membership of vertices in the flat polygon ``border``, 0 at the border and outside."""
        contour = border.astype(np.float32)[:, None]
        flat = self(vertices).astype(np.float32)
        distance = np.array([cv2.pointPolygonTest(contour, (float(x), float(y)), True) for x, y in flat])
        return _smooth(distance / FALL_OFF_DM)


def _smooth(t: NDArray[np.float64]) -> NDArray[np.float64]:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
