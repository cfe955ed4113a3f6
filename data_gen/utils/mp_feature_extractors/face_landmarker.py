"""478 face landmarks, their depth and 52 blendshape scores through MediaPipe's networks on LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from data_gen.utils.mp_feature_extractors.litert import LiteRtModel
from data_gen.utils.mp_feature_extractors.regions import angle_between, region_of_points
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropRegion, sample_region, transform_points
from modules.structures.landmarks import (
    BLENDSHAPE_SUBSET,
    MEDIAPIPE_BLENDSHAPES,
    OUTER_EYE_CORNERS,
    LandmarkResult,
)

TASK_FILE = "face_landmarker.task"
REGION_SCALE = 1.5
"""Side of the square the network sees over the longer extent of the face."""


def region_of_face(face: FaceDetection) -> CropRegion:
    """Square around a detected face, turned so that its eyes are level."""
    left, right = face.keypoints[0], face.keypoints[1]
    side = max(face.box.width, face.box.height) * REGION_SCALE
    return CropRegion(*face.box.center, side, angle_between(left, right))


def region_of_landmarks(points: NDArray) -> CropRegion:
    """Square around landmarks ``[478, 2]`` px, turned so that the outer eye corners are level."""
    left, right = OUTER_EYE_CORNERS
    return region_of_points(points, angle_between(points[left], points[right]), REGION_SCALE)


def region_of_box(box: BoundingBox) -> CropRegion:
    """Upright square around a face box of unknown roll."""
    return CropRegion(*box.center, max(box.width, box.height) * REGION_SCALE)


class Landmarker(Protocol):
    """What finds landmarks inside a region of an image."""

    def detect(self, rgb: NDArray[np.uint8], region: CropRegion | BoundingBox) -> LandmarkResult:
        """Landmarks in pixels of ``rgb``."""
        ...


class FaceLandmarker:
    """MediaPipe's face mesh, without MediaPipe.

    Args:
        models: folder that holds ``face_landmarker.task``.
        blendshapes: also run the blendshape network (0.7 ms); zeros otherwise.
    """

    def __init__(self, *, models: Path = MEDIAPIPE_DIR, blendshapes: bool = True, threads: int = 1) -> None:
        task = models / TASK_FILE
        self._mesh = LiteRtModel.from_task(task, "face_landmarks_detector.tflite", threads)
        self._size = self._mesh.input_shape[1]
        self._blendshapes = LiteRtModel.from_task(task, "face_blendshapes.tflite", threads) if blendshapes else None
        self._subset = np.array(BLENDSHAPE_SUBSET)

    def detect(self, rgb: NDArray[np.uint8], region: CropRegion | BoundingBox) -> LandmarkResult:
        """Landmarks of the face inside ``region``.

        Args:
            rgb: ``[H, W, 3]`` uint8.
            region: the square to look through (``region_of_face``, ``region_of_landmarks``), or a face box.

        Returns:
            Points in pixels of ``rgb``; the score says whether there is a face at all, not whether it is visible:
            a covered mouth still gets lips.
        """
        square = region_of_box(region) if isinstance(region, BoundingBox) else region
        image = sample_region(rgb, square, self._size)
        outputs = self._mesh.run((image.astype(np.float32) / 255.0)[None])
        mesh = outputs["Identity"].reshape(-1, 3)
        presence = float(expit(outputs["Identity_1"].ravel()[0]))
        rgb_from_crop = square.frame_from_crop(self._size)
        points = transform_points(rgb_from_crop, mesh[:, :2].astype(np.float64)).astype(np.float32)
        depth = (mesh[:, 2] * (square.side / self._size)).astype(np.float32)
        return LandmarkResult(points, depth, presence, self._scores(points))

    def _scores(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._blendshapes is None:
            return np.zeros(len(MEDIAPIPE_BLENDSHAPES), dtype=np.float32)
        (scores,) = self._blendshapes.run(points[self._subset][None]).values()
        return scores.astype(np.float32)


def build_landmarker(
    extractor: Literal["litert", "mediapipe"] = "litert", *, models: Path = MEDIAPIPE_DIR
) -> Landmarker:
    """The landmarker a configuration names.

    Raises:
        BackendUnavailableError: when ``mediapipe`` is named but cannot be imported here.
    """
    if extractor == "litert":
        return FaceLandmarker(models=models)
    from data_gen.utils.mp_feature_extractors.mediapipe_backend import MediaPipeLandmarker

    return MediaPipeLandmarker(models=models)
