"""Clips and painted heads made of the committed model itself: what they show is known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from data_gen.utils.build_face_model.linear_views import outline_move
from data_gen.utils.build_face_model.semantics import Contour
from data_gen.utils.build_face_model.tracked import ClipSample, FittedClip
from data_gen.utils.build_face_model.views import View
from modules.face_model.model import FaceModel
from modules.face_model.projection import project
from modules.structures.cameras import CameraIntrinsics
from modules.structures.landmarks import (
    IMAGE_LEFT_EYE,
    IMAGE_RIGHT_EYE,
    INNER_LIP,
    OUTER_LIP,
    Landmarks2D,
)

LENS = CameraIntrinsics.for_frame(640, 480)


def contours() -> list[Contour]:
    """The mouth's and the eyes' chains, without the mesh's arcs."""

    def halves(ring: tuple[int, ...]) -> list[tuple[int, ...]]:
        half = len(ring) // 2
        return [ring[: half + 1], (ring[0], *ring[:half:-1], ring[half])]

    rings = ((INNER_LIP, True), (OUTER_LIP, False), (IMAGE_LEFT_EYE, True), (IMAGE_RIGHT_EYE, True))
    return [Contour(halves(ring), [], tied) for ring, tied in rings]


def clip(model: FaceModel, seed: int, frames: int = 6, identity: np.ndarray | None = None) -> FittedClip:
    """A clip whose coefficients are exactly those that made its landmarks, scores included."""
    generator = np.random.default_rng(seed)
    if identity is None:
        identity = 0.5 * generator.standard_normal(model.n_identity)
    expression = np.clip(generator.normal(0.15, 0.15, (frames, model.n_expression)), 0, 1)
    euler = generator.uniform(-0.4, 0.4, (frames, 3))
    translation = generator.uniform([-0.3, -0.3, 1.7], [0.3, 0.3, 2.3], (frames, 3))
    points = model.landmarks(torch.from_numpy(identity).float(), torch.from_numpy(expression).float()).double()
    points = points + torch.from_numpy(outline_move(model.outline_slide, euler[:, 1]))
    pixels = project(points, torch.from_numpy(euler), torch.from_numpy(translation), LENS)[0].numpy()
    scores = np.concatenate([np.zeros((frames, 1)), expression[:, :51]], axis=1)
    landmarks = Landmarks2D(
        pixels.astype(np.float32),
        np.zeros((frames, 478), np.float32),
        np.ones(frames, bool),
        scores.astype(np.float32),
    )
    return FittedClip(ClipSample(f"clip{seed}", landmarks, LENS, 1.0), identity, expression, euler, translation)


def painting(model: FaceModel, yaw: float, seed: int) -> View:
    """A head of the model and its landmarks, as an ideal landmarker would see them."""
    generator = np.random.default_rng(seed)
    identity = torch.from_numpy(0.5 * generator.standard_normal(model.n_identity)).float()
    expression = torch.from_numpy(generator.uniform(0, 0.2, (1, model.n_expression))).float()
    euler = np.array([generator.uniform(-0.1, 0.1), yaw, 0.0], np.float32)
    view = View(model.vertices(identity, expression)[0].numpy(), euler, np.zeros((478, 2), np.float32))
    points = model.landmarks(identity, expression)[0].numpy() + outline_move(model.outline_slide, euler[1:2])[0]
    return replace(view, points=view.pixels(points).astype(np.float32))
