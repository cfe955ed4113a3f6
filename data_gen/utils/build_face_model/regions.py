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
UNDER_JAW_DM = 0.13
"""How far below the jaw line the lower border lies in a frontal view."""
EAR_MARGIN_DM = 0.06
"""How far behind the ear's front edge the rear border lies; ears themselves never belong to a region."""
MOUTH_FULL_DM, MOUTH_REACH_DM = 0.03, 0.12
"""The mouth region is 1 up to the first distance from the lips and 0 beyond the second."""
SMOOTHING_ROUNDS = 2
SPREAD_CUT = 0.06
"""Weights below it are what averaging spread beyond a border: the nose's tip is no lower face."""


def build_regions(geometry: HeadGeometry, places: NDArray[np.float64]) -> dict[str, NDArray]:
    """Weights 0..1 per vertex: ``region_mouth``, ``region_lower_face``, ``region_face``.

    Args:
        geometry: mean shape and topology.
        places: ``[478, 3]`` landmarks on the mean shape.
    """
    mean, labels, triangles = geometry.mean, geometry.patch.labels, geometry.patch.triangles
    chart = _Chart(places)
    front_of_ears = _in_front_of_ears(mean, places)
    below = np.minimum(front_of_ears, _above_neck(mean, places))
    on_lips = (labels == LABEL_LIP) | (labels == LABEL_MEMBRANE)
    lip_gap = _distance_to_curve(mean, mean[geometry.patch.outer_lip])
    regions = {
        "mouth": _smooth((MOUTH_REACH_DM - lip_gap) / (MOUTH_REACH_DM - MOUTH_FULL_DM)),
        "lower_face": np.minimum(chart.under(mean, places[list(LOWER_FACE_TOP)]), below),
        "face": np.minimum(chart.under(mean, places[list(FACE_TOP)]), below),
    }
    for name, weight in regions.items():
        for _ in range(SMOOTHING_ROUNDS):
            weight = _averaged(weight, triangles)
        weight = np.clip((weight - SPREAD_CUT) / (1 - SPREAD_CUT), 0, 1)
        weight[below < 1e-6] = 0.0  # averaging must not run down the coarse triangles of the neck
        weight = 0.5 * (weight + weight[geometry.patch.mirror])
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

    def under(self, vertices: NDArray[np.float64], border: NDArray[np.float64]) -> NDArray[np.float64]:
        """Soft membership below a curve that runs from image-right ear to image-left ear."""
        flat = self(_curve(border))
        far = 4.0 * self._radius
        level = np.array([[-far, flat[-1, 1]], [-far, -far], [far, -far], [far, flat[0, 1]]])
        return _inside(self(vertices), np.concatenate([flat, level]))


def _above_neck(vertices: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Soft membership above the jaw line as a camera in front sees it, ``UNDER_JAW_DM`` of neck included.

    Measured in the frontal plane: behind the chin the neck shows right below it, though it is far along the skin.
    """
    jaw = _curve(places[list(JAW_LINE)])[:, :2]  # image-right ear → chin → image-left ear
    along = np.gradient(jaw, axis=0)
    outward = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    outward *= np.sign(np.sum(outward * (jaw - [0.0, places[4, 1]])))
    lid = [[-3.0, 3.0], [3.0, 3.0]]
    return _inside(vertices[:, :2], np.concatenate([jaw + UNDER_JAW_DM * outward, lid]))


def _in_front_of_ears(vertices: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Soft membership in front of a profile line from the ears' front edge down behind the jaw's angle."""
    ear, angle = (0.5 * (places[a, 1:] + places[b, 1:]) for a, b in ((234, 454), (58, 288)))  # (y, z)
    line = (angle - ear) / np.linalg.norm(angle - ear)
    offset = vertices[:, 1:] - (ear - [0.0, EAR_MARGIN_DM])
    return _smooth((offset[:, 1] * -line[0] + offset[:, 0] * line[1]) / FALL_OFF_DM)


def _inside(points: NDArray[np.float64], polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 well inside a flat polygon, falling to 0 at its border: points ``[N, 2]``, polygon ``[M, 2]``."""
    contour = polygon.astype(np.float32)[:, None]
    distance = [cv2.pointPolygonTest(contour, (float(x), float(y)), True) for x, y in points]
    return _smooth(np.array(distance) / FALL_OFF_DM)


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
