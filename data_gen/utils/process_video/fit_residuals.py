"""Landmark residuals of the 3DMM fit and their analytic derivatives; pure maths on tensors.

Residuals are in decimetres at the head (pixels divided by the frame's pixels per dm), so the same noise level and the
same priors hold for a 60 px face and a 4K one. A frame's parameters are one row
``[euler 3, translation 3, expression E]``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_gen.utils.process_video.fit_visibility import outward_normals
from modules.face_model.fitting import LandmarkRows, OutlineSlide
from modules.face_model.projection import rotation_from_euler
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.landmarks import FACE_OVAL

POSE_SIZE = 6
"""Parameters before the expression: three angles, three translations."""

SYMMETRIC = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Entries of a symmetric 3 × 3 matrix, in the order of ``LandmarkBasis.products``."""


def corrected_rows(rows: LandmarkRows, correction: Tensor) -> LandmarkRows:
    """Rows of a person whose expression units bring along some identity: ``correction`` ``[I, E]``."""
    return replace(rows, expression=rows.expression + rows.identity @ correction)


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkBasis:
    """The face model seen only at its landmarks.

    Attributes:
        mean: ``[K, 3]`` dm. identity: ``[K, 3, I]``. expression: ``[K, 3, E]``.
        slide: how the points ``oval`` ``[36]`` move with yaw.
        weights: ``[K]``, 0 where the model has no counterpart of a point.
        normals: ``[K, 3]`` outward directions of the skin; zero on the outline, which always faces sideways.
        upper, lower: ``[G]`` rows of point pairs whose difference, a gap, is observed as well.
        products: ``[K·6 + G·9, E(E+1)/2]`` products of two expression columns: at each point for the six entries of a
            symmetric 3 × 3 matrix, at each gap for the nine of the matrix that couples its ends; upper triangle of an
            E × E matrix.
    """

    mean: Tensor
    identity: Tensor
    expression: Tensor
    slide: OutlineSlide
    oval: Tensor
    weights: Tensor
    normals: Tensor
    upper: Tensor
    lower: Tensor
    products: Tensor

    @classmethod
    def of(cls, rows: LandmarkRows, gaps: tuple[tuple[int, int], ...], dtype: torch.dtype) -> LandmarkBasis:
        """The rows with what follows from them, on their device."""
        device, expression = rows.mean.device, rows.expression.to(dtype)
        upper, lower = torch.as_tensor(gaps, dtype=torch.int64, device=device).reshape(-1, 2).unbind(dim=1)
        return cls(
            mean=rows.mean.to(dtype),
            identity=rows.identity.to(dtype),
            expression=expression,
            slide=OutlineSlide(rows.slide.yaw_rad.to(dtype), rows.slide.move.to(dtype)),
            oval=torch.as_tensor(FACE_OVAL, device=device),
            weights=rows.weights.to(dtype),
            normals=outward_normals(rows).to(dtype),
            upper=upper,
            lower=lower,
            products=torch.cat([_pair_products(expression), _cross_products(expression[upper], expression[lower])]),
        )

    def neutral(self, identity: Tensor) -> Tensor:
        """Landmarks of a person at rest: identity ``[I]`` to ``[K, 3]`` dm."""
        return self.mean + self.identity @ identity

    def deformed(self, neutral: Tensor, params: Tensor) -> Tensor:
        """Landmarks in head space: neutral ``[K, 3]`` and params ``[T, P]`` to ``[T, K, 3]`` dm."""
        flat = self.expression.flatten(0, 1)
        head = neutral + (params[:, POSE_SIZE:] @ flat.T).unflatten(1, (-1, 3))
        if len(self.slide.yaw_rad) > 1:
            head[:, self.oval] += self.slide.at(params[:, 1])
        return head

    def posed(self, neutral: Tensor, params: Tensor) -> Tensor:
        """Landmarks in camera axes: neutral ``[K, 3]`` and params ``[T, P]`` to ``[T, K, 3]`` dm."""
        head = self.deformed(neutral, params)
        return head @ rotation_from_euler(params[:, :3]) + params[:, None, 3:POSE_SIZE]

    def with_gaps(self, rows: Tensor) -> Tensor:
        """Append upper - lower of each pair: ``[T, K, ...]`` to ``[T, K + G, ...]``."""
        return torch.cat([rows, rows[:, self.upper] - rows[:, self.lower]], dim=1)


