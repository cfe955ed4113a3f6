"""Errors of coefficients, weighed by what they do to the lips."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.face_model.model import FaceModel
from modules.structures.landmarks import INNER_LIP, LIP_CORNERS, LIP_GAP_PAIRS, OUTER_LIP
from tasks.audio2motion.configs import A2MLossConfig

_MIN_UNIT_STD = 0.02
"""Units that hardly ever move must not count as much as those that do."""


def lip_effect(face_model: FaceModel, columns: Tensor, gap_weight: float) -> Tensor:
    """What one unit of each coefficient does to the lips: ``[U, D]`` dm.

    D holds the 40 lip contour points (x, y, z) and ``gap_weight`` × the vectors between facing inner-lip points and
    between the corners, so that opening and width count for more than carrying the lips along.
    """
    nothing = torch.zeros(1, face_model.n_expression)
    each = torch.eye(face_model.n_expression)[columns]
    identity = torch.zeros(face_model.n_identity)
    moved = face_model.landmarks(identity, each) - face_model.landmarks(identity, nothing)  # [U, 478, 3]
    upper, lower = (list(points) for points in zip(*LIP_GAP_PAIRS, strict=True))
    first_corner, second_corner = LIP_CORNERS
    gaps = gap_weight * (moved[:, upper] - moved[:, lower])
    width = gap_weight * (moved[:, [first_corner]] - moved[:, [second_corner]])
    return torch.cat([moved[:, list(INNER_LIP + OUTER_LIP)], gaps, width], dim=1).flatten(1)


def opening_effect(face_model: FaceModel) -> Tensor:
    """Mean gap between facing inner-lip points, dm along y, that each coefficient adds: ``[E]``."""
    each = torch.eye(face_model.n_expression)
    moved = face_model.landmarks(torch.zeros(face_model.n_identity), each)
    still = face_model.landmarks(torch.zeros(face_model.n_identity), torch.zeros(1, face_model.n_expression))
    upper, lower = (list(points) for points in zip(*LIP_GAP_PAIRS, strict=True))
    change = moved - still
    return (change[:, upper, 1] - change[:, lower, 1]).mean(dim=1)


class LipLoss:
    """Squared lip error, the same of velocities, and the units' own errors, each relative to the targets' spread.

    The units' own errors matter where several of them move the lips alike (jaw, lower lip): lips alone would leave open
    which of them does it, and the chin would move at random.

    Args:
        effect: ``[U, D]`` of ``lip_effect``.
        targets: ``[N, U]`` all training targets; the errors are measured against their spread.
    """

    def __init__(self, effect: Tensor, targets: Tensor, config: A2MLossConfig) -> None:
        self._effect, self._config = effect, config
        moved = targets @ effect
        self._lip_power = float(moved.var(dim=0).sum().clamp_min(1e-12))
        self._unit_power = targets.var(dim=0).clamp_min(_MIN_UNIT_STD**2)

    def __call__(self, predicted: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Scalar; ``predicted`` and ``targets`` ``[B, T, U]``, ``weights`` ``[B, T]``. Differentiable in predicted."""
        error = predicted - targets
        moved = error @ self._effect
        pairs = torch.minimum(weights[:, 1:], weights[:, :-1])
        velocity = moved[:, 1:] - moved[:, :-1]
        loss = _weighted_mean(moved.square().sum(dim=-1), weights) / self._lip_power
        loss = loss + self._config.velocity_weight * _weighted_mean(velocity.square().sum(dim=-1), pairs) / (
            self._lip_power
        )
        plain = _weighted_mean((error.square() / self._unit_power).mean(dim=-1), weights)
        return loss + self._config.coefficient_weight * plain


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)
