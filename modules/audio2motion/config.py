"""What the audio → motion network is made of."""

from __future__ import annotations

from dataclasses import dataclass

from modules.face_model.model import MOUTH_UNITS


@dataclass(frozen=True, slots=True)
class Audio2MotionConfig:
    """Sizes of the network; the defaults are what speaker-disjoint cross-validation chose.

    Attributes:
        n_blocks: encoder blocks side by side in a feature row.
        block_width: values per block.
        bottleneck: principal components kept of each block.
        units: expression units that are predicted; all others stay 0.
        convolutional, recurrent: members of each kind; the prediction is the mean over all members.
        linear_reach: taps to each side of the linear member's filter, ``linear_step`` rows apart; -1 leaves that
            member out.
        hidden: channels of a convolutional member.
        dilations: of its kernels of 3 rows, one residual layer each.
        recurrent_hidden: state of each direction of a recurrent member.
        dropout: share of channels dropped in training.
        feature_noise: standard deviation of noise on the components in training.
    """

    n_blocks: int = 3
    block_width: int = 384
    bottleneck: int = 96
    units: tuple[str, ...] = MOUTH_UNITS
    convolutional: int = 1
    recurrent: int = 1
    linear_reach: int = 3
    linear_step: int = 2
    hidden: int = 48
    dilations: tuple[int, ...] = (1, 2, 4)
    recurrent_hidden: int = 32
    dropout: float = 0.4
    feature_noise: float = 0.35

    def __post_init__(self) -> None:
        if self.convolutional + self.recurrent == 0 and self.linear_reach < 0:
            raise ValueError("the network needs at least one member")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if not self.units:
            raise ValueError("units must name at least one expression unit")

    @property
    def n_features(self) -> int:
        return self.n_blocks * self.block_width

    @property
    def n_components(self) -> int:
        return self.n_blocks * self.bottleneck
