"""Losses of head training."""

from __future__ import annotations

import torch
from torch import Tensor


def charbonnier(rendered: Tensor, target: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Weighted mean over rays and channels of ``sqrt(e² + eps²) - eps``: quadratic below ``eps``, linear above.

    Args:
        rendered: ``[N, 3]``, differentiable.
        target: ``[N, 3]``.
        weight: ``[N]``.
        eps: where the two regimes meet, in colour units.
    """
    error = ((rendered - target) ** 2 + eps**2).sqrt() - eps
    return (error.mean(dim=1) * weight).sum() / weight.sum().clamp(min=1)


def code_penalty(codes: Tensor) -> Tensor:
    """Mean square of the appearance codes ``[F, D]`` around their mean: they explain light, not lips."""
    return ((codes - codes.mean(dim=0)) ** 2).mean() if codes.numel() else codes.new_zeros(())


def psnr(rendered: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of colours 0..1, dB."""
    return -10 * torch.log10(((rendered - target) ** 2).mean().clamp_min(1e-10))
