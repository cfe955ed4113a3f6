"""Configuration of audio → motion training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modules.audio2motion.config import Audio2MotionConfig


@dataclass(frozen=True, slots=True)
class A2MLossConfig:
    """What is minimised.

    Attributes:
        velocity_weight: of the error in row-to-row differences, against the error itself.
        gap_weight: of the vectors between upper and lower lip, against the lip points (each relative to its spread).
        width_weight: of the vector between the corners, likewise.
        coefficient_weight: of the units' own errors.
        silence_weight: of rows without speech; the gate closes the mouth there anyway.
        relative_motion: train on each unit's motion relative to its own mean and spread in the clip (given the mean
            and median over clips), else on absolute deviations.
        clip_length_power: 0 weighs all rows alike, 1 all clips alike.
    """

    velocity_weight: float = 1.0
    gap_weight: float = 1.0
    width_weight: float = 1.0
    coefficient_weight: float = 0.5
    silence_weight: float = 0.5
    relative_motion: bool = True
    clip_length_power: float = 0.5


@dataclass(frozen=True, slots=True)
class AudioToMotionTaskConfig:
    """Training of audio → motion.

    Attributes:
        clips: folder of prepared talking clips; relative paths lie below the repository.
        max_updates: steps of each training. batch_windows, window_rows: rows seen in a step.
        lr: peak of the learning rate (AdamW). weight_decay: of AdamW.
        ridge_penalty: of the linear member, in units of a component's mean square times the number of rows.
        n_folds: cross-validation over speakers before the final training on everything; 0 leaves it (and the gain
            it gives) out. fold_seed: order in which speakers are dealt out.
        spread_target: spread of lip opening, over the true one, that the gain aims at on speakers left out.
        threads: CPU threads.
    """

    task: Literal["audio2motion"] = "audio2motion"
    clips: Path = Path("data/audio2motion/clips")
    seed: int = 0
    max_updates: int = 500
    batch_windows: int = 28
    window_rows: int = 88
    lr: float = 2e-3
    weight_decay: float = 0.01
    ridge_penalty: float = 1.0
    n_folds: int = 5
    fold_seed: int = 0
    spread_target: float = 0.95
    log_interval: int = 50
    state_interval: int = 100
    threads: int = 1
    model: Audio2MotionConfig = field(default_factory=Audio2MotionConfig)
    loss: A2MLossConfig = field(default_factory=A2MLossConfig)

    def __post_init__(self) -> None:
        if self.max_updates < 1 or self.batch_windows < 1 or self.window_rows < 8:
            raise ValueError("needs max_updates >= 1, batch_windows >= 1 and window_rows >= 8")
        if self.n_folds == 1 or self.n_folds < 0:
            raise ValueError(f"n_folds must be 0 or at least 2, got {self.n_folds}")
