"""Talking clips as training material: targets and speaker folds.

Reads: prepared clips (``data_gen/runs/build_av_corpus.py`` writes them).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.audio2motion.motion_space import rest_expression
from modules.audio2motion.speaker_folds import deal_speakers
from modules.audio2motion.speaker_table import clean_clips, read_speakers
from modules.commons.errors import ConfigError
from modules.commons.workspace import ROOT
from modules.structures.speech_motion import SpeechMotionClip
from tasks.audio2motion.configs import AudioToMotionTaskConfig

MIN_ROWS = 25


@dataclass(frozen=True, slots=True, eq=False)
class TrainingClip:
    """A talking clip cut to the rows in which a face was seen, with the mouth at rest.

    Attributes:
        clip: rows from the first to the last valid one. rest: ``[E]`` expression at rest.
        first_row: of the file, that the cut begins with.
    """

    clip: SpeechMotionClip
    rest: NDArray[np.float32]
    first_row: int = 0

    @property
    def speaker(self) -> str:
        return self.clip.speaker

    def __len__(self) -> int:
        return len(self.clip)

    def deviation(self, columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Targets ``[T, U]``: how far each unit is from rest."""
        return (self.clip.expression - self.rest)[:, columns]


def clip_files(folder: Path, only: Collection[str] | None = None) -> list[Path]:
    """Prepared clips below ``folder``, by name, unfinished ones left out.

    Args:
        folder: searched recursively.
        only: names of the clips wanted; None = all.

    Raises:
        ConfigError: there is none.
    """
    files = [file for file in sorted(folder.rglob("*.npz")) if not file.name.endswith(".tmp.npz")]
    files = [file for file in files if only is None or file.stem in only]
    if not files:
        raise ConfigError(f"{folder}: no prepared talking clips; make them with data_gen/runs/build_av_corpus.py")
    return files


def load_clips(folder: Path, only: Collection[str] | None = None) -> list[TrainingClip]:
    """Every prepared clip below ``folder`` that has at least half a second of face.

    Args:
        folder: searched recursively.
        only: names of the clips wanted; None = all.

    Raises:
        ConfigError: there is none, a file is foreign, or the clips do not belong together.
    """
    files = clip_files(folder, only)
    try:
        clips = [SpeechMotionClip.load(file) for file in files]
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(f"{folder}: {error}") from error
    kinds = {(c.face_model_version, c.extractor, c.rate_hz, c.expression.shape[1]) for c in clips}
    if len(kinds) > 1:
        raise ConfigError(f"{folder}: clips of different face models or features lie together; build them anew")
    return [prepare(clip) for clip in clips if clip.valid.sum() >= MIN_ROWS]


def wanted_names(config: AudioToMotionTaskConfig) -> frozenset[str] | None:
    """Clips that the variant may learn from; None = all."""
    return clean_clips(read_speakers(ROOT / config.speakers)) if config.variant == "clean" else None


def prepare(clip: SpeechMotionClip) -> TrainingClip:
    """Cut to the rows that have a face, and find the mouth at rest."""
    rows = np.flatnonzero(clip.valid)
    cut = slice(int(rows[0]), int(rows[-1]) + 1)
    trimmed = SpeechMotionClip(
        name=clip.name,
        speaker=clip.speaker,
        features=clip.features[:, cut],
        expression=clip.expression[cut],
        identity=clip.identity,
        opening=clip.opening[cut],
        width=clip.width[cut],
        valid=clip.valid[cut],
        is_speech=clip.is_speech[cut],
        rate_hz=clip.rate_hz,
        extractor=clip.extractor,
        face_model_version=clip.face_model_version,
    )
    opening = np.where(trimmed.valid, trimmed.opening, np.nan)
    return TrainingClip(trimmed, rest_expression(trimmed.expression, opening), int(rows[0]))


def speaker_folds(clips: Sequence[TrainingClip], n_folds: int, seed: int) -> dict[str, int]:
    """Fold of each speaker: longest first (``seed`` 0) or shuffled, each into the fold that is shortest so far."""
    seconds: dict[str, float] = {}
    for clip in clips:
        seconds[clip.speaker] = seconds.get(clip.speaker, 0.0) + len(clip) / clip.clip.rate_hz
    return deal_speakers(seconds, n_folds, seed)
