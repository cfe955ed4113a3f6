"""Predictions for people the model never heard: the only ones a figure may be made of.

Whole speakers are left out in turn. A clip's prediction comes from its fold's model; its gain and what reads scores
off units come from the other folds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.audio2motion.closed_form import RidgeRows, ridge_filter, window_rows
from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.motion_space import apply_deviation
from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.errors import ConfigError
from modules.commons.progress import Progress
from modules.face_model.model import FaceModel
from modules.structures.seen_mouth import SeenMouth
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.dataset_utils import TrainingClip, load_clips, speaker_folds, wanted_names
from tasks.audio2motion.fitting import fit_model
from tasks.audio2motion.material import make_material
from tasks.audio2motion.measures import ScoreReadout, cut_to, lip_distances, seen_measures, z_scores
from tasks.audio2motion.validation import Calibration, CrossValidation, calibrate

logger = logging.getLogger(__name__)

ENERGY_REACH_ROWS = 16
"""Loudness is looked at this far to each side: 8 frames of a film."""
Features = Callable[[Sequence[TrainingClip], int], NDArray]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One clip to judge by: what was heard, what was seen, and whether it may teach.

    Attributes:
        clip: cut to the rows with a face. seen: the same rows. seen_again: of a second tracking, None where there is
            none.
        fold: whose model predicts it.
        kept: False for a clip whose sound does not go with its mouth.
        teaches: whether models of other folds learn from it: it is kept, and the configuration's variant may use it.
    """

    clip: TrainingClip
    seen: SeenMouth
    seen_again: SeenMouth | None
    fold: int
    kept: bool
    teaches: bool

    @property
    def name(self) -> str:
        return self.clip.clip.name

    @property
    def speaker(self) -> str:
        return self.clip.speaker


def load_cases(corpus: Path, config: AudioToMotionTaskConfig) -> list[Case]:
    """Every clip of a corpus folder, those set aside too.

    Raises:
        ConfigError: the folder holds no clips, or they were not seen (``build_av_corpus.py`` writes both).
    """
    kept = load_clips(corpus / "clips")
    aside = load_clips(corpus / "set_aside") if any((corpus / "set_aside").glob("*.npz")) else []
    folds = speaker_folds(kept, config.n_folds, config.fold_seed)
    wanted = wanted_names(config)
    return [
        Case(
            clip,
            _seen(corpus / "seen" / f"{clip.clip.name}.npz", clip),
            _seen_again(corpus / "seen_again" / f"{clip.clip.name}.npz", clip),
            folds.get(clip.speaker, 0),
            index < len(kept),
            index < len(kept) and (wanted is None or clip.clip.name in wanted),
        )
        for index, clip in enumerate([*kept, *aside])
    ]


def _seen_again(file: Path, clip: TrainingClip) -> SeenMouth | None:
    return _seen(file, clip) if file.is_file() else None


def _seen(file: Path, clip: TrainingClip) -> SeenMouth:
    try:
        return cut_to(SeenMouth.load(file), clip)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{file}: {error}; run data_gen/runs/build_av_corpus.py again") from error


@dataclass(frozen=True, slots=True, eq=False)
class FoldModel:
    """A model and whom it heard.

    Attributes:
        fold: number. model: gain 1. speakers: it was trained on. readout: of scores, from the same clips.
    """

    fold: int
    model: Audio2Motion
    speakers: frozenset[str]
    readout: ScoreReadout

    @property
    def columns(self) -> NDArray[np.int64]:
        """Of its units among the coefficients, ``[U]``."""
        return self.model.columns.numpy()

    def check_never_heard(self, speaker: str) -> None:
        """Refuse to make a figure of somebody the model knows.

        Raises:
            ConfigError: the speaker was in its training.
        """
        if speaker in self.speakers:
            raise ConfigError(f"{speaker} was heard in training fold {self.fold}; no figure may be made of that")


def train_folds(
    cases: Sequence[Case], face_model: FaceModel, config: AudioToMotionTaskConfig, work_dir: Path, progress: Progress
) -> list[FoldModel]:
    """A model per fold, trained without its speakers.

    Finished models are kept in ``work_dir/held_out`` and taken from there when they were made by the same configuration
    from the same clips; states of a training in ``work_dir`` are taken up likewise.
    """
    folds = []
    for fold in sorted({case.fold for case in cases if case.kept}):
        teaching = [case for case in cases if case.teaches and case.fold != fold]
        clips = [case.clip for case in teaching]
        made_of = {"clips": sorted(case.name for case in teaching), "speakers": sorted({c.speaker for c in teaching})}
        kept = work_dir / "held_out" / f"fold{fold}"
        model = load_fold(kept, config, made_of)
        if model is None:
            name = f"fold {fold + 1} of {config.n_folds}"
            material = make_material(clips, face_model, config)
            model = fit_model(material, config, work_dir / f"fold{fold}", progress, name)
            tensors = {"model": model.state_dict()}
            version = clips[0].clip.face_model_version
            save_checkpoint(kept, tensors, config, config.max_updates, made_of, face_model_version=version)
        readout = ScoreReadout.taught_by(clips, [case.seen for case in teaching], model.columns.numpy())
        folds.append(FoldModel(fold, model, frozenset(made_of["speakers"]), readout))
    return folds


