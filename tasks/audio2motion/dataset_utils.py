"""Talking clips as training material: targets, speaker folds, windows.

Reads: prepared clips (``data_gen/runs/build_av_corpus.py`` writes them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.audio2motion.motion_space import rest_expression
from modules.commons.errors import ConfigError
from modules.structures.speech_motion import SpeechMotionClip

MIN_ROWS = 25


@dataclass(frozen=True, slots=True, eq=False)
class TrainingClip:
    """A talking clip cut to the rows in which a face was seen, with the mouth at rest.

    Attributes:
        clip: rows from the first to the last valid one. rest: ``[E]`` expression at rest.
    """

    clip: SpeechMotionClip
    rest: NDArray[np.float32]

    @property
    def speaker(self) -> str:
        return self.clip.speaker

    def __len__(self) -> int:
        return len(self.clip)

    def deviation(self, columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Targets ``[T, U]``: how far each unit is from rest."""
        return (self.clip.expression - self.rest)[:, columns]


def load_clips(folder: Path) -> list[TrainingClip]:
    """Every prepared clip below ``folder`` that has at least half a second of face.

    Raises:
        ConfigError: there is none, a file is foreign, or the clips do not belong together.
    """
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise ConfigError(f"{folder}: no prepared talking clips; make them with data_gen/runs/build_av_corpus.py")
    try:
        clips = [SpeechMotionClip.load(file) for file in files]
    except (ValueError, OSError, KeyError) as error:
        raise ConfigError(f"{folder}: {error}") from error
    kinds = {(c.face_model_version, c.extractor, c.rate_hz, c.expression.shape[1]) for c in clips}
    if len(kinds) > 1:
        raise ConfigError(f"{folder}: clips of different face models or features lie together; build them anew")
    return [prepare(clip) for clip in clips if clip.valid.sum() >= MIN_ROWS]


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
    return TrainingClip(trimmed, rest_expression(trimmed.expression, opening))


def speaker_folds(clips: Sequence[TrainingClip], n_folds: int, seed: int) -> dict[str, int]:
    """Fold of each speaker: longest first (``seed`` 0) or shuffled, each into the fold that is shortest so far."""
    seconds: dict[str, float] = {}
    for clip in clips:
        seconds[clip.speaker] = seconds.get(clip.speaker, 0.0) + len(clip) / clip.clip.rate_hz
    order = sorted(seconds, key=lambda speaker: (-seconds[speaker], speaker))
    if seed:
        np.random.default_rng(seed).shuffle(order)
    filled = [0.0] * n_folds
    folds = {}
    for speaker in order:
        folds[speaker] = int(np.argmin(filled))
        filled[folds[speaker]] += seconds[speaker]
    return folds


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Windows: components ``[B, T, C]``, targets ``[B, T, U]`` and row weights ``[B, T]``."""

    components: Tensor
    targets: Tensor
    weights: Tensor


class WindowSampler:
    """Draws windows of rows at random; long clips are drawn more often.

    Args:
        components: per clip ``[K, T, C]``, one of the K renderings is drawn each time.
        targets: per clip ``[T, U]``. weights: per clip ``[T]``, 0 where there is no evidence.
        window_rows: rows of a window; shorter clips are filled up with rows of weight 0.
        rng: source of all randomness.
    """

    def __init__(
        self,
        components: Sequence[Tensor],
        targets: Sequence[Tensor],
        weights: Sequence[Tensor],
        window_rows: int,
        rng: np.random.Generator,
    ) -> None:
        self._components, self._targets, self._weights = components, targets, weights
        self._rows, self._rng = window_rows, rng
        lengths = np.array([len(target) for target in targets], dtype=np.float64)
        self._chance = lengths / lengths.sum()

    def draw(self, count: int) -> Batch:
        """``count`` windows."""
        chosen = self._rng.choice(len(self._targets), count, p=self._chance)
        parts = [self._window(int(index)) for index in chosen]
        return Batch(*(torch.stack(values) for values in zip(*parts, strict=True)))

    def _window(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        renderings, targets, weights = self._components[index], self._targets[index], self._weights[index]
        start = int(self._rng.integers(0, max(1, len(targets) - self._rows + 1)))
        rows = torch.arange(start, start + self._rows)
        inside = rows < len(targets)
        rows = rows.clamp_max(len(targets) - 1)
        rendering = renderings[int(self._rng.integers(0, len(renderings)))]
        return rendering[rows], targets[rows], weights[rows] * inside
