"""The clip behind a person: which frames are shown, what their crops are, and what is said when it is not there."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.person_clip import (
    PORTRAIT_SIZE,
    CropStore,
    open_person_clip,
    portrait_camera,
    portrait_crops,
    portrait_frame,
    pose_rows,
)
from modules.commons.checkpoint import load_checkpoint, save_checkpoint
from modules.commons.errors import CheckpointError, ConfigError
from modules.commons.progress import silent
from modules.face_model.projection import project
from modules.structures.cameras import CameraIntrinsics
from modules.structures.crops import CropMetadata, CropRegion, transform_points
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.video.colour import rgb_from_planes
from tasks.configs import RADNeRFTaskConfig
from tests.support.tiny_run import own_folders, tiny_run


def clip_times(count: int, rate: float = 25.0):
    return np.arange(count) / rate


def test_frames_in_order_then_back_and_forth():
    assert pose_rows("nearest", clip_times(4), 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert pose_rows("nearest", clip_times(4), 3).tolist() == [0, 1, 2]
    assert pose_rows("2-5", clip_times(9), 7).tolist() == [2, 3, 4, 3, 2, 3, 4]
    assert pose_rows("static", clip_times(4), 5).tolist() == [0] * 5
    assert pose_rows("3-4", clip_times(4), 2).tolist() == [3, 3]
    assert pose_rows("nearest", clip_times(1), 2).tolist() == [0, 0]


def test_other_frame_rates_keep_their_speed():
    assert pose_rows("nearest", clip_times(9, 50), 6).tolist() == [0, 2, 4, 6, 8, 6]
    assert pose_rows("nearest", clip_times(9, 12.5), 6).tolist() == [0, 0, 1, 1, 2, 2]
    film = pose_rows("nearest", clip_times(240, 24000 / 1001), 200)
    assert np.abs(film / (24000 / 1001) - np.arange(200) / 25).max() < 0.022


def test_frames_that_the_clip_does_not_have():
    with pytest.raises(ConfigError, match=r"--drv_pose 2-11: the person's clip has 10 frames"):
        pose_rows("2-11", clip_times(10), 5)


@given(st.integers(1, 60), st.integers(1, 200), st.floats(5, 120), st.data())
def test_rows_stay_in_the_stretch_and_never_jump(count, wanted, rate, data):
    first = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(first + 1, count))
    rows = pose_rows(f"{first}-{stop}", clip_times(count, rate), wanted)
    assert rows[0] == first and rows.min() >= first and rows.max() < stop and len(rows) == wanted
    assert np.abs(np.diff(rows)).max(initial=0) <= np.ceil(rate / 25) + 1


@given(st.floats(-300, 900), st.floats(-300, 700), st.floats(20, 2000), st.floats(-1, 1))
def test_portraits_show_the_frame_only(x, y, side, angle):
    region = CropRegion(x, y, side, angle)
    crops = portrait_crops(CropMetadata((region,), (360, 640), 256))
    (shown,) = crops.regions
    box = shown.bounding_box()
    assert crops.crop_size == PORTRAIT_SIZE and shown.angle_rad == 0 and shown.side == min(side, 360)
    assert box.x0 >= -1e-9 and box.y0 >= -1e-9 and box.x1 <= 640 + 1e-9 and box.y1 <= 360 + 1e-9
    if angle == 0 and region.bounding_box().pixel_bounds(640, 360) and box.iou(region.bounding_box()) > 0.999:
        assert shown.center_x == pytest.approx(x, abs=1) and shown.center_y == pytest.approx(y, abs=1)


def test_the_portraits_camera_sees_points_where_the_crop_has_them():
    camera = CameraIntrinsics.for_frame(640, 360)
    region = CropRegion(411.0, 180.0, 333.0)
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(1, 50, 3, generator=generator)
    euler, translation = torch.tensor([[0.1, -0.3, 0.2]]), torch.tensor([[0.4, 0.1, -3.0]])
    in_frame = project(points, euler, translation, camera)[0][0].numpy()
    seen = project(points, euler, translation, portrait_camera(camera, region.crop_from_frame(PORTRAIT_SIZE)))[0][0]
    np.testing.assert_allclose(seen, transform_points(region.crop_from_frame(PORTRAIT_SIZE), in_frame), atol=2e-2)


def test_a_picture_survives_as_a_frame():
    rgb = np.zeros((PORTRAIT_SIZE, PORTRAIT_SIZE, 3), np.uint8)
    rgb[:, :256], rgb[:, 256:, 0], rgb[..., 1] = (200, 90, 60), 30, np.arange(512)[:, None] // 3 + 20
    frame = portrait_frame(5, rgb)
    assert float(frame.time_s) == 0.2 and frame.size_hw == (512, 512)
    error = np.abs(rgb_from_planes(frame).astype(int) - rgb)
    assert error[:, 4:250].max() <= 3 and error[:, 262:-4].max() <= 3


# ---- a real person ----


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


def test_the_clip_of_a_trained_person(run):
    source = open_person_clip(run.identity)
    assert source.video == run.clip and len(source) == 40 == len(source.coeffs)
    assert (source.info.width, source.info.height) == (640, 360)


def test_crops_are_kept_as_files_in_any_order(run, tmp_path):
    source = open_person_clip(run.identity)
    seen = []
    rows = np.array([7, 3, 3, 9])
    crops = portrait_crops(source.crops)
    store = CropStore.fill(source, crops, rows, tmp_path, lambda what, done, total: seen.append((done, total)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000003.jpg", "000007.jpg", "000009.jpg"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert store.crop(9).shape == (512, 512, 3)
    with pytest.raises(ValueError, match="row 4"):
        store.crop(4)
    first = CropStore.fill(source, crops, np.array([3]), tmp_path, silent).crop(3)
    np.testing.assert_array_equal(first, store.crop(3))


@pytest.fixture
def moved(run, tmp_path):
    """A copy of the prepared data and of a checkpoint that points to it."""
    shutil.copytree(run.root / "data" / "processed", tmp_path / "data" / "processed")
    person = shutil.copytree(run.identity, tmp_path / "person")
    config = person / "config.yaml"
    config.write_text(config.read_text().replace(str(run.root / "data"), str(tmp_path / "data")))
    (manifest,) = (tmp_path / "data").rglob("manifest.json")
    return person, manifest


def test_missing_tables_say_what_to_run(moved):
    person, manifest = moved
    (manifest.parent / "coeff_fit_mp.npz").unlink()
    with pytest.raises(CheckpointError, match=r"coeff_fit_mp\.npz is missing; prepare it again: python data_gen/runs/"):
        open_person_clip(person)


def test_a_damaged_table_says_what_to_run(moved):
    person, manifest = moved
    (manifest.parent / "hands.npz").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match=r"tables cannot be used .*prepare it again"):
        open_person_clip(person)


@pytest.mark.parametrize("change", ["moved", "other video", "changed", "broken manifest"])
def test_a_lost_video_is_said(moved, run, tmp_path, change):
    person, manifest = moved
    content = json.loads(manifest.read_text())
    other = tmp_path / "other.mp4"
    other.write_bytes(b"something else")
    edits = {
        "moved": {"video": str(tmp_path / "gone.mp4")},
        "other video": {"source_sha256": "0" * 64},
        "changed": {"video": str(other)},
        "broken manifest": {"video": None},
    }
    manifest.write_text(json.dumps({**content, **edits[change]}))
    with pytest.raises(CheckpointError, match="no longer where it was or has changed; prepare it again") as error:
        open_person_clip(person)
    assert "\n" not in str(error.value)


def test_a_video_in_the_raw_folder_is_found_again(moved, run, tmp_path):
    person, manifest = moved
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "video": "gone.mp4"}))
    raw = tmp_path / "data" / "raw" / "videos" / f"{manifest.parent.name}.mp4"
    raw.parent.mkdir(parents=True)
    shutil.copy(run.clip, raw)
    assert open_person_clip(person).video == raw


def test_another_face_model_is_said(moved):
    person, manifest = moved
    path = manifest.parent / "coeff_fit_mp.npz"
    replace(FaceModelCoeffs.load(path), face_model_version="other/1").save(path)
    with pytest.raises(CheckpointError, match=r"fitted with the face model other/1.*; prepare it again"):
        open_person_clip(person)


def test_something_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="not a checkpoint"), own_folders(tmp_path):
        open_person_clip(Path(tmp_path))


def test_a_clip_fitted_with_another_correction_is_said(moved):
    person, manifest = moved
    path = manifest.parent / "coeff_fit_mp.npz"
    correction = np.full((80, 52), 0.2, np.float32)
    coeffs = FaceModelCoeffs.load(path)
    replace(coeffs, correction=correction).save(path)
    with pytest.raises(CheckpointError, match=r"trained with another correction .* fit\.correct_expression") as error:
        open_person_clip(person)
    assert "\n" not in str(error.value)
    saved = load_checkpoint(person)
    tensors = {**saved.model, "correction": torch.from_numpy(correction)}
    settings = (saved.config(RADNeRFTaskConfig), saved.step, saved.extra)
    save_checkpoint(person, {"model": tensors}, *settings, face_model_version=saved.face_model_version)
    model = open_person_clip(person).face_model
    assert model.correction is not None
    np.testing.assert_array_equal(model.correction.numpy(), correction)
    coeffs.save(path)
    with pytest.raises(CheckpointError, match="another correction"):
        open_person_clip(person)
