"""Errors of coefficients, weighed by what they do to the lips."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from modules.face_model.fitting import FittableModel
from modules.structures.landmarks import INNER_LIP, LIP_CORNERS, LIP_GAP_PAIRS, OUTER_LIP
from tasks.audio2motion.configs import A2MLossConfig
from tasks.audio2motion.sampling import Batch

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

    def to(self, device: torch.device) -> LipEffect:
        """The effect on ``device``."""
        return LipEffect(self.contour.to(device), self.gap.to(device), self.width.to(device))

    @property
    def opening(self) -> Tensor:
        """``[U]`` mean gap along y between the lips, dm; positive opens them."""
        return self.gap.unflatten(1, (-1, 3))[:, :, 1].mean(dim=1)

    @property
    def spread(self) -> Tensor:
        """``[U]`` distance of the corners along x, dm, up to a sign."""
        return self.width[:, 0]


def lip_effect(face_model: FittableModel, columns: Tensor) -> LipEffect:
    """The effect of the coefficients in ``columns [U]``; face models are linear, so it holds everywhere."""
    moved = face_model.landmark_rows().expression[:, :, columns].permute(2, 0, 1)  # [U, K, 3]
    upper, lower = (list(points) for points in zip(*LIP_GAP_PAIRS, strict=True))
    first_corner, second_corner = LIP_CORNERS
    return LipEffect(
        contour=moved[:, list(INNER_LIP + OUTER_LIP)].flatten(1),
        gap=(moved[:, upper] - moved[:, lower]).flatten(1),
        width=moved[:, first_corner] - moved[:, second_corner],
    )


def opening_effect(face_model: FittableModel) -> Tensor:
    """Mean gap between facing inner-lip points, dm along y, that each coefficient adds: ``[E]``."""
    return lip_effect(face_model, torch.arange(face_model.landmark_rows().expression.shape[2])).opening


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
        if self._config.drift_weight < 1.0:
            error = error - (1.0 - self._config.drift_weight) * _window_mean(error, weights)
        moved = error @ self._effect
        pairs = torch.minimum(weights[:, 1:], weights[:, :-1])
        velocity = moved[:, 1:] - moved[:, :-1]
        loss = _weighted_mean(moved.square().sum(dim=-1), weights)
        loss = loss + self._config.velocity_weight * _weighted_mean(velocity.square().sum(dim=-1), pairs)
        plain = _weighted_mean((error.square() / self._unit_power).mean(dim=-1), weights)
        return loss + self._config.coefficient_weight * plain


def _window_mean(values: Tensor, weights: Tensor) -> Tensor:
    """``[B, T, U]`` to ``[B, 1, U]``."""
    return (values * weights[..., None]).sum(dim=1, keepdim=True) / weights.sum(dim=1)[:, None, None].clamp_min(1e-6)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)


def variance_loss(predicted: Tensor, targets: Tensor, weights: Tensor, measures: Tensor) -> Tensor:
    """How far the spread of lip measures within each window is from the true one.

    Mean over windows and measures of ``(std(predicted) / std(target) - 1)²``. Windows in which a lip measure hardly
    moves (less than a quarter of the batch's spread) say nothing about it and are left out.

    Args:
        predicted: ``[B, T, U]``.
        targets: ``[B, T, U]``.
        weights: ``[B, T]``.
        measures: ``[U, M]`` what a unit adds to each measure.

    Returns:
        scalar, differentiable in ``predicted``.
    """
    made, true = (_window_std(values @ measures, weights) for values in (predicted, targets))
    least = 0.25 * true.square().mean(dim=0).sqrt().clamp_min(1e-6)
    counts = (true > least).to(true)
    return ((made / true.clamp_min(1e-6) - 1.0).square() * counts).sum() / counts.sum().clamp_min(1.0)


def _window_std(values: Tensor, weights: Tensor) -> Tensor:
    """``[B, T, M]`` to ``[B, M]``; the gradient stays finite where nothing moves."""
    share = (weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-6))[..., None]
    mean = (share * values).sum(dim=1, keepdim=True)
    return ((share * (values - mean).square()).sum(dim=1) + 1e-10).sqrt()


def closure_loss(opening: Tensor, targets: Tensor, closed_below: Tensor, weights: Tensor, softness_dm: float) -> Tensor:
    """Cross-entropy of telling closed lips from open ones by the predicted opening; both kinds weigh alike.

    Args:
        opening: ``[B, T]`` predicted, dm over rest.
        targets: ``[B, T]`` true.
        closed_below: ``[B]`` the border, dm; windows without one (-inf) do not count.
        weights: ``[B, T]``.
        softness_dm: distance from the border at which the odds are e : 1.

    Returns:
        scalar, differentiable in ``opening``; 0 where no window has a border.
    """
    known = closed_below.isfinite()
    border = torch.where(known, closed_below, 0.0)[:, None]
    is_closed = (targets < border).to(opening)
    counted = weights * known[:, None]
    closed_weight, open_weight = (counted * is_closed).sum(), (counted * (1.0 - is_closed)).sum()
    balance = is_closed / closed_weight.clamp_min(1.0) + (1.0 - is_closed) / open_weight.clamp_min(1.0)
    entropy = functional.binary_cross_entropy_with_logits((border - opening) / softness_dm, is_closed, reduction="none")
    return 0.5 * (counted * balance * entropy).sum()


class MotionLoss:
    """Everything predicted motion is judged by that needs no other network.

    Args:
        effect: ``lip_effect`` of the units.
        targets: ``[N, U]`` training targets, for their spread.
        config: weights.
    """

    def __init__(self, effect: LipEffect, targets: Tensor, config: A2MLossConfig) -> None:
        self._config = config
        self._lips = LipLoss(effect, targets, config)
        self._opening = effect.opening
        self._measures = torch.stack([effect.opening, effect.spread], dim=1)

    def __call__(self, predicted: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms by name, scalars to be summed; terms of weight 0 are left out. Differentiable in predicted."""
        config = self._config
        terms = {"lips": self._lips(predicted, batch.targets, batch.weights)}
        if config.variance_weight:
            spread = variance_loss(predicted, batch.targets, batch.weights, self._measures)
            terms["variance"] = config.variance_weight * spread
        if config.closure_weight:
            made, true = predicted @ self._opening, batch.targets @ self._opening
            softness = config.closure_softness_dm
            closure = closure_loss(made, true, batch.closed_below, batch.weights, softness)
            terms["closure"] = config.closure_weight * closure
        return terms
