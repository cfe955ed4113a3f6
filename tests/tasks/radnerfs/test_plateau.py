"""Held-out rays and the plateau that ends training."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from modules.commons.checkpoint import load_checkpoint
from modules.commons.progress import silent
from tasks.configs import PlateauConfig
from tasks.radnerfs.plateau import Plateau, held_out_rays
from tasks.radnerfs.radnerf import load_dataset, train
from tests.support.synthetic_clip import prepare_synthetic_clip
from tests.support.tiny_heads import tiny_config


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    source, speaker = prepare_synthetic_clip(root)
    return root, source, speaker


def test_a_plateau_is_reached_after_its_patience_without_a_gain():
    plateau = Plateau(PlateauConfig(every=1, patience=3, min_gain_db=0.1))
    values = [20.0, 21.0, 21.05, 20.9, 21.2, 21.2, 21.25, 21.29]
    assert [plateau.reached(value) for value in values] == [False] * 7 + [True]
    assert plateau.best == pytest.approx(21.2)


def test_no_patience_never_stops_and_a_state_goes_on():
    endless = Plateau(PlateauConfig(every=1, patience=0))
    assert not any(endless.reached(20.0) for _ in range(20))
    config = PlateauConfig(every=1, patience=2)
    first, second = Plateau(config), Plateau(config)
    first.reached(30.0)
    first.reached(29.0)
    second.load_state(first.state())
    assert second.reached(29.0) and second.best == 30.0


def test_rays_are_held_out_pixels_half_of_them_on_the_mouth(clip):
    root, source, speaker = clip
    dataset = load_dataset(tiny_config(root), speaker.model, silent)
    rays = held_out_rays(dataset, PlateauConfig(frames=8, rays_per_frame=64), torch.device("cpu"))
    assert rays is not None and rays.batch.rgb.shape == (2, 64, 3)
    index = int(dataset.val_indices[0])
    shown = {tuple(colour) for colour in source.crop(index).reshape(-1, 3).tolist()}
    assert {tuple(c) for c in (rays.batch.rgb[0] * 255).round().int().tolist()} <= shown
    torch.testing.assert_close(rays.windows[0], dataset.conditions[int(source.rows[index])])
    again = held_out_rays(dataset, PlateauConfig(frames=8, rays_per_frame=64), torch.device("cpu"))
    torch.testing.assert_close(again.batch.position, rays.batch.position, rtol=0, atol=0)


def test_a_clip_that_holds_nothing_out_has_none(clip):
    root, _, speaker = clip
    dataset = load_dataset(tiny_config(root), speaker.model, silent)
    dataset.val_indices = np.zeros(0, dtype=np.int64)
    assert held_out_rays(dataset, PlateauConfig(), torch.device("cpu")) is None


def test_training_ends_on_the_plateau_and_keeps_the_curve(clip, tmp_path, caplog):
    root, _, _ = clip
    plateau = PlateauConfig(every=2, patience=2, min_gain_db=50.0, frames=2, rays_per_frame=32)
    with caplog.at_level("INFO"):
        train(replace(tiny_config(root, max_updates=40), plateau=plateau), tmp_path / "early", silent)
    assert load_checkpoint(tmp_path / "early", parts=()).step == 6  # first look is a gain, then two without
    assert "training ends at step 6" in caplog.text
    curve = json.loads((root / "training" / "early" / "held_out.json").read_text())
    assert [point["step"] for point in curve] == [2, 4, 6]
    assert all(5 < point["psnr"] < 60 for point in curve) and curve[0]["s"] < curve[-1]["s"]