def load_fold(
    folder: Path, config: AudioToMotionTaskConfig, made_of: Mapping[str, Sequence[str]]
) -> Audio2Motion | None:
    """A fold's finished model, gain 1; None where there is none of this configuration and these clips."""
    if not is_checkpoint(folder):
        return None
    stored = load_checkpoint(folder)
    if stored.extra != made_of or _recipe(stored.config(AudioToMotionTaskConfig)) != _recipe(config):
        logger.info("%s: of another configuration or other clips, trained anew", folder)
        return None
    columns = stored.model["columns"]
    n_expression = len(stored.model["opening_effect"])
    model = Audio2Motion(config.model, columns, n_expression)
    model.load_state_dict(stored.model)
    return model.eval()


def _recipe(config: AudioToMotionTaskConfig) -> AudioToMotionTaskConfig:
    """What of a configuration a fold's weights depend on."""
    default = AudioToMotionTaskConfig()
    free = ("clips", "device", "threads", "log_interval", "state_interval", "spread_target")
    return replace(config, **{name: getattr(default, name) for name in free})


@torch.no_grad()
def predict_units(model: Audio2Motion, features: NDArray) -> Tensor:
    """Units ``[T, U]``, not stretched, of feature rows ``[T, C]``."""
    components = model.projection(torch.from_numpy(features.astype(np.float32))[None])
    return model.unit_deviations(components)[0]


def own_sound(clips: Sequence[TrainingClip], index: int) -> NDArray:
    """Features of a clip's clean sound."""
    return clips[index].clip.features[0]


def predict_all(cases: Sequence[Case], folds: Sequence[FoldModel], sound: Features = own_sound) -> list[Tensor]:
    """Units ``[T, U]`` of every case, each from the model that never heard its speaker."""
    models = {fold.fold: fold for fold in folds}
    clips = [case.clip for case in cases]
    predictions = []
    for index, case in enumerate(cases):
        models[case.fold].check_never_heard(case.speaker)
        predictions.append(predict_units(models[case.fold].model, sound(clips, index)))
    return predictions


def calibrate_folds(
    cases: Sequence[Case],
    predictions: Sequence[Tensor],
    folds: Sequence[FoldModel],
    face_model: FaceModel,
    config: AudioToMotionTaskConfig,
) -> dict[int, Calibration]:
    """The gain of each fold, from the held-out predictions of all others."""
    found = {}
    for fold in folds:
        others = [index for index, case in enumerate(cases) if case.kept and case.fold != fold.fold]
        validation = CrossValidation([cases[i].clip for i in others], [predictions[i] for i in others], {})
        found[fold.fold] = calibrate(validation, fold.model.columns, face_model, config.spread_target)
        gain = found[fold.fold].gain
        logger.info("fold %d: gains %.2f to %.2f", fold.fold + 1, float(gain.min()), float(gain.max()))
    return found


def measures_of_units(
    case: Case, units: Tensor, fold: FoldModel, face_model: FaceModel, calibration: Calibration | None = None
) -> NDArray[np.float64]:
    """``MEASURES`` that predicted units show on this person's face: ``[T, 5]``.

    Args:
        case: whose face.
        units: ``[T, U]``.
        fold: whose units they are.
        face_model: turns coefficients into landmarks.
        calibration: None = as predicted.
    """
    natural = (units if calibration is None else calibration.apply(units)).numpy()
    deviation = in_columns(case, natural, fold)
    lips = lip_distances(apply_deviation(case.clip.rest, deviation), case.clip.clip.identity, face_model)
    return np.concatenate([lips, fold.readout(natural)], axis=1)


def direct_ridge(
    cases: Sequence[Case], folds: Sequence[FoldModel], config: AudioToMotionTaskConfig, *, energy: bool = False
) -> list[NDArray[np.float64]]:
    """The yardsticks: ridge straight to the z-scored measures ``[T, 5]``, from the same features or from loudness.

    Args:
        cases: to predict; those that teach are learnt from, without the fold's own speakers.
        folds: for the features' projection.
        config: penalty and reach.
        energy: from loudness and its steps alone.
    """
    reach, step = (
        (ENERGY_REACH_ROWS // 2, 2) if energy else (max(config.model.linear_reach, 3), config.model.linear_step)
    )
    predicted: list[NDArray[np.float64]] = [np.zeros((0, 0))] * len(cases)
    for fold in folds:
        inputs = [_energy_rows(case) if energy else _components(fold.model, case) for case in cases]
        rows = [
            RidgeRows(rows, z_scores(seen_measures(case.seen)), (case.clip.clip.valid & case.seen.valid).astype(float))
            for case, rows in zip(cases, inputs, strict=True)
            if case.teaches and case.fold != fold.fold
        ]
        kernel, bias = ridge_filter(rows, reach, step, 0.01 if energy else config.ridge_penalty)
        flat = kernel.reshape(-1, kernel.shape[-1])
        for index, case in enumerate(cases):
            if case.fold == fold.fold:
                predicted[index] = window_rows(inputs[index], reach, step) @ flat + bias
    return predicted


def _components(model: Audio2Motion, case: Case) -> NDArray[np.float32]:
    with torch.no_grad():
        return model.projection(torch.from_numpy(case.clip.clip.features[0].astype(np.float32))).numpy()


def _energy_rows(case: Case) -> NDArray[np.float32]:
    level = z_scores(case.seen.level_db[:, None].astype(np.float64))
    return np.concatenate([level, np.gradient(level, axis=0)], axis=1).astype(np.float32)


def in_columns(case: Case, units: NDArray[np.float32], fold: FoldModel) -> NDArray[np.float32]:
    """Units ``[T, U]`` in the face model's columns ``[T, E]``."""
    deviation = np.zeros_like(case.clip.clip.expression)
    deviation[:, fold.columns] = units
    return deviation
