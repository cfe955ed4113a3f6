"""Frames with a bright square for a face, and a detector and landmarker that read it: logic without networks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropRegion
from modules.structures.frames import Frame, PlaneLayout
from modules.structures.landmarks import FACE_OVAL, LandmarkResult

LAYOUT = PlaneLayout("yuv444p", (0, 0), "left", True, "bt709")
RATE = 25
FACE_LUMA = 250


def face_template() -> NDArray[np.float32]:
    """478 points in a unit box, in the order of a face."""
    points = np.full((478, 2), 0.5, dtype=np.float32)
    angles = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    points[list(FACE_OVAL)] = np.stack([0.5 + 0.5 * np.sin(angles), 0.5 - 0.5 * np.cos(angles)], axis=1)
    points[[105, 334]] = (0.3, 0.3), (0.7, 0.3)
    points[[33, 133, 362, 263]] = (0.2, 0.4), (0.4, 0.4), (0.6, 0.4), (0.8, 0.4)
    points[1] = (0.5, 0.6)
    points[[0, 17]] = (0.5, 0.72), (0.5, 0.8)
    return points


def make_frame(
    index: int, faces: Sequence[BoundingBox], size_hw: tuple[int, int] = (180, 240), background: int = 20
) -> Frame:
    """A frame with bright squares."""
    luma = np.full(size_hw, background, dtype=np.uint8)
    for box in faces:
        luma[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = FACE_LUMA
    grey = np.full(size_hw, 128, dtype=np.uint8)
    return Frame(index, index, Fraction(1, RATE), (luma, grey, grey), LAYOUT)


def bright_boxes(rgb: NDArray[np.uint8]) -> list[BoundingBox]:
    """Bounding boxes of the bright squares, largest first."""
    import cv2

    mask = (rgb[..., 1] > FACE_LUMA - 30).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    boxes = [BoundingBox(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:count].tolist()]
    return sorted(boxes, key=lambda box: -box.area)


class SquareDetector:
    """Finds bright squares; counts how often it was asked."""

    def __init__(self, min_side: float = 4) -> None:
        self.calls = 0
        self.min_side = min_side

    def detect_face_bbox(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int | None = None
    ) -> list[FaceDetection]:
        self.calls += 1
        keypoints = np.zeros((5, 2), dtype=np.float32)
        found = []
        for box in bright_boxes(rgb):
            if box.width >= self.min_side:
                eyes = np.array([(box.x0, box.y0), (box.x1, box.y0)])
                found.append(FaceDetection(box, 0.9, np.concatenate([eyes, keypoints[2:]]).astype(np.float32)))
        return found

    def detect_any_roll(
        self,
        rgb: NDArray[np.uint8],
        area: BoundingBox | None = None,
        *,
        max_side: int | None = None,
        turn: bool = True,
    ) -> list[FaceDetection]:
        """Squares have no roll."""
        del turn
        return self.detect_face_bbox(rgb, area, max_side=max_side)


class SquareLandmarker:
    """Puts the template on the bright square nearest to the region's centre."""

    def detect(self, rgb: NDArray[np.uint8], region: CropRegion | BoundingBox) -> LandmarkResult:
        assert isinstance(region, CropRegion)
        reach = region.side / 2
        near = [
            box
            for box in bright_boxes(rgb)
            if abs(box.center[0] - region.center_x) < reach and abs(box.center[1] - region.center_y) < reach
        ]
        near.sort(key=lambda box: np.hypot(box.center[0] - region.center_x, box.center[1] - region.center_y))
        box = near[0] if near else BoundingBox(0, 0, 4, 4)
        points = face_template() * (box.width, box.height) + (box.x0, box.y0)
        score = 0.99 if near else 0.0
        zeros = np.zeros(478, dtype=np.float32)
        return LandmarkResult(points.astype(np.float32), zeros, score, np.zeros(52, dtype=np.float32))


def box_at(x: float, y: float, side: float = 30) -> BoundingBox:
    """A square box centred at (x, y)."""
    return BoundingBox(x - side / 2, y - side / 2, x + side / 2, y + side / 2)
