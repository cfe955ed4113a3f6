"""Which person belongs to a prepared face: one that was trained on a fit with the same expression units."""

import json
import shutil

import numpy as np
import pytest
import torch

from inference.arbitrary_video import find_or_train_identity
from inference.identity import check_own_correction, find_identity, has_correction
from inference.jobs import ArbitraryJob
from inference.prepared import open_source
from modules.commons.checkpoint import load_checkpoint, save_checkpoint
from modules.commons.errors import CheckpointError
from modules.commons.progress import silent
from tasks.configs import RADNeRFTaskConfig
from tests.support.tiny_run import own_folders, tiny_run

CORRECTION = np.random.default_rng(0).normal(scale=0.1, size=(80, 52)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture
def persons(run, tmp_path):
    """Copies of the trained person: as it is, and as if its clip had been fitted with a correction."""
    saved = load_checkpoint(run.identity)
    tensors = {**saved.model, "correction": torch.from_numpy(CORRECTION)}
    shutil.copytree(run.identity, tmp_path / "b_usual")
    save_checkpoint(
        tmp_path / "a_corrected", {"model": tensors}, saved.config(RADNeRFTaskConfig), saved.step, saved.extra,
        face_model_version=saved.face_model_version,
    )  # fmt: skip
    return tmp_path


def test_the_person_with_the_clips_own_units_is_found(run, persons):
    record = json.loads((run.identity / "checkpoint.json").read_text())
    key = (record["extra"]["source_sha256"], record["face_model_version"], None, 0, persons)
    assert find_identity(*key) == persons / "b_usual"
    assert find_identity(*key, correction=CORRECTION) == persons / "a_corrected"
    nearly = CORRECTION + np.float32(1e-4)  # the same fit on another machine
    assert find_identity(*key, correction=nearly) == persons / "a_corrected"
    assert find_identity(*key, correction=-CORRECTION) is None
    assert has_correction(persons / "a_corrected", CORRECTION) and not has_correction(persons / "b_usual", CORRECTION)


def test_a_named_person_of_this_face_must_have_its_units_and_others_need_not(run, persons):
    extra = json.loads((run.identity / "checkpoint.json").read_text())["extra"]
    sha256 = extra["source_sha256"]
    check_own_correction(persons / "b_usual", sha256, 0, None)
    check_own_correction(persons / "a_corrected", sha256, 0, CORRECTION)
    for other in (("0" * 64, 0), (sha256, 1)):
        check_own_correction(persons / "a_corrected", *other, None)
    for person, correction in (("a_corrected", None), ("b_usual", CORRECTION)):
        with pytest.raises(CheckpointError, match=r"another correction .* fit\.correct_expression as then") as error:
            check_own_correction(persons / person, sha256, 0, correction)
        assert "\n" not in str(error.value)
    with own_folders(run.root):
        source = open_source(run.clip, silent)
        usual, corrected = (
            ArbitraryJob.from_mapping(run.job(head_ckpt=persons / name)) for name in ("b_usual", "a_corrected")
        )
        named = find_or_train_identity(usual, source, silent)
        assert named.checkpoint == persons / "b_usual" and not named.trained_now
        with pytest.raises(CheckpointError, match="another correction"):
            find_or_train_identity(corrected, source, silent)


def test_a_corrupt_person_is_said(run, persons):
    record = json.loads((run.identity / "checkpoint.json").read_text())
    (persons / "a_corrected" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        find_identity(record["extra"]["source_sha256"], record["face_model_version"], None, 0, persons)
