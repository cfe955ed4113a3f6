"""The last stretch of training looks at the mouth, patch by patch, and a stopped run finds its way back into it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from modules.commons.progress import silent
from tasks.configs import LipsConfig, LossConfig
from tasks.radnerfs.radnerf import RADNeRFTask, load_dataset
from tasks.radnerfs.ray_table import POSITION_STEPS
from tests.support.synthetic_clip import prepare_synthetic_clip
from tests.support.tiny_heads import tiny_config

CPU = torch.device("cpu")
STEPS, START = 6, 3


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    _, speaker = prepare_synthetic_clip(root)
    lips = LipsConfig(start=START / STEPS, mouth_share=1.0, patch_weight=0.5, patches_per_step=2)
    config = tiny_config(root, max_updates=STEPS, lips=lips, loss=LossConfig(patch_size=16))
    dataset = load_dataset(config, speaker.model, silent)
    return config, dataset


def on_mouth(task: RADNeRFTask) -> float:
    """Share of drawn rays that lie on the mouth."""
    rays, drawn = task.engine.rays, task.engine.draw().position.flatten(0, 1)
    number = torch.tensor([1, 1 << 16, 1 << 32])
    wanted = (rays.position[rays.mouth.index].long() * number).sum(dim=1)
    found = ((drawn * POSITION_STEPS).round().long() * number).sum(dim=1)
    return float(torch.isin(found, wanted).float().mean())


def test_the_last_steps_see_the_mouth_and_its_patches(setting):
    config, dataset = setting
    task = RADNeRFTask(config, dataset, CPU)
    seen = [set(task.training_step(step)) for step in range(START)]
    assert all("patch_loss" not in scalars for scalars in seen) and on_mouth(task) < 0.9
    scalars = task.training_step(START)
    assert float(scalars["patch_loss"]) > 0 and scalars["loss"].isfinite()
    assert on_mouth(task) == 1.0


def test_a_stopped_run_goes_on_among_the_lips(setting):
    config, dataset = setting
    whole = RADNeRFTask(config, dataset, CPU)
    for step in range(START + 2):
        whole.training_step(step)
    state = {group: {name: value.clone() for name, value in part.items()} for group, part in whole.state().items()}
    resumed = RADNeRFTask(config, dataset, CPU)
    resumed.load_state(state, START + 2)
    last = whole.training_step(START + 2), resumed.training_step(START + 2)
    torch.testing.assert_close(last[0]["loss"], last[1]["loss"])
    torch.testing.assert_close(whole.engine.optimizer.flat, resumed.engine.optimizer.flat)


def test_it_is_left_out_unless_asked_for(setting):
    assert LipsConfig().start == 1.0
    with pytest.raises(ValueError, match="start"):
        LipsConfig(start=1.5)
    with pytest.raises(ValueError, match="patch_weight"):
        LipsConfig(patch_weight=-1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_the_recorded_step_changes_over(setting):
    config, dataset = setting
    steps = 24
    config = replace(config, device="cuda", max_updates=steps)
    task = RADNeRFTask(config, dataset, torch.device("cuda"))
    scalars = [{name: float(value) for name, value in task.training_step(step).items()} for step in range(steps)]
    assert ["patch_loss" in seen for seen in scalars] == [step >= steps * START / STEPS for step in range(steps)]
    assert all(math.isfinite(value) for seen in scalars for value in seen.values())
    assert len({seen["patch_loss"] for seen in scalars[-8:]}) == 8  # replays draw new patches
