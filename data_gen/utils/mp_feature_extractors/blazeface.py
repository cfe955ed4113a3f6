"""BlazeFace-style single-shot detectors: anchors, decoding and weighted non-maximum suppression.

Two face detectors share it (short range 128², full range sparse 192²) and so does the palm detector (192²).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from data_gen.utils.mp_feature_extractors.networks import Runtime, load_network, pick_runtime
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropRegion, sample_region, transform_points

SHORT_RANGE_STRIDES = (8, 16, 16, 16)
FULL_RANGE_STRIDES = (4,)


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """Suppressed detections in units of the network's square input, 0..1.

    Attributes:
        boxes: ``[N, 4]`` x0 y0 x1 y1.
        keypoints: ``[N, K, 2]``.
        scores: ``[N]`` 0..1, best first.
    """

    boxes: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]


def anchor_centers(input_size: int, strides: Sequence[int], per_cell: int | None = None) -> NDArray[np.float32]:
    """Anchor centres ``[A, 2]`` (x, y) in 0..1; every anchor has unit size.

    Layers that share a stride share a grid. Each layer brings two anchors a cell (the aspect ratio 1 and the one
    interpolated to the next scale) unless ``per_cell`` says otherwise.
    """
    centers = []
    for stride in dict.fromkeys(strides):
        count = strides.count(stride) * 2 if per_cell is None else per_cell
        cells = -(-input_size // stride)
        grid = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        x, y = np.meshgrid(grid, grid)
        centers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), count, axis=0))
    return np.concatenate(centers)


def decode(
    regressors: NDArray[np.float32],
    logits: NDArray[np.float32],
    anchors: NDArray[np.float32],
    input_size: int,
    min_score: float,
) -> RawDetections:
    """Boxes whose score reaches ``min_score``, unsuppressed.

    Args:
        regressors: ``[A, 4 + 2K]`` input pixels from the anchor: centre x, centre y, width, height, then key points.
        logits: ``[A]``.
        anchors: ``[A, 2]``.
        input_size: side of the network's square input, px.
        min_score: what is scored lower is left out.
    """
    scores = expit(logits)
    keep = np.flatnonzero(scores >= min_score)
    values = regressors[keep].reshape(len(keep), regressors.shape[1] // 2, 2) / np.float32(input_size)
    center = values[:, 0] + anchors[keep]
    half = values[:, 1] / 2
    keypoints = values[:, 2:] + anchors[keep][:, None]
    boxes = np.concatenate([center - half, center + half], axis=1)
    return RawDetections(boxes.astype(np.float32), keypoints.astype(np.float32), scores[keep])


def pairwise_iou(box: NDArray, boxes: NDArray) -> NDArray:
    """Intersection over union of one box ``[4]`` with ``[N, 4]``."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return shared / np.maximum(area - shared, 1e-12)


def weighted_nms(raw: RawDetections, min_iou: float) -> RawDetections:
    """Merge each cluster of overlapping detections into its score-weighted mean; the cluster keeps its best score."""
    order = np.argsort(-raw.scores, kind="stable")
    boxes, keypoints, scores = raw.boxes[order], raw.keypoints[order], raw.scores[order]
    out_boxes, out_keypoints, out_scores = [], [], []
    left = np.arange(len(scores))
    while len(left):
        inside = pairwise_iou(boxes[left[0]], boxes[left]) > min_iou
        inside[0] = True
        cluster = left[inside]
        weight = scores[cluster] / scores[cluster].sum()
        out_boxes.append(weight @ boxes[cluster])
        out_keypoints.append(np.tensordot(weight, keypoints[cluster], axes=1))
        out_scores.append(scores[cluster[0]])
        left = left[~inside]
    if not out_scores:
        return RawDetections(raw.boxes[:0], raw.keypoints[:0], raw.scores[:0])
    return RawDetections(np.stack(out_boxes), np.stack(out_keypoints), np.array(out_scores, dtype=np.float32))


def letterbox_region(rgb: NDArray[np.uint8], area: BoundingBox | None) -> CropRegion:
    """The square, centred on ``area`` (or the whole image), that holds it."""
    box = area or BoundingBox(0, 0, rgb.shape[1], rgb.shape[0])
    return CropRegion(*box.center, max(box.width, box.height))


class BlazeFace:
    """MediaPipe's face detectors.

    Args:
        kind: ``short`` finds faces from about 1/7 of the area's longer side, ``full`` from about 1/12.
        min_score: detections below it are dropped.
        runtime: what the network runs on; by default torch on CUDA and LiteRT elsewhere.
    """

    def __init__(
        self,
        kind: Literal["short", "full"] = "short",
        *,
        models: Path = MEDIAPIPE_DIR,
        min_score: float = 0.5,
        runtime: Runtime | None = None,
    ) -> None:
        runtime = runtime or pick_runtime()
        if kind == "short":
            self._model = load_network(runtime, models / "face_landmarker.task", "face_detector.tflite")
            self._names = ("regressors", "classificators")
        else:
            self._model = load_network(runtime, models / "face_detection_full_range_sparse.tflite")
            self._names = ("Identity", "Identity_1")
        self._size = self._model.input_shape[1]
        self._anchors = (
            anchor_centers(self._size, SHORT_RANGE_STRIDES)
            if kind == "short"
            else anchor_centers(self._size, FULL_RANGE_STRIDES, per_cell=1)
        )
        self._min_score = min_score

    def detect(self, rgb: NDArray[np.uint8], area: BoundingBox | CropRegion | None = None) -> list[FaceDetection]:
        """Faces in ``area`` of an RGB image, best first; six key points: eyes, nose, mouth, ears (image-left first).

        Args:
            rgb: ``[H, W, 3]`` uint8.
            area: look only here; a ``CropRegion`` is looked through as it is turned, and a face found there gets the
                upright box around it (that of the turned box's ellipse, which is nearer to a face than its corners).
        """
        region = area if isinstance(area, CropRegion) else letterbox_region(rgb, area)
        image = sample_region(rgb, region, self._size, border_mode=cv2.BORDER_CONSTANT)
        outputs = self._model.run_images(image[None], -1.0, 1.0)
        raw = weighted_nms(
            decode(
                outputs[self._names[0]][0], outputs[self._names[1]][0, :, 0], self._anchors, self._size, self._min_score
            ),
            min_iou=0.3,
        )
        image_from_unit = region.frame_from_crop(1)
        return [_face(image_from_unit, *row) for row in zip(raw.boxes, raw.keypoints, raw.scores, strict=True)]


def _face(image_from_unit: NDArray, box: NDArray, keypoints: NDArray, score: float) -> FaceDetection:
    points = transform_points(image_from_unit, keypoints).astype(np.float32)
    return FaceDetection(turned_box(box, image_from_unit), float(score), points)


def turned_box(box: NDArray, dst_from_src: NDArray[np.float64]) -> BoundingBox:
    """Upright box of a face whose box ``[4]`` is mapped by a similarity ``[3, 3]``: that of the ellipse inside it.

    The corners of a box turned by 45° span twice its area; the face in it does not grow.
    """
    low, high = np.asarray(box, dtype=np.float64).reshape(2, 2)
    x, y = (float(v) for v in transform_points(dst_from_src, (low + high) / 2))
    half_x, half_y = (float(v) for v in np.linalg.norm(dst_from_src[:2, :2] * (high - low) / 2, axis=1))
    return BoundingBox(x - half_x, y - half_y, x + half_x, y + half_y)
