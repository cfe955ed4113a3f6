"""The training part of the GPU tables, at sizes a CPU can run: what it says and what it needs."""

from __future__ import annotations

import pytest
import torch

from inference.benchmark_gpu import training
from modules.commons.errors import CheckpointError, VideoReadError
from modules.commons.progress import silent
from modules.commons.workspace import VideoWorkspace
from tests.support.synthetic_clip import prepare_synthetic_clip

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Sizes for a CPU."""
    sizes = {"RAYS_PER_STEP": 512, "SYNTHETIC_FRAMES": 4, "SYNTHETIC_RAYS_PER_FRAME": 300, "TIMED_STEPS": 2}
    preset = tmp_path / "tiny.yaml"
    preset.write_text(
        "base_config: egs/egs_bases/radnerf/cpu.yaml\nmax_updates: 9\nrays_per_step: 256\nval_images: 0\n"
    )
    for name, value in (sizes | {"REPEATS": 1, "LOOK_EVERY": 3, "PRESET": preset}).items():
        monkeypatch.setattr(training, name, value)


def test_a_clip_gives_speeds_and_its_curve(small, tmp_path):
    prepare_synthetic_clip(tmp_path / "data", n_frames=22)
    rows = training.rows(CPU, silent, VideoWorkspace("clip", tmp_path / "data").dataset)
    speeds, curve = rows[:2], rows[2:]
    assert [row.unit for row in speeds] == ["steps/s"] * 2 and all(row.value > 0 for row in speeds)
    assert speeds[0].goal == ">= 150" and "1 sample each" in speeds[0].what and "2 samples" in speeds[1].what
    by_what = {row.what.split(": ")[1]: row for row in curve}
    assert {row.unit for row in curve} == {"s", "dB", "GB"}
    assert 5 < by_what["held-out rays at the end"].value < 60
    assert by_what["within 0.5 dB of the end"].value <= by_what["whole training"].value
    assert by_what["whole training"].detail.count("dB") == 3


def test_a_curve_is_near_its_end_when_it_first_comes_within_half_a_decibel():
    curve = training.Curve(1.0, [1.0, 2.0, 3.0, 4.0], [20.0, 29.6, 30.2, 30.0], 0.0)
    assert curve.near_final_s == 2.0


def test_a_demo_that_was_not_fetched_is_one_sentence(small, monkeypatch, tmp_path):
    monkeypatch.setattr(training, "DEMO_VIDEO", tmp_path / "demo.mp4")
    with pytest.raises(VideoReadError, match=r"demo\.mp4: there is no such video; fetch the demo"):
        training.rows(CPU, silent)


def test_a_file_that_is_no_clip_is_one_sentence(small, tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.npz is no prepared clip .*prepare the video first") as error:
        training.rows(CPU, silent, tmp_path / "nothing.npz")
    assert "\n" not in str(error.value)
