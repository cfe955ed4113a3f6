"""One person's correction of the face model's expression units, learned from the person's own clip; pure maths.

No artist's jaw fits everybody: what a unit moves differs from person to person. The correction lets the few
directions that a clip's mouth really moves in bring along a little identity, whose directions are smooth fields over
the whole head. It is solved together with the identity and the frames, by Gauss-Newton on the cost of the fit, so
that robust weights, hidden points and the expression's prior count as they do there. It is small: a Gaussian prior
holds it near zero, and holds still what lies outside the lower face. Directions that the clip hardly moves in, and
clips of few frames, leave it at zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_gen.utils.process_video.fit_linear import NormalEquations
from data_gen.utils.process_video.fit_residuals import (
    POSE_SIZE,
    LandmarkBasis,
    Linearized,
    Observations,
    linearize,
    residuals,
)
from data_gen.utils.process_video.fit_solver import LandmarkFit
from modules.face_model.fitting import LandmarkRows
from modules.face_model.model import MOUTH_UNITS, FaceModel

JAW = "jawOpen"
_STEP_SIZES = (1.0, 0.5, 0.25, 0.1)
_SMALL_GAIN = 1e-4
_POSE_FLOOR = 1e-6
_MM_PER_DM = 100.0


@dataclass(frozen=True, slots=True)
class CorrectionConfig:
    """How far a person's expression units may differ from the model's.

    Attributes:
        directions: principal directions of the mouth's motion that are corrected, besides ``jawOpen`` alone.
        identity_weight: per frame, weight of the squared identity that a whole unit brings along.
        still_weight: per frame, weight of the mean square movement, mm², that it brings outside the lower face.
        least_spread: standard deviation of the motion along a direction below which its evidence is not believed.
        extra_frames: the prior weighs as if the clip had this many frames more.
        least_frames: with fewer, nothing is learned.
        iterations: Gauss-Newton steps at most.
    """

    directions: int = 6
    identity_weight: float = 0.003
    still_weight: float = 0.3
    least_spread: float = 0.1
    extra_frames: int = 20
    least_frames: int = 20
    iterations: int = 4


@dataclass(frozen=True, slots=True, eq=False)
class PersonalUnits:
    """What was learned of a person: identity ``[I]``, correction ``[I, E]`` and the frames' params ``[S, P]``."""

    identity: Tensor
    correction: Tensor
    params: Tensor


def learn_correction(
    fit: LandmarkFit,
    identity: Tensor,
    params: Tensor,
    seen: Observations,
    face_model: FaceModel,
    config: CorrectionConfig | None = None,
) -> PersonalUnits:
    """Learn a person's correction, and the identity and frames that go with it.

    Args:
        fit: of the person's camera, with the model's own units.
        identity: ``[I]`` fitted.
        params: ``[S, P]`` fitted.
        seen: the S frames; they are treated as unrelated in time.
        face_model: whose landmarks ``fit`` has.
        config: see ``CorrectionConfig``.
    """
    config = config or CorrectionConfig()
    nothing = identity.new_zeros(len(identity), params.shape[1] - POSE_SIZE)
    if len(seen) < config.least_frames:
        return PersonalUnits(identity, nothing, params)
    directions = speech_directions(params[:, POSE_SIZE:], face_model.expression_names, config.directions)
    prior = _amount_prior(params[:, POSE_SIZE:] @ directions, stillness(face_model).to(identity), config, len(seen))
    amount = identity.new_zeros(len(identity), directions.shape[1]).double()
    problem = _UnitProblem(fit, seen, directions, prior)
    found = problem.solve(_Units(identity.double(), amount, params), config.iterations)
    return PersonalUnits(found.identity.to(identity), problem.correction(found), found.params)


def speech_directions(expression: Tensor, names: Sequence[str], count: int) -> Tensor:
    """Orthonormal directions ``[E, R]`` of a clip's motion: ``jawOpen`` alone, then ``count`` of the other mouth units.

    Args:
        expression: ``[S, E]``.
        names: ``[E]``.
        count: principal directions at most; fewer where there are not so many frames or units.
    """
    others = [i for i, name in enumerate(names) if name in MOUTH_UNITS and name != JAW]
    moved = expression[:, others] - expression[:, others].mean(dim=0)
    _, _, principal = torch.linalg.svd(moved.double().cpu(), full_matrices=False)
    principal = principal[:count].to(expression)
    directions = expression.new_zeros(expression.shape[1], 1 + len(principal))
    directions[list(names).index(JAW), 0] = 1.0
    directions[others, 1:] = principal.T
    return directions


def stillness(face_model: FaceModel) -> Tensor:
    """``[I, I]``: of an identity, the mean square movement in mm² outside the lower face."""
    weights = 1.0 - face_model.region_weights["lower_face"]
    moved = (face_model.identity_basis * _MM_PER_DM * weights[:, None, None].sqrt()).flatten(0, 1)
    return moved.T @ moved / weights.sum()


