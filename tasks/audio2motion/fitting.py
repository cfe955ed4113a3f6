"""One training: clips → a network. Used by every fold of the cross-validation and by the final training alike."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.motion_space import columns_of
from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.progress import Progress
from modules.face_model.model import FaceModel
from tasks.audio2motion.closed_form import RidgeRows, principal_components, ridge_filter
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.dataset_utils import TrainingClip, WindowSampler
from tasks.audio2motion.losses import LipEffect, LipLoss, lip_effect
from tasks.hooks import CallHook, ProgressHook, ScalarHook
from tasks.trainer import Trainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Clips as tensors: targets ``[T, U]``, row weights ``[T]``, and what the units do."""

    clips: Sequence[TrainingClip]
    columns: Tensor
    effect: LipEffect
    targets: list[Tensor]
    weights: list[Tensor]
    n_expression: int

    def subset(self, keep: Sequence[bool]) -> Material:
        """The clips where ``keep`` is True."""
        chosen = [index for index, wanted in enumerate(keep) if wanted]
        return Material(
            [self.clips[i] for i in chosen],
            self.columns,
            self.effect,
            [self.targets[i] for i in chosen],
            [self.weights[i] for i in chosen],
            self.n_expression,
        )


def make_material(clips: Sequence[TrainingClip], face_model: FaceModel, config: AudioToMotionTaskConfig) -> Material:
    """Targets and weights of clips."""
    columns = columns_of(face_model.expression_names, config.model.units)
    effect = lip_effect(face_model, torch.from_numpy(columns))
    targets = [torch.from_numpy(clip.deviation(columns)) for clip in clips]
    if config.loss.relative_motion:
        targets = relative_motion(targets)
    typical = float(np.median([len(clip) for clip in clips]))
    weights = []
    for clip in clips:
        speech = np.where(clip.clip.is_speech, 1.0, config.loss.silence_weight)
        share = (typical / len(clip)) ** config.loss.clip_length_power
        weights.append(torch.from_numpy((share * speech * clip.clip.valid).astype(np.float32)))
    return Material(clips, torch.from_numpy(columns), effect, targets, weights, face_model.n_expression)


def relative_motion(deviations: Sequence[Tensor]) -> list[Tensor]:
    """Give every clip the same mean (that over clips) and spread (the median over clips) of each unit.

    How lively a speaker is and how a fit explains the mouth at rest cannot be heard; left in, both are noise that costs
    0.04 of the correlation of mouth width. Units that hardly move in a clip are stretched by 2.5 at most.
    """
    means = torch.stack([d.mean(dim=0) for d in deviations])
    spreads = torch.stack([d.std(dim=0) for d in deviations])
    typical = spreads.median(dim=0).values
    scales = (typical / spreads.clamp_min(1e-4)).clamp(0.3, 2.5)
    return [(d - m) * s + means.mean(dim=0) for d, m, s in zip(deviations, means, scales, strict=True)]


