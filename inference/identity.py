"""This person's head: found by the content of the video, or trained on demand."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from modules.commons.checkpoint import is_checkpoint
from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError, ConfigError
from modules.commons.progress import Progress
from modules.commons.workspace import EGS, IDENTITIES
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
) -> Path | None:
    """The checkpoint below ``folder`` that was trained on this very video with this face model, if there is one.

    Args:
        source_sha256: of the video.
        face_model_version: in use.
        config: only one that was trained with exactly this; None takes any.
        face: number of the face in the video.
        folder: of all identities.

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
        if is_this_person and (config is None or was_trained_with(candidate, config)):
            return candidate
    return None


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
    chosen = preset or PRESETS / ("gpu.yaml" if pick_device(device).type == "cuda" else "cpu.yaml")
    values = {"video_id": video_id, "face": face, "device": device, "data_root": str(data_root)}
    config = load_any(chosen, {key: json.dumps(value) for key, value in values.items()})  # overrides are read as YAML
    if not isinstance(config, RADNeRFTaskConfig):
        raise ConfigError(f"{chosen} does not train a person; give a preset such as {PRESETS / 'cpu.yaml'}")
    return config


def train_identity(config: RADNeRFTaskConfig, name: str, progress: Progress, folder: Path = IDENTITIES) -> Path:
    """Train a prepared video's person into ``folder / name``; goes on where it was interrupted."""
    checkpoint = folder / name
    logger.info("no checkpoint of this person yet: training one, kept in %s", checkpoint)
    train(config, checkpoint, progress)
    return checkpoint
