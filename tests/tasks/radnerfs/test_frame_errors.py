"""Frames whose errors stand out are no longer believed."""

from __future__ import annotations

import torch

from modules.commons.progress import silent
from tasks.radnerfs.frame_errors import believable, judge_frames
from tasks.radnerfs.radnerf import RADNeRFTask, load_dataset
from tests.support.synthetic_clip import prepare_synthetic_clip
from tests.support.tiny_heads import tiny_config


def errors_of(values):
    return torch.tensor(values), torch.ones(len(values))


def test_a_lone_bad_frame_is_dropped():
    values = [1.0, 1.1, 0.9, 1.05, 0.95, 4.0, 1.02]
    assert believable(*errors_of(values)).tolist() == [1, 1, 1, 1, 1, 0, 1]


def test_an_even_clip_keeps_every_frame():
    assert believable(*errors_of([1.0, 1.0, 1.0, 1.2])).min() == 1  # 20 % above identical frames is no fault
    assert believable(torch.zeros(3), torch.zeros(3)).tolist() == [1, 1, 1]


def test_frames_never_drawn_are_believed():
    total, count = errors_of([1.0, 1.1, 0.9, 1.0, 9.0, 0.0])
    count[5] = 0
    assert believable(total, count).tolist() == [1, 1, 1, 1, 0, 1]


def test_a_frame_that_shows_something_else_is_dropped_on_the_way(tmp_path):
    _, speaker = prepare_synthetic_clip(tmp_path)
    config = tiny_config(tmp_path, max_updates=40, rays_per_step=1024)
    task = RADNeRFTask(config, load_dataset(config, speaker.model, silent), torch.device("cpu"))
    rays = task.engine.rays
    rays.rgb[rays.starts[6] : rays.starts[7]] = 0  # as if the light had gone out
    for step in range(13):
        task.training_step(step)
    expected = torch.ones(rays.n_frames)
    expected[6] = 0
    assert task.engine.believed.tolist() == expected.tolist()
    assert judge_frames(task.engine).tolist() == expected.tolist()
    task.engine.believed.fill_(1)
    task.training_step(13)
    assert task.engine.believed.min() == 1, "judged once"
