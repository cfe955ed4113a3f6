"""The project's networks, and pictures to feed them with, for tests that compare runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.landmarks import BLENDSHAPE_SUBSET

LANDMARKS = "face_landmarks_detector.tflite"
SCORES = "face_blendshapes.tflite"


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """Where a network lies, and the range of values it is fed with."""

    file: str
    member: str = ""
    low: float = 0.0
    high: float = 1.0

    @property
    def path(self):
        return MEDIAPIPE_DIR / self.file

    def __str__(self) -> str:
        return self.member or self.file


PICTURE_NETWORKS = (
    NetworkFile("face_landmarker.task", "face_detector.tflite", -1.0),
    NetworkFile("face_landmarker.task", LANDMARKS),
    NetworkFile("face_detection_full_range_sparse.tflite", low=-1.0),
    NetworkFile("palm_detection_full.tflite"),
    NetworkFile("hand_landmark_full.tflite"),
    NetworkFile("selfie_segmentation.tflite"),
)


def made_up_picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with a few sharp shapes; where no film can be decoded."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), height / 16)
    picture = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # pyright: ignore
    cv2.ellipse(picture, (width // 2, height // 2), (width // 5, height // 4), 10, 0, 360, (210, 160, 140), -1)
    for side in (-1, 1):
        cv2.circle(picture, (width // 2 + side * width // 12, height * 9 // 20), height // 40, (40, 30, 30), -1)
    cv2.ellipse(picture, (width // 2, height * 3 // 5), (width // 14, height // 50), 0, 0, 360, (150, 60, 70), -1)
    return picture


def score_input(count: int) -> NDArray[np.float32]:
    """Points for the blendshape network."""
    return np.random.default_rng(0).uniform(100, 300, (count, len(BLENDSHAPE_SUBSET), 2)).astype(np.float32)


def assert_close(
    found: Mapping[str, NDArray[np.float32]], expected: Mapping[str, NDArray[np.float32]], tolerance: float
) -> None:
    """The same outputs, values at most ``tolerance`` apart."""
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, atol=tolerance, rtol=0, err_msg=name)
