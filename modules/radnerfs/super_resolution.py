"""Super-resolution of a rendered picture: a small StyleGAN2 decoder that doubles its side.

Written from Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), equations 1 to 3, and from
the sizes of GeneFace++'s checkpoints, whose names it keeps. The style vector is constant, so the styles of a layer are
constant too and fold into its weights: every layer is a plain convolution.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.radnerfs.config import Noise, SuperResolutionConfig

FILTER_TAPS = (1.0, 3.0, 3.0, 1.0)
"""Binomial filter along each axis; it smooths what doubling inserts."""
LEAK = 0.2
LARGEST = 256.0
"""Activations are clamped to this, which half precision needs."""
DEMODULATION_EPS = 1e-8


class SuperResolution(nn.Module):
    """Picture ``[B, 3, S, S]`` to ``[B, 3, 2S, 2S]``: one block at the picture's size, one at twice that.

    Each block also draws an RGB correction, which is added to the (doubled) picture.
    """

    resample_filter: Tensor

    def __init__(self, config: SuperResolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("resample_filter", resampling_filter())
        first, second = config.channels
        self.block0 = _Block(3, first, config.size, config.style_dim, doubles=False)
        self.block1 = _Block(first, second, 2 * config.size, config.style_dim, doubles=True)

    def forward(self, image: Tensor, noise: Noise | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Double a picture.

        Args:
            image: ``[B, 3, S, S]`` 0..1.
            noise: 'off', 'fixed' (the stored pattern: no flicker) or 'random'; None = the configuration's.
            generator: source of random noise, on the image's device.

        Returns:
            ``[B, 3, 2S, 2S]``, not clamped; differentiable.

        Raises:
            ValueError: a picture of another size.
        """
        side = self.config.size
        if image.shape[1:] != (3, side, side):
            raise ValueError(f"super-resolution takes pictures [B, 3, {side}, {side}], got {tuple(image.shape)}")
        kind = self.config.noise if noise is None else noise
        features, image = self.block0(image, image, kind, generator)
        return self.block1(features, image, kind, generator)[1]


class _Block(nn.Module):
    """Two convolutions, the first of which may double the side, and the RGB they add to the picture."""

    resample_filter: Tensor

    def __init__(self, channels_in: int, channels: int, side: int, style_dim: int, *, doubles: bool) -> None:
        super().__init__()
        self.register_buffer("resample_filter", resampling_filter())
        self.doubles = doubles
        self.conv0 = _NoisyConvolution(channels_in, channels, side, style_dim, doubles=doubles)
        self.conv1 = _NoisyConvolution(channels, channels, side, style_dim, doubles=False)
        self.torgb = _ToRGB(channels, style_dim)

    def forward(
        self, features: Tensor, image: Tensor, noise: Noise, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        features = self.conv1(self.conv0(features, noise, generator), noise, generator)
        below = double_picture(image, self.resample_filter) if self.doubles else image
        return features, below + self.torgb(features)


class _NoisyConvolution(nn.Module):
    """Demodulated 3 × 3 convolution, noise, bias and a leaky ReLU of unit gain."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(self, channels_in: int, channels: int, side: int, style_dim: int, *, doubles: bool) -> None:
        super().__init__()
        self.doubles = doubles
        self.weight = nn.Parameter(torch.randn(channels, channels_in, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("resample_filter", resampling_filter())
        self.register_buffer("noise_const", torch.randn(side, side))
        self.affine = _ConstantStyle(channels_in, style_dim)

    def forward(self, features: Tensor, noise: Noise, generator: torch.Generator | None) -> Tensor:
        weight = demodulated(self.weight, self.affine())
        if self.doubles:
            features = F.conv_transpose2d(features, weight.transpose(0, 1), stride=2)
            features = _smoothed(features, self.resample_filter * 4)
        else:
            features = F.conv2d(features, weight, padding=1)
        pattern = self._noise(noise, len(features), generator)
        if pattern is not None:
            features = features + pattern * self.noise_strength
        activated = F.leaky_relu(features + self.bias[:, None, None], LEAK) * math.sqrt(2)
        return activated.clamp(-LARGEST, LARGEST)

    def _noise(self, noise: Noise, count: int, generator: torch.Generator | None) -> Tensor | None:
        if noise == "off":
            return None
        if noise == "fixed":
            return self.noise_const
        side = len(self.noise_const)
        return torch.randn(count, 1, side, side, generator=generator, device=self.noise_const.device)


class _ToRGB(nn.Module):
    """1 × 1 convolution to colours, its input scaled by the style."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.affine = _ConstantStyle(channels, style_dim)

    def forward(self, features: Tensor) -> Tensor:
        style = self.affine() / math.sqrt(features.shape[1])
        return F.conv2d(features, self.weight * style[:, None, None], self.bias).clamp(-LARGEST, LARGEST)


class _ConstantStyle(nn.Module):
    """Styles ``[channels]`` of a style vector of ones: ``ones · (weight / √style_dim)ᵀ + bias``."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, style_dim))
        self.bias = nn.Parameter(torch.ones(channels))

    def forward(self) -> Tensor:
        return self.weight.sum(dim=1) / math.sqrt(self.weight.shape[1]) + self.bias


def demodulated(weight: Tensor, style: Tensor) -> Tensor:
    """StyleGAN2's modulation and demodulation (its equations 1 and 3): every output channel gets unit norm.

    Args:
        weight: ``[out, in, kh, kw]``.
        style: ``[in]``.
    """
    scaled = weight * style[:, None, None]
    return scaled * torch.rsqrt(scaled.square().sum(dim=(1, 2, 3), keepdim=True) + DEMODULATION_EPS)


def resampling_filter() -> Tensor:
    """``[4, 4]`` binomial filter with sum 1."""
    taps = torch.tensor(FILTER_TAPS)
    return torch.outer(taps, taps) / taps.sum() ** 2


def double_picture(image: Tensor, smoothing: Tensor) -> Tensor:
    """A picture ``[B, C, H, W]`` at twice its size: zeros between its pixels, then the filter ``[4, 4]`` times 4."""
    channels = image.shape[1]
    kernel = (smoothing * 4).expand(channels, 1, *smoothing.shape)
    return F.conv_transpose2d(image, kernel, stride=2, padding=1, groups=channels)


def _smoothed(features: Tensor, kernel: Tensor) -> Tensor:
    """Every channel filtered by itself, one pixel of padding around it."""
    channels = features.shape[1]
    return F.conv2d(features, kernel.expand(channels, 1, *kernel.shape), padding=1, groups=channels)
