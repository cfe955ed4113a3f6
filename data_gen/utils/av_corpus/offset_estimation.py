"""How late a clip's sound is, told by the mouth motion that a model predicts from the sound.

A model that never saw the speaker predicts lip opening, mouth width and jaw; where the prediction correlates best with
what is seen, there the sound belongs. The model itself learns better from sound in its place, so the two take turns:
from one constant offset for all clips they converge within three. Loudness instead of a prediction finds the offset
within a frame on 35 of 58 clips only. The peak is refined between rows: whole frames cost 0.01 of the correlation that
a model trained on them reaches.

The turns tell offsets against each other only: a model that answers 20 ms late fits clips all taken 20 ms early.
Speakers who were surely recorded in sync set the common zero.

Reads and writes: nothing; pure functions of the corpus's tables.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.av_corpus.offset_table import SoundOffset
from data_gen.utils.av_corpus.rows import resample_rows
from modules.audio2motion.closed_form import RidgeRows, principal_components, ridge_filter, window_rows
from modules.audio2motion.speaker_folds import deal_speakers
from modules.metrics.statistics import MIN_SHIFT_S, circular_shift_null

logger = logging.getLogger(__name__)

_MIN_OVERLAP = 0.5
"""A lag at which less than this share of the mouth meets any sound is not looked at."""
_WEIGHTS = np.array([1.0, 0.7, 0.5])
"""What the agreement of opening, width and jaw counts, about as well as each can be predicted."""
_CLIP_AT = 4.0
"""Targets are z-scores cut off here: one wild frame must not steer the model."""


@dataclass(frozen=True, slots=True)
class OffsetConfig:
    """How offsets are found and which clips are kept.

    Attributes:
        first_guess_s: offset of every clip before the first turn.
        in_sync: speaker whose clips were recorded in sync: their median offset becomes 0; where there are no such clips
            the offsets stay as the first guess led to them.
        turns: of predicting and shifting.
        reach_s: largest offset looked for, either way.
        n_folds: whole speakers are left out in turn, so that no clip is judged by a model that knows its speaker.
        n_blocks: encoder blocks side by side in a feature row. components: principal components of each.
        reach, step: taps to each side of the ridge filter, and rows between them.
        penalty: of the ridge, in units of an input's mean square times the number of rows.
        min_r: least correlation, and min_z: least distinctness, of a clip that is kept.
    """

    first_guess_s: float = 0.04
    in_sync: str = "grid"
    turns: int = 3
    reach_s: float = 0.32
    n_folds: int = 5
    n_blocks: int = 3
    components: int = 96
    reach: int = 3
    step: int = 2
    penalty: float = 1.0
    min_r: float = 0.45
    min_z: float = 2.5

    def __post_init__(self) -> None:
        if self.turns < 1 or self.n_folds < 2 or self.reach_s <= 0:
            raise ValueError("needs turns >= 1, n_folds >= 2 and reach_s > 0")


@dataclass(frozen=True, slots=True, eq=False)
class HeardAndSeen:
    """A clip's sound and mouth, each on the clock of the file.

    Attributes:
        name: the clip. speaker: who talks.
        features: ``[R, C]`` of the clean sound; row i stands at ``(i + 0.5) / rate_hz`` s. rate_hz: rows per second.
        times_s: ``[N]`` frame times. measures: ``[N, 3]`` lip opening, mouth width, jaw. valid: ``[N]`` bool, the mouth
            was seen.
    """

    name: str
    speaker: str
    features: NDArray[np.floating]
    rate_hz: float
    times_s: NDArray[np.float64]
    measures: NDArray[np.float64]
    valid: NDArray[np.bool_]

    def seen_at(self, sound_later_s: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Measures ``[R, 3]`` that go with each row of sound when the sound is that late, and where it is known."""
        at_s = (np.arange(len(self.features), dtype=np.float64) + 0.5) / self.rate_hz - sound_later_s
        values, known = resample_rows(self.measures, self.times_s, self.valid, at_s)
        return values.astype(np.float64), known


def estimate_offsets(clips: Sequence[HeardAndSeen], config: OffsetConfig) -> list[SoundOffset]:
    """Offset, agreement and verdict of every clip, in their order.

    Raises:
        ValueError: fewer speakers than two: there is nobody left to learn from.
    """
    seconds: dict[str, float] = {}
    for clip in clips:
        seconds[clip.speaker] = seconds.get(clip.speaker, 0.0) + len(clip.features) / clip.rate_hz
    if len(seconds) < 2:
        raise ValueError("offsets need clips of at least two speakers: a model must predict whom it never saw")
    folds = deal_speakers(seconds, min(config.n_folds, len(seconds)))
    components = _project(clips, config)
    later = {clip.name: config.first_guess_s for clip in clips}
    offsets: list[SoundOffset] = []
    for turn in range(config.turns):
        predicted = _predict_left_out(clips, components, later, folds, config)
        offsets = [_located(clip, predicted[clip.name], config) for clip in clips]
        moved = sum(abs(o.sound_later_s - later[o.clip]) > 0.5 / clips[0].rate_hz for o in offsets)
        later = {o.clip: o.sound_later_s for o in offsets}
        mean_r = float(np.mean([o.r_opening for o in offsets]))
        logger.info("turn %d: r %.3f in the mean over %d clips, %d moved", turn + 1, mean_r, len(clips), moved)
    return _against_zero(offsets, [clip.speaker == config.in_sync for clip in clips])


