"""Heads of known shape and pose, and what the landmarker says of them: truth for anchors and outline."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.build_face_model.embedding import CAMERA, detect, random_expression
from data_gen.utils.build_face_model.tracked import FittedClip
from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from modules.face_model.head_painter import HeadLook, HeadPainter
from modules.face_model.model import FaceModel
from modules.face_model.projection import project
from modules.structures.cameras import CameraIntrinsics

_TRIES_PER_VIEW = 6


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One head, painted or real.

    Attributes:
        shape: ``[V, 3]`` dm, head space, identity and expression applied.
        euler: ``[3]`` rad. points: ``[478, 2]`` px, the landmarker's answer.
        translation: ``[3]`` dm. camera: intrinsics.
    """

    shape: NDArray[np.float32]
    euler: NDArray[np.float32]
    points: NDArray[np.float32]
    translation: NDArray[np.float32] = field(default_factory=lambda: np.zeros(3, np.float32))
    camera: CameraIntrinsics = CAMERA

    def pixels(self, places: NDArray[np.floating]) -> NDArray[np.float64]:
        """Project head-space ``places [N, 3]`` as this view's camera sees them, ``[N, 2]`` px."""
        euler, translation = (torch.from_numpy(value).double()[None] for value in (self.euler, self.translation))
        points = torch.from_numpy(np.asarray(places, np.float64))[None]
        return project(points, euler, translation, self.camera)[0][0].numpy()

    def mirrored(self, model: FaceModel) -> View:
        """The same head in a mirror; ``model`` knows which vertices and landmarks are each other's counterparts."""
        flip = np.array([-1, 1, 1], np.float32)
        points = self.points[model.landmark_mirror.numpy()] * [-1, 1] + [2 * self.camera.cx, 0]
        return View(
            self.shape[model.mirror.numpy()] * flip,
            -self.euler * flip,
            points.astype(np.float32),
            self.translation * flip,
            self.camera,
        )


def clip_views(model: FaceModel, clip: FittedClip) -> list[View]:
    """Frames of a real clip as the fit understands them."""
    identity, expression = torch.from_numpy(clip.identity).float(), torch.from_numpy(clip.expression).float()
    shapes = model.vertices(identity, expression).numpy()
    rows = zip(shapes, clip.euler, clip.sample.landmarks.points, clip.translation, strict=True)
    return [
        View(shape, euler.astype(np.float32), points, translation.astype(np.float32), clip.sample.camera)
        for shape, euler, points, translation in rows
    ]


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
