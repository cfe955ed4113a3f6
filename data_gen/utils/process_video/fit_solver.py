"""Gauss-Newton solvers of the 3DMM fit: what frames share, and all frames of a clip; pure maths.

Both minimise one cost: robust landmark residuals (Geman-McClure by reweighting), a Gaussian prior on the expression
around what is expected, soft bounds, a unit-variance prior on the identity, and second differences over time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from data_gen.utils.process_video.fit_config import FitTerms
from data_gen.utils.process_video.fit_linear import (
    NormalEquations,
    PoseEquations,
    bending,
    bending_bound,
    eliminate_expression,
    joined_triples,
    second_difference,
    smooth_columns,
    solve_arrow,
    solve_smooth,
)
from data_gen.utils.process_video.fit_residuals import (
    POSE_SIZE,
    LandmarkBasis,
    Observations,
    linearize,
    pixels,
    residual_weights,
    residuals,
)
from data_gen.utils.process_video.fit_visibility import facing
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics

_BOUND_PASSES = 3
_STEP_SIZES = (1.0, 0.5, 0.25, 0.1)
_SMALL_GAIN = 1e-3
_WORSE, _RETREAT = 1.2, 0.25
_MOST_TURN, _MOST_APPROACH = 0.5, 0.5
_MOST_ZOOM = 0.3
_FLOOR = 1e-6


class Clip(Protocol):
    """Frames that are looked at a few at a time."""

    @property
    def index(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def rows(self, rows: Tensor | slice) -> Observations: ...


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """A Gaussian on the expression: precision ``[T, E]`` or ``[E]`` around centre ``[T, E]``."""

    precision: Tensor
    centre: Tensor

    def rows(self, rows: slice) -> Pull:
        return Pull(self.precision[rows], self.centre[rows])

    def cost(self, expression: Tensor) -> Tensor:
        return (self.precision * (expression - self.centre).square()).sum(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What frames share, and their parameters: identity ``[I]``, camera, params ``[S, P]``."""

    identity: Tensor
    camera: CameraIntrinsics
    params: Tensor


