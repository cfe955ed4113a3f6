"""Takes in what people look like while they are followed: shape and colours, and an embedding where a network is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.appearance import FaceLook, mean_face
from data_gen.utils.process_video.face_recogniser import FaceRecogniser, find_recogniser
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.landmarks import LandmarkResult


class LookTaker:
    """One look at one face at a time.

    Args:
        face_model: its mean face is what shapes are compared with.
        recogniser: embeds faces; None = shape and colour alone.
    """

    def __init__(self, face_model: FaceModel, recogniser: FaceRecogniser | None = None) -> None:
        self._reference, self._recogniser = mean_face(face_model), recogniser
        self.counterpart = face_model.landmark_mirror.numpy()
        """int64 ``[478]``: each landmark's mirror image."""

    def __call__(self, rgb: NDArray[np.uint8], result: LandmarkResult) -> FaceLook:
        """What the face of ``result`` looks like in the picture ``[H, W, 3]`` its landmarks were found in."""
        embedding = None if self._recogniser is None else self._recogniser.embed(rgb, result.points)
        look = FaceLook()
        look.add(rgb, result.points, result.depth, self._reference, embedding)
        return look


def build_look_taker() -> LookTaker:
    """With the embedded face model, and the recognition network if the user has put one there."""
    return LookTaker(FaceModel.load(FACE_MODEL_FILE), find_recogniser())
