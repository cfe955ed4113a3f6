"""Spherical-harmonics encoding of view directions."""

from __future__ import annotations

from torch import Tensor, nn

from modules.radnerfs.backends.base import RenderBackend


class SphericalHarmonicsEncoder(nn.Module):
    """Unit vectors ``[..., 3] -> [..., degree ** 2]``; no parameters."""

    def __init__(self, degree: int, backend: RenderBackend) -> None:
        super().__init__()
        self.degree = degree
        self.width = degree**2
        self.backend = backend

    def forward(self, directions: Tensor) -> Tensor:
        """Encode directions ``[..., 3]``."""
        return self.backend.sh_encode(directions, self.degree)