def _pair_products(basis: Tensor) -> Tensor:
    """``[N, 3, E]`` to ``[N·6, E(E+1)/2]``, see ``LandmarkBasis.products``."""
    first, second = torch.triu_indices(basis.shape[2], basis.shape[2], device=basis.device)
    entries = []
    for a, b in SYMMETRIC:
        product = basis[:, a, first] * basis[:, b, second]
        entries.append(product if a == b else product + basis[:, b, first] * basis[:, a, second])
    return torch.stack(entries, dim=1).flatten(0, 1)


def _cross_products(one: Tensor, other: Tensor) -> Tensor:
    """Two times ``[G, 3, E]`` to ``[G·9, E(E+1)/2]``: ``oneᵀ C other`` and its transpose, entry by entry of C."""
    first, second = torch.triu_indices(one.shape[2], one.shape[2], device=one.device)
    entries = [
        one[:, a, first] * other[:, b, second] + one[:, a, second] * other[:, b, first]
        for a in range(3)
        for b in range(3)
    ]
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


def residuals(basis: LandmarkBasis, posed: Tensor, seen: Observations, camera: CameraIntrinsics) -> Tensor:
    """Model minus track, dm: ``[T, K + G, 2]``; the last G rows are the gap vectors."""
    error = (pixels(posed, camera) - seen.points) / seen.px_per_dm[:, None, None]
    return basis.with_gaps(error)


