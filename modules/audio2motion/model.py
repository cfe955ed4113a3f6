"""Audio → motion: rows of speech features to deviations of the mouth units from rest.

A few small networks of different kinds see the principal components of the features and are averaged: on speakers left
out, their mistakes differ and their mean beats each of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.audio2motion.config import Audio2MotionConfig
from modules.audio2motion.members import LinearMember, VariationalMember, trained_members
from modules.audio2motion.take import Take

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
        self.networks = trained_members(config)
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

    @property
    def n_members(self) -> int:
        return len(self.networks) + (self.linear is not None)

    def noisy_components(self, components: Tensor, generator: torch.Generator) -> Tensor:
        """``components [B, T, C]`` with the feature noise of training."""
        batch, _, width = components.shape
        sizes = ((components.shape, self.config.feature_noise), ((batch, 1, width), self.config.window_noise))
        for shape, spread in sizes:
            if spread:
                noise = torch.randn(shape, generator=generator, device=generator.device)
                components = components + spread * noise.to(components.device)
        return components

    def member_deviations(self, components: Tensor, take: Take | None = None, first_row: int = 0) -> list[Tensor]:
        """Each member's answer, without gain, the linear one last.

        Args:
            components: ``[B, T, C]`` of ``projection``.
            take: a draw of the variational members; their likeliest motion when None.
            first_row: the file's row number of the first row, a multiple of the code's stride.

        Returns:
            ``[B, T, U]`` per member.
        """
        outputs = []
        for number, network in enumerate(self.networks):
            if take is None or not isinstance(network, VariationalMember):
                outputs.append(network(components))
                continue
            stride, latent = network.vae.config.stride, network.vae.config.latent
            noise = take.noise(number, latent, first_row // stride, network.n_codes(components.shape[1]))
            outputs.append(network(components, noise.expand(len(components), -1, -1).to(components)))
        return outputs if self.linear is None else [*outputs, self.linear(components)]

    def unit_deviations(self, components: Tensor, take: Take | None = None, first_row: int = 0) -> Tensor:
        """All members together ``[B, T, U]``, without gain.

        Args:
            components: ``[B, T, C]`` of ``projection``.
            take: shares and draws of the members; None is their plain mean.
            first_row: see ``member_deviations``.
        """
        stacked = torch.stack(self.member_deviations(components, take, first_row))
        return stacked.mean(dim=0) if take is None else torch.einsum("m,mbtu->btu", take.shares.to(stacked), stacked)

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
