"""One training: clips → a network. Used by every fold of the cross-validation and by the final training alike."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modules.audio2motion.closed_form import RidgeRows, principal_components, ridge_filter
from modules.audio2motion.members import VariationalMember
from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.sync_expert import SyncExpert
from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.device import pick_device
from modules.commons.progress import Progress
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.losses import MotionLoss
from tasks.audio2motion.material import Material, clip_source, make_material, project_clips
from tasks.audio2motion.sampling import Batch, WindowSampler
from tasks.audio2motion.schedule import RunningMean, learning_rate_share, rising_share
from tasks.audio2motion.sync_training import draw_rng, expert_for
from tasks.distributed import Ranks
from tasks.hooks import CallHook, Hook, ProgressHook, ScalarHook
from tasks.trainer import Trainer

__all__ = ["Material", "fit_model", "make_material", "project_clips"]

logger = logging.getLogger(__name__)


class A2MTask:
    """Training steps of all members side by side.

    Args:
        model: the network, on the device it is trained on.
        material: what it learns from.
        sampler: draws windows of it.
        config: the task's configuration.
        expert: judges predicted motion when ``loss.sync_weight`` is not 0.
        ranks: the other processes that train the same network.
    """

    def __init__(
        self,
        model: Audio2Motion,
        material: Material,
        sampler: WindowSampler,
        config: AudioToMotionTaskConfig,
        *,
        expert: SyncExpert | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self._config, self._expert, self._ranks = model.train(), config, expert, ranks or Ranks()
        self._device, self._sampler = model.projection.mean.device, sampler
        self._noise = torch.Generator().manual_seed(config.seed + self._ranks.rank)
        self._loss = MotionLoss(
            material.effect.to(self._device), torch.cat(material.targets).to(self._device), config.loss
        )
        self.optimizer = torch.optim.AdamW(model.networks.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.mean = RunningMean(model.networks, config.ema_decay) if config.ema_decay else None

    def training_step(self, step: int) -> Mapping[str, Tensor]:
        """One update; see ``tasks.trainer``."""
        config = self._config
        rng = draw_rng(config.seed, self._ranks.rank, step)
        batch = self._sampler.draw(config.batch_windows, rng, step).to(self._device)
        terms = [self._member_terms(network, batch, step) for network in self.model.networks]
        total = torch.stack([term for member in terms for term in member.values()]).sum()
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * learning_rate_share(step, config.max_updates)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self._ranks.average([p.grad for p in self.model.networks.parameters() if p.grad is not None])
        self.optimizer.step()
        if self.mean is not None:
            self.mean.update(self.model.networks, step)
        names = dict.fromkeys(name for member in terms for name in member)
        parts = {name: torch.stack([m[name].detach() for m in terms if name in m]).mean() for name in names}
        return {"loss": total.detach() / len(terms), **parts}

    def _member_terms(self, network: nn.Module, batch: Batch, step: int) -> dict[str, Tensor]:
        """Weighted loss terms of one member, each with feature noise of its own."""
        components = self.model.noisy_components(batch.components, self._noise)
        if not isinstance(network, VariationalMember):
            return self._motion_terms(network(components), batch)
        config = self._config.loss
        made = network.reconstruct(components, batch.targets, batch.weights, self._noise)
        terms = {f"code {name}": value for name, value in self._motion_terms(made.units, batch).items()}
        share = rising_share(step, self._config.max_updates, config.kl_warm_up)
        terms["divergence"] = config.kl_weight * share * made.divergence
        if config.likeliest_weight:
            likeliest = self._motion_terms(network(components), batch)
            terms.update({name: config.likeliest_weight * value for name, value in likeliest.items()})
        return terms

    def _motion_terms(self, predicted: Tensor, batch: Batch) -> dict[str, Tensor]:
        terms = self._loss(predicted, batch)
        if self._expert is not None:
            verdict = self._expert.loss(batch.components, predicted, batch.weights)
            terms["sync"] = self._config.loss.sync_weight * verdict
        return terms

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything a resumed run needs, as tensors."""
        moments: dict[str, Tensor] = {}
        for index, values in self.optimizer.state_dict()["state"].items():
            moments.update({f"{index}.{name}": torch.as_tensor(value) for name, value in values.items()})
        generators = {"noise": self._noise.get_state(), "dropout": torch.get_rng_state()}
        if self._device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self._device)
        mean = self.mean.values if self.mean is not None else {}
        return {
            "model": self.model.state_dict(),
            "optimizer": moments,
            "generators": generators,
            "mean": dict(mean),
        }

    def restore(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from what ``state`` gave; the sampler needs none, a step's draws follow from its number."""
        self.model.load_state_dict(dict(tensors["model"]))
        state = self.optimizer.state_dict()
        moments: dict[int, dict[str, Any]] = {}
        for key, value in tensors["optimizer"].items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**state, "state": moments})
        if self.mean is not None:
            self.mean.load(tensors["mean"])
        if not self._ranks.is_first:
            return  # the state is the first process's; the others go on with noise of their own
        self._noise.set_state(tensors["generators"]["noise"].cpu())
        torch.set_rng_state(tensors["generators"]["dropout"].cpu())
        if self._device.type == "cuda" and "cuda" in tensors["generators"]:
            torch.cuda.set_rng_state(tensors["generators"]["cuda"].cpu(), self._device)


