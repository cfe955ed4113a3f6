"""Frequency encoding: sines and cosines of rising octaves."""

from __future__ import annotations

from torch import Tensor, nn

from modules.radnerfs.backends.base import RenderBackend


class FrequencyEncoder(nn.Module):
    """``[..., n_dims] -> [..., n_dims * (1 + 2 * degree)]``; no parameters."""

    def __init__(self, n_dims: int, degree: int, backend: RenderBackend) -> None:
        super().__init__()
        self.degree = degree
        self.width = n_dims * (1 + 2 * degree)
        self.backend = backend

    def forward(self, values: Tensor) -> Tensor:
        """Encode values ``[..., n_dims]``."""
        return self.backend.freq_encode(values, self.degree)
