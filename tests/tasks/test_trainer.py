"""The loop and its hooks."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tasks.hooks import CallHook, ProgressHook, ScalarHook
from tasks.trainer import Hook, Trainer


class CountingTask:
    def __init__(self, fail_at: int | None = None) -> None:
        self.steps: list[int] = []
        self.fail_at = fail_at

    def training_step(self, step: int) -> Mapping[str, torch.Tensor]:
        if step == self.fail_at:
            raise RuntimeError("broken")
        self.steps.append(step)
        return {"loss": torch.tensor(float(step))}


class Recorder(Hook):
    def __init__(self) -> None:
        self.events: list[str] = []

    def before_training(self, trainer: Trainer) -> None:
        self.events.append(f"before {trainer.step}")

    def after_step(self, trainer: Trainer, scalars: Mapping[str, torch.Tensor]) -> None:
        self.events.append(f"{trainer.step}:{float(scalars['loss']):.0f}")

    def after_training(self, trainer: Trainer) -> None:
        self.events.append("after")

    def close(self) -> None:
        self.events.append("close")


def test_steps_and_hooks_come_in_order():
    task, recorder = CountingTask(), Recorder()
    Trainer(task, 3, [recorder]).fit()
    assert task.steps == [0, 1, 2]
    assert recorder.events == ["before 0", "1:0", "2:1", "3:2", "after", "close"]


def test_goes_on_from_a_step_and_a_finished_run_makes_none():
    task = CountingTask()
    Trainer(task, 5, [], start_step=3).fit()
    assert task.steps == [3, 4]
    finished, recorder = CountingTask(), Recorder()
    Trainer(finished, 5, [recorder], start_step=5).fit()
    assert finished.steps == [] and recorder.events == ["before 5", "after", "close"]


def test_a_failing_step_closes_hooks_and_is_raised():
    recorder = Recorder()
    with pytest.raises(RuntimeError, match="broken"):
        Trainer(CountingTask(fail_at=1), 3, [recorder]).fit()
    assert recorder.events == ["before 0", "1:0", "close"]


def test_call_hook_calls_at_intervals_and_at_the_end():
    calls: list[int] = []
    Trainer(CountingTask(), 7, [CallHook(calls.append, 3)]).fit()
    assert calls == [3, 6, 7]
    calls.clear()
    Trainer(CountingTask(), 6, [CallHook(calls.append, 3, at_end=False)]).fit()
    assert calls == [3]  # the last step needs no state to resume from
    calls.clear()
    Trainer(CountingTask(), 6, [CallHook(calls.append, 0)]).fit()
    assert calls == [6]


def test_progress_reaches_the_total():
    seen: list[tuple[str, int, int]] = []
    hook = ProgressHook(lambda *event: seen.append(event), "train", every=4)
    Trainer(CountingTask(), 10, [hook], start_step=2).fit()
    assert seen == [("train", 2, 10), ("train", 4, 10), ("train", 8, 10), ("train", 10, 10)]


def test_a_hook_may_end_training_early():
    task, seen, recorder = CountingTask(), [], Recorder()

    class Enough(Hook):
        def after_step(self, trainer, scalars):
            if trainer.step == 5:
                trainer.stop()

    progress = ProgressHook(lambda *event: seen.append(event), "train", every=4)
    trainer = Trainer(task, 100, [Enough(), progress, CallHook(task.steps.append, 2, at_end=False), recorder])
    trainer.fit()
    assert trainer.step == 5 and trainer.is_last_step
    assert task.steps == [0, 1, 2, 2, 3, 4, 4], "a call at an interval, none after the last step"
    assert seen == [("train", 0, 100), ("train", 4, 100), ("train", 100, 100)]
    assert recorder.events[-2:] == ["after", "close"]


def test_scalars_are_means_over_the_interval(tmp_path):
    Trainer(CountingTask(), 5, [ScalarHook(tmp_path, 2)]).fit()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(2, 0.5), (4, 2.5), (5, 4.0)]
