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

import torch
from torch import Tensor

from modules.audio2motion.model import Audio2Motion
from modules.commons.checkpoint import save_checkpoint
from modules.commons.errors import ConfigError
from modules.commons.progress import Progress, silent
from modules.commons.workspace import ROOT
from modules.face_model.bfm import BfmModel
from modules.face_model.choice import load_face_model
from modules.face_model.model import FaceModel
from modules.structures.speech_motion import SpeechMotionClip
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.dataset_utils import TrainingClip, load_clips, wanted_names
from tasks.audio2motion.fitting import fit_model
from tasks.audio2motion.losses import opening_effect
from tasks.audio2motion.material import make_material
from tasks.audio2motion.model_card import model_card
from tasks.audio2motion.stored_corpus import StoredCorpus, open_corpus
from tasks.audio2motion.validation import CrossValidation, calibrate, cross_validate, hold_out, report
from tasks.distributed import Ranks, joined

__all__ = ["AudioToMotionTaskConfig", "train"]

logger = logging.getLogger(__name__)

Table = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True, slots=True)
class CorpusFacts:
    """What the model card says of the clips trained on."""

    first: SpeechMotionClip
    names: Sequence[str]
    n_clips: int
    n_speakers: int
    minutes: float

    @classmethod
    def of_clips(cls, clips: Sequence[TrainingClip]) -> CorpusFacts:
        """Of clips in memory."""
        minutes = sum(len(clip) for clip in clips) / clips[0].clip.rate_hz / 60
        names = [clip.clip.name for clip in clips]
        return cls(clips[0].clip, names, len(clips), len({clip.speaker for clip in clips}), round(minutes, 2))

    @classmethod
    def of_stored(cls, corpus: StoredCorpus) -> CorpusFacts:
        """Of a corpus on disk; its length is that of the probe, scaled."""
        probe = cls.of_clips(corpus.probe)
        count = len(corpus.training)
        minutes = round(probe.minutes * count / len(corpus.probe), 1)
        return cls(probe.first, [file.stem for file in corpus.training], count, corpus.n_speakers, minutes)


def train(config: AudioToMotionTaskConfig, out_dir: Path, progress: Progress, *, work_dir: Path | None = None) -> None:
    """Train from prepared clips to a finished checkpoint; an interrupted run goes on where it stopped.

    Started by ``torchrun``, several processes train together and the first of them writes.

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
    face_model = load_face_model(config.face_model)
    with joined(config.device) as ranks:
        progress = progress if ranks.is_first else silent
        whole = _from_disk if config.corpus.resident_clips else _in_memory
        model, facts, table = whole(config, face_model, work_dir, progress, ranks)
        if ranks.is_first:
            write_checkpoint(out_dir, model, config, facts, table)
        ranks.wait()


def _in_memory(
    config: AudioToMotionTaskConfig,
    face_model: FaceModel | BfmModel,
    work_dir: Path,
    progress: Progress,
    ranks: Ranks,
) -> tuple[Audio2Motion, CorpusFacts, Table]:
    """Cross-validate on all clips, then train on all of them."""
    clips = [
        c for c in load_clips(ROOT / config.clips, wanted_names(config)) if c.speaker not in config.without_speakers
    ]
    if not clips:
        raise ConfigError(f"{config.clips}: without_speakers leaves no clip to train on")
    _check_face_model(clips, face_model, config)
    validation = None
    if config.n_folds and isinstance(face_model, FaceModel):
        validation = cross_validate(clips, face_model, config, work_dir, progress, ranks)
    material = make_material(clips, face_model, config)
    model = fit_model(material, config, work_dir / "final", progress, "train on all speakers", ranks=ranks)
    return model, CorpusFacts.of_clips(clips), _give_size(model, validation, face_model, config)


def _from_disk(
    config: AudioToMotionTaskConfig,
    face_model: FaceModel | BfmModel,
    work_dir: Path,
    progress: Progress,
    ranks: Ranks,
) -> tuple[Audio2Motion, CorpusFacts, Table]:
    """Train on all but a few speakers, who then tell how good it is."""
    if not ranks.is_first:
        ranks.wait()  # until the first has noted the speakers
    corpus = open_corpus(ROOT / config.clips, config, work_dir / "speakers.json", wanted_names(config))
    if ranks.is_first:
        ranks.wait()
    _check_face_model(corpus.probe, face_model, config)
    material = make_material(corpus.probe, face_model, config, corpus.training)
    model = fit_model(material, config, work_dir / "final", progress, "train", ranks=ranks)
    validation = None
    if corpus.held_out and isinstance(face_model, FaceModel):
        validation = hold_out(model, material, corpus.held_out, face_model, config)
    return model, CorpusFacts.of_stored(corpus), _give_size(model, validation, face_model, config)


def _check_face_model(
    clips: Sequence[TrainingClip], face_model: FaceModel | BfmModel, config: AudioToMotionTaskConfig
) -> None:
    made_for = clips[0].clip.face_model_version
    if made_for != face_model.version:
        raise ConfigError(
            f"{config.clips}: fitted with face model {made_for}, this is {face_model.version}; "
            "run data_gen/runs/build_av_corpus.py again"
        )


def _give_size(
    model: Audio2Motion,
    validation: CrossValidation | None,
    face_model: FaceModel | BfmModel,
    config: AudioToMotionTaskConfig,
) -> Table:
    """Set what stretches predicted motion to its natural size; the table of figures, empty without held-out clips."""
    model.opening_effect.copy_(opening_effect(face_model))
    if validation is None or not isinstance(face_model, FaceModel):
        return {}
    calibration = calibrate(validation, model.columns, face_model, config.spread_target)
    model.gain.copy_(calibration.gain)
    model.center.copy_(calibration.center)
    model.opening_floor.copy_(calibration.opening_floor)
    return report(validation, calibration, model.columns, face_model)


def write_checkpoint(
    out_dir: Path,
    model: Audio2Motion,
    config: AudioToMotionTaskConfig,
    facts: CorpusFacts,
    table: Table,
) -> None:
    """Checkpoint, model card, and whatever other ``*.md`` the directory held."""
    kept = {path.name: path.read_text(encoding="utf-8") for path in out_dir.glob("*.md")}
    first = facts.first
    extra = {
        "extractor": first.extractor,
        "rate_hz": first.rate_hz,
        "n_expression": int(first.expression.shape[1]),
        "n_clips": facts.n_clips,
        "n_speakers": facts.n_speakers,
        "minutes": facts.minutes,
        "cross_validation": table,
    }
    tensors = {"model": {name: _small(value) for name, value in model.state_dict().items()}}
    version = first.face_model_version
    save_checkpoint(out_dir, tensors, config, config.max_updates, extra, face_model_version=version, kept=kept)
    card = model_card(config, extra, facts.names)
    for name, text in {**kept, "MODEL_CARD.md": card}.items():
        (out_dir / name).write_text(text, encoding="utf-8")
    logger.info("%s: %s", out_dir, json.dumps(table.get("model", {})))


def _small(value: Tensor) -> Tensor:
    return value.half() if value.dtype == torch.float32 and value.numel() > 1000 else value
