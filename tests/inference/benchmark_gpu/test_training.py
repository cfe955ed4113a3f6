"""The training part of the GPU tables, at sizes a CPU can run: what it says and what it needs."""

from __future__ import annotations

import logging

import pytest
import torch

from inference.benchmark_gpu import training
from modules.commons.errors import CheckpointError
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
    monkeypatch.setattr(training, "VideoWorkspace", lambda _: VideoWorkspace("none", tmp_path))


def test_speeds_are_measured_without_a_clip(small, caplog):
    with caplog.at_level(logging.WARNING):
        rows = training.rows(CPU, silent)
    assert [row.unit for row in rows] == ["steps/s"] * 2 and all(row.value > 0 for row in rows)
    assert rows[0].goal == ">= 150" and "1 sample each" in rows[0].what and "2 samples" in rows[1].what
    assert "no prepared clip is given" in caplog.text


def test_a_clip_gives_its_curve(small, tmp_path):
    prepare_synthetic_clip(tmp_path / "data", n_frames=22)
    rows = training.curve_rows(VideoWorkspace("clip", tmp_path / "data").dataset, CPU, silent)
    by_what = {row.what.split(": ")[1]: row for row in rows}
    assert {row.unit for row in rows} == {"s", "dB", "GB"}
    assert 5 < by_what["held-out rays at the end"].value < 60
    assert by_what["within 0.5 dB of the end"].value <= by_what["whole training"].value
    assert by_what["whole training"].detail.count("dB") == 3


def test_a_curve_is_near_its_end_when_it_first_comes_within_half_a_decibel():
    curve = training.Curve(1.0, [1.0, 2.0, 3.0, 4.0], [20.0, 29.6, 30.2, 30.0], 0.0)
    assert curve.near_final_s == 2.0


def test_a_file_that_is_no_clip_is_one_sentence(small, tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing\.npz is no prepared clip .*prepare the video first") as error:
        training.rows(CPU, silent, tmp_path / "nothing.npz")
    assert "\n" not in str(error.value)
