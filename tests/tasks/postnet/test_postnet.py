"""The post-net: it mends what general predictions get wrong, leaves the rest alone, and refuses what is not its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.commons.checkpoint import save_checkpoint
from modules.commons.errors import CheckpointError, ConfigError
from modules.commons.progress import silent
from modules.commons.workspace import EGS, FACE_MODEL_FILE
from modules.face_model.model import MOUTH_UNITS, FaceModel
from modules.postnet.config import PostNetConfig
from modules.postnet.postnet import LandmarkPostNet
from modules.radnerfs.condition import condition_from_expression
from tasks.configs import load_any
from tasks.postnet.configs import DistortionConfig, PostNetTaskConfig
from tasks.postnet.distortion import distort, mirrored_columns
from tasks.postnet.postnet import PersonClip, fit, load_postnet, train
from tasks.run import main


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


@pytest.fixture(scope="module")
def clip(face_model):
    """A person who opens the jaw and always smiles on the left."""
    rng = np.random.default_rng(0)
    rows = 330
    drive = np.convolve(rng.standard_normal(rows + 8), np.ones(9) / 3, mode="valid")
    expression = np.zeros((rows, face_model.n_expression), np.float32)
    names = face_model.expression_names
    expression[:, names.index("jawOpen")] = 0.2 + 0.15 * drive
    expression[:, names.index("mouthSmileLeft")] = 0.3 + 0.2 * drive
    expression[:, names.index("mouthPucker")] = 0.1 - 0.05 * drive
    columns = np.array([names.index(name) for name in MOUTH_UNITS])
    each = np.concatenate([np.zeros((1, face_model.n_expression)), np.eye(face_model.n_expression)]).astype(np.float32)
    moved = condition_from_expression(face_model, np.zeros(face_model.n_identity, np.float32), each)
    return PersonClip(
        expression, np.arange(rows) < 300, expression.min(axis=0), moved[0], moved[1:] - moved[0], columns,
        mirrored_columns(names, columns), "sha", face_model.version,
    )  # fmt: skip


def test_an_untrained_net_changes_nothing():
    rows = torch.randn(2, 7, 204, generator=torch.Generator().manual_seed(0))
    net = LandmarkPostNet(PostNetConfig()).eval()
    assert torch.equal(net(rows), rows)
    assert net(rows[:, :1]).shape == (2, 1, 204), "a single frame is a motion, too"


def test_conditions_are_linear_in_the_expression(clip, face_model):
    expected = condition_from_expression(face_model, np.zeros(face_model.n_identity, np.float32), clip.expression[:5])
    np.testing.assert_allclose(clip.conditions(clip.expression[:5]), expected, atol=1e-4)


def test_it_learns_to_mend_and_to_leave_alone(clip, tmp_path):
    config = PostNetTaskConfig(max_updates=30, batch_windows=4, window_rows=32, lr=0.01)
    net, errors = fit(clip, config, tmp_path, silent)
    assert errors["mended"] < 0.85 * errors["spoilt"] and errors["untouched"] < 0.15 * errors["spoilt"]
    again, same = fit(clip, config, tmp_path / "again", silent)
    assert same == errors and torch.equal(net.leave.weight, again.leave.weight)


def test_a_checkpoint_comes_back(clip, tmp_path):
    net = LandmarkPostNet(PostNetConfig(hidden=8))
    torch.nn.init.normal_(net.leave.weight, generator=torch.Generator().manual_seed(0))
    config = PostNetTaskConfig(net=PostNetConfig(hidden=8))
    save_checkpoint(tmp_path / "p", {"model": net.state_dict()}, config, 1, face_model_version="v")
    rows = torch.randn(1, 5, 204, generator=torch.Generator().manual_seed(1))
    assert torch.equal(load_postnet(tmp_path / "p", "v")(rows), net.eval()(rows))
    with pytest.raises(CheckpointError, match="post-net for face model v, in use is w"):
        load_postnet(tmp_path / "p", "w")
    save_checkpoint(tmp_path / "q", {"model": {}}, config, 1, face_model_version="v")
    with pytest.raises(CheckpointError, match="not a post-net's checkpoint"):
        load_postnet(tmp_path / "q", "v")


def test_distortions_do_what_they_say():
    names = ("mouthLeft", "mouthRight", "jawOpen", "mouthSmileLeft")
    mirror = mirrored_columns(names, np.arange(4))
    assert mirror.tolist() == [1, 0, 2, 3], "a unit whose other side is missing stays itself"
    units = np.random.default_rng(0).random((50, 4))
    rest = np.full(4, 0.1)
    still = DistortionConfig(0, 0, 0, 0, 0, 0)
    np.testing.assert_allclose(distort(units, rest, mirror, still, np.random.default_rng(1)), units, atol=1e-6)
    grown = distort(units, rest, mirror, DistortionConfig(0.5, 0, 0, 0, 0, 0), np.random.default_rng(1))
    ratio = (grown - rest) / (units - rest)
    assert ratio.std() < 1e-4 and abs(ratio.mean() - 1) > 0.05
    even = distort(units, rest, mirror, DistortionConfig(0, 0, 1.0, 0, 0, 0), np.random.default_rng(3))
    assert np.abs(even[:, 0] - even[:, 1]).mean() < np.abs(units[:, 0] - units[:, 1]).mean()
    with pytest.raises(ValueError, match="mirror"):
        DistortionConfig(mirror=2.0)


def test_the_preset_and_a_missing_clip(tmp_path, caplog):
    config = load_any(EGS / "egs_bases" / "postnet" / "base.yaml")
    assert config == PostNetTaskConfig()
    with pytest.raises(ConfigError, match="no such prepared clip"):
        train(config, tmp_path / "out", silent)
    assert main(["--config", str(EGS / "egs_bases" / "postnet" / "base.yaml"), "--exp_name", "x", "--validate"]) == 1
    assert "other tasks measure while they train" in caplog.text
