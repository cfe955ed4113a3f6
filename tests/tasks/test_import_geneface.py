"""`python tasks/import_geneface.py`: what GeneFace++ left becomes this project's, whole folders at once."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from modules.audio2motion.official import load_official
from modules.audio2motion.speech_vae import SpeechVAEConfig, build_speech_vae
from modules.audio2motion.vae import FlowVAEConfig
from modules.commons.checkpoint import load_checkpoint
from modules.radnerfs.official import load_portrait
from modules.radnerfs.official_dataset import load_portrait_dataset
from tasks import import_geneface
from tests.support.official_portraits import hparams_of, official_dataset, write_official, write_small_portrait

TINY = SpeechVAEConfig(
    n_audio=8, n_condition=6, vae=FlowVAEConfig(hidden=8, latent=4, encoder_layers=2, decoder_layers=2, flow_hidden=8)
)


def write_motion(folder):
    torch.manual_seed(0)
    model = build_speech_vae(TINY).eval()
    write_official(folder, model.state_dict(), {"motion_type": "exp", "use_pitch": True}, step=400000)
    return model


def run(*arguments) -> int:
    return import_geneface.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", ["head_sr", "torso"])
def test_a_portrait(kind, tmp_path):
    portrait = write_small_portrait(tmp_path / "may", kind)
    assert run(tmp_path / "may", "--out", tmp_path / "ours") == 0
    assert {file.name for file in (tmp_path / "ours").iterdir()} == {
        "model.safetensors", "config.yaml", "checkpoint.json",
    }  # fmt: skip
    imported = load_portrait(tmp_path / "ours").portrait.state_dict()
    assert all(torch.equal(imported[key], value) for key, value in portrait.state_dict().items())
    extra = load_checkpoint(tmp_path / "ours", parts=()).extra
    assert extra["geneface_hparams"]["gui_h"] == 512 and extra["imported_from"].endswith(".ckpt")


def test_an_audio_to_motion_network_speaks_as_before(tmp_path):
    write_motion(tmp_path / "a2m")
    assert run(tmp_path / "a2m" / "model_ckpt_steps_400000.ckpt", "--out", tmp_path / "ours") == 0
    audio = np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32)
    f0 = np.full(24, 150.0, np.float32)
    before, after = load_official(tmp_path / "a2m"), load_official(tmp_path / "ours")
    np.testing.assert_array_equal(after.predict(audio, f0), before.predict(audio, f0))
    assert after.step == 400000 and after.hears_pitch and after.n_audio == 8


def test_everything_below_a_folder(tmp_path):
    root = tmp_path / "theirs"
    write_motion(root / "audio2motion_vae")
    write_small_portrait(root / "motion2video_nerf" / "may_head", "head")
    (root / "May").mkdir()
    np.save(root / "May" / "trainval_dataset.npy", official_dataset())
    assert run(root, "--out", tmp_path / "ours") == 0
    assert load_portrait(tmp_path / "ours" / "motion2video_nerf" / "may_head").portrait.kind == "head"
    assert load_official(tmp_path / "ours" / "audio2motion_vae").step == 400000
    assert len(load_portrait_dataset(tmp_path / "ours" / "May")) == 22


class Payload:
    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def refused(tmp_path, caplog, path) -> str:
    """The one sentence that an import ends with; nothing may be left behind."""
    assert run(path, "--out", tmp_path / "ours") == 1
    assert not (tmp_path / "ours").exists() and not list(tmp_path.glob("*.tmp*"))
    message = caplog.records[-1].getMessage()
    assert message.startswith("error: ") and "\n" not in message
    return message


def test_files_that_would_run_a_command(tmp_path, caplog):
    mark = tmp_path / "ran"
    write_official(tmp_path / "run", {"a": torch.zeros(1)}, {"video_id": "May"})
    for legacy in (True, False):
        file = tmp_path / "run" / "model_ckpt_steps_250000.ckpt"
        saved = {"state_dict": {"model": {"a": torch.zeros(1)}}, "x": Payload(mark)}
        torch.save(saved, file, _use_new_zipfile_serialization=not legacy)
        assert "system, which was refused" in refused(tmp_path, caplog, tmp_path / "run")
    np.save(tmp_path / "trainval_dataset.npy", {"exp": Payload(mark)})
    assert "refused: besides data it asks for" in refused(tmp_path, caplog, tmp_path / "trainval_dataset.npy")
    assert not mark.exists()


def test_truncated_foreign_and_missing(tmp_path, caplog):
    file = write_official(tmp_path / "run", {"discriminator.weight": torch.zeros(500)}, hparams_of("head"))
    assert "is neither an audio-to-motion network nor" in refused(tmp_path, caplog, tmp_path / "run")
    file.write_bytes(file.read_bytes()[:900])
    assert "cannot be read as a checkpoint" in refused(tmp_path, caplog, tmp_path / "run")
    (tmp_path / "empty").mkdir()
    assert "holds neither model_ckpt_steps_*.ckpt nor" in refused(tmp_path, caplog, tmp_path / "empty")
    assert "no such checkpoint" in refused(tmp_path, caplog, tmp_path / "none")


def test_the_original_is_never_replaced(tmp_path, caplog):
    write_small_portrait(tmp_path / "may", "head")
    before = {file.name: file.read_bytes() for file in (tmp_path / "may").iterdir()}
    assert run(tmp_path / "may", "--out", tmp_path / "may") == 1
    assert "give another --out" in caplog.records[-1].getMessage()
    assert {file.name: file.read_bytes() for file in (tmp_path / "may").iterdir()} == before


def test_a_folder_of_other_things_is_never_replaced(tmp_path, caplog):
    """``--out checkpoints`` by mistake."""
    write_small_portrait(tmp_path / "may", "head")
    (tmp_path / "checkpoints" / "identities").mkdir(parents=True)
    (tmp_path / "checkpoints" / "identities" / "anna").write_text("years of work")
    assert run(tmp_path / "may", "--out", tmp_path / "checkpoints") == 1
    assert "holds other things than a checkpoint" in caplog.records[-1].getMessage()
    assert (tmp_path / "checkpoints" / "identities" / "anna").read_text() == "years of work"


def test_importing_again_replaces_the_older_import(tmp_path):
    write_small_portrait(tmp_path / "may", "head")
    for _ in range(2):
        assert run(tmp_path / "may", "--out", tmp_path / "ours") == 0
    assert json.loads((tmp_path / "ours" / "checkpoint.json").read_text())["step"] == 250000
