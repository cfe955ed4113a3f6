"""Optional: OpenCV's SFace, a face-recognition network, for whoever puts its ONNX file under ``checkpoints/sface/``.

It is not fetched and not needed: ``appearance`` links tracks by shape and colour without it.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import ModelFileError
from modules.commons.workspace import CHECKPOINTS
from modules.structures.landmarks import LIP_CORNERS

SFACE_DIR = CHECKPOINTS / "sface"
SAME_PERSON_COSINE = 0.363
"""OpenCV's own figure for the cosine of two embeddings of one person; higher = more alike."""
_EYES = ((33, 133), (362, 263))
_NOSE = 1


class FaceRecogniser:
    """Embeddings of faces whose landmarks are known.

    Args:
        model: SFace as ONNX.

    Raises:
        ModelFileError: when the file is missing or not such a network.
    """

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise ModelFileError(f"face-recognition model {model} is missing; put OpenCV's SFace ONNX file there")
        try:
            self._network = cv2.FaceRecognizerSF.create(str(model), "")
            self.embed(np.zeros((112, 112, 3), np.uint8), _TEMPLATE)
        except cv2.error as error:
            raise ModelFileError(
                f"{model} is not a face-recognition network OpenCV can run; use SFace's file"
            ) from error

    def embed(self, rgb: NDArray[np.uint8], points: NDArray) -> NDArray[np.float32]:
        """Unit vector ``[D]`` of a face.

        Args:
            rgb: ``[H, W, 3]`` uint8.
            points: landmarks ``[478, 2]``, or five points as ``five_points`` gives, in its pixels.
        """
        five = points if len(points) == 5 else five_points(points)
        box = np.concatenate([[0, 0, rgb.shape[1], rgb.shape[0]], np.ravel(five), [1.0]]).astype(np.float32)[None]
        aligned = self._network.alignCrop(np.ascontiguousarray(rgb[..., ::-1]), box)
        vector = np.ravel(self._network.feature(aligned)).astype(np.float32)
        return vector / max(float(np.linalg.norm(vector)), 1e-9)


_TEMPLATE = np.array([[38.3, 51.7], [73.5, 51.5], [56.0, 71.7], [41.5, 92.4], [70.7, 92.2]])
"""Where SFace wants the five points in its 112 px input."""


def five_points(points: NDArray) -> NDArray[np.float64]:
    """Eyes, nose tip and lip corners ``[5, 2]``, image-left first, of landmarks ``[478, 2]``."""
    eyes = [points[list(pair)].mean(axis=0) for pair in _EYES]
    return np.stack([*eyes, points[_NOSE], *points[list(LIP_CORNERS)]]).astype(np.float64)


def find_recogniser(folder: Path = SFACE_DIR) -> FaceRecogniser | None:
    """The recogniser whose file a user put into ``folder``, or None when there is no ONNX file."""
    files = sorted(folder.glob("*.onnx"))
    return FaceRecogniser(files[0]) if files else None
