"""Gauss-Newton solvers of the 3DMM fit: pose alone, identity shared by frames, smooth frames; pure maths.

All minimise one cost: robust landmark residuals (Geman-McClure by reweighting), a Gaussian prior on the expression
around what is expected, a unit-variance prior on the identity, and second differences over time. Expressions stay
within bounds by freezing a coefficient that leans on its bound (projected Newton).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import LinAlgError, solveh_banded
from torch import Tensor

from data_gen.utils.process_video.fit_residuals import (
    POSE_SIZE,
    SYMMETRIC,
    LandmarkBasis,
    Linearized,
    Observations,
    linearize,
    pixels,
    residual_weights,
    residuals,
)
from modules.structures.cameras import CameraIntrinsics

CHUNK = 32
"""Frames linearised at once (some MB, so that they stay in the cache)."""

_STEP_SIZES = (1.0, 0.5, 0.25, 0.1)


@dataclass(frozen=True, slots=True, eq=False)
class FitTerms:
    """The cost's constants.

    Attributes:
        noise_dm: standard deviation of one landmark of weight 1. robust_dm: residual that counts a quarter.
        gap_weight: weight of a gap vector relative to its points'.
        identity_precision: 1/variance of the identity per solved frame.
        expression_precision: ``[E]`` 1/variance around the expected expression.
        smoothness: ``[P]`` 1/variance of the second difference over time.
        lower, upper: ``[E]`` bounds of the expression.
    """

    noise_dm: float
    robust_dm: float
    gap_weight: float
    identity_precision: float
    expression_precision: Tensor
    smoothness: Tensor
    lower: Tensor
    upper: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Normal:
    """Normal equations of T frames: ``blocks [T, P, P] · step [T, P] = descent``, float64.

    With an identity: ``border [T, P, I]`` couples it to each frame; ``core [I, I]``, ``core_descent [I]`` are its own.
    """

    blocks: Tensor
    descent: Tensor
    border: Tensor
    core: Tensor
    core_descent: Tensor


class LandmarkFit:
    """The cost of one clip: basis, camera and terms; methods are solvers over chosen frames."""

    def __init__(self, basis: LandmarkBasis, camera: CameraIntrinsics, terms: FitTerms) -> None:
        self.basis, self.camera, self.terms = basis, camera, terms

    def fit_pose(self, identity: Tensor, params: Tensor, seen: Observations, iterations: int) -> Tensor:
        """Improve the poses only, each frame for itself: params ``[T, P]`` to ``[T, P]``."""
        neutral = self.basis.neutral(identity)
        params = params.clone()
        for rows in _chunks(len(seen)):
            part, frames = seen.rows(rows), params[rows]
            for _ in range(iterations):
                blocks, descent = _pose_normal(self._linearized(neutral, frames, part))
                step = torch.linalg.solve(blocks + 1e-6 * torch.eye(POSE_SIZE), descent).clamp(-0.5, 0.5)
                tried = torch.cat([frames[:, :POSE_SIZE] + step.to(frames.dtype), frames[:, POSE_SIZE:]], dim=1)
                better = self._data_cost(neutral, tried, part) < self._data_cost(neutral, frames, part)
                frames = torch.where(better[:, None], tried, frames)
            params[rows] = frames
        return params

    def fit_identity(
        self, identity: Tensor, params: Tensor, seen: Observations, iterations: int
    ) -> tuple[Tensor, Tensor]:
        """Solve one identity and all frames' parameters together (frames eliminated by Schur complement).

        Args:
            identity: ``[I]``.
            params: ``[S, P]``.
            seen: the S frames; they are treated as unrelated in time.
            iterations: Gauss-Newton steps at most.

        Returns:
            Identity ``[I]`` and params ``[S, P]``.
        """
        cost = self._identity_cost(identity, params, seen)
        for _ in range(iterations):
            neutral = self.basis.neutral(identity)
            normal = self._normal(neutral, params, seen, with_identity=True)
            frozen = self._leaning(params, normal.descent)
            step_identity, step_params = _solve_arrow(normal, identity, self._identity_precision(seen), frozen)
            for size in _STEP_SIZES:
                tried = identity + size * step_identity, self._bounded(params + size * step_params)
                tried_cost = self._identity_cost(*tried, seen)
                if tried_cost < cost:
                    break
            else:
                return identity, params
            done = bool(cost - tried_cost < 1e-4 * cost)
            (identity, params), cost = tried, tried_cost
            if done:
                break
        return identity, params

    def fit_frames(
        self, identity: Tensor, params: Tensor, seen: Observations, iterations: int, context: int = 0
    ) -> Tensor:
        """Solve consecutive frames together, smooth over time; the first ``context`` frames are held fixed.

        Args:
            identity: ``[I]``.
            params: ``[T, P]`` start.
            seen: the T frames.
            iterations: Gauss-Newton steps at most.
            context: leading frames already solved.

        Returns:
            ``[T, P]``.
        """
        neutral = self.basis.neutral(identity)
        cost = self._frames_cost(neutral, params, seen)
        for _ in range(iterations):
            normal = self._normal(neutral, params, seen, with_identity=False)
            curvature = self._curvature(params, seen.index)
            descent = normal.descent - _second_difference_adjoint(curvature, len(seen))
            frozen = self._leaning(params, descent)
            frozen[:context] = True
            step = _solve_banded(normal.blocks, descent, self.terms.smoothness, _joined(seen.index), frozen)
            for size in _STEP_SIZES:
                tried = self._bounded(params + size * step)
                tried_cost = self._frames_cost(neutral, tried, seen)
                if tried_cost < cost:
                    break
            else:
                return params
            done = bool(cost - tried_cost < 1e-4 * cost)
            params, cost = tried, tried_cost
            if done:
                break
        return params

    def points_px(self, identity: Tensor, params: Tensor) -> Tensor:
        """Projected landmarks of the fitted face: ``[T, K, 2]`` px."""
        return pixels(self.basis.posed(self.basis.neutral(identity), params), self.camera)

    def _weights(self, seen: Observations) -> Tensor:
        return residual_weights(self.basis, seen, self.terms.gap_weight) / self.terms.noise_dm**2

    def _data_cost(self, neutral: Tensor, params: Tensor, seen: Observations) -> Tensor:
        """Geman-McClure cost of each frame, ``[T]``."""
        squared = residuals(self.basis, neutral, params, seen, self.camera).square().sum(dim=-1)
        bend = self.terms.robust_dm**2
        return (self._weights(seen) * squared * bend / (bend + squared)).sum(dim=1)

    def _linearized(self, neutral: Tensor, params: Tensor, seen: Observations) -> Linearized:
        bend = self.terms.robust_dm**2
        error = residuals(self.basis, neutral, params, seen, self.camera)
        robust = (bend / (bend + error.square().sum(dim=-1))).square()
        return linearize(self.basis, neutral, params, error, self._weights(seen) * robust, seen.px_per_dm, self.camera)

    def _normal(self, neutral: Tensor, params: Tensor, seen: Observations, *, with_identity: bool) -> _Normal:
        """Normal equations of data and expression prior."""
        width = self.basis.identity.shape[2] if with_identity else 0
        count = params.shape[1]
        identity = self.basis.identity[..., :width]
        blocks = torch.zeros(len(seen), count, count, dtype=torch.float64)
        descent = torch.zeros(len(seen), count, dtype=torch.float64)
        border = torch.zeros(len(seen), count, width, dtype=torch.float64)
        stiffness, force = torch.zeros(len(identity), 3, 3), torch.zeros(self.basis.n_landmarks, 3)
        for rows in _chunks(len(seen)):
            springs = self._linearized(neutral, params[rows], seen.rows(rows))
            blocks[rows], descent[rows] = _frame_normal(self.basis, springs)
            if with_identity:
                border[rows] = _identity_border(self.basis, springs)
                stiffness += springs.information.sum(dim=0)
                force += springs.force.sum(dim=0)
        precision = self.terms.expression_precision.double()
        diagonal = blocks.diagonal(dim1=1, dim2=2)
        diagonal[:, :POSE_SIZE] += 1e-6
        diagonal[:, POSE_SIZE:] += precision
        descent[:, POSE_SIZE:] -= precision * (params[:, POSE_SIZE:] - seen.expected)
        flat = identity.flatten(0, 1)
        core = (flat.T @ (stiffness @ identity).flatten(0, 1)).double()
        return _Normal(blocks, descent, border, core, -(force.flatten() @ flat[: force.numel()]).double())

    def _leaning(self, params: Tensor, descent: Tensor) -> Tensor:
        """Coefficients at a bound that the descent would push beyond it: bool ``[T, P]``."""
        leaning = torch.zeros_like(params, dtype=torch.bool)
        expression, push = params[:, POSE_SIZE:], descent[:, POSE_SIZE:]
        low, high = expression <= self.terms.lower, expression >= self.terms.upper
        leaning[:, POSE_SIZE:] = (low & (push < 0)) | (high & (push > 0))
        return leaning

    def _bounded(self, params: Tensor) -> Tensor:
        expression = params[:, POSE_SIZE:].clamp(self.terms.lower, self.terms.upper)
        return torch.cat([params[:, :POSE_SIZE], expression], dim=1)

    def _prior_cost(self, params: Tensor, seen: Observations) -> Tensor:
        return (self.terms.expression_precision * (params[:, POSE_SIZE:] - seen.expected).square()).sum()

    def _identity_cost(self, identity: Tensor, params: Tensor, seen: Observations) -> Tensor:
        data = self._data_cost(self.basis.neutral(identity), params, seen).sum()
        return data + self._prior_cost(params, seen) + self._identity_precision(seen) * identity.square().sum()

    def _identity_precision(self, seen: Observations) -> float:
        return self.terms.identity_precision * len(seen)

    def _frames_cost(self, neutral: Tensor, params: Tensor, seen: Observations) -> Tensor:
        bent = _second_difference(params, _joined(seen.index)).square()
        data = self._data_cost(neutral, params, seen).sum()
        return data + self._prior_cost(params, seen) + (self.terms.smoothness * bent).sum()

    def _curvature(self, params: Tensor, index: Tensor) -> Tensor:
        return self.terms.smoothness.double() * _second_difference(params.double(), _joined(index))


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


def _pose_normal(springs: Linearized) -> tuple[Tensor, Tensor]:
    """Blocks ``[T, 6, 6]`` and descent ``[T, 6]`` of the pose alone."""
    motion = springs.motion.flatten(1, 2)
    blocks = motion.mT @ (springs.information @ springs.motion).flatten(1, 2)
    points = springs.force.shape[1] * 3
    return blocks.double(), -(motion[:, :points].mT @ springs.force.flatten(1)[..., None])[..., 0].double()


def _frame_normal(basis: LandmarkBasis, springs: Linearized) -> tuple[Tensor, Tensor]:
    """Blocks ``[T, P, P]`` and descent ``[T, P]`` of pose and expression."""
    frames, units = len(springs.force), basis.expression.shape[2]
    flat = basis.expression.flatten(0, 1)
    blocks = torch.zeros(frames, POSE_SIZE + units, POSE_SIZE + units, dtype=torch.float64)
    blocks[:, :POSE_SIZE, :POSE_SIZE], pose_descent = _pose_normal(springs)
    cross = ((springs.information @ springs.motion).flatten(1, 2).mT @ flat).double()
    blocks[:, :POSE_SIZE, POSE_SIZE:], blocks[:, POSE_SIZE:, :POSE_SIZE] = cross, cross.mT
    entries = torch.stack([springs.information[..., a, b] for a, b in SYMMETRIC], dim=-1)
    upper = (entries.flatten(1) @ basis.products).double()
    first, second = torch.triu_indices(units, units) + POSE_SIZE
    blocks[:, first, second] = upper
    blocks[:, second, first] = upper
    shape_descent = -(springs.force.flatten(1) @ flat[: springs.force.shape[1] * 3]).double()
    return blocks, torch.cat([pose_descent, shape_descent], dim=1)


def _identity_border(basis: LandmarkBasis, springs: Linearized) -> Tensor:
    """``[T, P, I]`` coupling of each frame's parameters to the identity."""
    stiff = (springs.information @ basis.identity).flatten(1, 2)
    pose = springs.motion.flatten(1, 2).mT @ stiff
    return torch.cat([pose, basis.expression.flatten(0, 1).T @ stiff], dim=1).double()


