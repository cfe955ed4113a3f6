"""Hooks of the training loop: progress, scalars, and calls at intervals (states to resume from, validation)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from modules.commons.progress import Progress
from tasks.trainer import Hook, Trainer


class ProgressHook(Hook):
    """Reports the step."""

    def __init__(self, progress: Progress, what: str, every: int = 10) -> None:
        self._progress, self._what, self._every = progress, what, every

    def before_training(self, trainer: Trainer) -> None:
        self._progress(self._what, trainer.step, trainer.max_updates)

    def after_step(self, trainer: Trainer, scalars: Mapping[str, Tensor]) -> None:
        if trainer.is_last_step:  # which may come early
            self._progress(self._what, trainer.max_updates, trainer.max_updates)
        elif trainer.step % self._every == 0:
            self._progress(self._what, trainer.step, trainer.max_updates)


class ScalarHook(Hook):
    """Writes the mean of each scalar over ``every`` steps to TensorBoard."""

    def __init__(self, log_dir: Path, every: int) -> None:
        self._writer = SummaryWriter(str(log_dir))
        self._every = every
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def after_step(self, trainer: Trainer, scalars: Mapping[str, Tensor]) -> None:
        for name, value in scalars.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1
        if trainer.step % self._every == 0 or trainer.is_last_step:
            for name, value in self._sums.items():
                self._writer.add_scalar(name, float(value) / self._count, trainer.step)
            self._sums, self._count = {}, 0

    def close(self) -> None:
        self._writer.close()


class CallHook(Hook):
    """Calls ``action(step)`` every ``every`` steps and at the end; for validation and for states to resume from."""

    def __init__(self, action: Callable[[int], None], every: int, *, at_end: bool = True) -> None:
        self._action, self._every, self._at_end = action, every, at_end

    def after_step(self, trainer: Trainer, scalars: Mapping[str, Tensor]) -> None:
        if self._every and trainer.step % self._every == 0 and not trainer.is_last_step:
            self._action(trainer.step)

    def after_training(self, trainer: Trainer) -> None:
        if self._at_end:
            self._action(trainer.step)
