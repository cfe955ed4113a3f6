"""This person's head: found by the content of the video, or trained on demand."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.commons.checkpoint import is_checkpoint, load_checkpoint
from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError, ConfigError
from modules.commons.progress import Progress
from modules.commons.workspace import EGS, IDENTITIES
from modules.face_model.correction import same_correction
from tasks.configs import RADNeRFTaskConfig, load_any
from tasks.radnerfs.radnerf import train

logger = logging.getLogger(__name__)

PRESETS = EGS / "egs_bases" / "radnerf"

SIZES_FROM_CLIP = ("position_grid", "individual_embedding_num")
"""What training sets by the clip, whatever the preset says."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A person's checkpoint folder and whether this run trained it."""

    checkpoint: Path
    trained_now: bool


def find_identity(
    source_sha256: str,
    face_model_version: str,
    config: RADNeRFTaskConfig | None = None,
    face: int = 0,
    folder: Path = IDENTITIES,
    *,
    correction: NDArray[np.float32] | None = None,
) -> Path | None:
    """The checkpoint below ``folder`` that was trained on this very video with this face model, if there is one.

    One that was trained on a fit with another correction of the expression units knows another mouth and is passed
    over.

    Args:
        source_sha256: of the video.
        face_model_version: in use.
        config: only one that was trained with exactly this; None takes any.
        face: number of the face in the video.
        folder: of all identities.
        correction: ``[I, E]`` that the video is fitted with; None = none.

    Raises:
        CheckpointError: a checkpoint there is corrupt.
    """
    for candidate in sorted(folder.glob("*")):
        if not is_checkpoint(candidate):
            continue
        try:
            record = json.loads((candidate / "checkpoint.json").read_text(encoding="utf-8"))
            extra = record["extra"]
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{candidate} is corrupt ({error}); delete the folder and run again") from error
        is_this_person = (
            extra.get("source_sha256") == source_sha256
            and extra.get("face", 0) == face
            and record.get("face_model_version") == face_model_version
        )
        if not is_this_person or (config is not None and not was_trained_with(candidate, config)):
            continue
        if has_correction(candidate, correction):
            return candidate
    return None


def has_correction(checkpoint: Path, correction: NDArray[np.float32] | None) -> bool:
    """Whether a person was trained with this correction ``[I, E]`` of the expression units; None = none.

    Raises:
        CheckpointError: the checkpoint is corrupt.
    """
    return same_correction(load_checkpoint(checkpoint, parts={"model"}).model.get("correction"), correction)


def check_own_correction(
    checkpoint: Path, source_sha256: str, face: int, correction: NDArray[np.float32] | None
) -> None:
    """Refuse a person of this very face whose fit had another correction; on other faces any person can be shown.

    Raises:
        CheckpointError: it is such a person, or corrupt.
    """
    extra = load_checkpoint(checkpoint, parts=()).extra
    of_this_face = extra.get("source_sha256") == source_sha256 and extra.get("face", 0) == face
    if of_this_face and not has_correction(checkpoint, correction):
        raise CheckpointError(
            f"{checkpoint} was trained with another correction of the expression units than its clip is now prepared "
            "with; prepare the clip with fit.correct_expression as then, or train the person again"
        )


def was_trained_with(checkpoint: Path, config: RADNeRFTaskConfig) -> bool:
    """Whether ``checkpoint`` is what training with ``config`` gives; one of an older layout is not."""
    try:
        saved = load_any(checkpoint / "config.yaml")
    except ConfigError:
        return False
    if not isinstance(saved, RADNeRFTaskConfig):
        return False
    from_clip = {name: getattr(saved.radnerf, name) for name in SIZES_FROM_CLIP}
    return saved == replace(config, radnerf=replace(config.radnerf, **from_clip))


def training_config(
    video_id: str, preset: Path | None, device: str, data_root: Path, face: int = 0
) -> RADNeRFTaskConfig:
    """How to train a prepared video's person: a preset (by device when None) with this video in it.

    Raises:
        ConfigError: the preset is wrong or is not for training a person.
    """
    chosen = preset or PRESETS / ("fast.yaml" if pick_device(device).type == "cuda" else "cpu.yaml")
    values = {"video_id": video_id, "face": face, "device": device, "data_root": str(data_root)}
    config = load_any(chosen, {key: json.dumps(value) for key, value in values.items()})  # overrides are read as YAML
    if not isinstance(config, RADNeRFTaskConfig) or config.radnerf.render.sampler != "surface":
        raise ConfigError(
            f"{chosen} does not train a person whose face can be edited; give a preset such as {PRESETS / 'cpu.yaml'}"
        )
    return config


def train_identity(config: RADNeRFTaskConfig, name: str, progress: Progress, folder: Path = IDENTITIES) -> Path:
    """Train a prepared video's person into ``folder / name``; goes on where it was interrupted."""
    checkpoint = folder / name
    logger.info("no checkpoint of this person yet: training one, kept in %s", checkpoint)
    train(config, checkpoint, progress)
    return checkpoint
