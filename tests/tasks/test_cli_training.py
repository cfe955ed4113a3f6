"""``tasks/run.py`` on a prepared clip of forty frames: train, go on, start from another person, validate, look."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from modules.commons.checkpoint import load_checkpoint, save_checkpoint
from modules.commons.hparams import parse_hparams
from modules.structures.dataset import NeRFDataset
from tasks import run as command
from tasks.configs import load_any
from tasks.radnerfs import radnerf
from tests.support.tiny_run import STEPS, listening, tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture
def people(run, tmp_path, monkeypatch):
    """A folder of identities of its own, with the tiny run's person as ``first``, and data that may be written to."""
    folder = tmp_path / "identities"
    shutil.copytree(run.identity, folder / "first")
    monkeypatch.setattr(command, "IDENTITIES", folder)
    shutil.copytree(run.root / "data" / "binary", tmp_path / "data" / "binary")
    return folder


def hold_out(data_root, count):
    """The split holds out the clip's end, where her hand covers the mouth: hold out the last clean frames instead."""
    (path,) = data_root.rglob("trainval_dataset.npz")
    dataset = NeRFDataset.load(path)
    replace(dataset, is_train=np.arange(len(dataset)) < len(dataset) - count).save(path)


def flags(run, people, exp_name, *more, **hparams):
    record = json.loads((people / "first" / "checkpoint.json").read_text())
    given = {"video_id": record["extra"]["video_id"], "data_root": people.parent / "data", **hparams}
    text = ",".join(f"{key}={value}" for key, value in given.items())
    return ["--exp_name", exp_name, "--hparams", text, *more]


def test_training_by_hand_starting_from_another_person(run, people):
    more = ["--config", str(run.preset)]
    with listening() as said:
        assert command.main(flags(run, people, "second", *more, max_updates=3, init_from=people / "first")) == 0
    taken = [text for _, text in said if "tensors taken from" in text]
    assert taken and not taken[0].startswith("0 ")
    assert load_checkpoint(people / "second", parts=()).step == 3
    saved = load_any(people / "second" / "config.yaml")
    assert saved.max_updates == 3 and str(saved.init_from) == str(people / "first")
    assert list((people.parent / "data" / "training" / "second" / "tb_logs").iterdir()), "scalars for TensorBoard"


def test_an_interrupted_run_goes_on_unless_reset(run, people):
    """The state is written while training; one is left behind here as by a run that was killed at step 2."""
    more = ["--config", str(run.preset)]
    arguments = flags(run, people, "third", *more, max_updates=4, state_interval=2)
    config = load_any(run.preset, parse_hparams(arguments[3]))
    work = radnerf.work_dir(config, people / "third")

    def killed(what, done, total):
        if what == "train" and (work / "state" / "checkpoint.json").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        radnerf.train(config, people / "third", killed)
    state = load_checkpoint(work / "state")
    assert 0 < state.step <= 4 and not (people / "third").exists()
    with listening() as said:
        assert command.main(arguments) == 0
    assert any(text == f"going on from step {state.step}" for _, text in said)
    assert not (work / "state").exists()
    save_checkpoint(work / "state", state.tensors, config, state.step, face_model_version=state.face_model_version)
    with listening() as said:
        assert command.main([*arguments, "--reset"]) == 0
    assert not any("going on" in text for _, text in said)
    assert load_checkpoint(people / "third", parts=()).step == 4


def test_validation_scores_held_out_frames_and_shows_them(run, people):
    hold_out(people.parent / "data", 3)
    assert command.main(flags(run, people, "first", "--validate")) == 0
    folder = people.parent / "data" / "training" / "first" / "evaluation"
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["frames"] == 3 and 10 < scores["psnr"] < 60 and 10 < scores["retrieval_psnr"] < 60
    assert scores["sharpness"] > 0
    strips = list(folder.glob("*.png"))
    assert strips and all(cv2.imread(str(path)) is not None for path in strips)


def test_infer_only_writes_pictures(run, people):
    assert command.main(flags(run, people, "first", "--infer")) == 0
    folder = people.parent / "data" / "training" / "first"
    assert [path.name for path in folder.iterdir()] == ["pictures"] and list((folder / "pictures").rglob("*.png"))
    assert load_checkpoint(people / "first", parts=()).step == STEPS


def test_a_broken_person_is_one_sentence(run, people, caplog):
    (people / "first" / "model.safetensors").write_bytes(b"broken")
    assert command.main(flags(run, people, "first", "--validate")) == 1
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert "model.safetensors" in message and "\n" not in message
