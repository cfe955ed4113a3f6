"""Where the 3DMM fit starts: the frames that can be used, closed-form poses, and the frames an identity shows in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.utils.process_video.fit_config import FitConfig, point_weights
from data_gen.utils.process_video.fit_residuals import POSE_SIZE, LandmarkBasis, Observations
from data_gen.utils.process_video.fit_solver import LandmarkFit
from modules.face_model.fitting import ExpressionPrior
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.landmarks import FACE_OVAL, IRISES, MOUTH, RIGID, Landmarks2D, inter_ocular_px

_MIN_POINTS, _MIN_STEADY_POINTS = 30, 6
_CUT_JUMP = 0.5
_BLOCK = 4096
_FARTHEST_PX = 1e6
_PERSPECTIVE_PASSES = 3


@dataclass(frozen=True, slots=True, eq=False)
class ClipView:
    """The usable frames of a landmark table, read from it a few at a time.

    Attributes:
        landmarks: the table. visible: ``[T, 478]`` 0..1 or bool, 1 = seen; None = all.
        frames: int64 ``[N]``, rows of the table.
        index: int64 ``[N]``: frame numbers, with a jump at every cut.
        point_weights: ``[K]``.
        expected: ``[N, E]``. px_per_dm: ``[N]``.
    """

    landmarks: Landmarks2D
    visible: NDArray | None
    frames: NDArray[np.int64]
    index: Tensor
    point_weights: Tensor
    expected: Tensor
    px_per_dm: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, rows: Tensor | slice) -> Observations:
        """Observations of some of the N frames, on the device of the weights."""
        chosen = self.frames[rows if isinstance(rows, slice) else rows.cpu().numpy()]
        count, device = len(self.point_weights), self.point_weights.device
        points, visible = _seen_points(self.landmarks, self.visible, chosen)
        return Observations(
            points=torch.from_numpy(points[:, :count]).to(device),
            weights=torch.from_numpy(visible[:, :count]).to(device) * self.point_weights,
            px_per_dm=self.px_per_dm[rows],
            expected=self.expected[rows],
            index=self.index[rows],
        )

    def only(self, rows: Tensor) -> ClipView:
        """The view without the frames where bool ``rows`` is False."""
        frames = self.frames[rows.cpu().numpy()]
        return replace(
            self,
            frames=frames,
            index=self.index[rows],
            expected=self.expected[rows],
            px_per_dm=self.px_per_dm[rows],
        )


def _seen_points(landmarks: Landmarks2D, visible: NDArray | None, frames: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
    """Points ``[N, 478, 2]`` with 0 for what is not seen, and how far each is seen ``[N, 478]``."""
    points: NDArray[np.float32] = np.array(landmarks.points[frames], np.float32)
    sane = np.asarray(np.all(np.abs(points) < _FARTHEST_PX, axis=2))  # False for NaN too
    seen = sane.astype(np.float32)
    if visible is not None:
        seen *= np.nan_to_num(np.asarray(visible[frames], np.float32)).clip(0.0, 1.0)
    points[seen <= 0] = 0.0
    return points, seen


def view_of(
    landmarks: Landmarks2D,
    visible: NDArray | None,
    basis: LandmarkBasis,
    prior: ExpressionPrior,
    config: FitConfig,
    shot_starts: NDArray[np.int64] | None,
) -> ClipView:
    """Frames with enough seen, finite points.

    Raises:
        ValueError: when ``visible`` is not of the landmarks' shape.
    """
    if visible is not None and visible.shape != landmarks.depth.shape:
        raise ValueError(f"weights must be {landmarks.depth.shape}, got {visible.shape}")
    weights = point_weights(config)[: len(basis.mean)].to(basis.mean) * basis.weights
    counted = weights.cpu().numpy() > 0
    frames, steady, sizes = [], [], []
    for start in range(0, len(landmarks), _BLOCK):
        block = start + np.flatnonzero(landmarks.valid[start : start + _BLOCK])
        points, seen = _seen_points(landmarks, visible, block)
        enough = np.count_nonzero(seen[:, : len(counted)] * counted, axis=1) >= _MIN_POINTS
        frames.append(block[enough])
        steady.append(np.where(seen[enough][:, list(RIGID), None] > 0, points[enough][:, list(RIGID)], np.nan))
        sizes.append(inter_ocular_px(points[enough]))
    rows = np.concatenate([np.zeros(0, np.int64), *frames])
    cuts = _cuts(rows, np.concatenate([np.zeros((0, len(RIGID), 2)), *steady]), np.concatenate([[], *sizes]))
    if shot_starts is not None:
        cuts += np.searchsorted(np.asarray(shot_starts), rows, side="right")
    device = basis.mean.device
    scores = np.nan_to_num(np.asarray(landmarks.blendshapes, np.float32)[rows], posinf=1.0, neginf=0.0).clip(0.0, 1.0)
    expected = torch.from_numpy(scores).to(basis.mean) @ prior.from_scores.T + prior.offset
    return ClipView(
        landmarks=landmarks,
        visible=visible,
        frames=rows,
        index=torch.from_numpy(rows + cuts).to(device),
        point_weights=weights,
        expected=expected.clamp(prior.lower, prior.upper),
        px_per_dm=torch.ones(len(rows), device=device),
    )


def _cuts(rows: NDArray[np.int64], steady: NDArray, sizes: NDArray) -> NDArray[np.int64]:
    """How many shot cuts lie before each frame: steady points ``[N, R, 2]`` px to ``[N]``.

    Nothing is smoothed over a cut: where the steady points move by more than half the inter-ocular distance from one
    frame to the next.
    """
    moves = np.linalg.norm(np.diff(steady, axis=0), axis=2)
    seen = np.isfinite(moves)
    moved = np.where(seen, moves, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    jumped = moved > _CUT_JUMP * np.maximum(sizes[1:], 1e-6)
    return np.concatenate([np.zeros(min(len(rows), 1), np.int64), np.cumsum(jumped)]).astype(np.int64)


def started(fit: LandmarkFit, identity: Tensor, view: ClipView) -> tuple[ClipView, Tensor]:
    """Closed-form poses and expected expressions ``[N, P]`` of a person, and the view of the frames that have them.

    The pose is read off the points that are neither mouth nor outline, where enough of them are seen.
    """
    basis, camera = fit.basis, fit.camera
    count, neutral = len(basis.mean), fit.basis.neutral(identity)
    steady = torch.ones_like(basis.weights)
    steady[[i for i in MOUTH + FACE_OVAL + IRISES if i < count]] = 0.0
    poses, scales = [], []
    for rows in fit.chunks(len(view)):
        part = view.rows(rows)
        visible = (part.weights > 0).to(steady)
        enough = (visible * steady).sum(dim=1, keepdim=True) >= _MIN_STEADY_POINTS
        weights = torch.where(enough, visible * steady, visible)
        rest = torch.cat([part.expected.new_zeros(len(part), POSE_SIZE), part.expected], dim=1)
        pose = perspective_pose(basis.deformed(neutral, rest), part.points, weights, camera)
        poses.append(pose)
        scales.append(camera.fx / (CAMERA_DISTANCE - pose[:, 5]))
    pose = torch.cat([view.expected.new_zeros(0, POSE_SIZE), *poses])
    scale = torch.cat([view.px_per_dm.new_zeros(0), *scales])
    usable = torch.isfinite(pose).all(dim=1) & (scale > 0) & torch.isfinite(scale)
    view = replace(view, px_per_dm=scale).only(usable)
    euler = torch.from_numpy(np.unwrap(pose[usable, :3].cpu().numpy(), axis=0)).to(pose)
    return view, torch.cat([euler, pose[usable, 3:], view.expected], dim=1)


def perspective_pose(neutral: Tensor, points: Tensor, weights: Tensor, camera: CameraIntrinsics) -> Tensor:
    """Pose of each frame by repeated scaled-orthographic poses, each of points freed of the last one's perspective.

    Args and result as ``weak_perspective_pose``.
    """
    pose = weak_perspective_pose(neutral, points, weights, camera)
    centre = points.new_tensor([camera.cx, camera.cy])
    shape = neutral.expand(*points.shape[:2], 3)
    share = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-12)
    for _ in range(_PERSPECTIVE_PASSES):
        sin_x, sin_y = pose[:, 0].sin(), pose[:, 1].sin()
        cos_x, cos_y = pose[:, 0].cos(), pose[:, 1].cos()
        towards = torch.stack([-sin_y, sin_x * cos_y, cos_x * cos_y], dim=-1)  # third column of the rotation
        z = (shape @ towards[..., None])[..., 0]
        depth = CAMERA_DISTANCE - pose[:, 5, None] - z
        middle = (share * depth).sum(dim=1, keepdim=True)
        nearer = (depth / middle).clamp(0.5, 2.0).nan_to_num(1.0)
        better = weak_perspective_pose(neutral, centre + (points - centre) * nearer[..., None], weights, camera)
        pose = torch.where(torch.isfinite(better).all(dim=1, keepdim=True), better, pose)
    return pose


def weak_perspective_pose(neutral: Tensor, points: Tensor, weights: Tensor, camera: CameraIntrinsics) -> Tensor:
    """Closed-form pose of each frame from points that hardly deform.

    The affine camera that fits best in the least-squares sense, made a scaled rotation.

    Args:
        neutral: ``[T, K, 3]`` or ``[K, 3]`` dm, in head space.
        points: ``[T, K, 2]`` px.
        weights: ``[T, K]``.
        camera: intrinsics in pixels.

    Returns:
        ``[T, 6]`` euler and translation; rows of frames whose points do not span a plane are NaN.
    """
    plane = torch.stack([points[..., 0] - camera.cx, camera.cy - points[..., 1]], dim=-1)
    weight = (weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-12))[..., None]
    shape = neutral.expand(*points.shape[:2], 3)
    shape_mean, plane_mean = (weight * shape).sum(dim=1), (weight * plane).sum(dim=1)
    centred, target = shape - shape_mean[:, None], plane - plane_mean[:, None]
    pulled = (weight * centred).mT
    spread, mixed = (pulled @ centred).double(), (pulled @ target).double()
    trace = spread.diagonal(dim1=1, dim2=2).sum(dim=1)
    ridge = (1e-9 * trace + 1e-12)[:, None, None] * torch.eye(3).to(spread)
    affine = torch.linalg.solve(spread + ridge, mixed)  # [T, 3, 2]
    columns, largest, smallest = _nearest_frame(affine)
    scale = ((largest + smallest) / 2).clamp_min(1e-12)
    usable = (smallest > 1e-3 * largest) & (largest > 1e-9)
    rotation = torch.cat([columns, torch.linalg.cross(columns[..., 0], columns[..., 1])[..., None]], dim=-1)
    centre = (shape_mean[:, None].double() @ rotation)[:, 0]
    across = plane_mean / scale[:, None] - centre[:, :2]
    away = CAMERA_DISTANCE - camera.fx / scale - centre[:, 2]
    euler = torch.stack(
        [
            torch.atan2(rotation[:, 1, 2], rotation[:, 2, 2]),
            torch.asin((-rotation[:, 0, 2]).clamp(-1.0, 1.0)),
            torch.atan2(rotation[:, 0, 1], rotation[:, 0, 0]),
        ],
        dim=1,
    )
    pose = torch.cat([euler, across, away[:, None]], dim=1).to(points.dtype)
    return torch.where(usable[:, None], pose, torch.nan)


def _nearest_frame(affine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormal columns nearest to ``[T, 3, 2]`` and its singular values, larger first; closed form."""
    gram = affine.mT @ affine
    a, b, d = gram[:, 0, 0], gram[:, 0, 1], gram[:, 1, 1]
    root = (a * d - b * b).clamp_min(0.0).sqrt()  # product of the singular values
    total = (a + d + 2 * root).sqrt()  # their sum
    gap = (a + d - 2 * root).clamp_min(0.0).sqrt()
    # (AᵀA)^(1/2) = (AᵀA + root·1) / total, and its inverse by the adjugate
    inverse = torch.stack([torch.stack([d + root, -b], -1), torch.stack([-b, a + root], -1)], -2)
    inverse = inverse / (root * total).clamp_min(1e-30)[:, None, None]
    return affine @ inverse, (total + gap) / 2, (total - gap) / 2


def spread_frames(params: Tensor, count: int) -> Tensor:
    """Rows that cover the clip's poses and expressions: half evenly in time, half farthest from those chosen."""
    total = len(params)
    if total <= count:
        return torch.arange(total)
    even = torch.linspace(0, total - 1, max(count // 2, 1)).round().long().unique()
    features = torch.cat([params[:, :3] / 0.2, params[:, POSE_SIZE:]], dim=1).cpu()
    nearest = torch.cdist(features, features[even]).amin(dim=1)
    chosen = even.tolist()
    while len(chosen) < count:
        farthest = int(nearest.argmax())
        chosen.append(farthest)
        nearest = torch.minimum(nearest, (features - features[farthest]).norm(dim=1))
    return torch.tensor(chosen).unique()
