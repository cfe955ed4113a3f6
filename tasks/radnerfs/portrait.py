"""Training of GeneFace++'s portraits: first the head (with super-resolution), then the torso that goes with it.

One frame a step. The head's occupancy is marked by the clip's cameras and kept up to date; the torso has a grid of its
own. What is written is what ``official.load_portrait`` reads.

Reads: the clip's dataset and pictures; for a torso the head's checkpoint. Writes: the checkpoint it is told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modules.commons.checkpoint import is_checkpoint, load_checkpoint
from modules.commons.config import dump_config
from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError, ConfigError, first_line
from modules.commons.progress import Progress
from modules.commons.workspace import ROOT, VideoWorkspace
from modules.face_model.portrait_face import PortraitFace, portrait_face
from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import PortraitConfig
from modules.radnerfs.official import (
    KIND_OF_TASK,
    ImportedPortraitConfig,
    OfficialPortrait,
    load_portrait,
    save_portrait,
)
from modules.radnerfs.official_dataset import load_portrait_dataset
from modules.radnerfs.portrait import Portrait
from tasks.configs import LossConfig
from tasks.hooks import CallHook, ProgressHook
from tasks.radnerfs.perceptual import PatchLoss, make_patch_loss
from tasks.radnerfs.portrait_config import PortraitTaskConfig
from tasks.radnerfs.portrait_data import PortraitClip
from tasks.radnerfs.portrait_optimizer import PortraitOptimizer
from tasks.radnerfs.portrait_stages import HeadStage, Stage, Tools, TorsoStage
from tasks.trainer import Trainer

log = logging.getLogger(__name__)


class PortraitTask:
    """A portrait in training, one random frame a step."""

    def __init__(
        self, config: PortraitTaskConfig, portrait: Portrait, clip: PortraitClip, compare: PatchLoss | None = None
    ) -> None:
        self.config, self.portrait, self.clip = config, portrait, clip
        self._generator = torch.Generator(device=clip.device).manual_seed(config.seed)
        self._frames = np.random.default_rng(config.seed)
        tools = Tools(config, self._generator, compare)
        self.stage: Stage = (HeadStage if portrait.torso is None else TorsoStage)(portrait, clip, tools)
        self.optimizer = PortraitOptimizer(portrait, config)

    def training_step(self, step: int) -> Mapping[str, Tensor]:
        """One step on a random training frame; occupancy is refreshed on the way."""
        example = self.clip.example(int(self._frames.choice(self.clip.train)))
        is_torso = self.portrait.torso is not None
        if step % self.config.occupancy_interval == 0 and (is_torso or step < self.config.fine_start):
            self.stage.refresh(example)
        terms = self.stage.terms(example, step)
        loss = torch.stack([term.reshape(()) for term in terms.values()]).sum()
        self.optimizer.update(loss, step)
        return {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}

    def resume(self, folder: Path) -> int:
        """Go on from a checkpoint that was written on the way; returns its step, 0 when there is none.

        Raises:
            CheckpointError: it is corrupt, or of other sizes.
        """
        if not is_checkpoint(folder):
            return 0
        saved = load_checkpoint(folder, device=self.clip.device)
        if "optimizer" not in saved.tensors:
            return 0  # complete, or imported
        try:
            self.portrait.load_state_dict(saved.model)
            self.optimizer.load_state(saved.tensors["optimizer"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"{folder}: the saved state has other sizes ({first_line(error)}); use --reset"
            ) from error
        self._frames = np.random.default_rng((self.config.seed, saved.step))
        self._generator.manual_seed(self.config.seed + saved.step)
        log.info("%s: going on after step %d", folder, saved.step)
        return saved.step


def sizes_of(config: PortraitTaskConfig) -> tuple[PortraitConfig, OfficialPortrait | None]:
    """Sizes of the portrait to train, and the trained head that a torso goes with (whose sizes they then are).

    Raises:
        ConfigError: no head is named.
        CheckpointError: the head's checkpoint cannot be used, or has no super-resolution where the torso has it.
    """
    if config.portrait.torso is None:
        return config.portrait, None
    if not config.head_ckpt:
        raise ConfigError("a torso is trained onto a trained head; name it with head_ckpt")
    path = Path(config.head_ckpt)
    trained = load_portrait(ROOT / path)
    found = trained.portrait.config
    if (found.super_resolution is None) != (config.portrait.super_resolution is None):
        wanted = "without" if config.portrait.super_resolution is None else "with"
        raise CheckpointError(f"{path}: a {trained.portrait.kind}, and this torso goes {wanted} super-resolution")
    sizes = replace(config.portrait, head=found.head, super_resolution=found.super_resolution)
    sizes = replace(sizes, camera_scale=found.camera_scale, camera_offset=found.camera_offset)
    return replace(sizes, picture_side=found.picture_side), trained


def train_portrait(
    config: PortraitTaskConfig,
    out_dir: Path,
    progress: Progress,
    face: PortraitFace | None = None,
    *,
    reset: bool = False,
) -> Portrait:
    """Train a portrait and write its checkpoint; goes on from the last one that an interrupted run wrote.

    Args:
        config: what to train on and how.
        out_dir: the checkpoint.
        progress: told about steps.
        face: of the model that the clip's coefficients belong to; None reads it from its place.
        reset: start anew, whatever an earlier run left.

    Raises:
        GeneFaceError: the dataset, its pictures, the face model or the head's checkpoint cannot be used.
    """
    device = pick_device(config.device)
    sizes, trained = sizes_of(config)
    data_root = ROOT / config.data_root
    dataset = load_portrait_dataset(VideoWorkspace(config.video_id, data_root).binary)
    count = int(dataset.samples.is_train.sum())
    if count > sizes.head.individual_embedding_num:
        raise CheckpointError(
            f"{config.video_id}: {count} training frames, and the portrait has appearance codes for "
            f"{sizes.head.individual_embedding_num}; raise individual_embedding_num"
        )
    portrait = new_portrait(config, sizes, trained, device)
    clip = PortraitClip(dataset, face or portrait_face(dataset), sizes, data_root.parent, device)
    compare = make_patch_loss(LossConfig(), device) if config.perceptual_weight > 0 else None
    task = PortraitTask(config, portrait, clip, compare)
    start = 0 if reset else task.resume(out_dir)
    hooks = [
        ProgressHook(progress, "train"),
        CallHook(lambda step: save(task, out_dir, step, complete=False), config.save_interval, at_end=False),
        CallHook(lambda _: settle_codes(portrait, len(clip.train)), 0),
        CallHook(lambda step: save(task, out_dir, step, complete=True), 0),
    ]
    Trainer(task, config.max_updates, hooks, start).fit()
    log.info("%s written: a %s portrait of %s", out_dir, portrait.kind, config.video_id)
    return portrait


def new_portrait(
    config: PortraitTaskConfig, sizes: PortraitConfig, trained: OfficialPortrait | None, device: torch.device
) -> Portrait:
    """An untrained portrait, the head (and super-resolution) of ``trained`` in it where there is one."""
    torch.manual_seed(config.seed)  # module initialisation has no generator argument
    portrait = Portrait(sizes, get_backend(config.backend, device))
    if trained is not None:
        portrait.head.load_state_dict(trained.portrait.head.state_dict())
        if portrait.sr_net is not None and trained.portrait.sr_net is not None:
            portrait.sr_net.load_state_dict(trained.portrait.sr_net.state_dict())
    return portrait.to(device)


@torch.no_grad()
def settle_codes(portrait: Portrait, count: int) -> None:
    """Show new motion with the mean appearance of the ``count`` training frames, not with that of the first one.

    What is trained counts: of a torso the head's codes stay as they came. GeneFace++ reads code 0 for new motion, and
    so does whoever renders this portrait.
    """
    codes = portrait.head.individual_embeddings if portrait.torso is None else portrait.torso.torso_individual_codes
    codes[0] = codes[:count].mean(dim=0)


def save(task: PortraitTask, out_dir: Path, step: int, *, complete: bool) -> None:
    """Write the portrait as it is; one that is not complete has the optimiser's state beside it.

    Raises:
        OutputError: the checkpoint cannot be written.
    """
    portrait, config = task.portrait, task.config
    (task_cls,) = (name for name, kind in KIND_OF_TASK.items() if kind == portrait.kind)
    settings = ImportedPortraitConfig(
        task_cls=task_cls,
        video_id=config.video_id,
        data_root=config.data_root,
        portrait=portrait.config,
        smooth_camera_path=config.smooth_camera_path,
        camera_kernel=config.camera_kernel,
        background=config.background,
    )
    more = {} if complete else {"optimizer": task.optimizer.state()}
    made = OfficialPortrait(portrait, settings, out_dir, step)
    version = task.clip.dataset.face_model_version
    save_portrait(made, out_dir, {"trained_with": dump_config(config)}, more, face_model_version=version)