class LandmarkFit:
    """The cost of one clip: basis, camera and terms; methods are solvers over chosen frames."""

    def __init__(self, basis: LandmarkBasis, camera: CameraIntrinsics, terms: FitTerms) -> None:
        self.basis, self.camera, self.terms = basis, camera, terms

    @property
    def chunk(self) -> int:
        """Frames linearised at once: some MB, so that they stay in a CPU's cache, or enough to fill a GPU."""
        return 128 if self.basis.mean.device.type == "cpu" else 2048

    def with_camera(self, camera: CameraIntrinsics) -> LandmarkFit:
        return LandmarkFit(self.basis, camera, self.terms)

    def points_px(self, identity: Tensor, params: Tensor) -> Tensor:
        """Projected landmarks of the fitted face: ``[T, K, 2]`` px."""
        return pixels(self.basis.posed(self.basis.neutral(identity), params), self.camera)

    def fit_shared(
        self,
        identity: Tensor,
        params: Tensor,
        seen: Observations,
        iterations: int,
        *,
        focal_range: tuple[float, float] | None = None,
    ) -> Shared:
        """Solve one identity, the focal length when it is free, and all frames' parameters together.

        Args:
            identity: ``[I]``.
            params: ``[S, P]``.
            seen: the S frames; they are treated as unrelated in time.
            iterations: Gauss-Newton steps at most.
            focal_range: also solve the focal length, around the camera's and within these px; None = it is known.
        """
        usual, state = self.camera.fx, Shared(identity, self.camera, params)
        cost = self._shared_cost(state, seen, usual)
        for _ in range(iterations):
            step, step_params = self._shared_step(state, seen, usual, free_focal=focal_range is not None)
            for size in _STEP_SIZES:
                tried = _moved(state, size * step, size * step_params, focal_range)
                tried_cost = self._shared_cost(tried, seen, usual)
                if tried_cost < cost:
                    break
            else:
                break
            gain = (cost - tried_cost) / cost
            state, cost = tried, tried_cost
            if gain < _SMALL_GAIN:
                break
        return state

    def fit_frames(self, identity: Tensor, params: Tensor, clip: Clip, iterations: int) -> Tensor:
        """Solve all frames of a clip, poses smooth over time: start ``[T, P]`` to ``[T, P]``.

        A frame that a step made worse goes back most of the way and is held while the others move on.
        """
        neutral, joined = self.basis.neutral(identity), joined_triples(clip.index)
        smoothness = params.new_full((POSE_SIZE,), self.terms.pose_smoothness).double()
        kept, kept_cost = params, params.new_full((len(params),), torch.inf)
        for round_ in range(iterations):
            pull = self._smooth_pull(params, joined) if round_ > 0 else None
            poses, cost = self._pose_equations(neutral, params, clip, pull)
            good = (cost <= _WORSE * kept_cost + 1.0) & poses.sound
            kept = torch.where(good[:, None], params, kept)
            kept_cost = torch.where(good, cost, kept_cost)
            held = torch.eye(POSE_SIZE).to(poses.blocks) / _FLOOR
            blocks = torch.where(good[:, None, None], poses.blocks, held).double()
            descent = poses.descent.double() - bending(params[:, :POSE_SIZE].double(), smoothness, joined)
            descent = torch.where(good[:, None], descent, 0.0)
            step = self._gentle(solve_smooth(blocks, descent, smoothness, joined).to(params), params)
            step = torch.cat([step, poses.expression_step(step)], dim=1)
            params = torch.where(good[:, None], params + step, kept + _RETREAT * (params - kept))
            if round_ == 0 and bool(good.any()):  # where no frame could be solved there is nothing to smooth
                params = self._smoothed(params, poses.precision[good].median(dim=0).values, joined)
        cost = self._frame_costs(neutral, params, clip)
        return torch.where((cost <= _WORSE * kept_cost + 1.0)[:, None], params, kept)

    def chunks(self, count: int) -> Iterator[slice]:
        """Slices of at most ``chunk`` frames."""
        return (slice(start, min(start + self.chunk, count)) for start in range(0, count, self.chunk))

    def _smoothed(self, params: Tensor, precision: Tensor, joined: Tensor) -> Tensor:
        """Params with each expression unit smoothed by itself, as if every frame knew it with ``precision`` ``[E]``."""
        expression = params[:, POSE_SIZE:]
        expression = smooth_columns(expression, self._stiffness(expression, joined) / precision)
        return torch.cat([params[:, :POSE_SIZE], expression], dim=1)

    def _stiffness(self, expression: Tensor, joined: Tensor) -> Tensor:
        """Weight ``[T - 2, E]`` of each second difference: sudden ones, as of a blink, are meant."""
        bend = self.terms.sudden.square()
        share = bend / (bend + second_difference(expression, joined).square())
        return self.terms.unit_smoothness * share.square() * joined[:, None]

    def _smooth_pull(self, params: Tensor, joined: Tensor) -> Pull:
        """The expression's second differences as a Gaussian on each frame by itself.

        It bounds their cost from above and touches it at the present expression, so that steps with it lead to the
        solution with the second differences themselves.
        """
        expression = params[:, POSE_SIZE:]
        stiffness = self._stiffness(expression, joined)
        bound = bending_bound(stiffness, len(expression))
        bent = bending(expression, stiffness, joined)
        return Pull(bound, expression - bent / bound.clamp_min(_FLOOR))

    def _pose_equations(
        self, neutral: Tensor, params: Tensor, clip: Clip, pull: Pull | None
    ) -> tuple[PoseEquations, Tensor]:
        """All frames' equations with the expressions eliminated, and each frame's cost ``[T]``."""
        parts, costs = [], []
        for rows in self.chunks(len(clip)):
            seen, frames = clip.rows(rows), params[rows]
            prior = Pull(self.terms.expression_precision, seen.expected)
            normal, cost = self._normal(neutral, frames, seen, prior)
            if pull is not None:
                _add_pull(normal, frames, pull.rows(rows))
            parts.append(eliminate_expression(self._bounded(normal, frames)))
            costs.append(cost)
        return _concatenated(parts), torch.cat(costs)

    def _normal(
        self,
        neutral: Tensor,
        params: Tensor,
        seen: Observations,
        prior: Pull,
        *,
        shared: bool = False,
        focal: bool = False,
    ) -> tuple[NormalEquations, Tensor]:
        """Normal equations of landmarks and expression prior, and the frames' costs ``[T]``."""
        posed = self.basis.posed(neutral, params)
        error = residuals(self.basis, posed, seen, self.camera)
        weights, squared, bend = self._weights(params, seen), error.square().sum(dim=-1), self.terms.robust_dm**2
        share = bend / (bend + squared)
        cost = (weights * squared * share).sum(dim=1) + self._prior_cost(params, prior)
        springs = linearize(
            self.basis, params, posed, error, weights * share.square(), seen.px_per_dm, self.camera, with_focal=focal
        )
        normal = NormalEquations.of(self.basis, springs, with_identity=shared)
        normal.blocks.diagonal(dim1=1, dim2=2)[:, :POSE_SIZE] += _FLOOR
        _add_pull(normal, params, prior)
        return normal, cost + self._add_touch(normal, neutral, params, seen)

    def _add_touch(self, normal: NormalEquations, neutral: Tensor, params: Tensor, seen: Observations) -> Tensor:
        """Add the depth of the lips' gap to frames' equations; its cost ``[T]``."""
        slope, precision = self._depth_slope(), self._touch_precision(seen)
        pull = precision * self._depth_gap(neutral, params)
        normal.blocks[:, POSE_SIZE:, POSE_SIZE:] += (slope.T * precision[:, None]) @ slope
        normal.descent[:, POSE_SIZE:] -= pull @ slope
        return (pull * self._depth_gap(neutral, params)).sum(dim=1)

    def _depth_slope(self) -> Tensor:
        """How the depth between facing points of the lips' inner rims grows with the expression, ``[G, E]``."""
        return self.basis.expression[self.basis.upper, 2] - self.basis.expression[self.basis.lower, 2]

    def _depth_gap(self, neutral: Tensor, params: Tensor) -> Tensor:
        """Depth between facing points of the lips' inner rims, head space: ``[T, G]`` dm."""
        at_rest = neutral[self.basis.upper, 2] - neutral[self.basis.lower, 2]
        return at_rest + params[:, POSE_SIZE:] @ self._depth_slope().T

    def _touch_precision(self, seen: Observations) -> Tensor:
        """1/variance of ``_depth_gap``, ``[T, G]``: lips that meet in the picture meet in depth."""
        gap = (seen.points[:, self.basis.upper] - seen.points[:, self.basis.lower]).norm(dim=-1)
        return (self.terms.touch_dm + 0.5 * gap / seen.px_per_dm[:, None]) ** -2

    def _bounded(self, normal: NormalEquations, params: Tensor) -> NormalEquations:
        """Equations in which units that end beyond a bound are pulled back to it."""
        expression, terms = params[:, POSE_SIZE:], self.terms
        bounded = normal
        for _ in range(_BOUND_PASSES):
            factor, info = torch.linalg.cholesky_ex(bounded.blocks)
            step = torch.cholesky_solve(bounded.descent[..., None], factor)[:, POSE_SIZE:, 0]
            reached = torch.where((info == 0)[:, None], expression + step, expression)
            bound = reached.clamp(terms.lower, terms.upper)
            precision = terms.bound_precision * (reached != bound)
            blocks, descent = normal.blocks.clone(), normal.descent.clone()
            blocks.diagonal(dim1=1, dim2=2)[:, POSE_SIZE:] += precision
            descent[:, POSE_SIZE:] -= precision * (expression - bound)
            bounded = replace(normal, blocks=blocks, descent=descent)
        return bounded

    def _shared_step(
        self, state: Shared, seen: Observations, usual: float, *, free_focal: bool
    ) -> tuple[Tensor, Tensor]:
        fit, neutral = self.with_camera(state.camera), self.basis.neutral(state.identity)
        parts = []
        for rows in self.chunks(len(seen)):
            part, frames = seen.rows(rows), state.params[rows]
            prior = Pull(self.terms.expression_precision, part.expected)
            normal, _ = fit._normal(neutral, frames, part, prior, shared=True, focal=free_focal)
            parts.append(self._bounded(normal, frames))
        normal = NormalEquations.concatenated(parts)
        precision, values = self._shared_prior(state, usual, len(seen))
        if not free_focal:
            precision, values = precision[:-1], values[:-1]
        return solve_arrow(
            NormalEquations(
                normal.blocks.double(),
                normal.descent.double(),
                normal.border.double(),
                normal.core.double() + torch.diag(precision),
                normal.core_descent.double() - precision * values,
            )
        )

    def _shared_prior(self, state: Shared, usual: float, frames: int) -> tuple[Tensor, Tensor]:
        """Precision and deviation of identity and focal length, ``[I + 1]``."""
        values = torch.cat(
            [state.identity.double(), state.identity.new_tensor([state.camera.fx / usual]).double().log()]
        )
        precision = torch.full_like(values, self.terms.identity_precision * frames)
        precision[-1] = self.terms.focal_precision
        return precision, values

    def _shared_cost(self, state: Shared, seen: Observations, usual: float) -> float:
        precision, values = self._shared_prior(state, usual, len(seen))
        fit, neutral = self.with_camera(state.camera), self.basis.neutral(state.identity)
        costs = fit._frame_costs(neutral, state.params, seen).double().sum()
        return float(costs + (precision * values.square()).sum())

    def _frame_costs(self, neutral: Tensor, params: Tensor, clip: Clip | Observations) -> Tensor:
        """Cost of each frame, ``[T]``, without what couples frames."""
        costs, bend = [], self.terms.robust_dm**2
        for rows in self.chunks(len(clip)):
            seen, frames = clip.rows(rows), params[rows]
            squared = residuals(self.basis, self.basis.posed(neutral, frames), seen, self.camera).square().sum(dim=-1)
            data = (self._weights(frames, seen) * squared * bend / (bend + squared)).sum(dim=1)
            touch = (self._touch_precision(seen) * self._depth_gap(neutral, frames).square()).sum(dim=1)
            costs.append(data + touch + self._prior_cost(frames, Pull(self.terms.expression_precision, seen.expected)))
        return torch.cat(costs)

    def _prior_cost(self, params: Tensor, prior: Pull) -> Tensor:
        expression = params[:, POSE_SIZE:]
        beyond = expression - expression.clamp(self.terms.lower, self.terms.upper)
        return prior.cost(expression) + self.terms.bound_precision * beyond.square().sum(dim=1)

    def _weights(self, params: Tensor, seen: Observations) -> Tensor:
        """Weights of the residuals before they are made robust: ``[T, K + G]``."""
        weights = seen.weights * facing(self.basis.normals, params, self.terms.turned_weight)
        return residual_weights(self.basis, weights, self.terms.gap_weight) / self.terms.noise_dm**2

    def _gentle(self, step: Tensor, params: Tensor) -> Tensor:
        """Pose step ``[T, 6]`` that neither spins the head nor carries it to the camera."""
        depth = (CAMERA_DISTANCE - params[:, 5]).abs()
        shift = torch.minimum(torch.maximum(step[:, 3:], -depth[:, None]), _MOST_APPROACH * depth[:, None])
        return torch.cat([step[:, :3].clamp(-_MOST_TURN, _MOST_TURN), shift], dim=1)


