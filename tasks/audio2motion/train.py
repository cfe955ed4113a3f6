"""Audio → motion: cross-validate over speakers, calibrate, train on everything, write checkpoint and model card.

Reads: prepared talking clips (``data_gen/runs/build_av_corpus.py``), the face model.
Writes: the checkpoint directory with MODEL_CARD.md, states to resume from and TensorBoard logs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modules.audio2motion.model import Audio2Motion, stretch
from modules.audio2motion.motion_space import apply_deviation
from modules.commons.checkpoint import save_checkpoint
from modules.commons.errors import ConfigError
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE, ROOT
from modules.face_model.model import FaceModel
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.dataset_utils import TrainingClip, load_clips, speaker_folds
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
from tasks.audio2motion.fitting import Material, fit_model, make_material, project_clips
from tasks.audio2motion.losses import opening_effect
from tasks.audio2motion.model_card import model_card

__all__ = ["AudioToMotionTaskConfig", "train"]

logger = logging.getLogger(__name__)


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


def train(config: AudioToMotionTaskConfig, out_dir: Path, progress: Progress, *, work_dir: Path | None = None) -> None:
    """Train from prepared clips to a finished checkpoint; an interrupted run goes on where it stopped.

    Args:
        config: the task's configuration.
        out_dir: checkpoint directory; ``*.md`` files there (the licence) are kept, MODEL_CARD.md is rewritten.
        progress: told the steps.
        work_dir: states and logs; default ``data/training/<name of out_dir>``.

    Raises:
        ConfigError: no usable clips, or clips of another face model.
    """
    torch.set_num_threads(config.threads)
    work_dir = work_dir or ROOT / "data" / "training" / out_dir.name
    clips = load_clips(ROOT / config.clips)
    face_model = FaceModel.load(FACE_MODEL_FILE)
    if clips[0].clip.face_model_version != face_model.version:
        raise ConfigError(
            f"{config.clips}: fitted with face model {clips[0].clip.face_model_version}, this is {face_model.version}; "
            "run data_gen/runs/build_av_corpus.py again"
        )
    material = make_material(clips, face_model, config)
    calibration, table = None, {}
    if config.n_folds:
        validation = cross_validate(material, face_model, config, work_dir, progress)
        calibration = calibrate(validation, material, face_model, config.spread_target)
        table = report(validation, calibration, material, face_model)
    model = fit_model(material, config, work_dir / "final", progress, "train on all speakers")
    model.opening_effect.copy_(opening_effect(face_model))
    if calibration is not None:
        model.gain.copy_(calibration.gain)
        model.center.copy_(calibration.center)
        model.opening_floor.copy_(calibration.opening_floor)
    write_checkpoint(out_dir, model, config, clips, table)


def cross_validate(
    material: Material, face_model: FaceModel, config: AudioToMotionTaskConfig, work_dir: Path, progress: Progress
) -> CrossValidation:
    """Train once per fold without its speakers, then predict them."""
    folds = speaker_folds(material.clips, config.n_folds, config.fold_seed)
    clips: list[TrainingClip] = []
    predictions: list[Tensor] = []
    compared: dict[str, list[ClipScores]] = {
        "ridge on the measures": [],
        "model, last rendering": [],
        "model, wrong sound": [],
    }
    for fold in range(config.n_folds):
        held_out = [clip for clip in material.clips if folds[clip.speaker] == fold]
        if not held_out:
            continue
        training = material.subset([folds[clip.speaker] != fold for clip in material.clips])
        name = f"fold {fold + 1} of {config.n_folds}"
        model = fit_model(training, config, work_dir / f"fold{fold}", progress, name)
        testing = material.subset([folds[clip.speaker] == fold for clip in material.clips])
        components = project_clips(model, testing)
        clips += held_out
        with torch.no_grad():
            predictions += [model.unit_deviations(rows[:1])[0] for rows in components]
        compared["ridge on the measures"] += score_direct_ridge(
            training, held_out, components, model, face_model, config
        )
        compared["model, last rendering"] += score_model(model, held_out, face_model, sound=last_rendering)
        compared["model, wrong sound"] += score_model(model, held_out, face_model, sound=other_sound)
    return CrossValidation(clips, predictions, compared)


def calibrate(
    validation: CrossValidation, material: Material, face_model: FaceModel, spread_target: float
) -> Calibration:
    """The gain with which held-out lips open and shut as far as the true ones (in the median over clips).

    One gain serves all units: per-unit gains would blow up those that sound says little about.
    """
    effect = opening_effect(face_model)[material.columns]
    # Lips at rest are the least open fifth of a clip; what is rarer than 3 % below that is noise of the fit.
    openings = [torch.from_numpy(clip.deviation(material.columns.numpy())) @ effect for clip in validation.clips]
    floor = torch.stack([torch.quantile(opening, 0.03) for opening in openings]).median()
    speech = [
        units[torch.from_numpy(clip.clip.is_speech & clip.clip.valid)]
        for units, clip in zip(validation.predictions, validation.clips, strict=True)
    ]
    center = torch.cat(speech).mean(dim=0)
    low, high = 0.5, 4.0
    for _ in range(12):
        gain = (low + high) / 2
        calibration = Calibration(torch.full_like(center, gain), center, effect, floor)
        scores = score_predictions(validation, calibration, material.columns, face_model)
        low, high = (gain, high) if np.median([s.spread[0] for s in scores]) < spread_target else (low, gain)
    return calibration


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
    validation: CrossValidation, calibration: Calibration, material: Material, face_model: FaceModel
) -> dict[str, dict[str, dict[str, float]]]:
    """Table of the model card: row → measure → figures."""
    fitted = [
        score(clip, mouth_measures(clip.clip.expression, clip, face_model), tracked_measures(clip, face_model))
        for clip in validation.clips
    ]
    rows = {"model": score_predictions(validation, calibration, material.columns, face_model), **validation.rows}
    rows["fit itself (ceiling of the coefficients)"] = fitted
    for row in rows["model"]:
        logger.info("%-60s r %s spread %s", row.name, row.correlation.round(2), row.spread.round(2))
    table = {name: summarize(scores) for name, scores in rows.items()}
    for figures in table["ridge on the measures"].values():
        del figures["spread_median"]  # it predicts z-scores
    return table


def write_checkpoint(
    out_dir: Path,
    model: Audio2Motion,
    config: AudioToMotionTaskConfig,
    clips: Sequence[TrainingClip],
    table: dict[str, dict[str, dict[str, float]]],
) -> None:
    """Checkpoint, model card, and whatever other ``*.md`` the directory held."""
    kept = {path.name: path.read_text(encoding="utf-8") for path in out_dir.glob("*.md")}
    first = clips[0].clip
    extra = {
        "extractor": first.extractor,
        "rate_hz": first.rate_hz,
        "n_expression": int(first.expression.shape[1]),
        "n_clips": len(clips),
        "n_speakers": len({clip.speaker for clip in clips}),
        "minutes": round(sum(len(clip) for clip in clips) / first.rate_hz / 60, 2),
        "cross_validation": table,
    }
    tensors = {"model": {name: _small(value) for name, value in model.state_dict().items()}}
    save_checkpoint(out_dir, tensors, config, config.max_updates, extra, face_model_version=first.face_model_version)
    card = model_card(config, extra, [clip.clip.name for clip in clips])
    for name, text in {**kept, "MODEL_CARD.md": card}.items():
        (out_dir / name).write_text(text, encoding="utf-8")
    logger.info("%s: %s", out_dir, json.dumps(table.get("model", {})))


def _small(value: Tensor) -> Tensor:
    return value.half() if value.dtype == torch.float32 and value.numel() > 1000 else value
