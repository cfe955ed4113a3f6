"""Residuals of the face model's landmarks in real clips and painted heads, to first order in everything that may move.

Residuals and moves are in dm at the head, so that a small face counts like a large one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.build_face_model.embedding import CAMERA
from data_gen.utils.build_face_model.tracked import FittedClip
from data_gen.utils.build_face_model.views import View
from modules.face_model.fitting import OutlineSlide
from modules.face_model.mesh_renderer import vertex_normals
from modules.face_model.model import FaceModel
from modules.face_model.projection import project, rotation_from_euler
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.landmarks import EYES, FACE_OVAL, INNER_LIP, IRISES, N_MEDIAPIPE, OUTER_LIP

NOISE_DM = 0.07
"""Standard deviation of a landmark of weight 1; neighbours err together, so it is far above a point's jitter."""
ROBUST_DM = 0.15
"""Residual whose influence has dropped to a quarter."""
_STEP = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class LinearViews:
    """F views of one person.

    Attributes:
        residual: ``[F, K, 2]`` model minus track. weight: ``[F, K]`` over the noise's variance, ≥ 0.
        by_place: ``[F, K, 2, 3]`` derivative with respect to each point in head space.
        by_pose: ``[F, K, 2, 6]`` with respect to euler angles (rad) and translation (dm).
    """

    residual: NDArray[np.float64]
    weight: NDArray[np.float64]
    by_place: NDArray[np.float64]
    by_pose: NDArray[np.float64]


def landmark_weights() -> NDArray[np.float64]:
    """How much each of the 478 points counts: lips and lids more, the sliding outline less, irises (gaze) not."""
    weights = np.ones(N_MEDIAPIPE)
    for points, value in ((INNER_LIP + OUTER_LIP, 4.0), (EYES, 3.0), (FACE_OVAL, 0.5), (IRISES, 0.0)):
        weights[list(points)] = value
    return weights


def outline_move(slide: OutlineSlide, yaw: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where all points stand off their frontal anchors at these yaws: ``[F]`` rad to ``[F, 478, 3]`` dm."""
    at, moves = slide.yaw_rad.double().numpy(), slide.move.double().numpy()
    out = np.zeros((len(yaw), N_MEDIAPIPE, 3))
    flat = moves.reshape(len(at), -1)
    columns = [np.interp(yaw, at, column) for column in flat.T]
    out[:, list(FACE_OVAL)] = np.stack(columns, axis=1).reshape(len(yaw), len(FACE_OVAL), 3)
    return out


def linearize_clip(model: FaceModel, clip: FittedClip) -> LinearViews:
    """A fitted clip's frames."""
    identity = torch.from_numpy(clip.identity).float()
    points = model.landmarks(identity, torch.from_numpy(clip.expression).float()).double().numpy()
    points = points + outline_move(model.outline_slide, clip.euler[:, 1])
    seen = linearize(points, clip.euler, clip.translation, clip.sample.camera, clip.sample.landmarks.points)
    return _weighted(seen, model, clip.euler)


def linearize_paintings(model: FaceModel, views: list[View]) -> LinearViews:
    """Painted heads, whose shape and pose are exact; they need not show one person."""
    corners, weights = model.landmark_triangles.numpy(), model.landmark_weights.numpy()
    points = np.stack([(view.shape[corners] * weights[..., None]).sum(axis=1) for view in views]).astype(np.float64)
    euler = np.stack([view.euler for view in views]).astype(np.float64)
    points = points + outline_move(model.outline_slide, euler[:, 1])
    seen = linearize(points, euler, np.zeros_like(euler), CAMERA, np.stack([v.points for v in views]))
    return _weighted(seen, model, euler)


def linearize(
    points: NDArray[np.float64],
    euler: NDArray[np.float64],
    translation: NDArray[np.float64],
    camera: CameraIntrinsics,
    tracked: NDArray[np.float32],
) -> LinearViews:
    """Head-space ``points [F, K, 3]`` under poses ``[F, 3]`` against ``tracked [F, K, 2]`` px; robust weights only."""
    scale = (camera.fx / (CAMERA_DISTANCE - translation[:, 2]))[:, None, None]

    def seen(points: NDArray, euler: NDArray, translation: NDArray) -> NDArray[np.float64]:
        points, euler, translation = (np.ascontiguousarray(v) for v in (points, euler, translation))
        pixels, _ = project(torch.from_numpy(points), torch.from_numpy(euler), torch.from_numpy(translation), camera)
        return pixels.numpy() / scale

    residual = seen(points, euler, translation) - tracked / scale
    steps = _STEP * np.eye(3)
    by_place = [(seen(points + s, euler, translation) - seen(points - s, euler, translation)) for s in steps]
    by_angle = [(seen(points, euler + s, translation) - seen(points, euler - s, translation)) for s in steps]
    by_shift = [(seen(points, euler, translation + s) - seen(points, euler, translation - s)) for s in steps]
    robust = (ROBUST_DM**2 / (ROBUST_DM**2 + np.square(residual).sum(axis=-1))) ** 2
    return LinearViews(
        residual,
        robust / NOISE_DM**2,
        np.stack(by_place, axis=-1) / (2 * _STEP),
        np.stack(by_angle + by_shift, axis=-1) / (2 * _STEP),
    )


def _weighted(views: LinearViews, model: FaceModel, euler: NDArray[np.float64]) -> LinearViews:
    return replace(views, weight=views.weight * landmark_weights() * facing(model, euler))


def facing(model: FaceModel, euler: NDArray[np.float64]) -> NDArray[np.float64]:
    """How squarely each landmark looks at the camera: ``[F, 3]`` rad to ``[F, 478]``, 0.02..1.

    The outline always counts: it is drawn where the surface turns away.
    """
    normals = vertex_normals(model.mean.double().numpy(), model.triangles.numpy())
    corners, weights = model.landmark_triangles.numpy(), model.landmark_weights.double().numpy()
    at_landmarks = (normals[corners] * weights[..., None]).sum(axis=1)
    at_landmarks /= np.linalg.norm(at_landmarks, axis=1, keepdims=True)
    toward = rotation_from_euler(torch.from_numpy(euler)).numpy() @ [0.0, 0.0, 1.0]
    square = np.clip(toward @ at_landmarks.T, 0.02, 1.0)
    square[:, list(FACE_OVAL)] = 1.0
    return square
