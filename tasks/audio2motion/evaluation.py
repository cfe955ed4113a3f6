"""Cross-validation over speakers: how well the mouth of a person never heard is predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.audio2motion.closed_form import RidgeRows, ridge_filter, window_rows
from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.motion_space import apply_deviation
from modules.face_model.model import FaceModel
from modules.metrics.lips import correlation
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.dataset_utils import TrainingClip
from tasks.audio2motion.material import Material, project_clips
from tasks.audio2motion.measures import lip_distances, z_scores

MEASURES = ("opening", "width", "jawOpen")
BOOTSTRAP_DRAWS = 2000
_STILL = 1e-9


def mouth_measures(expression: NDArray[np.float32], clip: TrainingClip, face_model: FaceModel) -> NDArray:
    """Opening, width (distances of 3-D landmarks over the outer eye corners') and jawOpen: ``[T, 3]``."""
    lips = lip_distances(expression, clip.clip.identity, face_model)
    return np.concatenate([lips, expression[:, [face_model.unit("jawOpen")]]], axis=1)


def tracked_measures(clip: TrainingClip, face_model: FaceModel) -> NDArray:
    """The same as seen in the video: opening and width of the tracked landmarks, jawOpen of the fit: ``[T, 3]``."""
    jaw = clip.clip.expression[:, face_model.unit("jawOpen")]
    return np.stack([clip.clip.opening, clip.clip.width, jaw], axis=1).astype(np.float64)


@torch.no_grad()
def predict_units(model: Audio2Motion, clip: TrainingClip, features: NDArray | None = None) -> NDArray[np.float32]:
    """Predicted deviation ``[T, E]`` of a clip from its clean sound (or from ``features``), without gate."""
    rows = clip.clip.features[0] if features is None else features
    return model(torch.from_numpy(rows.astype(np.float32))[None])[0].numpy()


def other_sound(clips: Sequence[TrainingClip], index: int) -> NDArray:
    """Features of another speaker's clip, repeated to this clip's length: what chance looks like."""
    count = len(clips)
    others = [clips[(index + step) % count] for step in range(1, count)]
    other = next((clip for clip in others if clip.speaker != clips[index].speaker), clips[index])
    rows = np.arange(len(clips[index])) % len(other)
    return other.clip.features[0][rows]


def last_rendering(clips: Sequence[TrainingClip], index: int) -> NDArray:
    """Features of a clip's last rendering: elsewhere in the window, equalised, in noise of 8 to 25 dB."""
    return clips[index].clip.features[-1]


@dataclass(frozen=True, slots=True, eq=False)
class ClipScores:
    """Of one held-out clip and each of ``MEASURES``: correlation, and spread over the true spread."""

    name: str
    speaker: str
    correlation: NDArray[np.float64]
    spread: NDArray[np.float64]


def score(clip: TrainingClip, predicted: NDArray, truth: NDArray) -> ClipScores:
    """Compare measures ``[T, 3]`` over the rows that have a face."""
    rows = clip.clip.valid
    pairs = list(zip(predicted[rows].T, truth[rows].T, strict=True))
    correlation = [pearson(p, t) for p, t in pairs]
    spread = [float(p.std() / max(t.std(), 1e-9)) for p, t in pairs]
    return ClipScores(clip.clip.name, clip.speaker, np.array(correlation), np.array(spread))


def score_model(
    model: Audio2Motion,
    clips: Sequence[TrainingClip],
    face_model: FaceModel,
    *,
    sound: Callable[[Sequence[TrainingClip], int], NDArray] | None = None,
) -> list[ClipScores]:
    """Scores of a model on clips, through the face model's landmarks, against what was tracked.

    Args:
        model: the network.
        clips: held-out clips.
        face_model: turns coefficients into landmarks.
        sound: picks the features that clip ``index`` is predicted from; its own clean sound when None.
    """
    scores = []
    for index, clip in enumerate(clips):
        deviation = predict_units(model, clip, sound(clips, index) if sound else None)
        measured = mouth_measures(apply_deviation(clip.rest, deviation), clip, face_model)
        scores.append(score(clip, measured, tracked_measures(clip, face_model)))
    return scores


def score_direct_ridge(
    train: Material,
    test: Sequence[TrainingClip],
    test_components: Sequence[Tensor],
    model: Audio2Motion,
    face_model: FaceModel,
    config: AudioToMotionTaskConfig,
) -> list[ClipScores]:
    """The yardstick: ridge straight from components to the z-scored tracked measures, clean sound only."""
    rows = [
        RidgeRows(components[0].numpy(), z_scores(tracked_measures(clip, face_model)), clip.clip.valid.astype(float))
        for clip, components in zip(train.clips, project_clips(model, train), strict=True)
    ]
    reach, step = max(config.model.linear_reach, 3), config.model.linear_step
    kernel, bias = ridge_filter(rows, reach, step, config.ridge_penalty)
    flat = kernel.reshape(-1, kernel.shape[-1])
    return [
        score(clip, window_rows(components[0].numpy(), reach, step) @ flat + bias, tracked_measures(clip, face_model))
        for clip, components in zip(test, test_components, strict=True)
    ]


def summarize(scores: Sequence[ClipScores], seed: int = 0, draws: int = BOOTSTRAP_DRAWS) -> dict[str, dict[str, float]]:
    """Mean and median over clips, 95 % interval over resampled speakers, and median spread, per measure."""
    table: dict[str, dict[str, float]] = {}
    r = np.array([s.correlation for s in scores])
    spread = np.array([s.spread for s in scores])
    low, high = speaker_bootstrap(r, [s.speaker for s in scores], np.random.default_rng(seed), draws)
    for column, name in enumerate(MEASURES):
        table[name] = {
            "r_mean": float(r[:, column].mean()),
            "r_median": float(np.median(r[:, column])),
            "r_low": float(low[column]),
            "r_high": float(high[column]),
            "spread_median": float(np.median(spread[:, column])),
        }
    return table


def speaker_bootstrap(
    values: NDArray, speakers: Sequence[str], rng: np.random.Generator, draws: int = BOOTSTRAP_DRAWS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2.5 and 97.5 percentile of the mean over clips ``[N, M]`` when whole speakers are drawn with replacement."""
    groups = [np.flatnonzero([speaker == name for speaker in speakers]) for name in dict.fromkeys(speakers)]
    sums = np.stack([values[group].sum(axis=0) for group in groups])
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    drawn = rng.integers(0, len(groups), (draws, len(groups)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)[:, None]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


def pearson(first: NDArray, second: NDArray) -> float:
    """Correlation; 0 where one does not move, for such a prediction explains nothing."""
    r = correlation(first, second)
    return 0.0 if math.isnan(r) or first.std() < _STILL or second.std() < _STILL else r
