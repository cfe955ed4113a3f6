"""Landmark residuals of the 3DMM fit and their analytic derivatives; pure maths on tensors.

Residuals are in decimetres at the head (pixels divided by the frame's pixels per dm), so the same noise level and the
same priors hold for a 60 px face and a 4K one. A frame's parameters are one row
``[euler 3, translation 3, expression E]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modules.face_model.model import FaceModel
from modules.face_model.projection import rotation_from_euler
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics

POSE_SIZE = 6
"""Parameters before the expression: three angles, three translations."""


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkBasis:
    """The face model seen only at its landmarks.

    Attributes:
        mean: ``[K, 3]`` dm. identity: ``[K, 3, I]``. expression: ``[K, 3, E]``.
        upper, lower: ``[G]`` rows of point pairs whose difference, a gap, is observed as well.
        products: ``[K·6, E(E+1)/2]`` products of two expression columns at each point, for the six entries of a
            symmetric 3 × 3 matrix and the upper triangle of an E × E one.
    """

    mean: Tensor
    identity: Tensor
    expression: Tensor
    upper: Tensor
    lower: Tensor
    products: Tensor

    @classmethod
    def of(cls, face_model: FaceModel, gaps: tuple[tuple[int, int], ...], dtype: torch.dtype) -> LandmarkBasis:
        """Barycentric rows of the mean and the bases at the 478 landmarks."""
        corners, weights = face_model.landmark_triangles, face_model.landmark_weights.to(dtype)
        pairs = torch.as_tensor(gaps, dtype=torch.int64, device=corners.device).reshape(-1, 2)
        upper, lower = pairs.unbind(dim=1)
        identity = torch.einsum("kj,kjci->kci", weights, face_model.identity_basis[corners].to(dtype))
        expression = torch.einsum("kj,kjce->kce", weights, face_model.expression_basis[corners].to(dtype))
        return cls(
            mean=torch.einsum("kj,kjc->kc", weights, face_model.mean[corners].to(dtype)),
            identity=identity,
            expression=expression,
            upper=upper,
            lower=lower,
            products=_pair_products(expression),
        )

    def neutral(self, identity: Tensor) -> Tensor:
        """Landmarks of a person at rest: identity ``[I]`` to ``[K, 3]`` dm."""
        return self.mean + self.identity @ identity

    def deformed(self, neutral: Tensor, expression: Tensor) -> Tensor:
        """Landmarks in head space: neutral ``[K, 3]`` and expression ``[T, E]`` to ``[T, K, 3]`` dm."""
        flat = self.expression.flatten(0, 1)
        return neutral + (expression @ flat.T).unflatten(1, (-1, 3))

    def posed(self, neutral: Tensor, params: Tensor) -> Tensor:
        """Landmarks in camera axes: neutral ``[K, 3]`` and params ``[T, P]`` to ``[T, K, 3]`` dm."""
        head = self.deformed(neutral, params[:, POSE_SIZE:])
        return head @ rotation_from_euler(params[:, :3]) + params[:, None, 3:POSE_SIZE]

    def with_gaps(self, rows: Tensor) -> Tensor:
        """Append upper - lower of each pair: ``[T, K, ...]`` to ``[T, K + G, ...]``."""
        return torch.cat([rows, rows[:, self.upper] - rows[:, self.lower]], dim=1)


SYMMETRIC = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Entries of a symmetric 3 × 3 matrix, in the order of ``LandmarkBasis.products``."""


