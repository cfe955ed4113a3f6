"""GeneFace++'s YAMLs are read as they are: task_cls, flat keys, and no key that nobody knows."""

from __future__ import annotations

import pytest
import yaml

from modules.commons.config import dump_config, load_config
from modules.commons.errors import ConfigError
from modules.radnerfs.official import KIND_OF_TASK
from tasks.configs import load_any
from tasks.radnerfs.portrait_config import (
    BUILT_IN,
    DONE_ELSEWHERE,
    PortraitTaskConfig,
    is_official_config,
    task_of_hparams,
)
from tests.modules.radnerfs import golden, golden_portraits
from tests.support.official_portraits import hparams_of, small_config

KINDS = tuple(KIND_OF_TASK.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_may_configurations(kind):
    task = task_of_hparams(golden.load_json("hparams_resolved")[kind])
    assert task.portrait == golden_portraits.CONFIGS[kind]
    assert (task.max_updates, task.n_rays, task.lr, task.fine_start) == (250000, 65536, 5e-4, 200000)
    assert task.perceptual_weight == (0.001 if kind.endswith("_sr") else 0.01)
    assert task.entropy_weight == 1e-4 and task.occupancy_interval == 16 and str(task.data_root) == "data"
    assert bool(task.head_ckpt) == kind.startswith("torso")


@pytest.fixture
def file(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**hparams_of("head_sr"), "smo_win_size": 3}))
    path = tmp_path / "may.yaml"
    path.write_text("base_config: ./base.yaml\nvideo_id: Anna\nlr: 1e-3\nmax_updates: 25_0000\n")
    return path


def test_a_yaml_with_its_parents_and_overrides(file):
    assert is_official_config(file)
    task = load_any(file, {"n_rays": "128", "lambda_ambient": "0.5"})
    assert (task.video_id, task.lr, task.max_updates, task.n_rays) == ("Anna", 1e-3, 250000, 128)
    assert task.ambient_weight == 0.5 and task.portrait.adaptive_ambient
    assert task.portrait.head.position_grid == small_config("head_sr").head.position_grid


def test_it_is_saved_in_our_own_form(file, tmp_path):
    task = load_any(file)
    ours = tmp_path / "ours.yaml"
    ours.write_text(dump_config(task))
    assert load_any(ours) == task and load_config(ours, PortraitTaskConfig) == task
    assert not is_official_config(ours)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task_cls: tasks.mine.Task", "task_cls is 'tasks.mine.Task'; use one of"),
        ("hidden_dim_sigmas: 3", "unknown key hidden_dim_sigmas; did you mean hidden_dim_sigma"),
        ("max_steps: 1.5", "max_steps must be a whole number"),
        ("with_att: 1", "with_att must be true or false"),
        ("lr: fast", "lr must be a number"),
        ("binary_data_dir: data/bin", "must end in binary/videos"),
        ("task_cls: tasks.radnerfs.radnerf_torso.RADNeRFTorsoTask", "name it with head_model_dir"),
        ("grid_type: densegrid", "grid_type is densegrid"),
        ("max_steps: 0", "at least one sample"),
    ],
)
def test_wrong_keys_and_values_are_one_sentence(file, text, message):
    file.write_text(file.read_text() + text + "\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load_any(file)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_built_in_is_said_where_something_else_is_asked_for(kind, caplog):
    hparams = golden.load_json("hparams_resolved")[kind]
    task_of_hparams(hparams)
    assert caplog.text == "", "GeneFace++'s own values are the built-in ones"
    task_of_hparams({**hparams, "clip_grad_norm": 0.5, "nerf_keypoint_mode": "lm131", "warmup_updates": None})
    assert [record.getMessage() for record in caplog.records] == [
        "clip_grad_norm: 0.5 is asked for, but here it is always 0",
        "nerf_keypoint_mode: 'lm131' is asked for, but here it is always 'lm68'",
    ]


def test_every_built_in_key_is_known():
    assert set(BUILT_IN) <= DONE_ELSEWHERE
