"""Normal equations of the 3DMM fit and their solution for all frames at once; pure maths.

A step is solved with one identity shared by the frames, or with poses that are smooth over time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, solveh_banded
from torch import Tensor

from data_gen.utils.process_video.fit_residuals import POSE_SIZE, SYMMETRIC, LandmarkBasis, Linearized


@dataclass(frozen=True, slots=True, eq=False)
class NormalEquations:
    """Normal equations of T frames: ``blocks [T, P, P] · step [T, P] = descent``.

    ``border [T, P, S]`` couples what the frames share to each frame; ``core [S, S]`` and ``core_descent [S]`` are its
    own. Shared are the identity and, behind it, the logarithm of the focal length where that was linearised.
    """

    blocks: Tensor
    descent: Tensor
    border: Tensor
    core: Tensor
    core_descent: Tensor

    @classmethod
    def of(cls, basis: LandmarkBasis, springs: Linearized, *, with_identity: bool) -> NormalEquations:
        """Gauss-Newton equations of pose and expression, and of what is shared when asked (else S = 0).

        Points enter through products of basis columns, the same in each frame, so that their Jacobian is never made.
        """
        expression, force = basis.expression.flatten(0, 1), springs.force.flatten(1)
        cross = springs.push.flatten(2) @ expression  # [T, C, E]
        pose, units = springs.motion_blocks[:, :POSE_SIZE, :POSE_SIZE], _expression_blocks(basis, springs)
        top = torch.cat([pose, cross[:, :POSE_SIZE]], dim=2)
        blocks = torch.cat([top, torch.cat([cross[:, :POSE_SIZE].mT, units], dim=2)], dim=1)
        descent = -torch.cat([springs.motion_force[:, :POSE_SIZE], force @ expression], dim=1)
        if with_identity:
            return cls(blocks, descent, *_shared(basis, springs, cross))
        nothing = blocks.new_zeros(0)
        return cls(blocks, descent, blocks.new_zeros(*descent.shape, 0), nothing.reshape(0, 0), nothing)

    @classmethod
    def concatenated(cls, parts: list[NormalEquations]) -> NormalEquations:
        """The equations of further and further frames, one after another."""
        return cls(
            blocks=torch.cat([part.blocks for part in parts]),
            descent=torch.cat([part.descent for part in parts]),
            border=torch.cat([part.border for part in parts]),
            core=torch.stack([part.core for part in parts]).sum(dim=0),
            core_descent=torch.stack([part.core_descent for part in parts]).sum(dim=0),
        )


def _shared(basis: LandmarkBasis, springs: Linearized, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Border, core and descent of identity and focal length."""
    identity, expression = basis.identity.flatten(0, 1), basis.expression.flatten(0, 1)
    stiff = torch.einsum("tkab,kbi->tkai", springs.stiffness, basis.identity)
    stiff[:, basis.upper] += torch.einsum("tgab,gbi->tgai", springs.coupling, basis.identity[basis.lower])
    stiff[:, basis.lower] += torch.einsum("tgab,gai->tgbi", springs.coupling, basis.identity[basis.upper])
    stiff = stiff.flatten(1, 2)
    pushed = springs.push.flatten(2) @ identity  # [T, C, I]
    border = torch.cat([pushed[:, :POSE_SIZE], expression.T @ stiff], dim=1)
    core = identity.T @ stiff.sum(dim=0)
    descent = -(springs.force.flatten(1).sum(dim=0) @ identity)
    if springs.push.shape[1] == POSE_SIZE:
        return border, core, descent
    focal = torch.cat([springs.motion_blocks[:, POSE_SIZE, :POSE_SIZE], cross[:, POSE_SIZE]], dim=1)
    side = pushed[:, POSE_SIZE].sum(dim=0)
    corner = springs.motion_blocks[:, POSE_SIZE, POSE_SIZE].sum().reshape(1, 1)
    core = torch.cat([torch.cat([core, side[:, None]], 1), torch.cat([side[None], corner], 1)])
    descent = torch.cat([descent, -springs.motion_force[:, POSE_SIZE:].sum(dim=0)])
    return torch.cat([border, focal[..., None]], dim=2), core, descent


