"""Condition encoder: a window of facial motion (and eye opening) becomes one feature vector per frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAK = 0.02
BLINK_WIDTH = 32
STRIDES = {1: (1, 1, 1, 1), 2: (2, 1, 1, 1), 3: (2, 2, 1, 1), 4: (2, 2, 1, 1), 16: (2, 2, 2, 2)}
"""Convolution strides that bring a condition window of that many time steps down to one."""


class AudioNet(nn.Module):
    """One condition item ``[time, channels]`` to a feature; four convolutions over time, then two linear layers."""

    def __init__(self, dim_in: int, dim_out: int, win_size: int) -> None:
        super().__init__()
        widths = (dim_in, 32, 32, 64, 64)
        layers: list[nn.Module] = []
        for index, stride in enumerate(STRIDES[win_size]):
            layers += [nn.Conv1d(widths[index], widths[index + 1], 3, stride, padding=1), nn.LeakyReLU(LEAK)]
        self.encoder_conv = nn.Sequential(*layers)
        self.encoder_fc1 = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(LEAK), nn.Linear(64, dim_out))

    def forward(self, items: Tensor) -> Tensor:
        """Items ``[W, time, dim_in]`` to features ``[W, dim_out]``."""
        return self.encoder_fc1(self.encoder_conv(items.transpose(1, 2)).squeeze(-1))


class AudioAttNet(nn.Module):
    """Weighted mean of a window of features; the weights come from convolutions over the window."""

    def __init__(self, dim: int, win_size: int) -> None:
        super().__init__()
        widths = (dim, 16, 8, 4, 2, 1)
        layers: list[nn.Module] = []
        for width_in, width_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv1d(width_in, width_out, 3, padding=1), nn.LeakyReLU(LEAK)]
        self.attentionConvNet = nn.Sequential(*layers)
        self.attentionNet = nn.Sequential(nn.Linear(win_size, win_size), nn.Softmax(dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Window ``[..., W, dim]`` to ``[..., dim]``."""
        windows = features.reshape(-1, *features.shape[-2:])  # [B, W, dim]
        scores = self.attentionConvNet(windows.transpose(1, 2)).flatten(1)  # [B, W]
        blended = (self.attentionNet(scores)[..., None] * windows).sum(dim=1)
        return blended.view(*features.shape[:-2], -1)


def blink_layers(dim_out: int) -> tuple[nn.Embedding, nn.Sequential]:
    """The embedding ``[1, 32]``, scaled by the eye opening, and the linear layers 32 → 32 → ``dim_out`` behind it.

    Two parts, not one module: checkpoints name them ``blink_embedding`` and ``blink_encoder`` at the top level.
    """
    encoder = nn.Sequential(nn.Linear(BLINK_WIDTH, BLINK_WIDTH), nn.Linear(BLINK_WIDTH, dim_out))
    return nn.Embedding(1, BLINK_WIDTH), encoder


def add_blink(features: Tensor, offset: Tensor) -> Tensor:
    """Features ``[W, C]`` with ``offset [E]`` added to the first ``E`` channels of every row."""
    return torch.cat([features[..., : offset.shape[-1]] + offset, features[..., offset.shape[-1] :]], dim=-1)