def residual_weights(basis: LandmarkBasis, weights: Tensor, gap_weight: float) -> Tensor:
    """Weights of ``residuals``' rows: ``[T, K]`` to ``[T, K + G]``; a gap counts no more than its less visible end."""
    gaps = torch.minimum(weights[:, basis.upper], weights[:, basis.lower])
    return torch.cat([weights, gap_weight * gaps], dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Linearized:
    """The weighted residuals to first order, as springs on points in head space.

    C motions of a frame are looked at: its pose, and the focal length when that is wanted (C = 7).

    Attributes:
        stiffness: ``[T, K, 3, 3]`` of each point. coupling: ``[T, G, 3, 3]`` of a gap's upper end to its lower one.
        force: ``[T, K, 3]`` gradient of the cost (half of it) with respect to each point.
        push: ``[T, C, K, 3]`` change of the force on each point with each motion.
        motion_blocks: ``[T, C, C]`` curvature, and motion_force ``[T, C]`` gradient, of the motions.
    """

    stiffness: Tensor
    coupling: Tensor
    force: Tensor
    push: Tensor
    motion_blocks: Tensor
    motion_force: Tensor


def linearize(
    basis: LandmarkBasis,
    params: Tensor,
    posed: Tensor,
    error: Tensor,
    weights: Tensor,
    px_per_dm: Tensor,
    camera: CameraIntrinsics,
    *,
    with_focal: bool = False,
) -> Linearized:
    """Springs of the residuals ``error`` ``[T, K + G, 2]`` of ``posed`` with ``weights`` ``[T, K + G]``."""
    count = posed.shape[1]
    view, jacobian = _derivatives(params, posed, px_per_dm, camera, with_focal=with_focal)
    gap_jacobian = jacobian[:, basis.upper] - jacobian[:, basis.lower]
    loaded = weights[..., None] * error
    stiff = weights[:, :count, None, None] * view
    gap_view = weights[:, count:, None, None] * view[:, basis.upper]
    lower_view = view[:, basis.lower]
    stiffness = _outer(stiff, view)
    stiffness[:, basis.upper] += _outer(gap_view, view[:, basis.upper])
    stiffness[:, basis.lower] += _outer(weights[:, count:, None, None] * lower_view, lower_view)
    force = _pulled(view, loaded[:, :count])
    force[:, basis.upper] += _pulled(view[:, basis.upper], loaded[:, count:])
    force[:, basis.lower] -= _pulled(lower_view, loaded[:, count:])
    push = _outer(jacobian, stiff)
    push[:, basis.upper] += _outer(gap_jacobian, gap_view)
    push[:, basis.lower] -= _outer(gap_jacobian, weights[:, count:, None, None] * lower_view)
    whole = torch.cat([jacobian, gap_jacobian], dim=1)
    flat = whole.flatten(1, 2)
    return Linearized(
        stiffness=stiffness,
        coupling=-_outer(gap_view, lower_view),
        force=force,
        push=push.transpose(1, 2),
        motion_blocks=flat.mT @ (weights[..., None, None] * whole).flatten(1, 2),
        motion_force=(loaded.flatten(1)[:, None] @ flat)[:, 0],
    )


def _outer(one: Tensor, other: Tensor) -> Tensor:
    """Sum over the two image axes: ``[..., 2, A]`` and ``[..., 2, B]`` to ``[..., A, B]``."""
    return one[..., 0, :, None] * other[..., 0, None, :] + one[..., 1, :, None] * other[..., 1, None, :]


def _pulled(view: Tensor, loaded: Tensor) -> Tensor:
    """``[..., 2, 3]`` and ``[..., 2]`` to ``[..., 3]``."""
    return view[..., 0, :] * loaded[..., 0, None] + view[..., 1, :] * loaded[..., 1, None]


def _derivatives(
    params: Tensor, posed: Tensor, px_per_dm: Tensor, camera: CameraIntrinsics, *, with_focal: bool
) -> tuple[Tensor, Tensor]:
    """d(residual) / d(point in head space) ``[T, K, 2, 3]`` and / d(motion) ``[T, K, 2, C]``."""
    rotation = rotation_from_euler(params[:, :3])[:, None]  # [T, 1, 3, 3], columns are camera axes
    x, y, z = posed.unbind(-1)
    depth = CAMERA_DISTANCE - z
    across, down = camera.fx / (depth * px_per_dm[:, None]), -camera.fy / (depth * px_per_dm[:, None])
    along_x, along_y = x / depth, y / depth
    view = torch.stack(
        [
            across[..., None] * (rotation[..., 0] + along_x[..., None] * rotation[..., 2]),
            down[..., None] * (rotation[..., 1] + along_y[..., None] * rotation[..., 2]),
        ],
        dim=-2,
    )
    arm_x, arm_y, arm_z = (posed - params[:, None, 3:POSE_SIZE]).unbind(-1)
    zero, deeper_x, deeper_y = torch.zeros_like(depth), across * along_x, down * along_y
    torque = torch.stack(
        [
            torch.stack([arm_y * deeper_x, arm_z * across - arm_x * deeper_x, -arm_y * across], dim=-1),
            torch.stack([arm_y * deeper_y - arm_z * down, -arm_x * deeper_y, arm_x * down], dim=-1),
        ],
        dim=-2,
    )
    axes = torch.stack(_euler_axes(params), dim=-1)  # [T, 3, 3], columns
    turned = (torque.flatten(1, 2) @ axes).unflatten(1, (-1, 2))
    moved = torch.stack(
        [torch.stack([across, zero, deeper_x], dim=-1), torch.stack([zero, down, deeper_y], dim=-1)], dim=-2
    )
    columns = [turned, moved]
    if with_focal:
        nearer = 1 - (CAMERA_DISTANCE - params[:, None, 5]) / depth
        columns.append(torch.stack([across * x * nearer, down * y * nearer], dim=-1)[..., None])
    return view, torch.cat(columns, dim=-1)


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
