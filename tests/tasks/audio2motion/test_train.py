"""Training on made-up talkers: it learns, resumes to the same weights, and tells what it measured."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from modules.audio2motion.config import Audio2MotionConfig
from modules.commons.checkpoint import load_checkpoint
from modules.commons.errors import ConfigError
from modules.commons.progress import silent
from modules.commons.workspace import EGS, FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from tasks.audio2motion import fitting
from tasks.audio2motion.configs import A2MLossConfig, AudioToMotionTaskConfig
from tasks.audio2motion.dataset_utils import prepare
from tasks.audio2motion.evaluation import other_sound, score_model
from tasks.audio2motion.fitting import fit_model, make_material
from tasks.audio2motion.train import train
from tasks.configs import load_any
from tests.support.talking_clips import BLOCK_WIDTH, UNITS, talking_clip

SMALL = AudioToMotionTaskConfig(
    max_updates=30,
    batch_windows=4,
    window_rows=32,
    n_folds=2,
    state_interval=10,
    ridge_penalty=0.001,
    lr=0.01,
    threads=1,
    model=Audio2MotionConfig(
        block_width=BLOCK_WIDTH,
        bottleneck=BLOCK_WIDTH,
        units=UNITS,
        hidden=12,
        recurrent_hidden=8,
        convolutional=1,
        recurrent=1,
        dropout=0.1,
        feature_noise=0.05,
    ),
    loss=A2MLossConfig(relative_motion=False),
)


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


@pytest.fixture(scope="module")
def clips(face_model):
    return [prepare(talking_clip(face_model, seed)) for seed in range(6)]


def test_base_configuration_is_the_default():
    assert load_any(EGS / "egs_bases" / "audio2motion" / "base.yaml") == AudioToMotionTaskConfig()


def test_the_linear_member_finds_a_linear_world(face_model, clips, tmp_path):
    model_config = dataclasses.replace(SMALL.model, convolutional=0, recurrent=0)
    config = dataclasses.replace(SMALL, model=model_config)
    model = fit_model(make_material(clips[:4], face_model, config), config, tmp_path, silent, "fit")
    for scores in score_model(model, clips[4:], face_model):
        assert scores.correlation.min() > 0.9
    for scores in score_model(model, clips[4:], face_model, sound=other_sound):
        assert abs(scores.correlation).max() < 0.5


def test_an_interrupted_run_ends_like_an_uninterrupted_one(face_model, clips, tmp_path, monkeypatch):
    material = make_material(clips, face_model, SMALL)
    whole = fit_model(material, SMALL, tmp_path / "whole", silent, "fit").state_dict()
    step = fitting.A2MTask.training_step

    def power_cut(task, number):
        if number == 14:
            raise KeyboardInterrupt
        return step(task, number)

    monkeypatch.setattr(fitting.A2MTask, "training_step", power_cut)
    with pytest.raises(KeyboardInterrupt):
        fit_model(material, SMALL, tmp_path / "cut", silent, "fit")
    steps = []

    def counted(task, number):
        steps.append(number)
        return step(task, number)

    monkeypatch.setattr(fitting.A2MTask, "training_step", counted)
    resumed = fit_model(material, SMALL, tmp_path / "cut", silent, "fit").state_dict()
    assert steps == list(range(10, 30))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-6, rtol=1e-5)


def test_state_of_other_material_is_not_resumed(face_model, clips, tmp_path, monkeypatch):
    fit_model(make_material(clips, face_model, SMALL), SMALL, tmp_path, silent, "fit")
    steps = []
    step = fitting.A2MTask.training_step
    monkeypatch.setattr(fitting.A2MTask, "training_step", lambda task, n: (steps.append(n), step(task, n))[1])
    fit_model(make_material(clips[:4], face_model, SMALL), SMALL, tmp_path, silent, "fit")
    assert steps[0] == 0


def test_train_writes_checkpoint_card_and_keeps_the_licence(face_model, tmp_path):
    for seed in range(4):
        talking_clip(face_model, seed, noise=0.2).save(tmp_path / f"{seed}.npz")
    out = tmp_path / "audio2motion"
    out.mkdir()
    (out / "LICENSE.md").write_text("terms")
    train(dataclasses.replace(SMALL, clips=tmp_path), out, silent, work_dir=tmp_path / "work")
    checkpoint = load_checkpoint(out)
    assert checkpoint.face_model_version == face_model.version
    table = checkpoint.extra["cross_validation"]
    assert table["model"]["opening"]["r_mean"] > 0.6 > table["model, wrong sound"]["opening"]["r_mean"]
    assert table["model"]["opening"]["spread_median"] == pytest.approx(0.95, abs=0.05)
    assert float(checkpoint.model["gain"][0]) > 1.0
    assert (out / "LICENSE.md").read_text() == "terms"
    card = (out / "MODEL_CARD.md").read_text()
    assert f"{table['model']['opening']['r_mean']:.3f}" in card and "4 talking clips" in card
    assert any((tmp_path / "work" / "final" / "log").iterdir())
    json.loads((out / "checkpoint.json").read_text())


def test_clips_of_another_face_model_are_refused(face_model, tmp_path):
    dataclasses.replace(talking_clip(face_model, 0), face_model_version="old").save(tmp_path / "a.npz")
    with pytest.raises(ConfigError, match="fitted with face model old"):
        train(dataclasses.replace(SMALL, clips=tmp_path), tmp_path / "out", silent, work_dir=tmp_path / "work")
    assert not (tmp_path / "out").exists()


def test_relative_motion_gives_every_clip_the_same_mean_and_spread():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[0.5, 1.0], [1.0, 2.0], [1.5, 1e-6]])
    clips = [torch.randn(50 + 10 * i, 2, generator=generator) * size + i for i, size in enumerate(sizes)]
    relative = fitting.relative_motion(clips)
    for values in relative:
        torch.testing.assert_close(values.mean(dim=0), relative[0].mean(dim=0))
    spreads = torch.stack([values.std(dim=0) for values in relative])
    assert float(spreads[:, 0].max() / spreads[:, 0].min()) == pytest.approx(1.0, abs=1e-3)
    assert spreads[2, 1] < 1e-5


def test_learning_rate_rises_then_falls():
    shares = [fitting.learning_rate_share(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and max(shares) == shares[9] == shares[10] == 1.0
    assert np.all(np.diff(shares[10:]) < 0) and shares[-1] < 1e-3
