"""GeneFace++'s datasets become ours, translations by the convention that its files keep."""

from __future__ import annotations

import os

import numpy as np
import pytest

from modules.commons.errors import CheckpointError
from modules.radnerfs.official_dataset import is_official_dataset, load_portrait_dataset, read_official_dataset
from modules.structures.cameras import CameraIntrinsics
from modules.structures.portrait_dataset import PortraitDataset
from tests.support.official_portraits import official_dataset


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "May").mkdir()
    np.save(tmp_path / "May" / "trainval_dataset.npy", official_dataset())
    return tmp_path / "May"


def test_a_dataset_comes_over_complete(folder):
    values, dataset = official_dataset(), load_portrait_dataset(folder)
    assert dataset.video_id == "May" and len(dataset) == 22 and dataset.face_model_version == "bfm-"
    assert dataset.speech_extractor == "hubert-large-ls960-ft" and dataset.correction is None
    for key, mine in (
        ("id", dataset.identity), ("exp", dataset.expression), ("euler", dataset.euler), ("bg_img", dataset.background),
        ("eye_area_percent", dataset.eye_area), ("hubert", dataset.speech), ("mel", dataset.mel), ("f0", dataset.f0_hz),
    ):  # fmt: skip
        np.testing.assert_array_equal(mine, values[key])
    samples = dataset.samples
    assert samples.rows.tolist() == list(range(22)) and int(samples.is_train.sum()) == 20
    assert samples.frame_files[3].endswith("com_imgs/00000003.jpg") and samples.lip_rect[0].tolist() == [4, 8, 7, 11]
    assert samples.torso_files[21].endswith("inpaint_torso_imgs/00000021.png")
    assert dataset.camera == CameraIntrinsics.geneface(16)


def test_translations_are_kept_as_fitted_and_given_back_as_stored(folder):
    values, dataset = official_dataset(), load_portrait_dataset(folder)
    assert -11 < float(values["trans"][:, 2].mean()) < -9 and abs(float(dataset.translation[:, 2].mean())) < 1
    np.testing.assert_allclose(dataset.translation[:, 2], values["trans"][:, 2] + 10, atol=1e-5)
    np.testing.assert_allclose(dataset.stored_translation, values["trans"], atol=1e-5)
    poses = np.array([s["c2w"] for s in values["train_samples"] + values["val_samples"]])
    np.testing.assert_allclose(dataset.camera_poses(), poses, atol=1e-5)


def test_our_file_holds_the_same(folder, tmp_path):
    dataset = load_portrait_dataset(folder)
    dataset.save(tmp_path / "portrait_dataset.npz")
    again = load_portrait_dataset(tmp_path / "portrait_dataset.npz")
    assert again.samples.head_files == dataset.samples.head_files and again.camera == dataset.camera
    for name in ("identity", "translation", "background", "speech", "f0_hz"):
        np.testing.assert_array_equal(getattr(again, name), getattr(dataset, name))
        assert getattr(again, name).dtype == getattr(dataset, name).dtype
    assert [file.name for file in tmp_path.iterdir() if "tmp" in file.name] == []
    assert is_official_dataset(folder) and not is_official_dataset(tmp_path)


def test_translations_of_another_convention_are_refused(folder):
    values = official_dataset()
    values["trans"][:, 2] += 10
    np.save(folder / "trainval_dataset.npy", values)
    with pytest.raises(CheckpointError, match=r"its trans \(z about -?0\.\d\) and its c2w are 1 apart"):
        load_portrait_dataset(folder)


WRONG = {
    "no exp": (lambda v: v.pop("exp"), "lacks 'exp'"),
    "other exp": (
        lambda v: v.update(exp=np.zeros((22, 52), np.float32)),
        r"exp must be finite numbers of .*\[-1, 64\]",
    ),
    "nan": (lambda v: v["euler"].__setitem__((0, 0), np.nan), "euler must be finite"),
    "text": (lambda v: v.update(f0=np.array(["a"])), "f0 must hold numbers"),
    "shorter": (lambda v: v.update(euler=v["euler"][:5]), "coefficients disagree"),
    "samples": (lambda v: v.update(val_samples=[1, 2]), "val_samples must be a list of samples"),
    "row": (lambda v: v["train_samples"][0].update(idx=99), "samples name rows up to 99"),
    "outside": (
        lambda v: v["val_samples"][0].update(gt_img_fname="../../etc/passwd"),
        "leads out of the data's folders",
    ),
    "absolute": (lambda v: v["val_samples"][0].update(head_img_fname="/etc/passwd"), "leads out of"),
    "rect": (lambda v: v["val_samples"][0].update(lip_rect=[1, 2, 3]), "not a dataset of GeneFace"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_contents_are_refused_in_one_sentence(case, folder):
    values = official_dataset()
    change, message = WRONG[case]
    change(values)
    np.save(folder / "trainval_dataset.npy", values)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_portrait_dataset(folder)
    assert "\n" not in str(caught.value)


class Payload:
    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_dataset_that_would_run_a_command_is_refused(folder, tmp_path):
    mark = tmp_path / "ran"
    np.save(folder / "trainval_dataset.npy", {**official_dataset(), "extra": Payload(mark)})
    with pytest.raises(CheckpointError, match=r"asks for \w+\.system"):
        read_official_dataset(folder / "trainval_dataset.npy")
    assert not mark.exists()


def test_other_files(tmp_path):
    np.save(tmp_path / "list.npy", np.array([1, "a"], dtype=object))
    with pytest.raises(CheckpointError, match="holds a ndarray, not GeneFace"):
        load_portrait_dataset(tmp_path / "list.npy")
    np.savez(tmp_path / "other.npz", schema=np.array("radnerf-dataset/2"))
    with pytest.raises(CheckpointError, match="schema radnerf-dataset/2, expected portrait-dataset/2"):
        load_portrait_dataset(tmp_path / "other.npz")
    with pytest.raises(CheckpointError, match="import it again"):
        load_portrait_dataset(tmp_path / "none.npz")
    with pytest.raises(CheckpointError, match=r"holds neither portrait_dataset\.npz nor"):
        load_portrait_dataset(tmp_path)
    with pytest.raises(ValueError, match="expected portrait-dataset"):
        PortraitDataset.load(tmp_path / "other.npz")
