"""Gated residual convolutions over time, steered by a condition: WaveNet's layers without its causality.

Parameter names and arithmetic are those of GeneFace++'s checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class NormalisedConv1d(nn.Module):
    """Convolution whose weight is a direction times a length: ``w = g · v / ‖v‖``, one length per output channel.

    Salimans and Kingma, *Weight Normalization* (2016), equation 2.
    """

    def __init__(self, n_inputs: int, n_outputs: int, kernel: int = 1, *, padding: int = 0, dilation: int = 1) -> None:
        super().__init__()
        start = nn.Conv1d(n_inputs, n_outputs, kernel)
        assert start.bias is not None
        self.bias = nn.Parameter(start.bias.detach())
        self.weight_g = nn.Parameter(start.weight.detach().flatten(1).norm(dim=1)[:, None, None])
        self.weight_v = nn.Parameter(start.weight.detach())
        self._padding, self._dilation = padding, dilation

    def weight(self) -> Tensor:
        """``[O, I, K]``."""
        return self.weight_v * (self.weight_g / self.weight_v.flatten(1).norm(dim=1)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """``[B, I, T]`` to ``[B, O, T]``."""
        return functional.conv1d(x, self.weight(), self.bias, padding=self._padding, dilation=self._dilation)


class GatedConvolutions(nn.Module):
    """Layers ``tanh(a) · sigmoid(b)`` of a convolution and the condition, with residual and skip connections.

    van den Oord et al., *WaveNet* (2016), equation 2 and figure 4, with dilation 1 unless asked otherwise.

    Args:
        hidden: channels.
        kernel: rows a layer sees, odd.
        n_layers: layers.
        n_condition: channels of the condition.
        dropout: share of gated values dropped in training.
    """

    def __init__(self, hidden: int, kernel: int, n_layers: int, n_condition: int, dropout: float = 0.0) -> None:
        super().__init__()
        if kernel % 2 == 0 or n_layers < 1:
            raise ValueError(f"needs an odd kernel and at least one layer, got {kernel} and {n_layers}")
        self._hidden = hidden
        self.in_layers = nn.ModuleList(
            NormalisedConv1d(hidden, 2 * hidden, kernel, padding=kernel // 2) for _ in range(n_layers)
        )
        outputs = [2 * hidden] * (n_layers - 1) + [hidden]  # the last layer has nothing to hand on
        self.res_skip_layers = nn.ModuleList(NormalisedConv1d(hidden, count) for count in outputs)
        self.cond_layer = NormalisedConv1d(n_condition, 2 * hidden * n_layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """Sum of all layers' skips.

        Args:
            x: ``[B, H, T]``.
            condition: ``[B, G, T]``.
            mask: ``[B, 1, T]``, 0 past the end of a clip.

        Returns:
            ``[B, H, T]``, 0 where the mask is.
        """
        steering = self.cond_layer(condition).chunk(len(self.in_layers), dim=1)
        total = torch.zeros_like(x)
        for layer, mix, steer in zip(self.in_layers, self.res_skip_layers, steering, strict=True):
            signal, gate = (layer(x) + steer).chunk(2, dim=1)
            mixed = mix(self.dropout(torch.tanh(signal) * torch.sigmoid(gate)))
            if mixed.shape[1] > self._hidden:
                residual, mixed = mixed.chunk(2, dim=1)
                x = (x + residual) * mask
            total = total + mixed
        return total * mask