def _amount_prior(motion: Tensor, still: Tensor, config: CorrectionConfig, frames: int) -> Tensor:
    """Precision ``[R, I, I]`` of what each direction brings along; motion ``[S, R]`` along the directions."""
    base = config.identity_weight * torch.eye(len(still)).to(still) + config.still_weight * still
    spread = motion.std(dim=0).clamp_min(1e-6)
    doubt = 1.0 + (config.least_spread / spread).square()
    return ((frames + config.extra_frames) * doubt[:, None, None] * base).double()


@dataclass(frozen=True, slots=True, eq=False)
class _Units:
    """Where the solver stands: identity ``[I]``, amount ``[I, R]`` (float64) and params ``[S, P]``."""

    identity: Tensor
    amount: Tensor
    params: Tensor

    def moved(self, step: Tensor, step_params: Tensor) -> _Units:
        """After a step ``[R + 1, I]`` of identity and amount, and one of the params."""
        return _Units(
            self.identity + step[0], self.amount + step[1:].T, self.params + step_params.to(self.params.dtype)
        )


class _UnitFit(LandmarkFit):
    """The fit's cost, frame by frame, in the form that the correction needs."""

    def springs(self, neutral: Tensor, params: Tensor, seen: Observations) -> Linearized:
        """The robust landmark residuals to first order."""
        posed = self.basis.posed(neutral, params)
        error = residuals(self.basis, posed, seen, self.camera)
        bend = self.terms.robust_dm**2
        robust = (bend / (bend + error.square().sum(dim=-1))).square()
        weights = self._weights(params, seen) * robust
        return linearize(self.basis, params, posed, error, weights, seen.px_per_dm, self.camera)

    def frame_equations(
        self, springs: Linearized, neutral: Tensor, params: Tensor, seen: Observations
    ) -> NormalEquations:
        """Equations of each frame with its expression's prior and bounds, and how the identity enters."""
        normal = NormalEquations.of(self.basis, springs, with_identity=True)
        precision = self.terms.expression_precision
        normal.blocks.diagonal(dim1=1, dim2=2)[:, :POSE_SIZE] += _POSE_FLOOR
        normal.blocks.diagonal(dim1=1, dim2=2)[:, POSE_SIZE:] += precision
        normal.descent[:, POSE_SIZE:] -= precision * (params[:, POSE_SIZE:] - seen.expected)
        self._add_touch(normal, neutral, params, seen)
        return self._bounded(normal, params)

    def total_cost(self, neutral: Tensor, params: Tensor, seen: Observations) -> float:
        """Cost of all frames, without priors of what they share."""
        return float(self._frame_costs(neutral, params, seen).double().sum())


class _UnitProblem:
    """Identity, correction and frames of one clip.

    A point's displacement is linear in the identity and in the amount: with ``x = [1, motion along the directions]``
    it is ``identity_basis · Σ x_r · a_r``, so its curvature is the identity's, weighted by ``x xᵀ``.
    """

    def __init__(self, fit: LandmarkFit, seen: Observations, directions: Tensor, prior: Tensor) -> None:
        self.fit, self.seen, self.directions = fit, seen, directions
        size = prior.shape[1]
        core = fit.terms.identity_precision * len(seen) * torch.eye(size).to(prior)
        self.prior = torch.block_diag(core, *prior)  # [(R + 1)·I, (R + 1)·I]

    def correction(self, units: _Units) -> Tensor:
        """``[I, E]``."""
        return (units.amount @ self.directions.T.double()).to(self.directions)

    def solve(self, units: _Units, iterations: int) -> _Units:
        """Gauss-Newton with a shrinking step; ends when a step gains little or no step gains."""
        cost = self._cost(units)
        for _ in range(iterations):
            step, step_params = self._step(units)
            for size in _STEP_SIZES:
                tried = units.moved(size * step, size * step_params)
                tried_cost = self._cost(tried)
                if tried_cost < cost:
                    break
            else:
                break
            gain = (cost - tried_cost) / cost
            units, cost = tried, tried_cost
            if gain < _SMALL_GAIN:
                break
        return units

    def _state(self, units: _Units) -> Tensor:
        return torch.cat([units.identity[None], units.amount.T]).flatten()

    def _cost(self, units: _Units) -> float:
        state = self._state(units)
        expression = self.fit.basis.expression + self.fit.basis.identity @ self.correction(units)
        fit = _UnitFit(replace(self.fit.basis, expression=expression), self.fit.camera, self.fit.terms)
        neutral = fit.basis.neutral(units.identity.to(expression))
        return fit.total_cost(neutral, units.params, self.seen) + float(state @ self.prior @ state)

    def _step(self, units: _Units) -> tuple[Tensor, Tensor]:
        """Step ``[R + 1, I]`` of identity and amount, and ``[S, P]`` of the frames, which are eliminated first."""
        fit = _UnitFit(_corrected_basis(self.fit.basis, self.correction(units)), self.fit.camera, self.fit.terms)
        neutral = fit.basis.neutral(units.identity.to(fit.basis.mean))
        parts = []
        for rows in fit.chunks(len(self.seen)):
            seen, params = self.seen.rows(rows), units.params[rows]
            motion = torch.cat([torch.ones_like(params[:, :1]), params[:, POSE_SIZE:] @ self.directions], dim=1)
            springs = fit.springs(neutral, params, seen)
            parts.append(
                _Eliminated.of(fit.basis, springs, fit.frame_equations(springs, neutral, params, seen), motion)
            )
        springs, relief, descent = (
            torch.stack([getattr(part, name) for part in parts]).sum(dim=0) for name in ("springs", "relief", "descent")
        )
        curvature = _joined(_identity_curvature(fit.basis, springs).double() - relief, len(descent))
        right = descent.flatten() - self.prior @ self._state(units)
        step = torch.linalg.solve(curvature + self.prior, right).reshape(descent.shape)
        return step, torch.cat([part.frame_step(step) for part in parts])


