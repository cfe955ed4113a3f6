"""Boxes and face detections in frame pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class BoundingBox:
    """Half-open pixel box [x0, x1) × [y0, y1) in frame coordinates (x right, y down)."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not (self.x0 < self.x1 and self.y0 < self.y1):
            raise ValueError(f"empty or inverted box: {self}")

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def center(self) -> tuple[float, float]:
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    @property
    def area(self) -> float:
        return self.width * self.height

    def iou(self, other: BoundingBox) -> float:
        """Intersection over union, 0..1."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        if width <= 0 or height <= 0:
            return 0.0
        shared = width * height
        return shared / (self.area + other.area - shared)

    def scaled(self, factor: float) -> BoundingBox:
        """The box grown about its centre by ``factor``."""
        cx, cy = self.center
        half_w, half_h = self.width * factor / 2, self.height * factor / 2
        return BoundingBox(cx - half_w, cy - half_h, cx + half_w, cy + half_h)

    def shifted(self, x: float, y: float) -> BoundingBox:
        """The box moved by (x, y) px."""
        return BoundingBox(self.x0 + x, self.y0 + y, self.x1 + x, self.y1 + y)

    def pixel_bounds(self, width: int, height: int) -> tuple[int, int, int, int] | None:
        """Integer (x0, y0, x1, y1) of the pixels touched inside a frame, or None when outside it."""
        x0, y0 = max(0, int(np.floor(self.x0))), max(0, int(np.floor(self.y0)))
        x1, y1 = min(width, int(np.ceil(self.x1))), min(height, int(np.ceil(self.y1)))
        return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def as_array(self) -> NDArray[np.float64]:
        return np.array([self.x0, self.y0, self.x1, self.y1], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class FaceDetection:
    """One detected face: box, score in 0..1 and key points ``[K, 2]`` px (eyes first: image-left, image-right)."""

    box: BoundingBox
    score: float
    keypoints: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"detection score outside 0..1: {self.score}")
        if self.keypoints.ndim != 2 or self.keypoints.shape[1] != 2:
            raise ValueError(f"keypoints must be [K, 2], got {self.keypoints.shape}")

    def shifted(self, x: float, y: float) -> FaceDetection:
        """The same detection moved by (x, y) px: from a window's pixels to the frame's."""
        return replace(self, box=self.box.shifted(x, y), keypoints=self.keypoints + np.array([x, y], dtype=np.float32))
