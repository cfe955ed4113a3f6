"""Errors of coefficients, weighed by what they do to the lips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modules.face_model.model import FaceModel
from modules.structures.landmarks import INNER_LIP, LIP_CORNERS, LIP_GAP_PAIRS, OUTER_LIP
from tasks.audio2motion.configs import A2MLossConfig

_MIN_UNIT_STD = 0.02
"""Units that hardly ever move must not count as much as those that do."""


@dataclass(frozen=True, slots=True, eq=False)
class LipEffect:
    """What one unit of each coefficient does to the lips, dm.

    Attributes:
        contour: ``[U, 120]`` the 40 lip contour points.
        gap: ``[U, 9]`` the vectors between facing inner-lip points.
        width: ``[U, 3]`` the vector between the corners.
    """

    contour: Tensor
    gap: Tensor
    width: Tensor


def lip_effect(face_model: FaceModel, columns: Tensor) -> LipEffect:
    """The effect of the coefficients in ``columns [U]``; the face model is linear, so it holds everywhere."""
    nothing = torch.zeros(1, face_model.n_expression)
    each = torch.eye(face_model.n_expression)[columns]
    identity = torch.zeros(face_model.n_identity)
    moved = face_model.landmarks(identity, each) - face_model.landmarks(identity, nothing)  # [U, 478, 3]
    upper, lower = (list(points) for points in zip(*LIP_GAP_PAIRS, strict=True))
    first_corner, second_corner = LIP_CORNERS
    return LipEffect(
        contour=moved[:, list(INNER_LIP + OUTER_LIP)].flatten(1),
        gap=(moved[:, upper] - moved[:, lower]).flatten(1),
        width=moved[:, first_corner] - moved[:, second_corner],
    )


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
        effect: ``lip_effect`` of the units.
        targets: ``[N, U]`` all training targets; each kind of error is measured against their spread.
    """

    def __init__(self, effect: LipEffect, targets: Tensor, config: A2MLossConfig) -> None:
        self._config = config
        parts = ((effect.contour, 1.0), (effect.gap, config.gap_weight), (effect.width, config.width_weight))
        total = sum(weight for _, weight in parts)
        scaled = []
        for part, weight in parts:
            power = (targets @ part).var(dim=0).sum().clamp_min(1e-12)
            scaled.append(part * (weight / total / power).sqrt())
        self._effect = torch.cat(scaled, dim=1)
        self._unit_power = targets.var(dim=0).clamp_min(_MIN_UNIT_STD**2)

    def __call__(self, predicted: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Scalar; ``predicted`` and ``targets`` ``[B, T, U]``, ``weights`` ``[B, T]``. Differentiable in predicted."""
        error = predicted - targets
        moved = error @ self._effect
        pairs = torch.minimum(weights[:, 1:], weights[:, :-1])
        velocity = moved[:, 1:] - moved[:, :-1]
        loss = _weighted_mean(moved.square().sum(dim=-1), weights)
        loss = loss + self._config.velocity_weight * _weighted_mean(velocity.square().sum(dim=-1), pairs)
        plain = _weighted_mean((error.square() / self._unit_power).mean(dim=-1), weights)
        return loss + self._config.coefficient_weight * plain


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)
