"""Files that GeneFace++ wrote: read in every form they come in, refused in every other."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
import yaml

from modules.commons.errors import CheckpointError, ConfigError
from modules.commons.official_checkpoint import (
    is_official,
    newest_checkpoint,
    read_official_hparams,
    read_official_state,
)

TENSORS = {"a.weight": torch.arange(3.0), "b.parametrizations.weight.original0": torch.ones(1)}


def save(file, saved, legacy=True):
    torch.save(saved, file, _use_new_zipfile_serialization=not legacy)
    return file


@pytest.mark.parametrize("legacy", [True, False])
def test_both_file_formats_with_a_trainers_state(legacy, tmp_path):
    saved = {
        "state_dict": {"model": TENSORS},
        "global_step": 250000,
        "checkpoint_callback_best": np.float64(np.inf),
        "optimizer_states": [{"lr": np.float32(1e-3), "step": np.int64(4)}],
    }
    state = read_official_state(save(tmp_path / "model_ckpt_steps_250000.ckpt", saved, legacy))
    assert list(state.tensors) == ["a.weight", "b.weight_g"] and state.step == 250000
    torch.testing.assert_close(state.tensors["a.weight"], TENSORS["a.weight"])


def test_flat_names(tmp_path):
    saved = {"state_dict": {f"model.{key}": value for key, value in TENSORS.items()}}
    state = read_official_state(save(tmp_path / "x.ckpt", saved))
    assert list(state.tensors) == ["a.weight", "b.weight_g"] and state.step == 0


class Payload:
    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("legacy", [True, False])
def test_what_would_run_is_refused_by_name(legacy, tmp_path):
    mark = tmp_path / "ran"
    file = save(tmp_path / "x.ckpt", {"state_dict": {"model": TENSORS}, "more": Payload(mark)}, legacy)
    with pytest.raises(CheckpointError, match=r"wants to run \w+\.system, which was refused") as caught:
        read_official_state(file)
    assert not mark.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize("legacy", [True, False])
def test_truncated_files(legacy, tmp_path):
    file = save(tmp_path / "x.ckpt", {"state_dict": {"model": {"a": torch.randn(1000)}}}, legacy)
    whole = file.read_bytes()
    for length in (0, 1, 20, 200, len(whole) // 2, len(whole) - 10):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cannot be read as a checkpoint of tensors") as caught:
            read_official_state(file)
        assert "\n" not in str(caught.value)


def test_the_newest_of_a_folder(tmp_path):
    for step in (9000, 10000, 200):
        (tmp_path / f"model_ckpt_steps_{step}.ckpt").touch()
    assert newest_checkpoint(tmp_path).name == "model_ckpt_steps_10000.ckpt"
    assert is_official(tmp_path) and is_official(tmp_path / "any.ckpt") and not is_official(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no such checkpoint; give GeneFace\\+\\+'s may_head folder"):
        newest_checkpoint(tmp_path / "none", "may_head")


def test_configuration_and_its_parents(tmp_path):
    run = tmp_path / "checkpoints" / "may"
    run.mkdir(parents=True)
    (tmp_path / "egs").mkdir()
    (tmp_path / "egs" / "base.yaml").write_text("lr: 5e-4\ndeep: {a: 1, b: 2}\nmax_updates: 25_0000\nbound: 2\n")
    (run / "near.yaml").write_text("bound: 3\n")
    own = {"base_config": ["egs/base.yaml", "./near.yaml", "egs/nowhere.yaml"], "deep": {"b": 5}, "__hidden": 1}
    (run / "config.yaml").write_text(yaml.safe_dump(own))
    found = read_official_hparams(run / "config.yaml")
    assert found == {"lr": "5e-4", "deep": {"a": 1, "b": 5}, "max_updates": 250000, "bound": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1, 2]", "holds keys with values"), ("a: [", "cannot be read"), ("base_config: ./config.yaml", "leads back")],
)
def test_configurations_that_are_none(text, message, tmp_path):
    file = tmp_path / "config.yaml"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_official_hparams(file)
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_official_hparams(file)