def _expression_blocks(basis: LandmarkBasis, springs: Linearized) -> Tensor:
    """Curvature ``[T, E, E]`` of points and gaps with respect to the expression."""
    entries = torch.stack([springs.stiffness[..., a, b] for a, b in SYMMETRIC], dim=-1)
    upper = torch.cat([entries.flatten(1), springs.coupling.flatten(1)], dim=1) @ basis.products
    units = basis.expression.shape[2]
    first, second = torch.triu_indices(units, units, device=upper.device)
    blocks = upper.new_zeros(len(upper), units, units)
    blocks[:, first, second] = upper
    blocks[:, second, first] = upper
    return blocks


def solve_arrow(normal: NormalEquations) -> tuple[Tensor, Tensor]:
    """Steps of what is shared ``[S]`` and of the frames ``[T, P]``, the frames eliminated first."""
    border, descent = normal.border, normal.descent
    solved = torch.linalg.solve(normal.blocks, torch.cat([border, descent[..., None]], dim=2))
    core = normal.core - (border.mT @ solved[..., :-1]).sum(dim=0)
    right = normal.core_descent - (border.mT @ solved[..., -1:]).sum(dim=0)[:, 0]
    shared = torch.linalg.solve(core, right)
    return shared, solved[..., -1] - solved[..., :-1] @ shared


@dataclass(frozen=True, slots=True, eq=False)
class PoseEquations:
    """What is left of T frames' equations once their expressions are eliminated.

    Attributes:
        blocks: ``[T, 6, 6]``. descent: ``[T, 6]``.
        response: ``[T, E, 7]``: the expression's step is its last column minus the others times the pose's step.
        precision: ``[T, E]`` 1/variance of each unit when nothing else is known.
        sound: bool ``[T]``, False where a frame's equations cannot be solved (its blocks are then 1, the rest 0).
    """

    blocks: Tensor
    descent: Tensor
    response: Tensor
    precision: Tensor
    sound: Tensor

    def expression_step(self, pose_step: Tensor) -> Tensor:
        """``[T, 6]`` to ``[T, E]``."""
        return self.response[..., -1] - (self.response[..., :-1] @ pose_step[..., None])[..., 0]


def eliminate_expression(normal: NormalEquations) -> PoseEquations:
    """Schur complement of the expression in each frame; never raises, never gives NaN."""
    size = POSE_SIZE
    cross = normal.blocks[:, size:, :size]
    factor, info = torch.linalg.cholesky_ex(normal.blocks[:, size:, size:])
    response = torch.cholesky_solve(torch.cat([cross, normal.descent[:, size:, None]], dim=2), factor)
    reduced = cross.mT @ response
    variance = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
    blocks = normal.blocks[:, :size, :size] - reduced[..., :size]
    descent = normal.descent[:, :size] - reduced[..., size]
    sound = (info == 0) & response.isfinite().all(dim=(1, 2)) & blocks.isfinite().all(dim=(1, 2))
    sound = sound & descent.isfinite().all(dim=1)
    return PoseEquations(
        blocks=torch.where(sound[:, None, None], blocks, torch.eye(size).to(blocks)),
        descent=torch.where(sound[:, None], descent, 0.0),
        response=torch.where(sound[:, None, None], response, 0.0),
        precision=torch.where(sound[:, None], 1 / variance, 1.0),
        sound=sound,
    )


