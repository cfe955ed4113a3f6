"""GeneFace++'s losses of portraits: how empty rays are, and how far motion reaches beyond the face."""

from __future__ import annotations

import math

import torch
from torch import Tensor

OPACITY_MARGIN = 1e-5
LOG_FLOOR = 1e-15
LARGEST_WEIGHT = 1000.0


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Mean of ``-a log2 a - (1 - a) log2(1 - a)`` over opacities ``[N]``: rays are to be empty or full."""
    a = opacity.clamp(OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    return (-a * torch.log2(a) - (1 - a) * torch.log2(1 - a)).mean()


def ambient_loss(ambient: Tensor, on_face: Tensor) -> Tensor:
    """Mean of ``|ambient|`` over the rays beside the face: hair and ears are not to move with the lips.

    Args:
        ambient: ``[N]`` of ``RenderOutput``, differentiable.
        on_face: bool ``[N]``.
    """
    outside = ~on_face
    return (ambient.abs() * outside).sum() / (outside.sum() + 1)


def adapted_weight(weight: Tensor, loss: Tensor, target: float, rate: float) -> Tensor:
    """A loss's weight, raised while the loss is above its target and lowered below it.

    GeneFace++'s rule: ``weight + rate · (log10 loss - log10 target)``, within 0..1000.

    Args:
        weight: ``[1]``.
        loss: ``[]``; nothing flows back through it.
        target: what the loss should be.
        rate: step per decade of difference.
    """
    decades = torch.log10(loss.detach() + LOG_FLOOR) - math.log10(target + LOG_FLOOR)
    return (weight + rate * decades).clamp(0.0, LARGEST_WEIGHT)
