"""Configuration of post-net training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modules.postnet.config import PostNetConfig


@dataclass(frozen=True, slots=True)
class DistortionConfig:
    """How this person's own motion is spoilt, as general predictions spoil it, for the net to mend.

    Attributes:
        common_gain: spread of the logarithm of one gain on all mouth units of a window.
        unit_gain: the same of each unit's own gain.
        mirror: largest share in which left and right are averaged.
        smoothing_rows: largest Gaussian width of a smoothing over time.
        offset: spread of a constant added to each unit, in that unit's own spread.
        noise: spread of noise that changes every few rows, likewise.
    """

    common_gain: float = 0.35
    unit_gain: float = 0.3
    mirror: float = 1.0
    smoothing_rows: float = 1.5
    offset: float = 0.3
    noise: float = 0.3

    def __post_init__(self) -> None:
        if min(self.common_gain, self.unit_gain, self.mirror, self.smoothing_rows, self.offset, self.noise) < 0:
            raise ValueError(f"distortions must not be negative: {self}")
        if self.mirror > 1.0:
            raise ValueError(f"mirror must lie in 0..1, got {self.mirror}")


@dataclass(frozen=True, slots=True)
class PostNetTaskConfig:
    """Training of one person's post-net.

    Attributes:
        video_id, face: the prepared clip and which of its faces. data_root: where it lies, below the repository.
        max_updates: steps. batch_windows, window_rows: rows of a step. lr: peak of the learning rate (AdamW).
        identity_weight: of changing nothing where nothing is spoilt.
        drift: spread of a constant added to a window before it is spoilt, in each unit's own spread.
    """

    task: Literal["postnet"] = "postnet"
    video_id: str = ""
    face: int = 0
    data_root: Path = Path("data")
    seed: int = 0
    max_updates: int = 400
    batch_windows: int = 8
    window_rows: int = 48
    lr: float = 2e-3
    weight_decay: float = 0.01
    identity_weight: float = 2.0
    drift: float = 1.0
    log_interval: int = 50
    threads: int = 1
    net: PostNetConfig = field(default_factory=PostNetConfig)
    distortion: DistortionConfig = field(default_factory=DistortionConfig)

    def __post_init__(self) -> None:
        if self.max_updates < 1 or self.batch_windows < 1 or self.window_rows < 8:
            raise ValueError("needs max_updates >= 1, batch_windows >= 1 and window_rows >= 8")
