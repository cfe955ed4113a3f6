"""SSIM of batches of pictures as tensors: differentiable, on any device (Wang et al. 2004)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_LEAST_PX = 11
"""Side of SSIM's Gaussian window."""
SSIM_SIGMA_PX = 1.5
_STABLE_LUMINANCE = 0.01**2
_STABLE_CONTRAST = 0.03**2
_MIDDLE = 0.5
"""Variances are taken of values about the middle grey: thirty times less rounding in float32."""


def ssim_planes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM at every pixel and its contrast-structure factor.

    Gaussian window of 11 x 11 px, sigma 1.5, borders mirrored; computed in float32 also below autocast, because
    variances are differences of nearly equal numbers.

    Args:
        first: ``[B, C, H, W]`` in 0..1; differentiable.
        second: the same shape; differentiable.

    Returns:
        Both ``[B, C, H, W]``, at most 1.

    Raises:
        ValueError: shapes differ, or a side is below 11 px.
    """
    if first.shape != second.shape or first.ndim != 4 or min(first.shape[2:]) < SSIM_LEAST_PX:
        raise ValueError(
            f"two batches of pictures of one size, at least {SSIM_LEAST_PX} px a side, are needed, "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    with torch.autocast(first.device.type, enabled=False):
        a, b = first.float() - _MIDDLE, second.float() - _MIDDLE
        mean_a, mean_b, square_a, square_b, product = _smooth(torch.stack([a, b, a * a, b * b, a * b])).unbind()
        variance_a = (square_a - mean_a.square()).clamp(min=0)
        variance_b = (square_b - mean_b.square()).clamp(min=0)
        covariance = product - mean_a * mean_b
        structure = (2 * covariance + _STABLE_CONTRAST) / (variance_a + variance_b + _STABLE_CONTRAST)
        bright_a, bright_b = mean_a + _MIDDLE, mean_b + _MIDDLE
        luminance = 2 * bright_a * bright_b + _STABLE_LUMINANCE
        luminance = luminance / (bright_a.square() + bright_b.square() + _STABLE_LUMINANCE)
        return luminance * structure, structure


def _smooth(planes: Tensor) -> Tensor:
    """Gaussian means ``[..., H, W]``, a row pass and a column pass."""
    reach = SSIM_LEAST_PX // 2
    kernel = _gaussian(planes.device)
    flat = F.pad(planes.flatten(0, -3)[:, None], (reach, reach, reach, reach), mode="reflect")
    across = F.conv2d(flat, kernel.view(1, 1, 1, -1))
    return F.conv2d(across, kernel.view(1, 1, -1, 1)).view(planes.shape)


@functools.lru_cache(maxsize=8)
def _gaussian(device: torch.device) -> Tensor:
    """The window along one axis, sum 1."""
    reach = SSIM_LEAST_PX // 2
    with torch.inference_mode(False):
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float32, device=device)
        weights = torch.exp(-0.5 * (offsets / SSIM_SIGMA_PX) ** 2)
        return weights / weights.sum()
