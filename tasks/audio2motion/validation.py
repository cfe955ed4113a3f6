"""Whether it works on people never heard, and what makes predicted motion as large as theirs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modules.audio2motion.model import Audio2Motion, stretch
from modules.audio2motion.motion_space import apply_deviation
from modules.commons.progress import Progress
from modules.face_model.model import FaceModel
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.dataset_utils import TrainingClip, speaker_folds
from tasks.audio2motion.evaluation import (
    ClipScores,
    last_rendering,
    mouth_measures,
    other_sound,
    score,
    score_direct_ridge,
    score_model,
    summarize,
    tracked_measures,
)
from tasks.audio2motion.fitting import fit_model
from tasks.audio2motion.losses import LipEffect, lip_effect
from tasks.audio2motion.material import Material, make_material, project_clip
from tasks.distributed import Ranks

logger = logging.getLogger(__name__)

_CALIBRATION_TURNS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """How predicted motion gets its natural size, see ``modules.audio2motion.model.stretch``; ``[U]`` and a scalar."""

    gain: Tensor
    center: Tensor
    opening_effect: Tensor
    opening_floor: Tensor

    def apply(self, units: Tensor) -> Tensor:
        """``[..., U]`` to ``[..., U]``."""
        return stretch(units, self.gain, self.center, self.opening_effect, self.opening_floor)


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidation:
    """Held-out predictions ``[T, U]``, not stretched, per clip; ``rows`` holds what they are compared with."""

    clips: list[TrainingClip]
    predictions: list[Tensor]
    rows: dict[str, list[ClipScores]]


def cross_validate(
    clips: Sequence[TrainingClip],
    face_model: FaceModel,
    config: AudioToMotionTaskConfig,
    work_dir: Path,
    progress: Progress,
    ranks: Ranks,
) -> CrossValidation:
    """Train once per fold without its speakers, then predict them."""
    folds = speaker_folds(clips, config.n_folds, config.fold_seed)
    tested: list[TrainingClip] = []
    predictions: list[Tensor] = []
    rows: dict[str, list[ClipScores]] = {}
    for fold in range(config.n_folds):
        held_out = [clip for clip in clips if folds[clip.speaker] == fold]
        if not held_out:
            continue
        training = make_material([clip for clip in clips if folds[clip.speaker] != fold], face_model, config)
        name = f"fold {fold + 1} of {config.n_folds}"
        model = fit_model(training, config, work_dir / f"fold{fold}", progress, name, ranks=ranks)
        part = hold_out(model, training, held_out, face_model, config)
        tested += part.clips
        predictions += part.predictions
        for row, scores in part.rows.items():
            rows.setdefault(row, []).extend(scores)
    return CrossValidation(tested, predictions, rows)


@torch.no_grad()
def hold_out(
    model: Audio2Motion,
    training: Material,
    held_out: Sequence[TrainingClip],
    face_model: FaceModel,
    config: AudioToMotionTaskConfig,
) -> CrossValidation:
    """Predict clips of speakers that a model never heard.

    Args:
        model: the network, trained on ``training``.
        training: also what the ridge that it is compared with learns from.
        held_out: the clips.
        face_model: turns coefficients into landmarks.
        config: the task's configuration.
    """
    components = [project_clip(model, clip) for clip in held_out]
    return CrossValidation(
        list(held_out),
        [model.unit_deviations(rows[:1])[0] for rows in components],
        {
            "ridge on the measures": score_direct_ridge(training, held_out, components, model, face_model, config),
            "model, last rendering": score_model(model, held_out, face_model, sound=last_rendering),
            "model, wrong sound": score_model(model, held_out, face_model, sound=other_sound),
        },
    )


def calibrate(validation: CrossValidation, columns: Tensor, face_model: FaceModel, spread_target: float) -> Calibration:
    """The gains with which held-out lips open and spread as far as the true ones (in the median over clips).

    Two gains serve all units, one for what opens the lips and one for what makes the mouth wide or narrow; a unit that
    does both gets what lies between. Gains of each unit's own would blow up those that sound says little about.
    """
    lips = lip_effect(face_model, columns)
    # Lips at rest are the least open fifth of a clip; what is rarer than 3 % below that is noise of the fit.
    openings = [torch.from_numpy(clip.deviation(columns.numpy())) @ lips.opening for clip in validation.clips]
    floor = torch.stack([torch.quantile(opening, 0.03) for opening in openings]).median()
    speech = torch.cat(
        [
            units[torch.from_numpy(clip.clip.is_speech & clip.clip.valid)]
            for units, clip in zip(validation.predictions, validation.clips, strict=True)
        ]
    )
    widening = _widening_share(lips, speech.std(dim=0))
    gains = np.ones(2)
    for turn in range(_CALIBRATION_TURNS + 1):
        gain = (gains[0] + (gains[1] - gains[0]) * widening).float()
        calibration = Calibration(gain, speech.mean(dim=0), lips.opening, floor)
        if turn < _CALIBRATION_TURNS:
            scores = score_predictions(validation, calibration, columns, face_model)
            spread = np.median([s.spread[:2] for s in scores], axis=0)
            gains = np.clip(gains * spread_target / np.maximum(spread, 1e-6), 0.5, 4.0)
    return calibration


def _widening_share(lips: LipEffect, spread: Tensor) -> Tensor:
    """``[U]`` 0..1: how much of what a unit of this spread does to the lips is done to the mouth's width."""
    opens, widens = (spread * lips.opening).abs(), (spread * lips.spread).abs()
    return widens / (opens + widens).clamp_min(1e-9)


def score_predictions(
    validation: CrossValidation, calibration: Calibration, columns: Tensor, face_model: FaceModel
) -> list[ClipScores]:
    """Held-out scores with a calibration applied."""
    scores = []
    for units, clip in zip(validation.predictions, validation.clips, strict=True):
        deviation = np.zeros_like(clip.clip.expression)
        deviation[:, columns.numpy()] = calibration.apply(units).numpy()
        measured = mouth_measures(apply_deviation(clip.rest, deviation), clip, face_model)
        scores.append(score(clip, measured, tracked_measures(clip, face_model)))
    return scores


def report(
    validation: CrossValidation, calibration: Calibration, columns: Tensor, face_model: FaceModel
) -> dict[str, dict[str, dict[str, float]]]:
    """Table of the model card: row → measure → figures."""
    fitted = [
        score(clip, mouth_measures(clip.clip.expression, clip, face_model), tracked_measures(clip, face_model))
        for clip in validation.clips
    ]
    rows = {"model": score_predictions(validation, calibration, columns, face_model), **validation.rows}
    rows["fit itself (ceiling of the coefficients)"] = fitted
    for row in rows["model"]:
        logger.info("%-60s r %s spread %s", row.name, row.correlation.round(2), row.spread.round(2))
    table = {name: summarize(scores) for name, scores in rows.items()}
    for figures in table["ridge on the measures"].values():
        del figures["spread_median"]  # it predicts z-scores
    return table
