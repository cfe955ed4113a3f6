"""A head with an occupancy grid learns from whole crops, and its grid empties around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from modules.commons.checkpoint import load_checkpoint
from modules.commons.errors import ConfigError
from modules.commons.progress import silent
from modules.radnerfs.config import RenderConfig
from modules.radnerfs.occupancy_grid import fresh_densities
from modules.radnerfs.radnerf import RADNeRF
from modules.structures.cameras import CAMERA_DISTANCE, CAMERA_POSITION, NERF_SCALE
from tasks.configs import OptimConfig
from tasks.radnerfs import radnerf
from tasks.radnerfs.occupancy_training import REFRESH_EVERY, OccupancyRefresh, OccupancyTask, crop_table
from tasks.radnerfs.optimizer import flatten
from tasks.radnerfs.radnerf import load_dataset, train
from tests.support.synthetic_clip import CROP_SIZE, prepare_synthetic_clip
from tests.support.tiny_heads import SMALL, tiny_config

CPU = torch.device("cpu")
RENDER = RenderConfig(sampler="occupancy", grid_size=16, max_steps=32, density_scale=1.0)
FIELD = replace(SMALL, render=RENDER, individual_embedding_num=4)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    _, speaker = prepare_synthetic_clip(root, n_frames=11, occluded_row=4)
    config = tiny_config(root, max_updates=60, rays_per_step=256, radnerf=FIELD, optim=OptimConfig(lr=0.005))
    dataset = load_dataset(config, speaker.model, silent)
    return config, dataset, crop_table(dataset, CPU, silent)


def test_rays_of_the_head_meet_the_box_near_its_middle(clip):
    _, dataset, crops = clip
    frame = dataset.frame_rays(0)
    assert len(crops) == 10 and crops.rgb.shape == (10, CROP_SIZE, CROP_SIZE, 3)
    y, x = torch.nonzero(crops.on_head[0]).float().mean(dim=0) + 0.5
    toward = torch.nn.functional.normalize(crops.head_from_pixel[0] @ torch.stack([x, y, torch.tensor(1.0)]), dim=0)
    nearest = crops.origin[0] - (crops.origin[0] @ toward) * toward
    distance = np.linalg.norm(dataset.pose(0).translation - np.array(CAMERA_POSITION))
    assert float(crops.origin[0].norm()) == pytest.approx(distance * NERF_SCALE / CAMERA_DISTANCE, rel=1e-3)
    assert nearest.norm() < 0.3
    assert crops.on_head[0].sum() == frame.hits.mask.sum()
    assert crops.hidden[4].any() and not (crops.hidden[4] & crops.on_head[4]).any() and not crops.hidden[3].any()


def test_a_refresh_shows_what_the_field_holds_now():
    torch.manual_seed(0)
    field = RADNeRF(FIELD)
    flat = flatten(dict(field.named_parameters()))
    refresh = OccupancyRefresh(field, flat, torch.Generator().manual_seed(0))
    window = torch.zeros(5, 204)
    refresh(window)
    once = field.density_grid.clone()
    with torch.no_grad():
        condition = field.encode_conditions(window[None, :, None])[0]
        densities = fresh_densities(field, condition, None)
    assert (once >= 0.9 * densities.min()).all() and once.max() <= 1.1 * densities.max()
    bits = torch.stack([(field.density_bitfield >> bit) & 1 for bit in range(8)], dim=1).flatten().bool()
    threshold = min(float(once.mean()), FIELD.render.density_thresh)
    torch.testing.assert_close(bits, once.flatten() > threshold)
    flat.mul_(2)  # training goes on: the next call starts a look at this, and shows the one before
    refresh(window)
    assert (field.density_grid >= 0).all()


def test_training_learns_colours_and_empties_space(clip, tmp_path):
    config, _, crops = clip
    torch.manual_seed(0)
    field = RADNeRF(replace(FIELD, individual_embedding_num=len(crops)))
    task = OccupancyTask(config, crops, field)
    errors = [float(task.training_step(step)["loss"]) for step in range(3 * REFRESH_EVERY)]
    assert sum(errors[-10:]) < 0.8 * sum(errors[:10])
    assert field.density_bitfield.any()
    assert torch.isfinite(task.optimizer.flat).all()


def test_the_command_trains_and_writes_such_a_head(clip, tmp_path, monkeypatch):
    config, _, _ = clip
    train(replace(config, max_updates=2), tmp_path / "head", silent)
    checkpoint = load_checkpoint(tmp_path / "head")
    assert checkpoint.step == 2 and checkpoint.config(type(config)).radnerf.individual_embedding_num == 10
    field = RADNeRF(checkpoint.config(type(config)).radnerf)
    field.load_state_dict(checkpoint.model)
    assert field.density_grid.max() > 0
    monkeypatch.setattr(radnerf, "joined", lambda _: _Two())
    with pytest.raises(ConfigError, match="start it without torchrun"):
        train(config, tmp_path / "two", silent)


class _Two:
    """As if two processes had been started."""

    def __enter__(self) -> radnerf.Ranks:
        return radnerf.Ranks(0, 2)

    def __exit__(self, *_: object) -> None:
        pass
