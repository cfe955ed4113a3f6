"""GeneFace++'s two audio → motion networks: sound (and pitch) as the condition of a motion VAE.

``VAEModel`` hears features only, ``PitchContourVAEModel`` pitch and how wide mouth and eyes open as well. Sizes come
from the configuration, so that the same networks serve HuBERT and 64 BFM coefficients (the official checkpoints) as
well as Whisper features and 52 expression units. Parameter names are the official ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.audio2motion.pitch import f0_to_coarse
from modules.audio2motion.vae import FlowVAE, FlowVAEConfig, Posterior, standard_normal

_PITCH_ROWS = 300


@dataclass(frozen=True, slots=True)
class SpeechVAEConfig:
    """Sizes and inputs; the defaults are those of GeneFace++'s released checkpoint.

    Attributes:
        n_audio: values of a feature row. n_motion: values of a row of motion.
        n_condition: channels the inputs are mixed to.
        rows_per_motion: feature rows per row of motion (2: 50 Hz features, 25 Hz motion).
        use_pitch: hear pitch. mouth_amp, eye_amp: how wide mouth and eyes open are inputs too (with pitch only).
    """

    n_audio: int = 1024
    n_motion: int = 64
    n_condition: int = 128
    rows_per_motion: int = 2
    use_pitch: bool = True
    mouth_amp: bool = True
    eye_amp: bool = True
    vae: FlowVAEConfig = field(default_factory=FlowVAEConfig)

    def __post_init__(self) -> None:
        if min(self.n_audio, self.n_motion, self.n_condition, self.rows_per_motion) < 1:
            raise ValueError(f"all sizes must be at least 1: {self}")
        if (self.mouth_amp or self.eye_amp) and not self.use_pitch:
            raise ValueError("mouth_amp and eye_amp are inputs of the network with pitch only; set use_pitch")

    @property
    def block_rows(self) -> int:
        """Feature rows come in multiples of this."""
        return self.rows_per_motion * self.vae.stride


@dataclass(frozen=True, slots=True, eq=False)
class SpeechInputs:
    """What a network hears.

    Attributes:
        audio: ``[B, N, C]`` feature rows, N a multiple of ``block_rows``.
        f0_hz: ``[B, N]`` fundamental frequency, 0 where unvoiced; only the network with pitch reads it.
        blink: int64 ``[B, N]`` of 0 and 1; zeros when None.
        mouth_amp, eye_amp: how wide mouth and eyes open, about 0 .. 1; GeneFace++ infers with 0.4 and 1.
    """

    audio: Tensor
    f0_hz: Tensor | None = None
    blink: Tensor | None = None
    mouth_amp: float = 0.4
    eye_amp: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """True motion through its code and back.

    Attributes:
        motion: ``[B, T, D]``. posterior: of the code. divergence: scalar, nats per code value.
    """

    motion: Tensor
    posterior: Posterior
    divergence: Tensor


class SpeechVAE(nn.Module, ABC):
    """What both networks share."""

    vae: FlowVAE

    def __init__(self, config: SpeechVAEConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def condition(self, inputs: SpeechInputs) -> Tensor:
        """``[B, F, T]`` at the rate of motion."""

    def forward(self, inputs: SpeechInputs, noise: Tensor) -> Tensor:
        """Motion for a draw of the prior.

        Args:
            inputs: what is heard.
            noise: ``[B, Z, T / stride]`` of ``vae.noise_shape``, already scaled by the temperature.

        Returns:
            ``[B, T, D]``.
        """
        condition = self.condition(inputs)
        mask = condition.new_ones(len(condition), 1, condition.shape[2])
        return self.vae.decode(self.vae.prior_codes(noise, condition, mask), condition, mask).transpose(1, 2)

    def predict(
        self, inputs: SpeechInputs, *, temperature: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Motion ``[B, T, D]``: the likeliest at temperature 0, else a draw that the generator's seed repeats.

        Raises:
            ValueError: temperature below 0, or above it without a generator; rows no multiple of ``block_rows``.
        """
        rows = inputs.audio.shape[1]
        if rows == 0 or rows % self.config.block_rows:
            raise ValueError(f"feature rows must come in multiples of {self.config.block_rows}, got {rows}")
        shape = self.vae.noise_shape(len(inputs.audio), rows // self.config.rows_per_motion)
        return self(inputs, standard_normal(shape, generator, temperature, inputs.audio.device))

    def reconstruct(self, motion: Tensor, inputs: SpeechInputs, mask: Tensor, noise: Tensor) -> Reconstruction:
        """What training looks at.

        Args:
            motion: ``[B, T, D]`` true motion.
            inputs: the sound that went with it.
            mask: ``[B, T]``, 0 past the end of a clip.
            noise: ``[B, Z, T / stride]`` standard normal, draws the code.

        Returns:
            differentiable in all parameters.
        """
        condition, mask = self.condition(inputs), mask[:, None]
        posterior = self.vae.posterior(motion.transpose(1, 2), condition, mask)
        codes = posterior.sample(noise)
        decoded = self.vae.decode(codes, condition, mask).transpose(1, 2)
        return Reconstruction(decoded, posterior, self.vae.divergence(posterior, codes, condition, mask))


class VAEModel(SpeechVAE):
    """Feature rows only; they are brought to the rate of motion by linear interpolation.

    ``blink_embed`` is part of the official state and not used.
    """

    def __init__(self, config: SpeechVAEConfig) -> None:
        super().__init__(config)
        width = config.n_condition
        self.blink_embed = nn.Embedding(2, width)
        self.mel_encoder = _sequence_encoder(config.n_audio, width)
        self.vae = FlowVAE(config.n_motion, width, config.vae)

    def condition(self, inputs: SpeechInputs) -> Tensor:
        """See ``SpeechVAE``."""
        audio = inputs.audio.transpose(1, 2)
        share = 1.0 / self.config.rows_per_motion
        if self.config.rows_per_motion > 1:
            audio = functional.interpolate(audio, scale_factor=share, mode="linear", recompute_scale_factor=False)
        return self.mel_encoder(audio)


class PitchContourVAEModel(SpeechVAE):
    """Feature rows, pitch, blinks and opening widths; of rows, every ``rows_per_motion``-th is heard."""

    def __init__(self, config: SpeechVAEConfig) -> None:
        super().__init__(config)
        width = config.n_condition
        self.blink_embed = nn.Embedding(2, width)
        self.mel_encoder = _sequence_encoder(config.n_audio, width)
        self.pitch_embed = nn.Embedding(_PITCH_ROWS, width)
        self.pitch_encoder = _sequence_encoder(width, width)
        if config.mouth_amp:
            self.mouth_amp_embed = nn.Parameter(0.02 * torch.randn(width))
        if config.eye_amp:
            self.eye_amp_embed = nn.Parameter(0.02 * torch.randn(width))
        self.cond_proj = nn.Linear((3 + config.mouth_amp + config.eye_amp) * width, width)
        self.vae = FlowVAE(config.n_motion, width, config.vae)

    def condition(self, inputs: SpeechInputs) -> Tensor:
        """See ``SpeechVAE``.

        Raises:
            ValueError: no pitch was given.
        """
        if inputs.f0_hz is None:
            raise ValueError("this network hears pitch; give f0_hz")
        step = self.config.rows_per_motion
        audio = self.mel_encoder(inputs.audio[:, ::step].transpose(1, 2)).transpose(1, 2)
        steps = f0_to_coarse(inputs.f0_hz[:, ::step])
        pitch = self.pitch_encoder(self.pitch_embed(steps).transpose(1, 2)).transpose(1, 2)
        blink = torch.zeros_like(steps) if inputs.blink is None else inputs.blink[:, ::step]
        parts = [audio, pitch, self.blink_embed(blink)]
        if self.config.mouth_amp:
            parts.append((inputs.mouth_amp * self.mouth_amp_embed).expand_as(audio))
        if self.config.eye_amp:
            parts.append((inputs.eye_amp * self.eye_amp_embed).expand_as(audio))
        return self.cond_proj(torch.cat(parts, dim=-1)).transpose(1, 2)


def build_speech_vae(config: SpeechVAEConfig) -> SpeechVAE:
    """The network a configuration describes."""
    return PitchContourVAEModel(config) if config.use_pitch else VAEModel(config)


def _sequence_encoder(n_inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(n_inputs, width, 3, padding=1, bias=False),
        nn.BatchNorm1d(width),
        nn.GELU(),
        nn.Conv1d(width, width, 3, padding=1, bias=False),
    )
