"""The kinds of small network that audio → motion averages.

Each takes rows of feature components ``[B, T, C]`` to deviations of the units ``[B, T, U]``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.audio2motion.config import Audio2MotionConfig
from modules.audio2motion.vae import FlowVAE, Posterior


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


@dataclass(frozen=True, slots=True, eq=False)
class MemberReconstruction:
    """True motion through a variational member's code and back.

    Attributes:
        units: ``[B, T, U]``. posterior: of the code. divergence: from the prior, scalar, nats per code value.
    """

    units: Tensor
    posterior: Posterior
    divergence: Tensor


class VariationalMember(nn.Module):
    """GeneFace++'s motion VAE with a flow prior, conditioned on the components.

    Motion has many right answers to one sound; the others give their mean, this one any of them: without noise the
    likeliest, with noise another.
    """

    unit_scale: Tensor

    def __init__(self, config: Audio2MotionConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(config.n_components, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.vae = FlowVAE(len(config.units), config.hidden, config.vae)
        nn.init.zeros_(self.vae.decoder.out_proj.weight)
        nn.init.zeros_(self.vae.decoder.out_proj.bias)  # type: ignore[arg-type]
        # spread of each unit in the training motion: inside, motion has variance 1
        self.register_buffer("unit_scale", torch.ones(len(config.units)))

    def n_codes(self, rows: int) -> int:
        """Codes that ``rows`` rows need."""
        return -(-rows // self.vae.config.stride)

    def _condition(self, components: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, F, T']`` of whole codes, the last row repeated, and a mask of ones."""
        padded = _whole_codes(components, self.vae.config.stride)
        condition = self.dropout(functional.gelu(self.enter(padded))).transpose(1, 2)
        return condition, condition.new_ones(len(condition), 1, condition.shape[2])

    def forward(self, components: Tensor, noise: Tensor | None = None) -> Tensor:
        """``[B, T, C]`` to ``[B, T, U]``.

        Args:
            components: what is heard.
            noise: ``[B, Z, n_codes(T)]`` scaled by the temperature; None gives the likeliest motion.
        """
        condition, mask = self._condition(components)
        if noise is None:
            noise = condition.new_zeros(self.vae.noise_shape(len(condition), condition.shape[2]))
        codes = self.vae.prior_codes(noise, condition, mask)
        motion = self.vae.decode(codes, condition, mask).transpose(1, 2)
        return self.unit_scale * motion[:, : components.shape[1]]

    def reconstruct(
        self, components: Tensor, targets: Tensor, weights: Tensor, generator: torch.Generator
    ) -> MemberReconstruction:
        """What training looks at.

        Args:
            components: ``[B, T, C]``.
            targets: ``[B, T, U]`` true motion.
            weights: ``[B, T]``; codes under rows of weight 0 only do not count.
            generator: draws the codes.
        """
        stride, rows = self.vae.config.stride, targets.shape[1]
        condition, mask = self._condition(components)
        motion = _whole_codes(targets / self.unit_scale, stride).transpose(1, 2)
        posterior = self.vae.posterior(motion, condition, mask)
        noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
        codes = posterior.sample(noise.to(motion.device))
        decoded = self.vae.decode(codes, condition, mask).transpose(1, 2)[:, :rows]
        heard = _whole_codes((weights > 0).to(mask)[..., None], stride).transpose(1, 2)
        divergence = self.vae.divergence(posterior, codes, condition, heard)
        return MemberReconstruction(self.unit_scale * decoded, posterior, divergence)


def _whole_codes(rows: Tensor, stride: int) -> Tensor:
    """``[B, T, C]`` with the last row repeated up to a multiple of ``stride``."""
    missing = -rows.shape[1] % stride
    return rows if missing == 0 else torch.cat([rows, rows[:, -1:].expand(-1, missing, -1)], dim=1)


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


def trained_members(config: Audio2MotionConfig) -> nn.ModuleList:
    """The members that training by gradients changes, in the order their weights are stored in."""
    kinds = (
        (ConvolutionalMember, config.convolutional),
        (RecurrentMember, config.recurrent),
        (VariationalMember, config.variational),
    )
    return nn.ModuleList(kind(config) for kind, count in kinds for _ in range(count))
