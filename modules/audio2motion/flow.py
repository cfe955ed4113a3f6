"""The prior of the motion's codes: plain noise, bent by invertible layers that see the sound.

Parameter names and arithmetic are those of GeneFace++'s checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.audio2motion.wavenet import GatedConvolutions


class ResidualCoupling(nn.Module):
    """Shifts the second half of the channels by what the first half and the condition say; volume stays the same.

    Dinh et al., *NICE* (2014), section 3.2 (additive coupling).
    """

    def __init__(self, n_channels: int, hidden: int, kernel: int, n_layers: int, n_condition: int) -> None:
        super().__init__()
        half = n_channels // 2
        self.pre = nn.Conv1d(half, hidden, 1)
        self.enc = GatedConvolutions(hidden, kernel, n_layers, n_condition)
        self.post = nn.Conv1d(hidden, half, 1)
        # Starting as the identity keeps the first steps of training from chasing a random prior.
        nn.init.zeros_(self.post.weight)
        nn.init.zeros_(self.post.bias)  # type: ignore[arg-type]

    def _shift(self, kept: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        return self.post(self.enc(self.pre(kept) * mask, condition, mask)) * mask

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """``[B, C, T]`` towards plain noise."""
        kept, moved = x.chunk(2, dim=1)
        return torch.cat([kept, self._shift(kept, condition, mask) + moved * mask], dim=1)

    def inverse(self, x: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """``[B, C, T]`` from plain noise."""
        kept, moved = x.chunk(2, dim=1)
        return torch.cat([kept, (moved - self._shift(kept, condition, mask)) * mask], dim=1)


class ChannelFlip(nn.Module):
    """Reverses the channels, so that the next coupling shifts what this one kept."""

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """``[B, C, T]`` to the same."""
        return x.flip(1)

    inverse = forward


class PriorFlow(nn.Module):
    """Couplings with flips after each; even numbers in ``flows`` hold the parameters.

    Args:
        n_channels: of a code, even.
        hidden, kernel, n_layers: of each coupling's convolutions.
        n_flows: couplings.
        n_condition: channels of the condition.
    """

    def __init__(
        self, n_channels: int, hidden: int, kernel: int, n_layers: int, n_flows: int, n_condition: int
    ) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for _ in range(n_flows):
            steps += [ResidualCoupling(n_channels, hidden, kernel, n_layers, n_condition), ChannelFlip()]
        self.flows = nn.ModuleList(steps)

    def forward(self, codes: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """Codes ``[B, C, T]`` to what should be plain noise; differentiable, volume-preserving.

        Args:
            codes: ``[B, C, T]``.
            condition: ``[B, G, T]``.
            mask: ``[B, 1, T]``.
        """
        for step in self.flows:
            codes = step(codes, condition, mask)
        return codes

    def inverse(self, noise: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """Plain noise ``[B, C, T]`` to codes; undoes ``forward``."""
        for step in reversed(self.flows):
            noise = step.inverse(noise, condition, mask)  # type: ignore[operator]
        return noise