def _against_zero(offsets: Sequence[SoundOffset], in_sync: Sequence[bool]) -> list[SoundOffset]:
    """The offsets less the median of those that are known to be 0."""
    known = [offset.sound_later_ms for offset, anchor in zip(offsets, in_sync, strict=True) if anchor]
    zero_ms = round(float(np.median(known))) if known else 0
    return [replace(offset, sound_later_ms=offset.sound_later_ms - zero_ms) for offset in offsets]


def _project(clips: Sequence[HeardAndSeen], config: OffsetConfig) -> list[NDArray[np.float32]]:
    """Principal components ``[R, blocks · components]`` of every clip; they know nothing of mouths."""
    rows = np.concatenate([clip.features for clip in clips]).astype(np.float32)
    count = min(config.components, rows.shape[1] // config.n_blocks)
    means, matrices = (part.numpy() for part in principal_components(rows, config.n_blocks, count))
    projected = []
    for clip in clips:
        blocks = clip.features.astype(np.float32).reshape(len(clip.features), config.n_blocks, -1)
        projected.append(np.einsum("rbw,bwc->rbc", blocks - means, matrices).reshape(len(blocks), -1))
    return projected


def _predict_left_out(
    clips: Sequence[HeardAndSeen],
    components: Sequence[NDArray[np.float32]],
    later: Mapping[str, float],
    folds: Mapping[str, int],
    config: OffsetConfig,
) -> dict[str, NDArray[np.float64]]:
    """Measures ``[R, 3]`` of each clip, predicted by a ridge filter that never saw its speaker."""
    predicted: dict[str, NDArray[np.float64]] = {}
    for fold in sorted(set(folds.values())):
        rows = [
            _target_rows(clip, inputs, later[clip.name])
            for clip, inputs in zip(clips, components, strict=True)
            if folds[clip.speaker] != fold
        ]
        kernel, bias = ridge_filter(rows, config.reach, config.step, config.penalty)
        flat = kernel.reshape(-1, kernel.shape[-1])
        for clip, inputs in zip(clips, components, strict=True):
            if folds[clip.speaker] == fold:
                predicted[clip.name] = window_rows(inputs, config.reach, config.step) @ flat + bias
    return predicted


def _target_rows(clip: HeardAndSeen, inputs: NDArray[np.float32], sound_later_s: float) -> RidgeRows:
    """Rows to learn from: measures in this clip's own z-scores, for how wide people open cannot be heard."""
    seen, known = clip.seen_at(sound_later_s)
    mean, spread = (f(seen[known], axis=0) if known.any() else np.zeros(3) for f in (np.mean, np.std))
    scores = np.clip((seen - mean) / (spread + 1e-9), -_CLIP_AT, _CLIP_AT)
    return RidgeRows(inputs, np.where(known[:, None], scores, 0.0), known.astype(np.float64))


def correlations(
    predicted: NDArray[np.floating], clip: HeardAndSeen, offsets_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correlation of prediction ``[R, 3]`` and mouth for each offset and measure, ``[L, 3]``.

    It is -1 where too little of sound and mouth meets, and 0 for a measure that does not move.
    """
    seen = [clip.seen_at(float(offset)) for offset in offsets_s]
    most = max(int(known.sum()) for _, known in seen)
    found = np.full((len(offsets_s), len(_WEIGHTS)), -1.0)
    for index, (measures, known) in enumerate(seen):
        if known.sum() >= max(3, _MIN_OVERLAP * most):
            found[index] = _pearson(predicted[known], measures[known])
    return found


def _pearson(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Correlation of each column ``[R, M]`` with its counterpart, 0 where one does not move."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(size > 1e-12, (a * b).sum(axis=0) / np.maximum(size, 1e-12), 0.0)


def _located(clip: HeardAndSeen, predicted: NDArray[np.float64], config: OffsetConfig) -> SoundOffset:
    step_s = 1.0 / clip.rate_hz
    reach = round(config.reach_s / step_s)
    offsets_s = np.arange(-reach, reach + 1, dtype=np.float64) * step_s
    profile = correlations(predicted, clip, offsets_s) @ _WEIGHTS
    best_ms = round(1000.0 * (offsets_s[int(np.argmax(profile))] + step_s * _beyond_peak(profile)))
    opening, known = clip.seen_at(best_ms / 1000.0)
    heard, seen = predicted[known, 0], opening[known, 0]
    r = float(_pearson(heard[:, None], seen[:, None])[0])
    z = _distinctness(heard, seen, r, round(MIN_SHIFT_S * clip.rate_hz))
    return SoundOffset(clip.name, best_ms, r, z, r >= config.min_r and z >= config.min_z)


def _beyond_peak(profile: NDArray[np.float64]) -> float:
    """How far beyond the highest value, in steps of -0.5..0.5, the parabola through it and its neighbours peaks."""
    peak = int(np.argmax(profile))
    if not 0 < peak < len(profile) - 1:
        return 0.0
    before, top, after = profile[peak - 1 : peak + 2]
    bend = before - 2 * top + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0


def _distinctness(heard: NDArray[np.float64], seen: NDArray[np.float64], peak: float, least: int) -> float:
    """Standard deviations of the peak over what the same prediction gives when it is moved on in a circle."""
    if len(heard) <= 2 * least or np.ptp(heard) == 0 or np.ptp(seen) == 0:
        return 0.0
    null = circular_shift_null(
        lambda rows: float(np.corrcoef(heard[rows], seen)[0, 1]), len(heard), least, np.random.default_rng(0), 400
    )
    return float((peak - null.mean()) / max(float(null.std()), 1e-9))