def solve_smooth(blocks: Tensor, descent: Tensor, smoothness: Tensor, joined: Tensor) -> Tensor:
    """Steps ``[T, P]`` of frames that second differences over time couple, by banded Cholesky on the CPU.

    The parameters of a frame stand together, so the band is two frames wide; cost and memory grow linearly with T.
    Zero where that breaks down.

    Args:
        blocks: ``[T, P, P]`` data terms.
        descent: ``[T, P]``, which already holds the second differences' part.
        smoothness: ``[P]`` weight of the squared second differences.
        joined: bool ``[T - 2]``, see ``joined_triples``.
    """
    frames, count = descent.shape
    dense = blocks.double().cpu().numpy()
    weight = smoothness.double().cpu().numpy()
    band = np.zeros((2 * count + 1, frames * count))
    for offset in range(count):
        band[offset].reshape(frames, count)[:, : count - offset] = np.diagonal(dense, -offset, axis1=1, axis2=2)
    for offset, coupling in enumerate(_smoothness_bands(frames, joined.double().cpu().numpy())):
        coupled = coupling[:, None] * weight
        band[offset * count, : coupled.size] += coupled.ravel()
    band[0] += 1e-9
    try:
        step = solveh_banded(
            band, descent.double().cpu().numpy().ravel(), lower=True, overwrite_ab=True, check_finite=False
        )
    except LinAlgError:
        return torch.zeros_like(descent)
    return torch.from_numpy(step.reshape(frames, count)).to(descent)


def smooth_columns(values: Tensor, stiffness: Tensor) -> Tensor:
    """Values ``[T, E]`` closest to the given ones when their second differences cost ``stiffness`` ``[T - 2, E]``."""
    frames = len(values)
    if frames < 3:
        return values
    given, weights = values.double().cpu().numpy(), stiffness.double().cpu().numpy()
    smooth = np.empty_like(given)
    for unit in range(given.shape[1]):
        band = np.zeros((3, frames))
        for offset, coupling in enumerate(_smoothness_bands(frames, weights[:, unit])):
            band[offset, : len(coupling)] = coupling
        band[0] += 1.0
        smooth[:, unit] = solveh_banded(band, given[:, unit], lower=True, overwrite_ab=True, check_finite=False)
    return torch.from_numpy(smooth).to(values)


def joined_triples(index: Tensor) -> Tensor:
    """Triples of frames that follow one another without a gap: bool ``[T - 2]`` (empty below three frames)."""
    return (index[2:] - index[:-2]) == 2


def second_difference(params: Tensor, joined: Tensor) -> Tensor:
    """``[T, P]`` to ``[T - 2, P]``, zero across gaps."""
    if len(params) < 3:
        return params.new_zeros(0, params.shape[1])
    return (params[:-2] - 2 * params[1:-1] + params[2:]) * joined[:, None]


def bending(params: Tensor, smoothness: Tensor, joined: Tensor) -> Tensor:
    """Gradient (half of it) of the weighted squared second differences: ``[T, P]`` to ``[T, P]``."""
    return _spread(smoothness * second_difference(params, joined), len(params), -2.0)


def bending_bound(stiffness: Tensor, frames: int) -> Tensor:
    """Curvature of each value by itself that is never below that of second differences of ``stiffness`` ``[T - 2, E]``.

    ``[T, E]``, by the sums of absolute values of the matrix's rows; 16 times the stiffness amid equal ones.
    """
    return 4 * _spread(stiffness, frames, 2.0)


def _spread(bent: Tensor, frames: int, middle: float) -> Tensor:
    """Each row ``[T - 2, E]`` given to three frames ``[T, E]``, ``middle`` times to the one amid."""
    spread = bent.new_zeros(frames, bent.shape[1])
    if len(bent):
        spread[:-2] += bent
        spread[1:-1] += middle * bent
        spread[2:] += bent
    return spread


def _smoothness_bands(
    frames: int, joined: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The three diagonals of DᵀD, D the second differences that ``joined`` switches on."""
    centre, near, far = np.zeros(frames), np.zeros(max(frames - 1, 0)), np.zeros(max(frames - 2, 0))
    if frames >= 3:
        for shift, value in enumerate((1.0, 4.0, 1.0)):
            centre[shift : shift + frames - 2] += value * joined
        near[:-1] -= 2 * joined
        near[1:] -= 2 * joined
        far += joined
    return centre, near, far
