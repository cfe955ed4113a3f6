"""Training on made-up talkers: it learns, resumes to the same weights, and tells what it measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.sync_expert import SyncExpertConfig
from modules.audio2motion.take import Take
from modules.commons.checkpoint import load_checkpoint
from modules.commons.errors import ConfigError
from modules.commons.progress import silent
from modules.commons.workspace import EGS, FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.speech_motion import SpeechMotionClip
from tasks.audio2motion import fitting, sync_training
from tasks.audio2motion.configs import A2MLossConfig, AudioToMotionTaskConfig, StoredCorpusConfig
from tasks.audio2motion.dataset_utils import prepare, wanted_names
from tasks.audio2motion.evaluation import other_sound, score_model
from tasks.audio2motion.fitting import fit_model, make_material
from tasks.audio2motion.material import MotionNorm, clip_source
from tasks.audio2motion.sampling import WindowSampler
from tasks.audio2motion.stored_corpus import open_corpus
from tasks.audio2motion.train import train
from tasks.configs import load_any
from tasks.distributed import Ranks
from tests.support.small_bfm import small_bfm
from tests.support.talking_clips import BLOCK_WIDTH, talking_clip
from tests.support.tiny_speech import tiny_config

USUAL = AudioToMotionTaskConfig()
TINY = tiny_config(USUAL.clips, 30)
SMALL = dataclasses.replace(
    TINY,
    sync=USUAL.sync,
    model=dataclasses.replace(TINY.model, variational=0, vae=USUAL.model.vae),
    loss=A2MLossConfig(relative_motion=False),
)
"""Without the member that learns slowest."""


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


VARIATIONAL = dataclasses.replace(
    tiny_config(Path("unused"), max_updates=20),
    ema_decay=0.9,
    speed_range=0.1,
    loss=A2MLossConfig(
        relative_motion=False, variance_weight=0.1, closure_weight=0.1, sync_weight=0.1, likeliest_weight=0.5
    ),
)


def test_everything_at_once_resumes_to_the_same_weights(face_model, clips, tmp_path, monkeypatch):
    """Members of every kind, every loss, the expert, the running mean and changed speeds."""
    material = make_material(clips, face_model, VARIATIONAL)
    whole = fit_model(material, VARIATIONAL, tmp_path / "whole", silent, "fit").state_dict()
    step = fitting.A2MTask.training_step

    def power_cut(task, number):
        if number == 14:
            raise KeyboardInterrupt
        return step(task, number)

    monkeypatch.setattr(fitting.A2MTask, "training_step", power_cut)
    with pytest.raises(KeyboardInterrupt):
        fit_model(material, VARIATIONAL, tmp_path / "cut", silent, "fit")
    steps = []

    def counted(task, number):
        steps.append(number)
        return step(task, number)

    monkeypatch.setattr(fitting.A2MTask, "training_step", counted)
    monkeypatch.setattr(sync_training, "fit_expert", lambda *_: pytest.fail("the expert is trained already"))
    resumed = fit_model(material, VARIATIONAL, tmp_path / "cut", silent, "fit").state_dict()
    assert steps == list(range(10, 20))
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-6, rtol=1e-5)


def test_terms_and_the_running_mean(face_model, clips, tmp_path):
    material = make_material(clips, face_model, VARIATIONAL)
    torch.manual_seed(0)
    model = Audio2Motion(VARIATIONAL.model, material.columns, material.n_expression)
    fitting.set_projection(model, material)
    fitting.set_unit_scales(model, material)
    torch.testing.assert_close(model.networks[2].unit_scale, torch.cat(material.targets).std(dim=0))
    sampler = WindowSampler(clip_source(model, material, VARIATIONAL), VARIATIONAL.window_rows)
    expert = sync_training.make_expert(material, VARIATIONAL.model.n_components, VARIATIONAL)
    task = fitting.A2MTask(model, material, sampler, VARIATIONAL, expert=expert)
    before = {name: value.clone() for name, value in model.networks.state_dict().items()}
    scalars = task.training_step(0)
    assert set(scalars) == {
        "loss", "lips", "variance", "closure", "sync", "divergence",
        "code lips", "code variance", "code closure", "code sync",
    }  # fmt: skip
    assert all(torch.isfinite(value) for value in scalars.values())
    assert scalars["divergence"] == 0, "its weight rises from 0"
    assert task.mean is not None
    for name, value in model.networks.state_dict().items():
        expected = before[name] + 0.9 * (value - before[name])  # the first step keeps a tenth
        torch.testing.assert_close(task.mean.values[name], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_a_variational_member_learns_and_its_takes_differ(face_model, clips, tmp_path):
    model_config = dataclasses.replace(VARIATIONAL.model, convolutional=0, recurrent=0, linear_reach=-1)
    loss = dataclasses.replace(VARIATIONAL.loss, sync_weight=0.0)
    config = dataclasses.replace(VARIATIONAL, model=model_config, loss=loss, max_updates=120, speed_range=0.0)
    material = make_material(clips[:4], face_model, config)
    model = fit_model(material, config, tmp_path, silent, "fit")
    likeliest = [scores.correlation[0] for scores in score_model(model, clips[4:], face_model)]
    assert min(likeliest) > 0.6
    components = model.projection(torch.from_numpy(clips[4].clip.features[0].astype(np.float32)))[None]
    take = Take.draw(model.n_members, 1.0, torch.Generator().manual_seed(0))
    with torch.no_grad():
        still, said = model.unit_deviations(components), model.unit_deviations(components, take)
    assert (said - still).abs().max() > 1e-4


def test_the_sync_expert_learns_to_tell_moments_apart(face_model, clips):
    config = dataclasses.replace(SMALL, sync=SyncExpertConfig(layers=1, dropout=0.1, max_lag_rows=12, max_updates=80))
    material = make_material(clips[:5], face_model, config)
    model = Audio2Motion(config.model, material.columns, material.n_expression)
    fitting.set_projection(model, material)
    sampler = WindowSampler(clip_source(model, material, config), 64)
    test_material = make_material(clips[5:], face_model, config)
    unheard = WindowSampler(clip_source(model, test_material, config), 64).draw(8, np.random.default_rng(0))
    expert = sync_training.make_expert(material, config.model.n_components, config)
    before = sync_training.sync_accuracy(expert.eval(), unheard)
    sync_training.fit_expert(expert, sampler, config, silent, "expert", Ranks())
    after = sync_training.sync_accuracy(expert, unheard)
    assert after > 0.6 > 0.4 > before
    assert not any(parameter.requires_grad for parameter in expert.parameters()) and not expert.training
    late = torch.roll(unheard.targets, 6, dims=1)
    in_time = expert.loss(unheard.components, unheard.targets, unheard.weights)
    assert expert.loss(unheard.components, late, unheard.weights) > in_time + 1.0


def test_a_corpus_from_disk_trains_like_one_in_memory(face_model, tmp_path):
    folder = tmp_path / "clips"
    for speaker in range(5):
        (folder / f"id{speaker}").mkdir(parents=True)
        for number in range(2):
            clip = talking_clip(face_model, 10 * speaker + number, speaker=f"id{speaker}", noise=0.2)
            clip.save(folder / f"id{speaker}" / f"{number}.npz")
    corpus = StoredCorpusConfig(resident_clips=4, refresh_clips=1, probe_clips=3, held_out_speakers=2, held_out_clips=4)
    config = dataclasses.replace(SMALL, clips=folder, n_folds=0, corpus=corpus, max_updates=40)
    out = tmp_path / "audio2motion"
    train(config, out, silent, work_dir=tmp_path / "work")
    saved = load_checkpoint(out)
    assert saved.extra["n_speakers"] == 3 and saved.extra["n_clips"] == 6
    assert saved.extra["cross_validation"]["model"]["opening"]["r_mean"] > 0.6
    assert float(saved.model["gain"][0]) != 1.0
    index = tmp_path / "work" / "speakers.json"
    assert set(json.loads(index.read_text()).values()) == {f"id{speaker}" for speaker in range(5)}


def test_clean_clips_and_speakers_left_out(face_model, tmp_path):
    folder, table = tmp_path / "clips", tmp_path / "speakers.csv"
    folder.mkdir()
    lines = ["clip,speaker,licence,source,media"]
    for seed, licence in enumerate(("MIT", "none", "CC-BY-4.0", "MIT")):
        dataclasses.replace(talking_clip(face_model, seed), name=f"{seed}").save(folder / f"{seed}.npz")
        lines.append(f"{seed},speaker{seed},{licence},somewhere,interview")
    table.write_text("\n".join(lines) + "\n")
    config = dataclasses.replace(
        SMALL, clips=folder, variant="clean", speakers=table, without_speakers=("speaker3",), n_folds=0, max_updates=2
    )
    train(config, tmp_path / "out", silent, work_dir=tmp_path / "work")
    assert load_checkpoint(tmp_path / "out").extra["n_speakers"] == 2
    corpus = StoredCorpusConfig(resident_clips=2, probe_clips=2, held_out_speakers=0)
    stored = dataclasses.replace(config, corpus=corpus)
    found = open_corpus(folder, stored, tmp_path / "index.json", wanted_names(stored))
    assert [file.stem for file in found.training] == ["0", "2"] and not found.held_out
    for nobody in (config, stored):
        nobody = dataclasses.replace(nobody, without_speakers=tuple(f"speaker{i}" for i in range(4)))
        with pytest.raises(ConfigError, match="no clip to train on"):
            train(nobody, tmp_path / "none", silent, work_dir=tmp_path / "work2")


def test_bfm_coefficients_can_be_trained(tmp_path, monkeypatch):
    model, units = small_bfm(), ("exp_00", "exp_01", "exp_02")
    monkeypatch.setattr("tasks.audio2motion.train.load_face_model", lambda name: model)
    rng = np.random.default_rng(0)
    for seed in range(3):
        features = rng.standard_normal((1, 80, 3 * BLOCK_WIDTH)).astype(np.float16)
        expression = np.zeros((80, 64), np.float32)
        expression[:, :3] = features[0, :, :3]
        clip = dataclasses.replace(talking_clip_of(model, features, expression), name=f"c{seed}", speaker=f"s{seed}")
        clip.save(tmp_path / f"{seed}.npz")
    bfm_model = dataclasses.replace(SMALL.model, units=units)
    config = dataclasses.replace(SMALL, clips=tmp_path, face_model="bfm2009", n_folds=0, model=bfm_model)
    train(config, tmp_path / "out", silent, work_dir=tmp_path / "work")
    saved = load_checkpoint(tmp_path / "out")
    assert saved.face_model_version == model.version and saved.extra["n_expression"] == 64
    with pytest.raises(ValueError, match="n_folds must be 0"):
        dataclasses.replace(config, n_folds=2)


def talking_clip_of(model, features, expression) -> SpeechMotionClip:
    rows = len(expression)
    return SpeechMotionClip(
        name="",
        speaker="",
        features=features,
        expression=expression,
        identity=np.zeros(80, np.float32),
        opening=np.abs(expression[:, 0]),
        width=np.ones(rows, np.float32),
        valid=np.ones(rows, bool),
        is_speech=np.ones(rows, bool),
        rate_hz=50.0,
        extractor="whisper-tiny.en/blocks-2-3-4",
        face_model_version=model.version,
    )


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


def test_every_clip_gets_the_same_mean_and_spread():
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([[0.5, 1.0], [1.0, 2.0], [1.5, 1e-6]])
    clips = [torch.randn(50 + 10 * i, 2, generator=generator) * size + i for i, size in enumerate(sizes)]
    norm = MotionNorm.of(clips)
    relative = [norm.apply(values) for values in clips]
    for values in relative:
        torch.testing.assert_close(values.mean(dim=0), relative[0].mean(dim=0))
    spreads = torch.stack([values.std(dim=0) for values in relative])
    assert float(spreads[:, 0].max() / spreads[:, 0].min()) == pytest.approx(1.0, abs=1e-3)
    assert spreads[2, 1] < 1e-5
