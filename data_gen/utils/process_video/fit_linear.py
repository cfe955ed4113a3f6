"""Normal equations of the 3DMM fit and their solution for all frames at once; pure maths.

A step is solved with one identity shared by the frames, or smooth over time. Both solvers take coefficients that are
held: their step is given, the others are solved around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, solveh_banded
from torch import Tensor

from data_gen.utils.process_video.fit_residuals import SYMMETRIC, LandmarkBasis, Linearized


@dataclass(frozen=True, slots=True, eq=False)
class NormalEquations:
    """Normal equations of T frames: ``blocks [T, P, P] · step [T, P] = descent``, float64.

    ``border [T, P, I]`` couples the identity to each frame; ``core [I, I]`` and ``core_descent [I]`` are its own.
    """

    blocks: Tensor
    descent: Tensor
    border: Tensor
    core: Tensor
    core_descent: Tensor

    @classmethod
    def of(cls, basis: LandmarkBasis, springs: Linearized, *, with_identity: bool) -> NormalEquations:
        """Gauss-Newton equations of pose and expression, and of the identity when asked (else I = 0).

        Points enter through products of basis columns, the same in each frame, so that their Jacobian is never made.
        """
        columns = basis.identity if with_identity else basis.identity[..., :0]
        expression, identity = basis.expression.flatten(0, 1), columns.flatten(0, 1)
        blocks, pose_descent = pose_normal(springs)
        expression_gap, identity_gap = _gap_slope(basis, springs, basis.expression), _gap_slope(basis, springs, columns)
        stiff_motion = (springs.information @ springs.motion).flatten(1, 2)
        cross = stiff_motion.mT @ expression + springs.gap_motion.mT @ expression_gap
        units = _expression_blocks(basis, springs) + expression_gap.mT @ expression_gap
        stiff = (springs.information @ columns).flatten(1, 2)
        border = torch.cat([springs.motion.flatten(1, 2).mT @ stiff, expression.T @ stiff], dim=1)
        border += torch.cat([springs.gap_motion, expression_gap], dim=2).mT @ identity_gap
        force = springs.force.flatten(1)
        top, bottom = torch.cat([blocks, cross], dim=2), torch.cat([cross.mT, units], dim=2)
        return cls(
            blocks=torch.cat([top, bottom], dim=1).double(),
            descent=torch.cat([pose_descent, -(force @ expression)], dim=1).double(),
            border=border.double(),
            core=(identity.T @ stiff.sum(dim=0) + (identity_gap.mT @ identity_gap).sum(dim=0)).double(),
            core_descent=-(force.sum(dim=0) @ identity).double(),
        )

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


def pose_normal(springs: Linearized) -> tuple[Tensor, Tensor]:
    """Blocks ``[T, 6, 6]`` and descent ``[T, 6]`` of the pose alone."""
    motion = springs.motion.flatten(1, 2)
    stiff_motion = (springs.information @ springs.motion).flatten(1, 2)
    blocks = motion.mT @ stiff_motion + springs.gap_motion.mT @ springs.gap_motion
    return blocks, -(motion.mT @ springs.force.flatten(1)[..., None])[..., 0]


def _gap_slope(basis: LandmarkBasis, springs: Linearized, columns: Tensor) -> Tensor:
    """Weighted movement of the gaps with basis columns ``[K, 3, C]``: ``[T, 2·G, C]``."""
    return (springs.upper_view @ columns[basis.upper] + springs.lower_view @ columns[basis.lower]).flatten(1, 2)


def _expression_blocks(basis: LandmarkBasis, springs: Linearized) -> Tensor:
    """Curvature ``[T, E, E]`` of the points with respect to the expression."""
    entries = torch.stack([springs.information[..., a, b] for a, b in SYMMETRIC], dim=-1)
    upper = entries.flatten(1) @ basis.products
    units = basis.expression.shape[2]
    first, second = torch.triu_indices(units, units)
    blocks = upper.new_zeros(len(upper), units, units)
    blocks[:, first, second] = upper
    blocks[:, second, first] = upper
    return blocks


def solve_arrow(normal: NormalEquations, held: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of the identity ``[I]`` and the frames ``[T, P]``, the frames eliminated first.

    Args:
        normal: with an identity.
        held: bool ``[T, P]``.
        given: float64 ``[T, P]`` steps of the held coefficients, 0 elsewhere.
    """
    free = (~held).double()
    moved = given[..., None]
    blocks = normal.blocks * free[:, :, None] * free[:, None, :] + torch.diag_embed(1 - free)
    border = normal.border * free[:, :, None]
    descent = (normal.descent - (normal.blocks @ moved)[..., 0]) * free
    solved = torch.linalg.solve(blocks, torch.cat([border, descent[..., None]], dim=2))
    core = normal.core - (border.mT @ solved[..., :-1]).sum(dim=0)
    right = normal.core_descent - (normal.border.mT @ moved + border.mT @ solved[..., -1:]).sum(dim=0)[:, 0]
    step_identity = torch.linalg.solve(core, right)
    return step_identity, (solved[..., -1] - solved[..., :-1] @ step_identity) * free + given


def solve_smooth(
    normal: NormalEquations, smoothness: Tensor, joined: Tensor, held: Tensor, given: Tensor
) -> tuple[Tensor, Tensor]:
    """No step of the identity, and one of the frames, coupled by second differences over time.

    By banded Cholesky; zero where that breaks down.
    The parameters of a frame stand together, so the band is two frames wide; cost and memory grow linearly with T.

    Args:
        normal: data terms; ``descent`` already holds the second differences' part.
        smoothness: ``[P]`` weight of the squared second differences.
        joined: bool ``[T - 2]``, see ``joined_triples``.
        held: bool ``[T, P]``.
        given: float64 ``[T, P]`` steps of the held coefficients, 0 elsewhere.
    """
    frames, count = held.shape
    free = (~held).double().numpy()
    weight = smoothness.double()
    pulled = (normal.blocks @ given[..., None])[..., 0] + bending(given, weight, joined)
    dense = normal.blocks.numpy() * free[:, :, None] * free[:, None, :]
    band = np.zeros((2 * count + 1, frames * count))
    for offset in range(count):
        band[offset].reshape(frames, count)[:, : count - offset] = np.diagonal(dense, -offset, axis1=1, axis2=2)
    for offset, coupling in enumerate(_smoothness_bands(frames, joined.double().numpy())):
        coupled = free[: frames - offset] * free[offset:] * coupling[:, None] * weight.numpy()
        band[offset * count, : coupled.size] += coupled.ravel()
    band[0] += (1 - free).ravel() + 1e-9
    right = ((normal.descent - pulled).numpy() * free).ravel()
    try:
        step = solveh_banded(band, right, lower=True, overwrite_ab=True, check_finite=False)
    except LinAlgError:
        return torch.zeros(1), torch.zeros_like(given)
    return torch.zeros(1), torch.from_numpy(step.reshape(frames, count)) + given


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
    bent = smoothness * second_difference(params, joined)
    spread = torch.zeros_like(params)
    if len(bent):
        spread[:-2] += bent
        spread[1:-1] -= 2 * bent
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
