"""Painted heads of known shape and pose, and what the landmarker says of them: truth for anchors and outline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.build_face_model.embedding import CAMERA, detect, random_expression
from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from modules.face_model.head_painter import HeadLook, HeadPainter
from modules.face_model.model import FaceModel
from modules.face_model.projection import project

_TRIES_PER_VIEW = 6


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One painted head.

    Attributes:
        shape: ``[V, 3]`` dm, head space, identity and expression applied.
        euler: ``[3]`` rad; the head stands at the origin before ``embedding.CAMERA``.
        points: ``[478, 2]`` px, the landmarker's answer.
    """

    shape: NDArray[np.float32]
    euler: NDArray[np.float32]
    points: NDArray[np.float32]

    def pixels(self, places: NDArray[np.floating]) -> NDArray[np.float64]:
        """Project head-space ``places [N, 3]`` as this view's camera sees them, ``[N, 2]`` px."""
        still = torch.zeros(1, 3, dtype=torch.float64)
        euler = torch.from_numpy(self.euler).double()[None]
        return project(torch.from_numpy(np.asarray(places, np.float64))[None], euler, still, CAMERA)[0][0].numpy()


def view_heads(
    model: FaceModel, landmarker: FaceLandmarker, yaws_rad: NDArray[np.floating], generator: np.random.Generator
) -> list[View]:
    """Paint one random person per yaw; nod, roll, look and expression are random too.

    Args:
        model: on the CPU.
        landmarker: detects without blendshapes just as well.
        yaws_rad: euler y of each head; one that is not taken for a face is painted anew as somebody else.
        generator: draws everything.

    Raises:
        RuntimeError: when the landmarker finds hardly any of the heads.
    """
    views: list[View] = []
    for yaw in yaws_rad:
        for _ in range(_TRIES_PER_VIEW):
            view = _view(model, landmarker, float(yaw), generator)
            if view is not None:
                views.append(view)
                break
    if len(views) < 0.5 * len(yaws_rad):
        raise RuntimeError(f"the landmarker found only {len(views)} of {len(yaws_rad)} painted heads")
    return views


def _view(model: FaceModel, landmarker: FaceLandmarker, yaw: float, generator: np.random.Generator) -> View | None:
    identity = (0.8 * generator.standard_normal(model.n_identity)).astype(np.float32)
    expression = np.zeros(model.n_expression, np.float32)
    if generator.uniform() < 0.7:
        expression = random_expression(model, generator)
    nod, roll = np.radians([12, 8]) * generator.uniform(-1, 1, 2)
    euler = np.array([nod, yaw, roll], np.float32)
    painter = HeadPainter(model, identity, HeadLook.random(generator))
    head = painter.paint(expression, euler, np.zeros(3, np.float32), CAMERA)
    points = detect(landmarker, head)
    if points is None:
        return None
    shape = model.vertices(torch.from_numpy(identity), torch.from_numpy(expression)[None])[0]
    return View(shape.numpy(), euler, points)
