"""Where a fitted face has MediaPipe's points in the image: what its landmark error is measured with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_video.fit_residuals import corrected_rows
from modules.face_model.fitting import FittableModel
from modules.face_model.projection import project
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import FACE_OVAL

_CHUNK = 256


def fitted_points(
    coeffs: FaceModelCoeffs, face_model: FittableModel, chosen: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Project the landmarks of every frame, with the person's correction and the outline's slide.

    Args:
        coeffs: T frames.
        face_model: the model they belong to, with K points, on the CPU.
        chosen: frames wanted; None = all.

    Returns:
        ``[T, K, 2]`` px of the frame, or one row for each frame ``chosen``.
    """
    rows = face_model.landmark_rows()
    if coeffs.correction is not None:
        rows = corrected_rows(rows, torch.from_numpy(coeffs.correction))
    neutral = rows.mean + rows.identity @ torch.from_numpy(coeffs.identity)
    frames = np.arange(len(coeffs)) if chosen is None else chosen
    points = np.empty((len(frames), len(neutral), 2), np.float32)
    for start in range(0, len(frames), _CHUNK):
        part = frames[start : start + _CHUNK]
        euler, translation, expression = (
            torch.from_numpy(values[part]) for values in (coeffs.euler, coeffs.translation, coeffs.expression)
        )
        shape = neutral + (expression @ rows.expression.flatten(0, 1).T).unflatten(1, (-1, 3))
        shape[:, list(FACE_OVAL)] += rows.slide.at(euler[:, 1])
        points[start : start + _CHUNK] = project(shape, euler, translation, coeffs.camera)[0].numpy()
    return points
