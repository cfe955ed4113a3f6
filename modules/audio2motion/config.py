"""What the audio → motion network is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from modules.audio2motion.vae import FlowVAEConfig
from modules.face_model.model import MOUTH_UNITS

SMALL_VAE = FlowVAEConfig(hidden=48, latent=8, encoder_layers=4, flow_hidden=32, flow_layers=2, n_flows=2, dropout=0.3)
"""A variational member for minutes of speech, not hundreds of hours."""


@dataclass(frozen=True, slots=True)
class Audio2MotionConfig:
    """Sizes of the network; the defaults are what speaker-disjoint cross-validation chose.

    Attributes:
        n_blocks: encoder blocks side by side in a feature row.
        block_width: values per block.
        bottleneck: principal components kept of each block.
        units: expression units that are predicted; all others stay 0.
        convolutional, recurrent, variational: members of each kind; the prediction is the mean over all members.
        linear_reach: taps to each side of the linear member's filter, ``linear_step`` rows apart; -1 leaves that
            member out.
        hidden: channels of a convolutional member, and what a recurrent or variational one is told in.
        dilations: of its kernels of 3 rows, one residual layer each.
        recurrent_hidden: state of each direction of a recurrent member.
        vae: sizes of a variational member.
        dropout: share of channels dropped in training.
        feature_noise: standard deviation of noise on the components in training.
        window_noise: the same of noise that stays over a window, like that of another voice or microphone.
    """

    n_blocks: int = 3
    block_width: int = 384
    bottleneck: int = 96
    units: tuple[str, ...] = MOUTH_UNITS
    convolutional: int = 2
    recurrent: int = 1
    variational: int = 2
    linear_reach: int = 3
    linear_step: int = 2
    hidden: int = 64
    dilations: tuple[int, ...] = (1, 2, 4)
    recurrent_hidden: int = 32
    vae: FlowVAEConfig = field(default_factory=lambda: SMALL_VAE)
    dropout: float = 0.45
    feature_noise: float = 0.6
    window_noise: float = 0.5

    def __post_init__(self) -> None:
        if self.n_trained == 0 and self.linear_reach < 0:
            raise ValueError("the network needs at least one member")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if not self.units:
            raise ValueError("units must name at least one expression unit")

    @property
    def n_trained(self) -> int:
        """Members trained by gradients."""
        return self.convolutional + self.recurrent + self.variational

    @property
    def n_features(self) -> int:
        return self.n_blocks * self.block_width

    @property
    def n_components(self) -> int:
        return self.n_blocks * self.bottleneck
