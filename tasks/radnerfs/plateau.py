"""Held-out frames while training runs: how well their rays are rendered, and when that no longer gets better."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.commons.progress import silent
from tasks.configs import PlateauConfig
from tasks.radnerfs.dataset_utils import FrameRays, RADNeRFDataset
from tasks.radnerfs.engine import TrainingEngine
from tasks.radnerfs.losses import psnr
from tasks.radnerfs.ray_table import RayBatch
from tasks.trainer import Hook, Trainer

log = logging.getLogger(__name__)


_Drawn = tuple[int, NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRays:
    """Rays of held-out frames that never change.

    Attributes:
        batch: rays of the region, in each frame half of them on the mouth, in memory of the training's device.
        windows: z-scored condition windows ``[B, W, 204]`` of its frames.
    """

    batch: RayBatch
    windows: Tensor

    def psnr(self, engine: TrainingEngine) -> float:
        """Of the averaged weights over all these rays, dB."""
        return float(psnr(engine.render_plainly(self.batch, self.windows), self.batch.rgb))


def held_out_rays(dataset: RADNeRFDataset, config: PlateauConfig, device: torch.device) -> HeldOutRays | None:
    """Rays of held-out frames, evenly over them; None when the clip holds out no frame that shows the region."""
    count = min(config.frames, len(dataset.val_indices))
    if count == 0:
        return None
    chosen = dataset.val_indices[np.linspace(0, len(dataset.val_indices) - 1, count).round().astype(int)]

    def draw(number: int, frame: FrameRays) -> _Drawn | None:
        inside = frame.learn & (frame.hits.weight > 0)
        halves = [np.flatnonzero(mask) for mask in (inside & frame.mouth, inside)]
        if min(len(half) for half in halves) == 0:
            return None
        random = np.random.default_rng(number)
        at = np.concatenate([random.choice(half, max(1, config.rays_per_frame // 2)) for half in halves])
        unit = dataset.unit_positions(frame.hits.canonical).reshape(-1, 3)[at]
        return number, unit, frame.hits.direction.reshape(-1, 3)[at], frame.rgb.reshape(-1, 3)[at]

    drawn = [part for part in dataset.cast(chosen, draw, silent) if part is not None]
    if not drawn:
        return None
    numbers, *columns = zip(*drawn, strict=True)
    rows = dataset.source.rows[chosen[list(numbers)]]
    unit, direction, rgb = (torch.from_numpy(np.stack(column)).to(device) for column in columns)
    batch = RayBatch(unit.float(), direction.float(), rgb.float() / 255, torch.arange(len(drawn), device=device))
    return HeldOutRays(batch, dataset.conditions[rows].to(device))


class Plateau:
    """Follows a figure that should rise, and says when it has stopped rising."""

    def __init__(self, config: PlateauConfig) -> None:
        self.config = config
        self._best = -float("inf")
        self._since = 0

    @property
    def best(self) -> float:
        return self._best

    def reached(self, value: float) -> bool:
        """Take note of a look; True when there have been ``patience`` looks without a gain."""
        if value > self._best + self.config.min_gain_db:
            self._best, self._since = value, 0
        else:
            self._since += 1
        return 0 < self.config.patience <= self._since

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {"best": torch.tensor(self._best), "since": torch.tensor(self._since)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        self._best, self._since = float(tensors["best"]), int(tensors["since"])


class HeldOutHook(Hook):
    """Looks at held-out rays now and then, keeps the curve, and ends training on its plateau.

    Args:
        engine: what is trained.
        rays: what is looked at.
        plateau: follows the figure; says how often to look.
        file: JSON for the curve (step, seconds of training, dB), written by the first process when training ends.
    """

    def __init__(self, engine: TrainingEngine, rays: HeldOutRays, plateau: Plateau, file: Path) -> None:
        self._engine, self._rays, self._plateau, self._file = engine, rays, plateau, file
        self._curve: list[dict[str, float]] = []
        self._began_s = 0.0

    def before_training(self, trainer: Trainer) -> None:
        self._began_s = time.monotonic()

    def after_step(self, trainer: Trainer, scalars: Mapping[str, Tensor]) -> None:
        if trainer.step % self._plateau.config.every:
            return
        value = self._rays.psnr(self._engine)
        self._curve.append({"step": trainer.step, "s": time.monotonic() - self._began_s, "psnr": value})
        log.debug("step %d: held-out rays %.2f dB", trainer.step, value)
        if self._engine.ranks.agreed(self._plateau.reached(value), self._engine.device):
            log.info("held-out rays stay at %.2f dB: training ends at step %d", self._plateau.best, trainer.step)
            trainer.stop()

    def close(self) -> None:
        if self._engine.ranks.is_first and self._curve:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self._curve, indent=1), encoding="utf-8")
