"""Gauss-Newton solvers of the 3DMM fit: pose alone, identity shared by frames, smooth frames; pure maths.

All minimise one cost: robust landmark residuals (Geman-McClure by reweighting), a Gaussian prior on the expression
around what is expected, a unit-variance prior on the identity, and second differences over time. Expressions stay
within bounds by freezing a coefficient that leans on its bound (projected Newton).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from data_gen.utils.process_video.fit_linear import (
    NormalEquations,
    bending,
    joined_triples,
    pose_normal,
    second_difference,
    solve_arrow,
    solve_smooth,
)
from data_gen.utils.process_video.fit_residuals import (
    POSE_SIZE,
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
_SMALL_GAIN = 1e-3
_BOUND_PASSES = 3

_Cost = Callable[[Tensor, Tensor], Tensor]
_Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
_Solve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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


class LandmarkFit:
    """The cost of one clip: basis, camera and terms; methods are solvers over chosen frames."""

    def __init__(self, basis: LandmarkBasis, camera: CameraIntrinsics, terms: FitTerms) -> None:
        self.basis, self.camera, self.terms = basis, camera, terms

    def fit_pose(self, identity: Tensor, params: Tensor, seen: Observations, iterations: int) -> Tensor:
        """Improve the poses only, each frame for itself: params ``[T, P]`` to ``[T, P]``."""
        neutral = self.basis.neutral(identity)
        params = params.clone()
        for rows in frame_chunks(len(seen)):
            part, frames = seen.rows(rows), params[rows]
            for _ in range(iterations):
                blocks, descent = pose_normal(self._linearized(neutral, frames, part))
                step = torch.linalg.solve(blocks.double() + 1e-6 * torch.eye(POSE_SIZE), descent.double()).clamp(
                    -0.5, 0.5
                )
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
        precision = self.terms.identity_precision * len(seen)

        def cost(identity: Tensor, params: Tensor) -> Tensor:
            return self._cost(identity, params, seen) + precision * identity.square().sum()

        def step(identity: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
            normal = self._normal(identity, params, seen, with_identity=True)
            core = normal.core + precision * torch.eye(len(identity), dtype=torch.float64)
            normal = replace(normal, core=core, core_descent=normal.core_descent - precision * identity)
            return self._within_bounds(partial(solve_arrow, normal), params, self._leaning(params, normal.descent))

        return self._descend(identity, params, iterations, cost, step)

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
        smoothness, joined = self.terms.smoothness, joined_triples(seen.index)

        def cost(identity: Tensor, params: Tensor) -> Tensor:
            bent = (smoothness * second_difference(params, joined).square()).sum()
            return self._cost(identity, params, seen) + bent

        def step(identity: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
            normal = self._normal(identity, params, seen, with_identity=False)
            smooth = bending(params.double(), smoothness.double(), joined)
            normal = replace(normal, descent=normal.descent - smooth)
            held = self._leaning(params, normal.descent)
            held[:context] = True
            return self._within_bounds(partial(solve_smooth, normal, smoothness, joined), params, held)

        return self._descend(identity, params, iterations, cost, step)[1]

    def points_px(self, identity: Tensor, params: Tensor) -> Tensor:
        """Projected landmarks of the fitted face: ``[T, K, 2]`` px."""
        return pixels(self.basis.posed(self.basis.neutral(identity), params), self.camera)

    def _descend(
        self, identity: Tensor, params: Tensor, iterations: int, cost_of: _Cost, step_of: _Step
    ) -> tuple[Tensor, Tensor]:
        """Gauss-Newton with a shrinking step; ends when a step gains little or no step gains."""
        cost = cost_of(identity, params)
        for _ in range(iterations):
            step_identity, step_params = step_of(identity, params)
            for size in _STEP_SIZES:
                tried = identity + size * step_identity, self._bounded(params + size * step_params)
                tried_cost = cost_of(*tried)
                if tried_cost < cost:
                    break
            else:
                break
            gain = (cost - tried_cost) / cost
            (identity, params), cost = tried, tried_cost
            if gain < _SMALL_GAIN:
                break
        return identity, params

    def _within_bounds(self, solve: _Solve, params: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """Step of a bounded problem: what would cross a bound is held there and the rest solved again."""
        given = torch.zeros(params.shape, dtype=torch.float64)
        step_identity, step = solve(held, given)
        for _ in range(_BOUND_PASSES):
            reached = params + step
            at_bound = self._bounded(reached)
            beyond = (at_bound != reached) & ~held
            if not beyond.any():
                break
            held = held | beyond
            given = torch.where(beyond, at_bound - params, given)
            step_identity, step = solve(held, given)
        return step_identity.to(params.dtype), step.to(params.dtype)

    def _weights(self, seen: Observations) -> Tensor:
        return residual_weights(self.basis, seen, self.terms.gap_weight) / self.terms.noise_dm**2

    def _data_cost(self, neutral: Tensor, params: Tensor, seen: Observations) -> Tensor:
        """Geman-McClure cost of each frame, ``[T]``."""
        squared = residuals(self.basis, neutral, params, seen, self.camera).square().sum(dim=-1)
        bend = self.terms.robust_dm**2
        return (self._weights(seen) * squared * bend / (bend + squared)).sum(dim=1)

    def _cost(self, identity: Tensor, params: Tensor, seen: Observations) -> Tensor:
        """Landmarks and the expression's prior."""
        prior = self.terms.expression_precision * (params[:, POSE_SIZE:] - seen.expected).square()
        return self._data_cost(self.basis.neutral(identity), params, seen).double().sum() + prior.double().sum()

    def _linearized(self, neutral: Tensor, params: Tensor, seen: Observations) -> Linearized:
        bend = self.terms.robust_dm**2
        error = residuals(self.basis, neutral, params, seen, self.camera)
        robust = (bend / (bend + error.square().sum(dim=-1))).square()
        return linearize(self.basis, neutral, params, error, self._weights(seen) * robust, seen.px_per_dm, self.camera)

    def _normal(self, identity: Tensor, params: Tensor, seen: Observations, *, with_identity: bool) -> NormalEquations:
        """Normal equations of landmarks and expression prior."""
        neutral = self.basis.neutral(identity)
        parts = []
        for rows in frame_chunks(len(seen)):
            springs = self._linearized(neutral, params[rows], seen.rows(rows))
            parts.append(NormalEquations.of(self.basis, springs, with_identity=with_identity))
        normal = NormalEquations.concatenated(parts)
        precision = self.terms.expression_precision.double()
        diagonal = normal.blocks.diagonal(dim1=1, dim2=2)
        diagonal[:, :POSE_SIZE] += 1e-6
        diagonal[:, POSE_SIZE:] += precision
        normal.descent[:, POSE_SIZE:] -= precision * (params[:, POSE_SIZE:] - seen.expected)
        return normal

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


def frame_chunks(count: int) -> Iterator[slice]:
    """Slices of at most ``CHUNK`` frames."""
    return (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))
