"""Multi-resolution feature grid: owns the table, the backend interpolates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.config import GridConfig

INITIAL_AMPLITUDE = 1e-4


class GridEncoder(nn.Module):
    """Features of points, looked up in grids of rising resolution.

    Attributes:
        embeddings: ``[rows, features_per_level]`` parameter, level after level.
        offsets: int32 ``[n_levels + 1]``, first row of each level; geometry only, kept for checkpoints.
    """

    offsets: Tensor

    def __init__(self, config: GridConfig, n_dims: int, backend: RenderBackend) -> None:
        super().__init__()
        self.levels = config.levels(n_dims)
        self.width = config.width
        self.backend = backend
        table = torch.empty(self.levels.n_rows, config.features_per_level)
        self.embeddings = nn.Parameter(table.uniform_(-INITIAL_AMPLITUDE, INITIAL_AMPLITUDE))
        self.register_buffer("offsets", torch.tensor(self.levels.offsets, dtype=torch.int32))

    def forward(self, positions: Tensor, bound: float = 1.0) -> Tensor:
        """Encode positions ``[..., D]`` in ±bound to ``[..., width]``; zeros outside."""
        unit = (positions.float() + bound) / (2 * bound)
        features = self.backend.grid_encode(unit.reshape(-1, unit.shape[-1]), self.embeddings, self.levels)
        return features.view(*positions.shape[:-1], self.width)