def _add_pull(normal: NormalEquations, params: Tensor, pull: Pull) -> None:
    normal.blocks.diagonal(dim1=1, dim2=2)[:, POSE_SIZE:] += pull.precision
    normal.descent[:, POSE_SIZE:] -= pull.precision * (params[:, POSE_SIZE:] - pull.centre)


def _moved(state: Shared, step: Tensor, step_params: Tensor, focal_range: tuple[float, float] | None) -> Shared:
    """State after a step; a longer focal length carries the heads away, so that they keep their size."""
    identity = state.identity + step[: len(state.identity)].to(state.identity)
    params = state.params + step_params.to(state.params)
    if focal_range is None:
        return Shared(identity, state.camera, params)
    focal = state.camera.fx * float(step[-1].clamp(-_MOST_ZOOM, _MOST_ZOOM).exp())
    factor = min(max(focal, focal_range[0]), focal_range[1]) / state.camera.fx
    params[:, 5] = CAMERA_DISTANCE - (CAMERA_DISTANCE - params[:, 5]) * factor
    camera = replace(state.camera, fx=state.camera.fx * factor, fy=state.camera.fy * factor)
    return Shared(identity, camera, params)


def _concatenated(parts: list[PoseEquations]) -> PoseEquations:
    columns = ([getattr(part, field.name) for part in parts] for field in fields(PoseEquations))
    return PoseEquations(*(torch.cat(column) for column in columns))
