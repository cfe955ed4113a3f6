"""Configuration of audio → motion training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modules.audio2motion.config import Audio2MotionConfig
from modules.audio2motion.sync_expert import SyncExpertConfig
from modules.commons.device import DeviceName
from modules.face_model.choice import FaceModelName


@dataclass(frozen=True, slots=True)
class A2MLossConfig:
    """What is minimised.

    Attributes:
        velocity_weight: of the error in row-to-row differences, against the error itself.
        gap_weight: of the vectors between upper and lower lip, against the lip points (each relative to its spread).
        width_weight: of the vector between the corners, likewise.
        coefficient_weight: of the units' own errors.
        silence_weight: of rows without speech; the gate closes the mouth there anyway.
        drift_weight: share of a window's mean error that counts. Head turns leave a slow drift in fitted mouths that
            nobody can hear; 1 learns it as well.
        variance_weight: of how far a window's spread of lip opening and mouth width is from the true one; draws
            prediction away from the timid mean, at a price in correlation.
        closure_weight: of telling rows with closed lips from others by the predicted opening.
        closure_softness_dm: how far from the border between the two a prediction is told apart with certainty.
        kl_weight: of a variational member's divergence from its prior, in nats per code value.
        kl_warm_up: share of the steps over which that weight rises from 0; a sudden prior empties the code.
        likeliest_weight: of the errors of a variational member's likeliest motion, beside those of its reconstruction.
            At 0 the code takes up what nobody can hear, and the likeliest motion is the better for it (measured on
            speakers left out, against 1: opening .786 to .768, width .692 to .648).
        sync_weight: of the sync expert's verdict on predicted motion.
        relative_motion: train on each unit's motion relative to its own mean and spread in the clip (given the mean
            and median over clips), else on absolute deviations.
        clip_length_power: 0 weighs all rows alike, 1 all clips alike.
    """

    velocity_weight: float = 1.0
    gap_weight: float = 1.0
    width_weight: float = 1.5
    coefficient_weight: float = 0.5
    silence_weight: float = 0.5
    drift_weight: float = 0.3
    variance_weight: float = 0.0
    closure_weight: float = 0.0
    closure_softness_dm: float = 0.006
    kl_weight: float = 0.1
    kl_warm_up: float = 0.3
    likeliest_weight: float = 0.0
    sync_weight: float = 0.0
    relative_motion: bool = True
    clip_length_power: float = 0.5

    def __post_init__(self) -> None:
        weights = [getattr(self, name) for name in self.__dataclass_fields__ if name.endswith("_weight")]
        if min(weights) < 0:
            raise ValueError("weights of losses must not be negative")
        if self.closure_softness_dm <= 0 or not 0 <= self.kl_warm_up <= 1 or self.drift_weight > 1:
            raise ValueError("needs closure_softness_dm > 0, and kl_warm_up and drift_weight in 0..1")


@dataclass(frozen=True, slots=True)
class StoredCorpusConfig:
    """How a corpus that does not fit into memory is read.

    Attributes:
        resident_clips: clips kept in memory; 0 loads the whole corpus at the start.
        refresh_clips: of them exchanged for others from disk with each step.
        probe_clips: clips that statistics (principal components, spreads, the linear member) are taken from.
        held_out_speakers: speakers left out of a training from disk, by which its gain is measured.
        held_out_clips: of their clips, so many at most.
    """

    resident_clips: int = 0
    refresh_clips: int = 8
    probe_clips: int = 256
    held_out_speakers: int = 16
    held_out_clips: int = 64

    def __post_init__(self) -> None:
        if min(self.resident_clips, self.held_out_speakers, self.held_out_clips) < 0:
            raise ValueError(f"numbers of clips and speakers must not be negative: {self}")
        if self.probe_clips < 1 or self.refresh_clips < 1:
            raise ValueError(f"needs probe_clips >= 1 and refresh_clips >= 1: {self}")


@dataclass(frozen=True, slots=True)
class AudioToMotionTaskConfig:
    """Training of audio → motion.

    Attributes:
        clips: folder of prepared talking clips; relative paths lie below the repository.
        variant: 'clean' takes only clips that ``speakers`` says were given out freely (see ``speaker_table.py``).
        speakers: table of speakers and licences.
        without_speakers: left out altogether; for figures on clips of theirs.
        face_model: whose coefficients are predicted. 'bfm2009' takes ``model.units`` exp_00 to exp_63 and can be
            trained, not scored: n_folds must be 0.
        device: where it is trained; the closed-form parts stay on the CPU.
        max_updates: steps of each training. batch_windows, window_rows: rows seen in a step, of each process.
        speed_range: sound and motion of a window run faster or slower together, by up to this share.
        ema_decay: the weights kept are a running mean with this decay; 0 keeps the last ones.
        lr: peak of the learning rate (AdamW). weight_decay: of AdamW.
        ridge_penalty: of the linear member, in units of a component's mean square times the number of rows.
        n_folds: cross-validation over speakers before the final training on everything; 0 leaves it (and the gain
            it gives) out. fold_seed: order in which speakers are dealt out.
        spread_target: spread of lip opening and of mouth width, over the true ones, that the gains aim at on speakers
            left out.
        threads: CPU threads.
    """

    task: Literal["audio2motion"] = "audio2motion"
    clips: Path = Path("data/audio2motion/clips")
    variant: Literal["full", "clean"] = "full"
    speakers: Path = Path("egs/datasets/av_corpus/speakers.csv")
    without_speakers: tuple[str, ...] = ()
    face_model: FaceModelName = "embedded"
    device: DeviceName = "auto"
    seed: int = 0
    max_updates: int = 600
    batch_windows: int = 64
    window_rows: int = 112
    speed_range: float = 0.0
    ema_decay: float = 0.99
    lr: float = 2e-3
    weight_decay: float = 0.01
    ridge_penalty: float = 1.0
    n_folds: int = 5
    fold_seed: int = 0
    spread_target: float = 0.94
    log_interval: int = 50
    state_interval: int = 100
    threads: int = 1
    model: Audio2MotionConfig = field(default_factory=Audio2MotionConfig)
    loss: A2MLossConfig = field(default_factory=A2MLossConfig)
    sync: SyncExpertConfig = field(default_factory=SyncExpertConfig)
    corpus: StoredCorpusConfig = field(default_factory=StoredCorpusConfig)

    def __post_init__(self) -> None:
        if not (0 <= self.speed_range < 1 and 0 <= self.ema_decay < 1):
            raise ValueError("needs speed_range and ema_decay in [0, 1)")
        if (self.face_model != "embedded" or self.corpus.resident_clips) and self.n_folds:
            raise ValueError("n_folds must be 0 for another face model and for a corpus that is read from disk")
        if self.max_updates < 1 or self.batch_windows < 1 or self.window_rows < 8:
            raise ValueError("needs max_updates >= 1, batch_windows >= 1 and window_rows >= 8")
        if self.n_folds == 1 or self.n_folds < 0:
            raise ValueError(f"n_folds must be 0 or at least 2, got {self.n_folds}")