def fit_model(
    material: Material,
    config: AudioToMotionTaskConfig,
    work_dir: Path,
    progress: Progress,
    what: str,
    *,
    ranks: Ranks | None = None,
) -> Audio2Motion:
    """Train a network from scratch, or from the state an interrupted run left in ``work_dir``.

    Args:
        material: what it learns from.
        config: the task's configuration.
        work_dir: states and logs.
        progress: told the steps.
        what: named to ``progress``.
        ranks: the other processes that train the same network.

    Returns:
        the network on the CPU, in evaluation mode, gain 1.
    """
    ranks = ranks or Ranks()
    torch.manual_seed(config.seed)
    model = Audio2Motion(config.model, material.columns, material.n_expression)
    set_projection(model, material)
    set_linear_member(model, material, config.ridge_penalty)
    set_unit_scales(model, material)
    if len(model.networks) == 0:
        return model.eval()
    device = pick_device(config.device)
    model = model.to(device)
    sampler = WindowSampler(clip_source(model, material, config, ranks.rank), config.window_rows, config.speed_range)
    expert = None
    if config.loss.sync_weight:
        width = config.model.n_components
        expert = expert_for(material, sampler, width, config, work_dir, progress, what, device=device, ranks=ranks)
    torch.manual_seed(config.seed + ranks.rank)  # equal weights, but dropout of its own in each process
    task = A2MTask(model, material, sampler, config, expert=expert, ranks=ranks)
    _train(task, material, config, work_dir, progress, what, ranks)
    return model.cpu().eval()


def _train(
    task: A2MTask,
    material: Material,
    config: AudioToMotionTaskConfig,
    work_dir: Path,
    progress: Progress,
    what: str,
    ranks: Ranks,
) -> None:
    state_dir, made_of = work_dir / "state", {"material": material.fingerprint()}
    start = _resume(task, state_dir, config, made_of)
    parameters = list(task.model.networks.parameters())
    ranks.check_same(parameters, "before training")

    def keep(step: int) -> None:
        save_checkpoint(state_dir, task.state(), config, step, made_of)

    hooks: list[Hook] = []
    if ranks.is_first:
        hooks = [
            ProgressHook(progress, what),
            ScalarHook(work_dir / "log", config.log_interval),
            CallHook(keep, config.state_interval),
        ]
    Trainer(task, config.max_updates, hooks, start).fit()
    ranks.check_same(parameters, "after training")
    ranks.wait()
    if task.mean is not None:
        task.mean.copy_to(task.model.networks)


def _resume(task: A2MTask, state_dir: Path, config: AudioToMotionTaskConfig, made_of: Mapping[str, str]) -> int:
    """Steps already made by an interrupted run of the same configuration on the same material."""
    if not is_checkpoint(state_dir):
        return 0
    saved = load_checkpoint(state_dir)
    if saved.extra != made_of or saved.config(AudioToMotionTaskConfig) != config:
        logger.info("%s: state of another run, starting anew", state_dir)
        return 0
    task.restore(saved.tensors)
    return saved.step


def set_projection(model: Audio2Motion, material: Material) -> None:
    """Principal components of the clean renderings."""
    rows = np.concatenate([clip.clip.features[0] for clip in material.clips]).astype(np.float32)
    mean, matrix = principal_components(rows, model.config.n_blocks, model.config.bottleneck)
    model.projection.mean.copy_(mean)
    model.projection.matrix.copy_(matrix)


def set_unit_scales(model: Audio2Motion, material: Material) -> None:
    """Tell variational members how far units move."""
    spread = torch.cat(material.targets).std(dim=0).clamp_min(1e-3)
    for network in model.networks:
        if isinstance(network, VariationalMember):
            network.unit_scale.copy_(spread)


def set_linear_member(model: Audio2Motion, material: Material, penalty: float) -> None:
    """Solve the linear member on the clean rendering of the clips in memory; the others cost it 0.006 of r."""
    if model.linear is None:
        return
    kernel, bias = ridge_filter(
        _ridge_rows(model, material), model.config.linear_reach, model.config.linear_step, penalty
    )
    model.linear.filter.weight.data.copy_(torch.from_numpy(kernel.transpose(2, 1, 0)))
    model.linear.filter.bias.data.copy_(torch.from_numpy(bias))  # type: ignore[union-attr]


def _ridge_rows(model: Audio2Motion, material: Material) -> Iterator[RidgeRows]:
    renderings = project_clips(model, material)
    for clip, target, weight in zip(renderings, material.targets, material.weights, strict=True):
        yield RidgeRows(clip[0].numpy(), target.numpy(), weight.numpy())