def _joined(index: Tensor) -> Tensor:
    """Triples of frames that follow one another without a gap: bool ``[T - 2]`` (empty below three frames)."""
    return (index[2:] - index[:-2]) == 2


def _second_difference(params: Tensor, joined: Tensor) -> Tensor:
    """``[T - 2, P]``, zero across gaps."""
    if len(params) < 3:
        return params.new_zeros(0, params.shape[1])
    return (params[:-2] - 2 * params[1:-1] + params[2:]) * joined[:, None]


def _second_difference_adjoint(bent: Tensor, frames: int) -> Tensor:
    """Transpose of ``_second_difference``: ``[T - 2, P]`` (empty below three frames) to ``[T, P]``."""
    spread = bent.new_zeros(frames, bent.shape[1])
    if len(bent):
        spread[:-2] += bent
        spread[1:-1] -= 2 * bent
        spread[2:] += bent
    return spread


def _solve_arrow(normal: _Normal, identity: Tensor, precision: float, frozen: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of the identity ``[I]``, which a prior of ``precision`` pulls to 0, and of the frames ``[S, P]``."""
    free = (~frozen).double()
    blocks = normal.blocks * free[:, :, None] * free[:, None, :] + torch.diag_embed(1 - free)
    border = normal.border * free[:, :, None]
    right = torch.cat([border, (normal.descent * free)[..., None]], dim=2)
    solved = torch.linalg.solve(blocks, right)
    core = (
        normal.core
        + precision * torch.eye(len(identity), dtype=torch.float64)
        - (border.mT @ solved[..., :-1]).sum(dim=0)
    )
    descent = normal.core_descent - precision * identity - (border.mT @ solved[..., -1:]).sum(dim=0)[:, 0]
    step_identity = torch.linalg.solve(core, descent)
    step_params = (solved[..., -1] - solved[..., :-1] @ step_identity) * free
    return step_identity.to(identity.dtype), step_params.to(identity.dtype)


def _solve_banded(blocks: Tensor, descent: Tensor, smoothness: Tensor, joined: Tensor, frozen: Tensor) -> Tensor:
    """Step ``[T, P]`` of block-diagonal curvature plus diagonal second differences, by banded Cholesky.

    The parameters of a frame stand together, so the band is two frames wide; cost and memory grow linearly with T.
    """
    frames, count = frozen.shape
    free = (~frozen).double().numpy()
    band = np.zeros((2 * count + 1, frames * count))
    dense = blocks.numpy() * free[:, :, None] * free[:, None, :]
    for offset in range(count):
        band[offset].reshape(frames, count)[:, : count - offset] = np.diagonal(dense, -offset, axis1=1, axis2=2)
    for offset, coupling in enumerate(_smoothness_bands(frames, joined.double().numpy())):
        coupled = free[: frames - offset] * free[offset:] * coupling[:, None] * smoothness.double().numpy()
        band[offset * count, : coupled.size] += coupled.ravel()
    band[0] += (1 - free).ravel() + 1e-9
    try:
        step = solveh_banded(band, (descent.numpy() * free).ravel(), lower=True, overwrite_ab=True, check_finite=False)
    except LinAlgError:
        return torch.zeros_like(descent).to(smoothness.dtype)
    return torch.from_numpy(step.reshape(frames, count)).to(smoothness.dtype)


def _smoothness_bands(frames: int, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three diagonals of DᵀD, D the second differences that ``joined`` switches on."""
    centre, near, far = np.zeros(frames), np.zeros(max(frames - 1, 0)), np.zeros(max(frames - 2, 0))
    if frames >= 3:
        for shift, value in enumerate((1.0, 4.0, 1.0)):
            centre[shift : shift + frames - 2] += value * joined
        near[:-1] -= 2 * joined
        near[1:] -= 2 * joined
        far += joined
    return centre, near, far