def _pair_products(basis: Tensor) -> Tensor:
    """``[N, 3, E]`` to ``[N·6, E(E+1)/2]``, see ``LandmarkBasis.products``."""
    first, second = torch.triu_indices(basis.shape[2], basis.shape[2])
    entries = []
    for a, b in SYMMETRIC:
        product = basis[:, a, first] * basis[:, b, second]
        entries.append(product if a == b else product + basis[:, b, first] * basis[:, a, second])
    return torch.stack(entries, dim=1).flatten(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Tracked landmarks of some frames.

    Attributes:
        points: ``[T, K, 2]`` px, finite. weights: ``[T, K]`` ≥ 0, 0 = not seen.
        px_per_dm: ``[T]`` image scale at the head's distance, held fixed.
        expected: ``[T, E]`` expression the prior pulls to.
        index: ``[T]`` int64 frame numbers, ascending; a step above 1 is a gap that nothing is smoothed over.
    """

    points: Tensor
    weights: Tensor
    px_per_dm: Tensor
    expected: Tensor
    index: Tensor

    def rows(self, rows: Tensor | slice) -> Observations:
        return Observations(
            self.points[rows], self.weights[rows], self.px_per_dm[rows], self.expected[rows], self.index[rows]
        )

    def __len__(self) -> int:
        return len(self.index)


def pixels(posed: Tensor, camera: CameraIntrinsics) -> Tensor:
    """Project points in camera axes: ``[T, K, 3]`` dm to ``[T, K, 2]`` px."""
    depth = CAMERA_DISTANCE - posed[..., 2]
    u = camera.cx + camera.fx * posed[..., 0] / depth
    return torch.stack([u, camera.cy - camera.fy * posed[..., 1] / depth], dim=-1)


def residuals(
    basis: LandmarkBasis, neutral: Tensor, params: Tensor, seen: Observations, camera: CameraIntrinsics
) -> Tensor:
    """Model minus track, dm: ``[T, K + G, 2]``; the last G rows are the gap vectors."""
    error = (pixels(basis.posed(neutral, params), camera) - seen.points) / seen.px_per_dm[:, None, None]
    return basis.with_gaps(error)


def residual_weights(basis: LandmarkBasis, seen: Observations, gap_weight: float) -> Tensor:
    """Weights of ``residuals``' rows: ``[T, K + G]``; a gap counts no more than its less visible end."""
    gaps = torch.minimum(seen.weights[:, basis.upper], seen.weights[:, basis.lower])
    return torch.cat([seen.weights, gap_weight * gaps], dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Linearized:
    """The weighted residuals to first order, as springs on points in head space.

    Attributes:
        information: ``[T, K, 3, 3]`` stiffness of each point's own residual.
        force: ``[T, K, 3]`` gradient of the cost (half of it) with respect to each point, gaps included.
        motion: ``[T, K, 3, 6]`` movement of each point with the pose parameters.
        upper_view, lower_view: ``[T, G, 2, 3]`` weighted movement of each gap with its two ends in head space.
        gap_motion: ``[T, 2·G, 6]`` weighted movement of each gap with the pose parameters.
    """

    information: Tensor
    force: Tensor
    motion: Tensor
    upper_view: Tensor
    lower_view: Tensor
    gap_motion: Tensor


def linearize(
    basis: LandmarkBasis,
    neutral: Tensor,
    params: Tensor,
    error: Tensor,
    weights: Tensor,
    px_per_dm: Tensor,
    camera: CameraIntrinsics,
) -> Linearized:
    """Stiffness and force of the residuals ``error`` ``[T, K + G, 2]`` with ``weights`` ``[T, K + G]``."""
    posed = basis.posed(neutral, params)
    rotation = rotation_from_euler(params[:, :3])
    view = _projection_derivative(posed, px_per_dm, camera) @ rotation.mT[:, None]
    count = len(basis.mean)
    pull = weights[..., None] * error
    point_pull = pull[:, :count].clone()
    point_pull.index_add_(1, basis.upper, pull[:, count:])
    point_pull.index_add_(1, basis.lower, -pull[:, count:])
    arms = posed - params[:, None, 3:POSE_SIZE]
    turned = [torch.linalg.cross(axis[:, None].expand_as(arms), arms) @ rotation.mT for axis in _euler_axes(params)]
    moved = rotation[:, None].expand(*posed.shape, 3)
    motion = torch.cat([torch.stack(turned, dim=-1), moved], dim=-1)
    root = weights[:, count:, None, None].sqrt()
    upper_view, lower_view = view[:, basis.upper] * root, -view[:, basis.lower] * root
    return Linearized(
        information=(view * weights[:, :count, None, None]).mT @ view,
        force=(point_pull[..., None, :] @ view)[..., 0, :],
        motion=motion,
        upper_view=upper_view,
        lower_view=lower_view,
        gap_motion=(upper_view @ motion[:, basis.upper] + lower_view @ motion[:, basis.lower]).flatten(1, 2),
    )


def _euler_axes(params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Axes ``[T, 3]`` about which the head turns when one euler angle grows (camera axes)."""
    sin_y, sin_z = params[:, 1].sin(), params[:, 2].sin()
    cos_y, cos_z = params[:, 1].cos(), params[:, 2].cos()
    zero, one = torch.zeros_like(sin_y), torch.ones_like(sin_y)
    return (
        torch.stack([cos_y * cos_z, cos_y * sin_z, -sin_y], dim=-1),
        torch.stack([-sin_z, cos_z, zero], dim=-1),
        torch.stack([zero, zero, one], dim=-1),
    )


def _projection_derivative(posed: Tensor, px_per_dm: Tensor, camera: CameraIntrinsics) -> Tensor:
    """d(residual) / d(point in camera axes): ``[T, K, 2, 3]``."""
    depth = CAMERA_DISTANCE - posed[..., 2]
    across = camera.fx / depth / px_per_dm[:, None]
    down = -camera.fy / depth / px_per_dm[:, None]
    zero = torch.zeros_like(depth)
    u = torch.stack([across, zero, across * posed[..., 0] / depth], dim=-1)
    v = torch.stack([zero, down, down * posed[..., 1] / depth], dim=-1)
    return torch.stack([u, v], dim=-2)


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
    plane = torch.stack([points[..., 0] - camera.cx, camera.cy - points[..., 1]], dim=-1).double()
    weight = (weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-12)).double()[..., None]
    shape = neutral.double().expand(*points.shape[:2], 3)
    shape_mean, plane_mean = (weight * shape).sum(dim=1), (weight * plane).sum(dim=1)
    centred, target = shape - shape_mean[:, None], plane - plane_mean[:, None]
    spread = (weight * centred).mT @ centred
    affine = torch.linalg.pinv(spread, rtol=1e-9, hermitian=True) @ ((weight * centred).mT @ target)
    left, size, right = torch.linalg.svd(affine, full_matrices=False)
    columns = left @ right
    rotation = torch.cat([columns, torch.linalg.cross(columns[..., 0], columns[..., 1])[..., None]], dim=-1)
    scale = size.mean(dim=1)
    usable = (size[:, 1] > 1e-3 * size[:, 0]) & (scale > 0)
    depth = camera.fx / torch.where(usable, scale, 1.0)
    centre = (shape_mean[:, None] @ rotation)[:, 0]
    across = plane_mean / torch.where(usable, scale, 1.0)[:, None] - centre[:, :2]
    translation = torch.cat([across, (CAMERA_DISTANCE - depth - centre[:, 2])[:, None]], dim=1)
    euler = torch.stack(
        [
            torch.atan2(rotation[:, 1, 2], rotation[:, 2, 2]),
            torch.asin((-rotation[:, 0, 2]).clamp(-1.0, 1.0)),
            torch.atan2(rotation[:, 0, 1], rotation[:, 0, 0]),
        ],
        dim=1,
    )
    pose = torch.cat([euler, translation], dim=1).to(points.dtype)
    return torch.where(usable[:, None], pose, torch.nan)
