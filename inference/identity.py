"""This person's head: found by the content of the video, or trained on demand."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from modules.commons.checkpoint import is_checkpoint
from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError
from modules.commons.progress import Progress
from modules.commons.workspace import EGS, IDENTITIES
from tasks.configs import RADNeRFTaskConfig, load_any
from tasks.radnerfs.radnerf import train

logger = logging.getLogger(__name__)

PRESETS = EGS / "egs_bases" / "radnerf"


@dataclass(frozen=True, slots=True)
class Identity:
    """A person's checkpoint folder and whether this run trained it."""

    checkpoint: Path
    trained_now: bool


def find_identity(source_sha256: str, face_model_version: str, folder: Path = IDENTITIES) -> Path | None:
    """The checkpoint below ``folder`` that was trained on this very video with this face model, if there is one."""
    for candidate in sorted(folder.glob("*")):
        if not is_checkpoint(candidate):
            continue
        try:
            record = json.loads((candidate / "checkpoint.json").read_text(encoding="utf-8"))
            extra = record["extra"]
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{candidate} is corrupt ({error}); delete the folder and run again") from error
        if extra.get("source_sha256") == source_sha256 and record.get("face_model_version") == face_model_version:
            return candidate
    return None


def train_identity(
    video_id: str, config_path: Path | None, device: str, data_root: Path, progress: Progress, folder: Path = IDENTITIES
) -> Path:
    """Train a prepared video's person with a preset (by device when None); resumes what was interrupted."""
    chosen = config_path or PRESETS / ("gpu.yaml" if pick_device(device).type == "cuda" else "cpu.yaml")
    overrides = {"video_id": video_id, "device": device, "data_root": str(data_root)}
    config = load_any(chosen, overrides)
    if not isinstance(config, RADNeRFTaskConfig):
        raise CheckpointError(f"{chosen} does not train a person; give a preset such as {PRESETS / 'cpu.yaml'}")
    checkpoint = folder / (video_id if config_path is None else f"{video_id}-{config_path.stem}")
    logger.info("no checkpoint of this person yet: training one with %s (kept in %s)", chosen, checkpoint)
    train(config, checkpoint, progress)
    return checkpoint
