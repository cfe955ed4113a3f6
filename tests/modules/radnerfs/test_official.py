"""GeneFace++'s renderer checkpoints become portraits that show the same picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modules.commons.errors import CheckpointError, ConfigError
from modules.radnerfs.official import (
    KIND_OF_TASK,
    imported_config,
    is_portrait,
    load_portrait,
    save_portrait,
)
from modules.radnerfs.portrait import official_names
from tests.modules.radnerfs import golden, golden_portraits
from tests.support.official_portraits import (
    hparams_of,
    small_config,
    small_portrait,
    write_official,
    write_small_portrait,
)

KINDS = tuple(KIND_OF_TASK.values())


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_the_may_checkpoints_are_told_by_their_tensors(kind):
    manifest, hparams = golden.load_json(f"manifest_radnerf_{kind}"), golden.load_json("hparams_resolved")[kind]
    tensors = {key: torch.empty(entry["shape"], device="meta") for key, entry in manifest.items()}
    config = imported_config(tensors, hparams)
    assert config.portrait == golden_portraits.CONFIGS[kind]
    assert config.video_id == "May" and KIND_OF_TASK[config.task_cls] == kind
    assert config.smooth_camera_path and config.camera_kernel == 7


def check_import(kind, tmp_path, legacy) -> None:
    """Golden weights in GeneFace++'s format, read and imported, show GeneFace++'s picture."""
    portrait = golden_portraits.golden_portrait(kind)
    hparams = golden.load_json("hparams_resolved")[kind]
    write_official(tmp_path / "may", official_names(portrait.state_dict()), hparams, legacy=legacy)
    official = load_portrait(tmp_path / "may")
    save_portrait(official, tmp_path / "ours", hparams)
    imported = load_portrait(tmp_path / "ours")
    for key, value in portrait.state_dict().items():
        assert torch.equal(imported.portrait.state_dict()[key], value), key
    golden_portraits.assert_golden_picture(kind, imported.portrait)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "legacy"), [("torso", True), ("head_sr", True), ("torso_sr", False)])
def test_imported_checkpoints_show_the_originals_pictures(kind, legacy, tmp_path):
    check_import(kind, tmp_path, legacy)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("legacy", [True, False])
def test_small_checkpoints_come_back_as_they_were(kind, legacy, tmp_path):
    portrait = write_small_portrait(tmp_path / "run", kind, legacy=legacy)
    official = load_portrait(tmp_path / "run")
    assert official.config.portrait == small_config(kind) and official.portrait.kind == kind
    assert official.step == 250000 and official.source.name == "model_ckpt_steps_250000.ckpt"
    save_portrait(official, tmp_path / "ours", hparams_of(kind))
    imported = load_portrait(tmp_path / "ours")
    assert imported.config == official.config and imported.step == 250000
    for key, value in portrait.state_dict().items():
        assert torch.equal(official.portrait.state_dict()[key], value), key
        assert torch.equal(imported.portrait.state_dict()[key], value), key
    assert is_portrait(tmp_path / "run") and is_portrait(tmp_path / "ours") and not is_portrait(tmp_path)


def test_a_configuration_that_lacks_keys_is_said_so(caplog):
    hparams = hparams_of("head")
    del hparams["max_steps"]
    with caplog.at_level("WARNING"):
        config = imported_config(official_names(small_portrait("head").state_dict()), hparams)
    assert "lacks max_steps" in caplog.text and config.portrait.head.render.max_steps == 16


WRONG = {
    "a task of another kind": ({"task_cls": "tasks.radnerfs.radnerf_sr.RADNeRFTask"}, "trains a head_sr, and its tens"),
    "an unknown task": ({"task_cls": "tasks.mine.Task"}, "none of the four"),
    "another grid": ({"grid_type": "densegrid"}, "grid_type is densegrid"),
    "another interpolation": ({"grid_interpolation_type": "cubic"}, "grid_interpolation_type is cubic"),
    "another table": ({"log2_hashmap_size": 9}, r"head\.position_embedder\.embeddings has the shape .*asks for"),
    "a table of millions": ({"log2_hashmap_size": 19, "desired_resolution": 1024}, r"asks for \[\d{6,}, 2\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_configurations_that_contradict_the_tensors(case, tmp_path):
    changes, message = WRONG[case]
    state = official_names(small_portrait("head").state_dict())
    write_official(tmp_path, state, {**hparams_of("head"), **changes})
    with pytest.raises(CheckpointError, match=message) as caught:
        load_portrait(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"), [("bound", "wide", "bound must be a number"), ("camera_offset", 3, "three numbers")]
)
def test_values_of_another_type(key, value, message):
    with pytest.raises(ConfigError, match=message):
        imported_config(official_names(small_portrait("head").state_dict()), {**hparams_of("head"), key: value})


def test_other_networks_and_incomplete_ones(tmp_path):
    write_official(tmp_path / "other", {"vae.weight": torch.zeros(2)}, hparams_of("head"))
    with pytest.raises(CheckpointError, match="not a head or torso checkpoint of GeneFace"):
        load_portrait(tmp_path / "other")
    state = official_names(small_portrait("torso").state_dict())
    del state["torso_deform_net.net.1.weight"]
    write_official(tmp_path / "part", state, hparams_of("torso"))
    with pytest.raises(CheckpointError, match="not a head or torso checkpoint") as caught:
        load_portrait(tmp_path / "part")
    assert "\n" not in str(caught.value)
    (tmp_path / "part" / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_portrait(tmp_path / "part")


def test_an_imported_one_whose_tensors_were_exchanged(tmp_path):
    write_small_portrait(tmp_path / "run", "head")
    official = load_portrait(tmp_path / "run")
    other = replace(official, config=replace(official.config, portrait=small_config("torso")))
    save_portrait(other, tmp_path / "ours", {})
    with pytest.raises(CheckpointError, match="tensors and configuration disagree"):
        load_portrait(tmp_path / "ours")
