"""Small facts about landmarks and boxes that tracking decides by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion

SQUARE_SLACK = (0.02, 0.02, 0.04, 0.04)
"""How far off the square may be that a network looks through: centre x and y (shares of its side), log side, radians.

Measured against the median of 16 looks at each frame, on eight clips: slacks of 0.03 and more, and squares that are
only pulled as far as the slack, cost accuracy where heads or cameras move, and steady nothing more.
"""


def landmark_box(points: NDArray) -> BoundingBox:
    """Bounding box of landmarks ``[478, 2]``: the face from the top of the forehead to the chin."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return BoundingBox(float(x0), float(y0), float(x1), float(y1))


def landmark_boxes(points: NDArray) -> NDArray[np.float64]:
    """Bounding boxes ``[T, 4]`` of landmarks ``[T, N, 2]``, all or some; NaN stays NaN."""
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).astype(np.float64)


def distance_in_faces(first: BoundingBox, second: BoundingBox) -> float:
    """How far apart two boxes lie along x or y, in sizes of the first."""
    size = max(first.width, first.height)
    return max(abs(a - b) for a, b in zip(first.center, second.center, strict=True)) / size


def moved_like_a_head(old: BoundingBox, new: BoundingBox) -> bool:
    """Whether the boxes of two successive frames can be the same head: no leap, no sudden growth."""
    growth = max(new.width, new.height) / max(old.width, old.height)
    return distance_in_faces(old, new) < 0.6 and 0.6 < growth < 1.7


def is_face_shaped(points: NDArray) -> bool:
    """Whether landmarks ``[478, 2]`` lie in the order of a face: brows over eyes over nose over mouth over chin.

    Measured along the forehead → chin axis, so the roll of the head does not matter.
    """
    top, chin = points[10], points[152]
    axis = chin - top
    length = float(np.linalg.norm(axis))
    if not np.isfinite(length) or length < 1.0:
        return False
    along = (points - top) @ (axis / length) / length
    brows, eyes = along[[105, 334]].mean(), along[[33, 133, 362, 263]].mean()
    nose, mouth = along[1], along[[0, 17]].mean()
    ordered = 0 < brows < eyes < nose < mouth < 1
    width = float(np.linalg.norm(points[454] - points[234])) / length
    return bool(ordered and 0.25 < width < 1.6 and mouth - eyes > 0.15)


def yaw_rad(points: NDArray, depth: NDArray) -> NDArray:
    """How far faces are turned to the side: 0 frontal, ±π/2 profile; positive towards the image's left.

    Args:
        points: landmarks ``[..., 478, 2]``.
        depth: ``[..., 478]``, smaller = nearer, same unit.

    Returns:
        ``[...]``, the turn of the line between the two sides of the face out of the image plane.
    """
    across = points[..., 454, :] - points[..., 234, :]
    return np.arctan2(depth[..., 454] - depth[..., 234], np.linalg.norm(across, axis=-1))


def steadied(before: CropRegion, wanted: CropRegion) -> CropRegion:
    """The square to look through next: frozen while the head is still, following while it moves, at once when quick.

    It stays exactly where it is until the wanted square leaves ``SQUARE_SLACK`` in centre, size or turn. Then a share
    of each correction is applied that grows with its size: a tenth of small ones, all of it from a tenth (of the
    square's side, or radians) on. So it takes no leaps of its own, and quick motion leaves it nowhere behind.
    """
    floor, full_at = 0.1, 0.1
    old, new = _square_vector(before), _square_vector(wanted)
    change = new - old
    change[3] = np.remainder(change[3] + np.pi, 2 * np.pi) - np.pi
    moved = np.hypot(change[0], change[1]) / before.side
    relative = np.array([moved, moved, abs(change[2]), abs(change[3])])
    if (relative <= np.array(SQUARE_SLACK)).all():
        return before
    x, y, log_side, angle = (float(v) for v in old + np.clip(relative / full_at, floor, 1.0) * change)
    return CropRegion(x, y, float(np.exp(log_side)), angle)


def _square_vector(region: CropRegion) -> NDArray[np.float64]:
    return np.array([region.center_x, region.center_y, np.log(region.side), region.angle_rad])