@dataclass(frozen=True, slots=True, eq=False)
class _Eliminated:
    """What is left of the equations of identity and amount once some frames are eliminated.

    Attributes:
        springs: ``[Q, (K + G)·9]``, points' and gaps' springs side by side, summed with each of the
            Q = (R + 1)(R + 2)/2 products of two motions.
        relief: ``[Q, I, I]``, curvature that the frames' freedom takes away. descent: ``[R + 1, I]``.
        motion: ``[T, R + 1]``. response: ``[T, P, I]`` and rest ``[T, P]``: a frame steps by
            ``rest - response · (identity moved in that frame)``.
    """

    springs: Tensor
    relief: Tensor
    descent: Tensor
    motion: Tensor
    response: Tensor
    rest: Tensor

    @classmethod
    def of(cls, basis: LandmarkBasis, springs: Linearized, normal: NormalEquations, motion: Tensor) -> _Eliminated:
        """Of frames with ``motion [T, R + 1]`` along the directions (1 for the identity)."""
        border, descent = normal.border.double(), normal.descent.double()
        solved = torch.linalg.solve(normal.blocks.double(), torch.cat([border, descent[..., None]], dim=2))
        response, rest = solved[..., :-1], solved[..., -1]
        first, second = torch.triu_indices(motion.shape[1], motion.shape[1], device=motion.device)
        pairs = (motion[:, first] * motion[:, second]).T  # [Q, T]
        relief = border.mT @ response
        force = -(springs.force.flatten(1) @ basis.identity.flatten(0, 1)).double()
        force = force - (border.mT @ rest[..., None])[..., 0]
        return cls(
            springs=pairs @ torch.cat([springs.stiffness.flatten(1), springs.coupling.flatten(1)], dim=1),
            relief=(pairs.double() @ relief.flatten(1)).unflatten(1, relief.shape[1:]),
            descent=motion.double().T @ force,
            motion=motion.double(),
            response=response,
            rest=rest,
        )

    def frame_step(self, step: Tensor) -> Tensor:
        """Steps ``[T, P]`` of the frames that go with a step ``[R + 1, I]`` of what they share."""
        return self.rest - (self.response @ (self.motion @ step)[..., None])[..., 0]


def _identity_curvature(basis: LandmarkBasis, springs: Tensor) -> Tensor:
    """Curvature ``[Q, I, I]`` of the identity under Q sets of springs, see ``_Eliminated``."""
    identity, count = basis.identity, len(basis.mean)
    stiffness = springs[:, : count * 9].unflatten(1, (count, 3, 3))
    coupling = springs[:, count * 9 :].unflatten(1, (-1, 3, 3))
    pulled = stiffness @ identity
    pulled[:, basis.upper] += coupling @ identity[basis.lower]
    pulled[:, basis.lower] += coupling.mT @ identity[basis.upper]
    return identity.flatten(0, 1).T @ pulled.flatten(1, 2)


def _joined(blocks: Tensor, count: int) -> Tensor:
    """Symmetric matrix ``[count·I, count·I]`` of the blocks ``[Q, I, I]`` of its upper triangle."""
    first, second = torch.triu_indices(count, count, device=blocks.device)
    size = blocks.shape[1]
    whole = blocks.new_zeros(count, count, size, size)
    whole[first, second] = blocks
    whole[second, first] = blocks.mT
    return whole.transpose(1, 2).reshape(count * size, count * size)


def _corrected_basis(basis: LandmarkBasis, correction: Tensor) -> LandmarkBasis:
    """The basis with corrected units and what follows from them."""
    expression = basis.expression + basis.identity @ correction
    rows = LandmarkRows(basis.mean, basis.identity, expression, basis.slide, basis.weights > 0)
    gaps = tuple(zip(basis.upper.tolist(), basis.lower.tolist(), strict=True))
    return LandmarkBasis.of(rows, gaps, expression.dtype)
