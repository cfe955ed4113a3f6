"""The training loop: a task makes steps, hooks watch them. Everything optional is a hook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor


class TrainingTask(Protocol):
    """What the loop needs to know of a task."""

    def training_step(self, step: int) -> Mapping[str, Tensor]:
        """Make update number ``step`` (from 0) and return scalar tensors worth logging, detached."""
        ...


class Hook:
    """Watches a training run; every method may be left out."""

    def before_training(self, trainer: Trainer) -> None:
        """Called once, before the first step (``trainer.step`` is where training goes on from)."""

    def after_step(self, trainer: Trainer, scalars: Mapping[str, Tensor]) -> None:
        """Called after each step; ``trainer.step`` counts the steps made."""

    def after_training(self, trainer: Trainer) -> None:
        """Called once when the last step is made; not called when training fails."""

    def close(self) -> None:
        """Release what the hook holds; always called."""


class Trainer:
    """Runs ``task`` from ``start_step`` to ``max_updates`` steps, or until a hook stops it."""

    def __init__(self, task: TrainingTask, max_updates: int, hooks: Sequence[Hook], start_step: int = 0) -> None:
        self.task = task
        self.max_updates = max_updates
        self.hooks = tuple(hooks)
        self.step = start_step
        self._stopped = False

    @property
    def is_last_step(self) -> bool:
        return self._stopped or self.step >= self.max_updates

    def stop(self) -> None:
        """Make this step the last one; for hooks that see that more would not help."""
        self._stopped = True

    def fit(self) -> None:
        """Train to the end; hooks are closed whatever happens."""
        try:
            for hook in self.hooks:
                hook.before_training(self)
            while not self.is_last_step:
                scalars = self.task.training_step(self.step)
                self.step += 1
                for hook in self.hooks:
                    hook.after_step(self, scalars)
            for hook in self.hooks:
                hook.after_training(self)
        finally:
            for hook in self.hooks:
                hook.close()
