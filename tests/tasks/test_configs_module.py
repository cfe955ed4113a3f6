"""Reading task configurations and the command line's overrides; errors are one clear sentence."""

from __future__ import annotations

import pytest

from modules.commons.errors import ConfigError
from modules.commons.hparams import parse_hparams
from modules.commons.workspace import EGS
from tasks.configs import RADNeRFTaskConfig, load_any
from tasks.run import main

CPU = EGS / "egs_bases" / "radnerf" / "cpu.yaml"


def test_hparams_keep_commas_inside_brackets():
    assert parse_hparams("") == {}
    assert parse_hparams("a.b=1, c=[1, 2],d=x=y") == {"a.b": "1", "c": "[1, 2]", "d": "x=y"}
    with pytest.raises(ConfigError, match="'oops' has no '='"):
        parse_hparams("a=1,oops")


def test_overrides_reach_nested_settings():
    config = load_any(CPU, parse_hparams("video_id=x,radnerf.render.n_samples=3,optim.lr=1e-4"))
    assert isinstance(config, RADNeRFTaskConfig)
    assert (config.video_id, config.radnerf.render.n_samples, config.optim.lr) == ("x", 3, 1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: cook\n", "task is 'cook'; use radnerf, portrait_training, audio2motion, postnet or evaluation"),
        ("task: radnerf\nmax_update: 3\n", "unknown key max_update; did you mean max_updates?"),
        ("task: radnerf\nmouth_share: 2.0\n", "mouth_share in 0..1"),
        ("task: radnerf\nrays_per_step: 8\n", "rays_per_frame in 1..rays_per_step"),
        ("task: radnerf\nloss:\n  patch_size: 4\n", "patch_size >= 8"),
        ("task: radnerf\nplateau:\n  every: -1\n", "needs every, patience, min_gain_db >= 0"),
    ],
)
def test_wrong_files_are_refused(tmp_path, text, message):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message.replace("?", r"\?").replace(".", r"\.")):
        load_any(path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "nowhere.yaml", "--exp_name", "x"],
        ["--config", str(CPU), "--exp_name", "x", "--hparams", "nonsense=1"],
        ["--config", str(CPU), "--exp_name", "x", "--hparams", "video_id=not_prepared,device=cpu"],
        ["--exp_name", "never_trained", "--validate"],
    ],
)
def test_the_command_fails_with_one_sentence(arguments, caplog):
    assert main(arguments) == 1
    errors = [r.message for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 1 and "Traceback" not in errors[0]
