"""Losses of head training."""

from __future__ import annotations

import torch
from torch import Tensor


def charbonnier(rendered: Tensor, target: Tensor, eps: float) -> Tensor:
    """Mean over rays and channels of ``sqrt(e² + eps²) - eps``: quadratic below ``eps``, linear above.

    Args:
        rendered: ``[N, 3]``, differentiable.
        target: ``[N, 3]``.
        eps: where the two regimes meet, in colour units.
    """
    return (((rendered - target) ** 2 + eps**2).sqrt() - eps).mean()


def code_penalty(codes: Tensor) -> Tensor:
    """Mean square of the appearance codes ``[F, D]`` around their mean: they explain light, not lips."""
    return ((codes - codes.mean(dim=0)) ** 2).mean() if codes.numel() else codes.new_zeros(())


def psnr(rendered: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of colours 0..1, dB."""
    return -10 * torch.log10(((rendered - target) ** 2).mean().clamp_min(1e-10))
