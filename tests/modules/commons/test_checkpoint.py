"""Checkpoints: round trip, all-or-nothing replacement, and one clear sentence for every kind of damage."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.commons import checkpoint as module
from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.errors import CheckpointError, ConfigError, OutputError


@dataclass(frozen=True)
class Config:
    width: int = 4
    name: str = "may"


@dataclass(frozen=True)
class OtherConfig:
    depth: int = 1


def tensors(value: float = 1.0) -> dict[str, dict[str, torch.Tensor]]:
    model = {"net.0.weight": torch.full((3, 4), value), "grid": torch.arange(5, dtype=torch.uint8)}
    return {"model": model, "optimizer": {"step": torch.tensor(7)}}


@pytest.fixture
def saved(tmp_path) -> Path:
    folder = tmp_path / "may"
    save_checkpoint(folder, tensors(), Config(8), 12, {"psnr": 31.5}, face_model_version="v1")
    return folder


def test_round_trip(saved):
    loaded = load_checkpoint(saved)
    assert loaded.step == 12 and loaded.face_model_version == "v1" and loaded.extra == {"psnr": 31.5}
    assert loaded.config(Config) == Config(8)
    assert loaded.tensors.keys() == {"model", "optimizer"}
    for name, value in tensors()["model"].items():
        assert loaded.model[name].dtype == value.dtype and torch.equal(loaded.model[name], value)
    assert sorted(p.name for p in saved.iterdir()) == [
        "checkpoint.json", "config.yaml", "model.safetensors", "optimizer.safetensors"
    ]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=3), dtype=st.sampled_from([torch.float32, torch.float16, torch.int64])
)
def test_every_shape_and_dtype_survives(tmp_path_factory, shape, dtype):
    folder = tmp_path_factory.mktemp("any") / "c"
    value = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 9).to(dtype)
    save_checkpoint(folder, {"model": {"x": value}}, Config(), 0)
    loaded = load_checkpoint(folder).model["x"]
    assert loaded.shape == value.shape and loaded.dtype == dtype and torch.equal(loaded, value)


def test_tied_and_strided_tensors_are_saved(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path / "c", {"model": {"a": weight, "tied": weight, "b": weight.T}}, Config(), 0)
    loaded = load_checkpoint(tmp_path / "c").model
    assert torch.equal(loaded["tied"], weight) and torch.equal(loaded["b"], weight.T)


def test_only_the_parts_asked_for_are_read(saved):
    (saved / "optimizer.safetensors").unlink()
    assert load_checkpoint(saved, parts={"model"}).tensors.keys() == {"model"}
    with pytest.raises(CheckpointError, match="holds no 'scaler' tensors"):
        load_checkpoint(saved, parts={"scaler"})


def test_a_newer_checkpoint_replaces_the_whole_directory(saved):
    save_checkpoint(saved, {"model": tensors(2.0)["model"]}, Config(), 13)
    loaded = load_checkpoint(saved)
    assert loaded.step == 13 and loaded.tensors.keys() == {"model"}
    assert float(loaded.model["net.0.weight"][0, 0]) == 2.0
    assert [p.name for p in saved.parent.iterdir()] == ["may"]


def test_a_failed_save_leaves_the_old_one_and_no_litter(saved, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full_disk)
    with pytest.raises(OutputError, match=r"may: cannot write the checkpoint \(No space left on device\)"):
        save_checkpoint(saved, tensors(), Config(), 13)
    assert load_checkpoint(saved).step == 12
    assert [p.name for p in saved.parent.iterdir()] == ["may"]


def test_a_run_that_died_between_the_renames_loses_nothing(saved):
    saved.rename(saved.with_name("may.tmp.previous"))
    assert is_checkpoint(saved)
    assert load_checkpoint(saved).step == 12
    saved.rename(saved.with_name("may.tmp.previous"))
    save_checkpoint(saved, tensors(), Config(), 14)
    assert load_checkpoint(saved).step == 14


def test_missing(tmp_path):
    assert not is_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no such directory"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"it has no checkpoint\.json"):
        load_checkpoint(tmp_path)


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_byte(folder: Path) -> None:
    file = folder / "model.safetensors"
    blob = bytearray(file.read_bytes())
    blob[-1] ^= 1
    file.write_bytes(bytes(blob))


def foreign_tensors(folder: Path) -> None:
    blob = b"not safetensors at all"
    (folder / "model.safetensors").write_bytes(blob)
    header = json.loads((folder / "checkpoint.json").read_text())
    header["files"]["model"] = {"size": len(blob), "sha256": module.hashlib.sha256(blob).hexdigest()}
    (folder / "checkpoint.json").write_text(json.dumps(header))


def edit_header(**changes):
    def edit(folder: Path) -> None:
        header = json.loads((folder / "checkpoint.json").read_text())
        (folder / "checkpoint.json").write_text(json.dumps(header | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "bytes where"),
        (flip_a_byte, "does not match checkpoint.json"),
        (foreign_tensors, "not a safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be read (No such file"),
        (lambda folder: (folder / "config.yaml").unlink(), "config.yaml is missing"),
        (lambda folder: (folder / "checkpoint.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "checkpoint.json").write_text("[]"), "schema is None"),
        (edit_header(schema="checkpoint/99"), "schema is 'checkpoint/99', this version reads 'checkpoint/1'"),
        (edit_header(step="12"), "step missing or of the wrong type"),
        (edit_header(files={"model": 3}), "holds no 'model' tensors"),
    ],
)
def test_damage_is_named_in_one_sentence(saved, damage, words):
    damage(saved)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved)
    message = str(caught.value)
    assert str(saved) in message and words in message and "\n" not in message


def test_a_config_of_something_else_is_an_error(saved):
    with pytest.raises(ConfigError, match=r"config\.yaml:1: unknown key width"):
        load_checkpoint(saved).config(OtherConfig)


def test_a_flat_state_dict_is_a_programming_error(tmp_path):
    with pytest.raises(ValueError, match="tensors must be"):
        save_checkpoint(tmp_path / "c", {"model": torch.zeros(1)}, Config(), 0)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "file" / "c", tensors(), Config(), 0)


def test_a_folder_of_other_things_is_never_replaced(tmp_path, saved):
    """`--out checkpoints` by mistake: replacing deletes what was there."""
    for name in ("home", "checkpoints"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "precious").write_text("years of work")
        with pytest.raises(OutputError, match="holds other things than a checkpoint, which would be lost"):
            save_checkpoint(tmp_path / name, tensors(), Config(), 0)
        assert (tmp_path / name / "inner" / "precious").read_text() == "years of work"
    assert not list(tmp_path.glob("*.tmp*"))
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", saved):
        save_checkpoint(folder, tensors(), Config(), 1)
        assert load_checkpoint(folder).step == 1
