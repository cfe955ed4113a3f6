"""Variational autoencoder of motion under a condition, with a flow as its prior (GeneFace++'s ``FVAE``).

A code stands for ``stride`` rows of motion. Training encodes true motion and decodes it again; prediction draws the
code from the prior instead. Code 0 before the flow is the likeliest motion, so temperature 0 is deterministic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modules.audio2motion.flow import PriorFlow
from modules.audio2motion.wavenet import GatedConvolutions


@dataclass(frozen=True, slots=True)
class FlowVAEConfig:
    """Sizes; the defaults are GeneFace++'s.

    Attributes:
        hidden: channels of encoder and decoder. latent: values of a code, even.
        kernel: rows a layer sees. encoder_layers, decoder_layers: gated layers.
        stride: rows of motion under one code, even.
        flow_hidden, flow_kernel, flow_layers: of each coupling. n_flows: couplings of the prior.
        dropout: in the decoder, in training.
    """

    hidden: int = 256
    latent: int = 16
    kernel: int = 5
    encoder_layers: int = 8
    decoder_layers: int = 4
    stride: int = 4
    flow_hidden: int = 64
    flow_kernel: int = 3
    flow_layers: int = 4
    n_flows: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.latent < 2 or self.latent % 2 or self.stride < 2 or self.stride % 2:
            raise ValueError(f"latent and stride must be even and at least 2, got {self.latent} and {self.stride}")
        if min(self.encoder_layers, self.decoder_layers, self.flow_layers, self.n_flows, self.hidden) < 1:
            raise ValueError(f"a VAE needs at least one layer, flow and channel of each kind: {self}")

    @property
    def reach_rows(self) -> int:
        """Rows to either side that can change a predicted row."""
        latent_rows = self.n_flows * self.flow_layers * (self.flow_kernel // 2) + 2
        return latent_rows * self.stride + self.decoder_layers * (self.kernel // 2)


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """What the encoder says of true motion: a normal distribution per code value.

    Attributes:
        mean, log_std: ``[B, Z, T / stride]``.
    """

    mean: Tensor
    log_std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """``noise`` of mean 0 and variance 1 as codes; differentiable in mean and log_std."""
        return self.mean + noise * self.log_std.exp()


class _Encoder(nn.Module):
    def __init__(self, n_motion: int, n_condition: int, config: FlowVAEConfig) -> None:
        super().__init__()
        self.pre_net = nn.Sequential(_shrinking(n_motion, config.hidden, config.stride))
        self.wn = GatedConvolutions(config.hidden, config.kernel, config.encoder_layers, n_condition)
        self.out_proj = nn.Conv1d(config.hidden, 2 * config.latent, 1)

    def forward(self, motion: Tensor, condition: Tensor, mask: Tensor) -> Posterior:
        x = self.wn(self.pre_net(motion) * mask, condition, mask)
        return Posterior(*(self.out_proj(x) * mask).chunk(2, dim=1))


class _Decoder(nn.Module):
    def __init__(self, n_motion: int, n_condition: int, config: FlowVAEConfig) -> None:
        super().__init__()
        spread = nn.ConvTranspose1d(config.latent, config.hidden, config.stride, stride=config.stride)
        self.pre_net = nn.Sequential(spread)
        layers, dropout = config.decoder_layers, config.dropout
        self.wn = GatedConvolutions(config.hidden, config.kernel, layers, n_condition, dropout)
        self.out_proj = nn.Conv1d(config.hidden, n_motion, 1)

    def forward(self, codes: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        return self.out_proj(self.wn(self.pre_net(codes) * mask, condition, mask))


class FlowVAE(nn.Module):
    """Codes of motion, their prior given the condition, and motion back from codes.

    Args:
        n_motion: channels of motion.
        n_condition: channels of the condition.
        config: sizes.
    """

    def __init__(self, n_motion: int, n_condition: int, config: FlowVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.g_pre_net = nn.Sequential(_shrinking(n_condition, n_condition, config.stride))
        self.encoder = _Encoder(n_motion, n_condition, config)
        self.decoder = _Decoder(n_motion, n_condition, config)
        flow = (config.flow_hidden, config.flow_kernel, config.flow_layers, config.n_flows)
        self.prior_flow = PriorFlow(config.latent, *flow, n_condition)

    def shrink(self, condition: Tensor) -> Tensor:
        """The condition ``[B, G, T]`` at the codes' rate ``[B, G, T / stride]``."""
        return self.g_pre_net(condition)

    def posterior(self, motion: Tensor, condition: Tensor, mask: Tensor) -> Posterior:
        """Codes of true motion.

        Args:
            motion: ``[B, D, T]``, T a multiple of the stride.
            condition: ``[B, G, T]``.
            mask: ``[B, 1, T]``.
        """
        return self.encoder(motion, self.shrink(condition), mask[:, :, :: self.config.stride])

    def decode(self, codes: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """Codes ``[B, Z, T / stride]`` to motion ``[B, D, T]``, 0 where the mask is."""
        return self.decoder(codes, condition, mask) * mask

    def prior_codes(self, noise: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """Plain noise ``[B, Z, T / stride]`` to codes of the prior."""
        return self.prior_flow.inverse(noise, self.shrink(condition), mask[:, :, :: self.config.stride])

    def divergence(self, posterior: Posterior, codes: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
        """Kullback-Leibler divergence of posterior and prior at ``codes`` drawn from the posterior.

        ``log q(z) - log p(f(z))`` with the volume-preserving flow f and p = N(0, 1), in nats per code value.

        Returns:
            scalar; 0 where nothing is in the mask.
        """
        small = mask[:, :, :: self.config.stride]
        noise = self.prior_flow(codes, self.shrink(condition), small)
        standard = (codes - posterior.mean) * (-posterior.log_std).exp()
        ratio = 0.5 * (noise.square() - standard.square()) - posterior.log_std
        return (ratio * small).sum() / (small.sum() * codes.shape[1]).clamp_min(1.0)

    def noise_shape(self, batch: int, rows: int) -> tuple[int, int, int]:
        """Shape of the noise that ``rows`` rows of motion need.

        Raises:
            ValueError: the rows are no multiple of the stride.
        """
        if rows % self.config.stride:
            raise ValueError(f"{rows} rows are no multiple of the code's stride {self.config.stride}")
        return batch, self.config.latent, rows // self.config.stride


def _shrinking(n_inputs: int, n_outputs: int, stride: int) -> nn.Conv1d:
    return nn.Conv1d(n_inputs, n_outputs, 2 * stride, stride=stride, padding=stride // 2)


def standard_normal(
    shape: tuple[int, ...], generator: torch.Generator | None, temperature: float, device: torch.device
) -> Tensor:
    """Noise of standard deviation ``temperature``; 0 everywhere at temperature 0, which needs no generator.

    The generator may live on the CPU whatever the device: the same seed then gives the same motion everywhere.

    Raises:
        ValueError: the temperature is negative or not finite, or above 0 without a generator.
    """
    if not (math.isfinite(temperature) and temperature >= 0.0):
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    if temperature == 0.0:
        return torch.zeros(shape, device=device)
    if generator is None:
        raise ValueError("temperature above 0 needs a generator")
    return temperature * torch.randn(shape, generator=generator, device=generator.device).to(device)
