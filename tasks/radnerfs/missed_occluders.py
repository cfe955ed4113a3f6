"""Rays that show something else than the head: what no mask had found weighs little, once the rest is explained.

Iteratively re-weighted least squares with a memory: the error that is usual at each place of the head (teeth and lips
keep a large one, a forehead a small one) tells which errors are not.
"""

from __future__ import annotations

import torch
from torch import Tensor

CELLS = 24
"""Of the field's cube along each side: a few millimetres, so lips, teeth and skin are told apart."""
RATE = 0.05
"""How far one step's errors move what is usual."""
UNKNOWN = 1.0
"""The usual error of a place before it was looked at: larger than any, so nothing is unusual there."""


class UsualErrors:
    """The usual colour error at each place of the head, and what rays far above it weigh.

    Attributes:
        usual: float32 ``[CELLS³]``.

    Args:
        limit: errors up to this many times the usual one count in full; 0 lets every ray count in full.
        device: of the rays.
    """

    def __init__(self, limit: float, device: torch.device) -> None:
        self.limit = limit
        self.usual = torch.full((CELLS**3,), UNKNOWN, device=device)

    def weights(self, position: Tensor, error: Tensor) -> Tensor:
        """What rays weigh, 0..1: the square of how far the limit lies below their error (a redescending weight).

        Args:
            position: ``[..., 3]`` in the cube -1..1.
            error: ``[...]`` mean absolute error of the colour.
        """
        if self.limit == 0:
            return torch.ones_like(error)
        allowed = self.limit * self.usual[cell_of(position)]
        return (allowed / error.clamp(min=1e-6)).clamp(max=1.0).square()

    def learn(self, position: Tensor, error: Tensor) -> None:
        """Let the errors of one step, none of them above its limit, move what is usual where they lie."""
        if self.limit == 0:
            return
        cell, error = cell_of(position).flatten(), error.flatten()
        error = torch.minimum(error, self.limit * self.usual[cell])
        total, count = torch.zeros_like(self.usual), torch.zeros_like(self.usual)
        total.index_add_(0, cell, error)
        count.index_add_(0, cell, torch.ones_like(error))
        found = total / count.clamp(min=1)
        self.usual.add_(torch.where(count > 0, RATE * (found - self.usual), 0.0))


def cell_of(position: Tensor) -> Tensor:
    """Number ``[...]`` of the cell that holds each point ``[..., 3]`` of the cube -1..1."""
    place = ((position + 1) * (CELLS / 2)).long().clamp(0, CELLS - 1)
    return (place[..., 0] * CELLS + place[..., 1]) * CELLS + place[..., 2]
