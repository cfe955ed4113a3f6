"""CenterFace, through OpenCV or in torch: a heat-map face detector that finds faces down to 12 px without false alarms.

Slow on large images, so it only (re)acquires faces; a found face is followed by its landmarks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.blazeface import pairwise_iou
from data_gen.utils.mp_feature_extractors.networks import Runtime, pick_runtime
from modules.commons.errors import ModelFileError
from modules.commons.workspace import CENTERFACE_FILE
from modules.structures.boxes import BoundingBox, FaceDetection

STRIDE = 4
"""Input pixels per heat-map cell."""
OUTPUTS = ("537", "538", "539", "540")
"""What the file calls heat map, scales, offsets and key points."""
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


Maps = tuple[NDArray[np.float32], ...]
"""Heat map, scales, offsets and key points, ``[B, channels, h, w]`` each."""


class CenterFace:
    """Whole-frame face detector.

    Args:
        model: the ONNX file.
        min_score: detections below it are dropped.
        runtime: torch runs the network where it says; anything else leaves it to OpenCV, the fastest on a CPU. By
            default torch on CUDA.

    Raises:
        ModelFileError: the file is missing or unusable.
    """

    def __init__(
        self, model: Path = CENTERFACE_FILE, *, min_score: float = 0.5, runtime: Runtime | None = None
    ) -> None:
        if not model.is_file():
            raise ModelFileError(f"model file {model} is missing; run `bash scripts/setup.sh` to fetch the model files")
        runtime = runtime or pick_runtime()
        self._maps = _torch_maps(model, runtime) if runtime.extractor == "torch" else _opencv_maps(model)
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
        return self.detect_many([rgb], [area], max_side=max_side)[0]

    def detect_many(
        self, images: Sequence[NDArray[np.uint8]], areas: Sequence[BoundingBox | None], *, max_side: int = 640
    ) -> list[list[FaceDetection]]:
        """What ``detect`` finds in each of several images; parts of one size are looked at together.

        Args:
            images: RGB ``[H, W, 3]`` uint8 each; the same one again for several parts of it.
            areas: where to look in each; None = all of it.
            max_side: longer side of what the network sees.
        """
        looks = [_Look.of(rgb, area, max_side) for rgb, area in zip(images, areas, strict=True)]
        found: list[list[FaceDetection]] = [[] for _ in looks]
        sizes = dict.fromkeys(look.image.shape for look in looks if look is not None)
        for size in sizes:
            same = [(i, look) for i, look in enumerate(looks) if look is not None and look.image.shape == size]
            maps = self._maps(np.stack([look.image for _, look in same]))
            for row, (i, look) in enumerate(same):
                found[i] = self._faces(look, tuple(values[row] for values in maps))
        return found

    def _faces(self, look: _Look, maps: Maps) -> list[FaceDetection]:
        heat, scale, offset, marks = maps
        boxes, keypoints, scores = decode_heatmap(heat[0], scale, offset, marks, self._min_score)
        faces = [
            _face(boxes[i].reshape(2, 2) * look.factor + look.origin, keypoints[i] * look.factor + look.origin, score)
            for i, score in ((i, float(scores[i])) for i in suppress(boxes, scores, min_iou=0.3))
        ]
        return sorted(faces, key=lambda face: -face.box.area)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """Part of an image as the network sees it.

    Attributes:
        image: ``[h, w, 3]`` uint8. factor, origin: (x, y) by which its pixels become those of the whole image.
    """

    image: NDArray[np.uint8]
    factor: NDArray[np.float64]
    origin: NDArray[np.int64]

    @classmethod
    def of(cls, rgb: NDArray[np.uint8], area: BoundingBox | None, max_side: int) -> _Look | None:
        """None when the area lies outside the image."""
        bounds = (area or BoundingBox(0, 0, rgb.shape[1], rgb.shape[0])).pixel_bounds(rgb.shape[1], rgb.shape[0])
        if bounds is None:
            return None
        x0, y0, x1, y1 = bounds
        window = rgb[y0:y1, x0:x1]
        height, width = input_size(window.shape[:2], max_side)
        shrinks = width * height < window.shape[0] * window.shape[1]
        image = cv2.resize(window, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        factor = np.array([(x1 - x0) / width, (y1 - y0) / height])
        return cls(np.asarray(image, dtype=np.uint8), factor, np.array([x0, y0]))


def _opencv_maps(model: Path) -> Callable[[NDArray[np.uint8]], Maps]:
    try:
        net = cv2.dnn.readNetFromONNX(str(model))
    except cv2.error as error:
        raise ModelFileError(f"{model} is not a network OpenCV can read; run `bash scripts/setup.sh`") from error

    def maps(images: NDArray[np.uint8]) -> Maps:
        each = []
        for image in images:
            net.setInput(cv2.dnn.blobFromImage(image))
            each.append([np.array(values) for values in net.forward(OUTPUTS)])
        return tuple(np.concatenate(values) for values in zip(*each, strict=True))

    return maps


def _torch_maps(model: Path, runtime: Runtime) -> Callable[[NDArray[np.uint8]], Maps]:
    from data_gen.utils.mp_feature_extractors.onnx_file import read_onnx
    from data_gen.utils.mp_feature_extractors.onnx_ops import onnx_steps
    from data_gen.utils.mp_feature_extractors.torch_network import TorchNetwork

    network = TorchNetwork(onnx_steps(read_onnx(model)), runtime.device)

    def maps(images: NDArray[np.uint8]) -> Maps:
        found = network.run_images(images, 0.0, 255.0)
        return tuple(found[name] for name in OUTPUTS)

    return maps


def _face(corners: NDArray, keypoints: NDArray, score: float) -> FaceDetection:
    (x0, y0), (x1, y1) = corners
    box = BoundingBox(float(x0), float(y0), float(x1), float(y1))
    return FaceDetection(box, min(score, 1.0), keypoints.astype(np.float32))
