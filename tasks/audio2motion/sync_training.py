"""Train the sync expert on true motion; predicted motion is judged by it afterwards."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from modules.audio2motion.sync_expert import SyncExpert
from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.progress import Progress
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.material import Material
from tasks.audio2motion.sampling import Batch, WindowSampler
from tasks.audio2motion.schedule import learning_rate_share
from tasks.distributed import Ranks

logger = logging.getLogger(__name__)

_STREAM = 1
"""Keeps the expert's draws apart from those of the training that it judges."""


def make_expert(material: Material, n_components: int, config: AudioToMotionTaskConfig) -> SyncExpert:
    """An untrained expert for this material's units."""
    contour = material.effect.contour
    spread = (torch.cat(material.targets) @ contour).std(dim=0).mean().clamp_min(1e-6)
    return SyncExpert(n_components, contour / spread, config.sync)


def fit_expert(
    expert: SyncExpert,
    sampler: WindowSampler,
    config: AudioToMotionTaskConfig,
    progress: Progress,
    what: str,
    ranks: Ranks,
) -> None:
    """Train in place; afterwards the expert is in evaluation mode and takes no gradient."""
    device = expert.effect.device
    optimizer = torch.optim.AdamW(expert.parameters(), lr=config.sync.lr, weight_decay=config.weight_decay)
    expert.train()
    for step in range(config.sync.max_updates):
        batch = sampler.draw(config.batch_windows, draw_rng(config.seed, ranks.rank, step, _STREAM), step).to(device)
        loss = expert.loss(batch.components, batch.targets, batch.weights)
        for group in optimizer.param_groups:
            group["lr"] = config.sync.lr * learning_rate_share(step, config.sync.max_updates)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average([p.grad for p in expert.parameters() if p.grad is not None])
        optimizer.step()
        progress(what, step + 1, config.sync.max_updates)
    expert.eval().requires_grad_(False)
    logger.info("%s: loss %.3f", what, float(loss.detach()))  # max_updates is at least 1


def draw_rng(seed: int, rank: int, step: int, stream: int = 0) -> np.random.Generator:
    """The generator a step draws its windows with: the same after an interruption, another in each process."""
    return np.random.default_rng([seed, stream, rank, step])


@torch.no_grad()
def sync_accuracy(expert: SyncExpert, batch: Batch) -> float:
    """Share of rows whose true moment agrees better than all others; chance is 1 over the candidates."""
    scores = expert.scores(batch.components, batch.targets, batch.weights)
    counted = (batch.weights > 0) & scores[..., 1:].isfinite().any(dim=-1)
    best = scores[..., 0] > scores[..., 1:].amax(dim=-1)
    return float(best[counted].float().mean()) if bool(counted.any()) else 0.0


def expert_for(
    material: Material,
    sampler: WindowSampler,
    n_components: int,
    config: AudioToMotionTaskConfig,
    work_dir: Path,
    progress: Progress,
    what: str,
    *,
    device: torch.device,
    ranks: Ranks,
) -> SyncExpert:
    """The expert that an earlier run of this configuration on this material left, else a new one."""
    expert = make_expert(material, n_components, config).to(device)
    folder, made_of = work_dir / "sync_expert", {"material": material.fingerprint()}
    if is_checkpoint(folder):
        saved = load_checkpoint(folder, device=device)
        if saved.extra == made_of and saved.config(AudioToMotionTaskConfig) == config:
            expert.load_state_dict(saved.model)
            return expert.eval().requires_grad_(False)
    fit_expert(expert, sampler, config, progress, f"sync expert, {what}", ranks)
    if ranks.is_first:
        save_checkpoint(folder, {"model": expert.state_dict()}, config, config.sync.max_updates, made_of)
    ranks.wait()
    return expert
