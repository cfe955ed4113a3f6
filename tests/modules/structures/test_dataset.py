"""NeRFDataset: round trip, images, checks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.structures.cameras import CameraIntrinsics
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.dataset import NeRFDataset, block_folds, last_eleventh, write_crop
from modules.structures.face_coeffs import FaceModelCoeffs

SIZE = 256


def make_dataset(folder, n_frames=22, rows=(1, 3, 21)) -> NeRFDataset:
    rng = np.random.default_rng(0)
    coeffs = FaceModelCoeffs(
        identity=rng.normal(size=80).astype(np.float32),
        expression=rng.random((n_frames, 52)).astype(np.float32),
        euler=rng.normal(size=(n_frames, 3)).astype(np.float32),
        translation=rng.normal(size=(n_frames, 3)).astype(np.float32),
        valid=np.ones(n_frames, bool),
        residual=np.full(n_frames, 0.03, np.float32),
        camera=CameraIntrinsics.for_frame(640, 360),
        face_model_version="test/1",
    )
    stored = np.array(rows, dtype=np.int64)
    return NeRFDataset(
        video_id="clip",
        source_sha256="0" * 64,
        coeffs=coeffs,
        crop_metadata=CropMetadata((CropRegion(100.0, 80.0, 200.0, 0.1),), (360, 640), SIZE),
        condition_mean=np.zeros(204, np.float32),
        condition_std=np.ones(204, np.float32),
        rows=stored,
        is_train=last_eleventh(100).is_train[np.clip(stored * 5, 0, 99)],
        landmarks_px=rng.random((len(rows), 478, 2)).astype(np.float32),
        occlusion=np.zeros(len(rows), np.float32),
        crops_dir=folder / "crops",
    )


def test_round_trip_keeps_every_number(tmp_path):
    dataset = make_dataset(tmp_path)
    dataset.save(tmp_path / "trainval_dataset.npz")
    back = NeRFDataset.load(tmp_path / "trainval_dataset.npz")
    for name in ("condition_mean", "condition_std", "rows", "is_train", "landmarks_px", "occlusion"):
        np.testing.assert_array_equal(getattr(back, name), getattr(dataset, name))
    for name in ("identity", "expression", "euler", "translation", "valid", "residual"):
        np.testing.assert_array_equal(getattr(back.coeffs, name), getattr(dataset.coeffs, name))
    assert (
        back.crop_metadata.to_json() == dataset.crop_metadata.to_json() and back.coeffs.camera == dataset.coeffs.camera
    )
    assert (back.video_id, back.source_sha256, back.crops_dir) == ("clip", "0" * 64, tmp_path / "crops")


def test_a_correction_survives(tmp_path):
    dataset = make_dataset(tmp_path)
    dataset.save(tmp_path / "trainval_dataset.npz")
    assert NeRFDataset.load(tmp_path / "trainval_dataset.npz").coeffs.correction is None
    correction = np.random.default_rng(1).normal(size=(80, 52)).astype(np.float32)
    replace(dataset, coeffs=replace(dataset.coeffs, correction=correction)).save(tmp_path / "trainval_dataset.npz")
    back = NeRFDataset.load(tmp_path / "trainval_dataset.npz")
    np.testing.assert_array_equal(back.coeffs.correction, correction)


def test_a_mis_shaped_correction_is_refused(tmp_path):
    path = tmp_path / "trainval_dataset.npz"
    make_dataset(tmp_path).save(path)
    with np.load(path) as data:
        arrays = {**data, "correction": np.ones((80, 51), np.float32)}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"a correction of these units must be \(80, 52\), got \(80, 51\)"):
        NeRFDataset.load(path)


def test_split_is_genefaces():
    assert last_eleventh(25).is_train.tolist() == [True] * 20 + [False] * 5
    assert last_eleventh(22).is_train.sum() == 20


def test_crops_and_masks_survive(tmp_path):
    dataset = make_dataset(tmp_path)
    dataset.crops_dir.mkdir()
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    occluder = x > 128
    write_crop(dataset.crops_dir, 3, image, occluder)
    write_crop(dataset.crops_dir, 1, image, np.zeros_like(occluder))
    assert np.abs(dataset.crop(1).astype(int) - image).mean() < 1.0  # red stays red: no channel swap
    np.testing.assert_array_equal(dataset.occluder(1), occluder)
    assert dataset.occluder(0) is None and dataset.hidden(0) is None
    write_crop(dataset.crops_dir, 3, image, np.full(occluder.shape, 0.3, np.float32))
    soft, hidden = dataset.occluder(1), dataset.hidden(1)
    assert soft is not None and hidden is not None
    assert np.abs(soft - 0.3).max() < 0.003 and hidden.all(), "a third of an occluder is too much to learn from"
    write_crop(dataset.crops_dir, 3, image, np.full(occluder.shape, 0.1, np.float32))
    hidden = dataset.hidden(1)
    assert hidden is not None and not hidden.any()
    assert not list(dataset.crops_dir.glob("*.tmp*"))


def test_missing_crop_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="prepare the video again"):
        make_dataset(tmp_path).crop(0)


def test_foreign_file_is_refused(tmp_path):
    path = tmp_path / "trainval_dataset.npz"
    np.savez(path, schema=np.array("something/9"))
    with pytest.raises(ValueError, match=r"holds schema something/9, expected radnerf-dataset"):
        NeRFDataset.load(path)


@pytest.mark.parametrize("rows", [(), (3, 1), (1, 1), (1, 22)])
def test_rows_must_ascend_within_the_clip(tmp_path, rows):
    with pytest.raises(ValueError, match="ascend within"):
        make_dataset(tmp_path, rows=rows)


def test_arrays_must_agree(tmp_path):
    with pytest.raises(ValueError, match="disagree"):
        replace(make_dataset(tmp_path), occlusion=np.zeros(2, np.float32))


def test_inside_frame_matches_a_loop(tmp_path):
    dataset = make_dataset(tmp_path)
    inside = dataset.inside_frame(0)
    frame_from_crop = dataset.crop_metadata.frame_from_crop(1)
    for row, column in [(0, 0), (0, 255), (255, 0), (255, 255), (128, 128), (40, 200), (10, 120)]:
        x, y, _ = frame_from_crop @ np.array([column + 0.5, row + 0.5, 1.0])
        assert inside[row, column] == (0 < x < 640 and 0 < y < 360)
    assert 0 < inside.mean() < 1


def test_crop_camera_sees_the_same_pixels(tmp_path):
    dataset = make_dataset(tmp_path)
    point = np.array([0.3, -0.2, 9.0])
    on_frame = dataset.coeffs.camera.matrix() @ point
    on_crop = dataset.camera_matrix(1) @ point
    moved = dataset.crop_metadata.crop_from_frame(3) @ (on_frame / on_frame[2])
    np.testing.assert_allclose(on_crop[:2] / on_crop[2], moved[:2], atol=1e-9)


# Splits.


@pytest.mark.parametrize("count", [0, 1, 10, 11, 12, 22, 109, 110])
def test_the_last_eleventh_covers_the_clip_and_comes_last(count):
    split = last_eleventh(count)
    np.testing.assert_array_equal(split.is_held_out, ~split.is_train)
    assert split.is_train.tolist() == sorted(split.is_train, reverse=True) and len(split.is_train) == count
    assert split.is_train.sum() == count // 11 * 10
    assert count == 0 or split.is_held_out.any(), "at least a frame is held out"


@st.composite
def frame_times(draw):
    """Rising times, some frames missing, the rate changing."""
    steps = draw(st.lists(st.sampled_from([0.02, 1 / 30, 0.04, 0.1, 0.7, 3.0]), max_size=120))
    return draw(st.sampled_from([0.0, 5.0])) + np.cumsum([0.0, *steps])


@given(frame_times(), st.integers(1, 7), st.sampled_from([0.0, 0.2, 0.5]))
def test_folds_cover_the_clip_without_overlap_and_guard_what_they_hold_out(times, count, guard):
    splits = block_folds(times, count, guard)
    assert len(splits) == count
    held_out = np.array([split.is_held_out for split in splits])
    assert (held_out.sum(axis=0) == 1).all(), "every frame is held out once"
    sizes = held_out.sum(axis=1)
    assert sizes.max() - sizes.min() <= 1
    for split in splits:
        rows = np.flatnonzero(split.is_held_out)
        assert (np.diff(rows) == 1).all(), "in one stretch"
        for row, time in enumerate(times):
            distance = np.abs(times[rows] - time).min() if len(rows) else np.inf
            is_near = distance < guard - 1e-9
            assert not (split.is_train[row] and split.is_held_out[row])
            if is_near:
                assert not split.is_train[row]
            elif distance > guard + 1e-9:
                assert split.is_train[row], "what is far enough is learnt from"


def test_guards_are_half_a_second_either_side():
    times = np.arange(250) / 25
    for number, split in enumerate(block_folds(times)):
        first, last = 50 * number, 50 * number + 49
        assert np.flatnonzero(split.is_held_out).tolist() == list(range(first, last + 1))
        neither = np.flatnonzero(~split.is_train & ~split.is_held_out)
        expected = [row for row in range(250) if first - 12 <= row < first or last < row <= last + 12]
        assert neither.tolist() == expected, "12 frames of 40 ms lie less than 0.5 s away"


def test_a_gap_in_time_is_guard_enough():
    times = np.concatenate([np.arange(10) / 25, 60 + np.arange(10) / 25])
    first, second = block_folds(times, 2)
    assert first.is_train.sum() == second.is_train.sum() == 10


def test_no_frames_make_empty_folds():
    assert [split.is_train.size for split in block_folds(np.zeros(0))] == [0] * 5