def learning_rate_share(step: int, max_updates: int) -> float:
    """Linear rise over the first tenth, then half a cosine down to 0 after the last step."""
    warm_up = max(1, max_updates // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / max(1, max_updates - warm_up))


class A2MTask:
    """Training steps of all members side by side."""

    def __init__(self, model: Audio2Motion, material: Material, config: AudioToMotionTaskConfig) -> None:
        self.model, self._config = model.train(), config
        components = project_clips(model, material)
        rng = np.random.default_rng(config.seed)
        self._sampler = WindowSampler(components, material.targets, material.weights, config.window_rows, rng)
        self._noise = torch.Generator().manual_seed(config.seed)
        self._loss = LipLoss(material.effect, torch.cat(material.targets), config.loss)
        self.optimizer = torch.optim.AdamW(model.networks.parameters(), lr=config.lr, weight_decay=config.weight_decay)

    def training_step(self, step: int) -> Mapping[str, Tensor]:
        """One update; see ``tasks.trainer``."""
        batch = self._sampler.draw(self._config.batch_windows)
        outputs = self.model.member_deviations(batch.components, self._noise)
        losses = [self._loss(output, batch.targets, batch.weights) for output in outputs]
        for group in self.optimizer.param_groups:
            group["lr"] = self._config.lr * learning_rate_share(step, self._config.max_updates)
        loss = torch.stack(losses).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach() / len(losses)}

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything a resumed run needs, as tensors."""
        moments: dict[str, Tensor] = {}
        for index, values in self.optimizer.state_dict()["state"].items():
            moments.update({f"{index}.{name}": torch.as_tensor(value) for name, value in values.items()})
        generators = {"noise": self._noise.get_state(), "dropout": torch.get_rng_state()}
        return {"model": self.model.state_dict(), "optimizer": moments, "generators": generators}

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """Go on after ``step`` updates from what ``state`` gave."""
        self.model.load_state_dict(dict(tensors["model"]))
        for _ in range(step):  # the sampler has no state to store: draw what was drawn
            self._sampler.draw(self._config.batch_windows)
        state = self.optimizer.state_dict()
        moments: dict[int, dict[str, Any]] = {}
        for key, value in tensors["optimizer"].items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**state, "state": moments})
        self._noise.set_state(tensors["generators"]["noise"])
        torch.set_rng_state(tensors["generators"]["dropout"])


def fit_model(
    material: Material, config: AudioToMotionTaskConfig, work_dir: Path, progress: Progress, what: str
) -> Audio2Motion:
    """Train a network from scratch, or from the state an interrupted run left in ``work_dir``.

    Returns:
        the network in evaluation mode, gain 1.
    """
    torch.manual_seed(config.seed)
    model = Audio2Motion(config.model, material.columns, material.n_expression)
    set_projection(model, material)
    set_linear_member(model, material, config.ridge_penalty)
    if len(model.networks) == 0:
        return model.eval()
    task = A2MTask(model, material, config)
    state_dir, made_of = work_dir / "state", {"material": fingerprint(material)}
    start = _resume(task, state_dir, config, made_of)

    def keep(step: int) -> None:
        save_checkpoint(state_dir, task.state(), config, step, made_of)

    hooks = [
        ProgressHook(progress, what),
        ScalarHook(work_dir / "log", config.log_interval),
        CallHook(keep, config.state_interval),
    ]
    Trainer(task, config.max_updates, hooks, start).fit()
    return model.eval()


def fingerprint(material: Material) -> str:
    """Hash that changes with the clips' targets and weights."""
    digest = hashlib.sha256()
    for clip, targets, weights in zip(material.clips, material.targets, material.weights, strict=True):
        digest.update(clip.clip.name.encode() + targets.numpy().tobytes() + weights.numpy().tobytes())
    return digest.hexdigest()


def _resume(task: A2MTask, state_dir: Path, config: AudioToMotionTaskConfig, made_of: Mapping[str, str]) -> int:
    """Steps already made by an interrupted run of the same configuration on the same material."""
    if not is_checkpoint(state_dir):
        return 0
    saved = load_checkpoint(state_dir)
    if saved.extra != made_of or saved.config(AudioToMotionTaskConfig) != config:
        logger.info("%s: state of another run, starting anew", state_dir)
        return 0
    task.restore(saved.tensors, saved.step)
    return saved.step


def set_projection(model: Audio2Motion, material: Material) -> None:
    """Principal components of the clean renderings."""
    rows = np.concatenate([clip.clip.features[0] for clip in material.clips]).astype(np.float32)
    mean, matrix = principal_components(rows, model.config.n_blocks, model.config.bottleneck)
    model.projection.mean.copy_(mean)
    model.projection.matrix.copy_(matrix)


@torch.no_grad()
def project_clips(model: Audio2Motion, material: Material) -> list[Tensor]:
    """Components ``[K, T, C]`` of every clip."""
    return [model.projection(torch.from_numpy(clip.clip.features.astype(np.float32))) for clip in material.clips]


def set_linear_member(model: Audio2Motion, material: Material, penalty: float) -> None:
    """Solve the linear member on all renderings."""
    if model.linear is None:
        return
    renderings = [c.numpy() for c in project_clips(model, material)]
    rows = (
        RidgeRows(rendering, target.numpy(), weight.numpy())
        for clip, target, weight in zip(renderings, material.targets, material.weights, strict=True)
        for rendering in clip
    )
    kernel, bias = ridge_filter(rows, model.config.linear_reach, model.config.linear_step, penalty)
    model.linear.filter.weight.data.copy_(torch.from_numpy(kernel.transpose(2, 1, 0)))
    model.linear.filter.bias.data.copy_(torch.from_numpy(bias))  # type: ignore[union-attr]
