"""How learning rates and weights change over a training, and the running mean of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def learning_rate_share(step: int, max_updates: int) -> float:
    """Linear rise over the first tenth, then half a cosine down to 0 after the last step."""
    warm_up = max(1, max_updates // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / max(1, max_updates - warm_up))


def rising_share(step: int, max_updates: int, warm_up: float) -> float:
    """Linear rise from 0 to 1 over the share ``warm_up`` of the steps, then 1."""
    rows = warm_up * max_updates
    return 1.0 if rows < 1 else min(1.0, step / rows)


class RunningMean:
    """Exponential moving average of a network's floating point state; it starts at the weights it is made with.

    Args:
        network: whose state is followed.
        decay: at most this share is kept per step; fewer steps than ``1 / (1 - decay)`` are averaged evenly-ish, so
            that the start is soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self.values = {k: v.detach().clone() for k, v in network.state_dict().items() if v.is_floating_point()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the state after update number ``step`` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            if name in self.values:
                self.values[name].lerp_(value.detach(), 1.0 - decay)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Go on from stored values."""
        for name, value in self.values.items():
            value.copy_(values[name])

    def copy_to(self, network: nn.Module) -> None:
        """Give the network the mean weights."""
        network.load_state_dict({**network.state_dict(), **self.values})
