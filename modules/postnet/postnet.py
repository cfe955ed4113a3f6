"""The post-net: refines predicted landmarks until they move as this person's do.

A few dilated convolutions over time see the z-scored landmarks and say what to add. The last layer begins at 0, so an
untrained post-net changes nothing. GeneFace++ has the place for one (``--postnet_ckpt``) but ships neither class nor
weights; only where it sits is taken over: on the raw landmarks, before LLE and clamp.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.postnet.config import PostNetConfig


class LandmarkPostNet(nn.Module):
    """Landmark rows to this person's landmark rows.

    Attributes:
        mean, std: ``[width]`` of this person's rows; what z-scores them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PostNetConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("std", torch.ones(config.width))
        self.enter = nn.Linear(config.width, config.hidden)
        self.layers = nn.ModuleList(
            nn.Conv1d(config.hidden, config.hidden, 3, dilation=d, padding=d, padding_mode="replicate")
            for d in config.dilations
        )
        self.dropout = nn.Dropout(config.dropout)
        self.leave = nn.Linear(config.hidden, config.width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Raw landmark rows ``[B, T, width]`` to refined ones; consecutive frames, any number of them."""
        scored = (rows - self.mean) / self.std
        x = self.dropout(functional.gelu(self.enter(scored)))
        for layer in self.layers:
            x = x + self.dropout(functional.gelu(layer(x.transpose(1, 2)))).transpose(1, 2)
        return rows + self.leave(x) * self.std
