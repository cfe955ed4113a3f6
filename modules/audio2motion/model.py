"""Audio → motion: rows of speech features to deviations of the mouth units from rest.

A few small networks of different kinds see the principal components of the features and are averaged: on speakers left
out, their mistakes differ and their mean beats each of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.audio2motion.config import Audio2MotionConfig

LIP_SOFTNESS_DM = 0.004
"""How softly lips meet: 0.4 mm."""


class FeatureProjection(nn.Module):
    """Fixed principal components of each encoder block, set from the training rows; not trained."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, config: Audio2MotionConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(config.n_blocks, config.block_width))
        self.register_buffer("matrix", torch.zeros(config.n_blocks, config.block_width, config.bottleneck))

    def forward(self, features: Tensor) -> Tensor:
        """``[..., blocks · width]`` to ``[..., blocks · bottleneck]``."""
        blocks = features.unflatten(-1, self.mean.shape)
        return torch.einsum("...bw,bwc->...bc", blocks - self.mean, self.matrix).flatten(-2)


def _silent_layer(n_inputs: int, n_outputs: int) -> nn.Linear:
    """A last layer that starts at 0: motion is small, and a random start would drown it."""
    layer = nn.Linear(n_inputs, n_outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ConvolutionalMember(nn.Module):
    """Dilated residual convolutions over time."""

    def __init__(self, config: Audio2MotionConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(config.n_components, config.hidden)
        self.layers = nn.ModuleList(
            nn.Conv1d(config.hidden, config.hidden, 3, dilation=d, padding=d, padding_mode="replicate")
            for d in config.dilations
        )
        self.dropout = nn.Dropout(config.dropout)
        self.leave = _silent_layer(config.hidden, len(config.units))

    def forward(self, components: Tensor) -> Tensor:
        """``[B, T, C]`` to ``[B, T, U]``."""
        x = self.dropout(functional.gelu(self.enter(components)))
        for layer in self.layers:
            x = x + self.dropout(functional.gelu(layer(x.transpose(1, 2)))).transpose(1, 2)
        return self.leave(x)


class RecurrentMember(nn.Module):
    """A gated recurrent unit that reads the clip in both directions."""

    def __init__(self, config: Audio2MotionConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(config.n_components, config.hidden)
        self.recurrent = nn.GRU(config.hidden, config.recurrent_hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.leave = _silent_layer(2 * config.recurrent_hidden, len(config.units))

    def forward(self, components: Tensor) -> Tensor:
        """``[B, T, C]`` to ``[B, T, U]``."""
        x, _ = self.recurrent(self.dropout(functional.gelu(self.enter(components))))
        return self.leave(self.dropout(x))


class LinearMember(nn.Module):
    """Ridge regression on a window of rows; solved in closed form, not trained."""

    def __init__(self, config: Audio2MotionConfig) -> None:
        super().__init__()
        self.filter = nn.Conv1d(
            config.n_components,
            len(config.units),
            2 * config.linear_reach + 1,
            padding=config.linear_reach * config.linear_step,
            dilation=config.linear_step,
            padding_mode="replicate",
        ).requires_grad_(False)

    def forward(self, components: Tensor) -> Tensor:
        """``[B, T, C]`` to ``[B, T, U]``."""
        return self.filter(components.transpose(1, 2)).transpose(1, 2)


def stretch(units: Tensor, gain: Tensor, center: Tensor, opening_effect: Tensor, opening_floor: Tensor) -> Tensor:
    """Undo regression's shrinkage, without pushing the lips through each other.

    Motion is stretched about its mean; where the lips would then close further than lips can, the units are moved back
    by the least change that helps.

    Args:
        units: ``[..., U]`` mean prediction.
        gain: ``[U]``.
        center: ``[U]`` mean of predictions in speech.
        opening_effect: ``[U]`` lip opening, dm, that one unit adds.
        opening_floor: scalar, dm over the mouth at rest (a little negative).

    Returns:
        ``[..., U]``, differentiable in ``units``.
    """
    natural = center + gain * (units - center)
    excess = opening_floor - natural @ opening_effect
    push_back = LIP_SOFTNESS_DM * functional.softplus(excess / LIP_SOFTNESS_DM)
    return natural + push_back[..., None] * opening_effect / opening_effect.square().sum().clamp_min(1e-12)


class Audio2Motion(nn.Module):
    """Speech features to expression coefficients.

    Args:
        config: sizes.
        columns: ``[U]`` column of each predicted unit among the face model's coefficients.
        n_expression: coefficients of the face model.
    """

    columns: Tensor
    gain: Tensor
    center: Tensor
    opening_effect: Tensor
    opening_floor: Tensor

    def __init__(self, config: Audio2MotionConfig, columns: Tensor, n_expression: int) -> None:
        super().__init__()
        if len(columns) != len(config.units):
            raise ValueError(f"{len(config.units)} units but {len(columns)} columns")
        self.config = config
        self.n_expression = n_expression
        self.projection = FeatureProjection(config)
        self.networks = nn.ModuleList(
            [ConvolutionalMember(config) for _ in range(config.convolutional)]
            + [RecurrentMember(config) for _ in range(config.recurrent)]
        )
        self.linear = LinearMember(config) if config.linear_reach >= 0 else None
        self.register_buffer("columns", columns.to(torch.int64))
        # Regression shrinks motion towards its mean: closures stay open, wide vowels narrow. The gain, measured on
        # speakers left out, stretches it about that mean again.
        self.register_buffer("gain", torch.ones(len(config.units)))
        self.register_buffer("center", torch.zeros(len(config.units)))
        # dm of lip opening that one unit adds, to first order; kept so that closures can be found without a face model
        self.register_buffer("opening_effect", torch.zeros(n_expression))
        # what the lips of people at rest still close by in speech, dm: stretched motion must not push them through
        # each other
        self.register_buffer("opening_floor", torch.tensor(-1e3))

    def member_deviations(self, components: Tensor, noise: torch.Generator | None = None) -> list[Tensor]:
        """Each trained member's answer, without gain.

        Args:
            components: ``[B, T, C]`` of ``projection``.
            noise: when given (training), every member sees feature noise of its own.

        Returns:
            ``[B, T, U]`` per member.
        """
        spread = self.config.feature_noise
        if noise is None or spread == 0:
            return [network(components) for network in self.networks]
        outputs = []
        for network in self.networks:
            sample = torch.randn(components.shape, generator=noise, device=components.device)
            outputs.append(network(components + spread * sample))
        return outputs

    @property
    def n_members(self) -> int:
        return len(self.networks) + (self.linear is not None)

    def unit_deviations(self, components: Tensor, shares: Tensor | None = None) -> Tensor:
        """All members together ``[B, T, U]``, without gain.

        Args:
            components: ``[B, T, C]`` of ``projection``.
            shares: ``[members]`` summing to 1; equal when None.
        """
        outputs = self.member_deviations(components)
        if self.linear is not None:
            outputs.append(self.linear(components))
        stacked = torch.stack(outputs)
        return stacked.mean(dim=0) if shares is None else torch.einsum("m,mbtu->btu", shares, stacked)

    def stretched(self, units: Tensor) -> Tensor:
        """``unit_deviations`` in natural size, in the face model's columns: ``[..., U]`` to ``[..., E]``."""
        effect = self.opening_effect[self.columns]
        natural = stretch(units, self.gain, self.center, effect, self.opening_floor)
        full = natural.new_zeros(*natural.shape[:-1], self.n_expression)
        return full.index_copy(-1, self.columns, natural)

    def forward(self, features: Tensor) -> Tensor:
        """Deviation from rest in natural size.

        Args:
            features: ``[B, T, 1152]`` at 50 Hz.

        Returns:
            ``[B, T, E]``; columns that are not predicted are 0.
        """
        return self.stretched(self.unit_deviations(self.projection(features)))
