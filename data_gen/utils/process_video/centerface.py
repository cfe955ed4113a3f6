"""CenterFace through OpenCV: a heat-map face detector that finds faces down to 12 px without false alarms.

Slow on large images, so it only (re)acquires faces; a found face is followed by its landmarks.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.blazeface import pairwise_iou
from modules.commons.errors import ModelFileError
from modules.commons.workspace import CENTERFACE_FILE
from modules.structures.boxes import BoundingBox, FaceDetection

STRIDE = 4
"""Input pixels per heat-map cell."""
SIZE_MULTIPLE = 32
"""The network halves its input five times."""


def input_size(size_hw: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Network input (height, width): at most about ``max_side`` on the longer side, multiples of 32."""
    scale = min(1.0, max_side / max(size_hw))
    height, width = (max(SIZE_MULTIPLE, math.ceil(n * scale / SIZE_MULTIPLE) * SIZE_MULTIPLE) for n in size_hw)
    return height, width


def decode_heatmap(
    heat: NDArray[np.float32],
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
    marks: NDArray[np.float32],
    min_score: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Boxes ``[N, 4]``, key points ``[N, 5, 2]`` and scores ``[N]`` in input pixels, unsuppressed.

    Args:
        heat: ``[h, w]`` face centre scores 0..1.
        scale: ``[2, h, w]`` log of (height, width) in cells.
        offset: ``[2, h, w]`` centre offset (y, x) in cells.
        marks: ``[10, h, w]`` five key points (y, x) in box heights and widths from the box's corner.
        min_score: cells scored lower are left out.
    """
    rows, cols = np.nonzero(heat >= min_score)
    height, width = np.exp(scale[:, rows, cols]) * STRIDE
    cy = (rows + 0.5 + offset[0, rows, cols]) * STRIDE
    cx = (cols + 0.5 + offset[1, rows, cols]) * STRIDE
    x0, y0 = cx - width / 2, cy - height / 2
    boxes = np.stack([x0, y0, x0 + width, y0 + height], axis=1)
    relative = marks[:, rows, cols].reshape(5, 2, -1)
    keypoints = np.stack([relative[:, 1] * width + x0, relative[:, 0] * height + y0], axis=-1).transpose(1, 0, 2)
    return boxes.astype(np.float32), keypoints.astype(np.float32), heat[rows, cols]


def suppress(boxes: NDArray, scores: NDArray, min_iou: float) -> list[int]:
    """Greedy non-maximum suppression: indices kept, best first."""
    order = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    while order:
        best = int(order.pop(0))
        kept.append(best)
        if order:
            overlap = pairwise_iou(boxes[best], boxes[order])
            order = [i for i, iou in zip(order, overlap, strict=True) if iou <= min_iou]
    return kept


class CenterFace:
    """Whole-frame face detector.

    Args:
        model: the ONNX file.
        min_score: detections below it are dropped.
    """

    def __init__(self, model: Path = CENTERFACE_FILE, *, min_score: float = 0.5) -> None:
        if not model.is_file():
            raise ModelFileError(f"model file {model} is missing; run `bash scripts/setup.sh` to fetch the model files")
        try:
            self._net = cv2.dnn.readNetFromONNX(str(model))
        except cv2.error as error:
            raise ModelFileError(f"{model} is not a network OpenCV can read; run `bash scripts/setup.sh`") from error
        self._min_score = min_score

    def detect(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int = 640
    ) -> list[FaceDetection]:
        """Faces in an RGB image, largest first.

        Args:
            rgb: ``[H, W, 3]`` uint8.
            area: look only here.
            max_side: longer side of what the network sees; faces below about 12 px there are not found.

        Returns:
            Detections with five key points: eyes (image-left first), nose, mouth corners.
        """
        bounds = (area or BoundingBox(0, 0, rgb.shape[1], rgb.shape[0])).pixel_bounds(rgb.shape[1], rgb.shape[0])
        if bounds is None:
            return []
        x0, y0, x1, y1 = bounds
        window = rgb[y0:y1, x0:x1]
        height, width = input_size(window.shape[:2], max_side)
        shrinks = width * height < window.shape[0] * window.shape[1]
        image = cv2.resize(window, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        boxes, keypoints, scores = self._forward(np.asarray(image, dtype=np.uint8))
        keep = suppress(boxes, scores, min_iou=0.3)
        factor = np.array([(x1 - x0) / width, (y1 - y0) / height])
        origin = np.array([x0, y0])
        faces = [
            _face(boxes[i].reshape(2, 2) * factor + origin, keypoints[i] * factor + origin, float(scores[i]))
            for i in keep
        ]
        return sorted(faces, key=lambda face: -face.box.area)

    def _forward(self, image: NDArray[np.uint8]) -> tuple[NDArray, NDArray, NDArray]:
        self._net.setInput(cv2.dnn.blobFromImage(image))
        heat, scale, offset, marks = self._net.forward(("537", "538", "539", "540"))
        return decode_heatmap(heat[0, 0], scale[0], offset[0], marks[0], self._min_score)


def _face(corners: NDArray, keypoints: NDArray, score: float) -> FaceDetection:
    (x0, y0), (x1, y1) = corners
    box = BoundingBox(float(x0), float(y0), float(x1), float(y1))
    return FaceDetection(box, min(score, 1.0), keypoints.astype(np.float32))
