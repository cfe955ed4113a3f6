"""Choosing the frames to learn from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_gen.runs import binarizer_nerf
from data_gen.runs.binarizer_nerf import (
    BinarizerConfig,
    binarize,
    choose_rows,
    crop_landmarks,
    steady_coverage,
    usable_frames,
    write_crops,
)
from data_gen.utils.process_video.crop_utils import save_crop_metadata
from modules.commons.progress import silent
from modules.commons.workspace import VideoWorkspace
from modules.radnerfs.condition import ConditionStatistics, condition_from_expression
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.dataset import NeRFDataset, last_eleventh
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionTable
from tests.support.synthetic_head import SyntheticSpeaker


def make_choice(n_frames=110, **settings):
    rng = np.random.default_rng(0)
    condition = rng.normal(size=(n_frames, 204)).astype(np.float32)
    usable = np.ones(n_frames, bool)
    usable[[3, 105]] = False
    config = BinarizerConfig(**settings)
    euler, quality = rng.normal(size=(n_frames, 3)).astype(np.float32), np.ones(n_frames, np.float32)
    return choose_rows(condition, euler, usable, quality, last_eleventh(n_frames), config)


def test_rows_are_split_limited_and_usable():
    rows, is_train = make_choice(max_train_frames=40, max_val_frames=4)
    assert (np.diff(rows) > 0).all() and not {3, 105} & set(rows.tolist())
    assert is_train.sum() == 40 and (~is_train).sum() == 4
    assert rows[is_train].max() < 100 <= rows[~is_train].min()


def test_short_clips_are_stored_whole():
    rows, is_train = make_choice(max_train_frames=400, max_val_frames=40)
    assert len(rows) == 108 and is_train.sum() == 99


@pytest.fixture
def tables():
    speaker = SyntheticSpeaker(4)
    coeffs = speaker.coeffs(60)
    landmarks = speaker.landmarks(coeffs)
    occlusion = OcclusionTable.nothing(60, 8)
    return landmarks, occlusion, coeffs


def test_unseen_badly_fitted_and_covered_frames_are_left_out(tables):
    landmarks, occlusion, coeffs = tables
    valid = landmarks.valid.copy()
    valid[0] = False
    fitted = coeffs.valid.copy()
    fitted[1] = False
    residual = coeffs.residual.copy()
    residual[2], residual[3] = 0.5, np.nan
    landmarks = Landmarks2D(landmarks.points, landmarks.depth, valid, landmarks.blendshapes)
    coeffs = replace(coeffs, valid=fitted, residual=residual)
    usable = usable_frames(landmarks, occlusion, coeffs, BinarizerConfig())
    assert np.flatnonzero(~usable).tolist() == [0, 1, 2, 3]


def test_gaps_in_hand_detection_near_a_hand_are_not_believed(tables):
    landmarks, occlusion, coeffs = tables
    coverage = occlusion.coverage.copy()
    coverage[[20, 23]] = 0.6  # seen in two frames, missed between and around
    usable = usable_frames(landmarks, replace(occlusion, coverage=coverage), coeffs, BinarizerConfig(hand_reach=4))
    assert np.flatnonzero(~usable).tolist() == list(range(16, 28))


def test_a_small_well_seen_occluder_stays_usable():
    coverage = np.zeros(40, np.float32)
    coverage[10:30] = 0.2
    np.testing.assert_allclose(steady_coverage(coverage, 4)[10:30], 0.2)
    usable = steady_coverage(coverage, 4) <= 0.35
    assert usable.all()


def test_landmarks_move_into_the_crop(tables):
    landmarks = tables[0]
    metadata = CropMetadata((CropRegion(100.0, 80.0, 128.0),), (288, 384), 256)
    moved = crop_landmarks(landmarks, metadata, np.array([2, 5]))
    assert moved.shape == (2, 478, 2) and moved.dtype == np.float32
    np.testing.assert_allclose(moved[1], (landmarks.points[5] - [36.0, 16.0]) * 2, atol=1e-3)


def test_crops_of_an_interrupted_run_are_not_cut_again(tmp_path, demo_dir, monkeypatch):
    """Stopped after two of five; the second try cuts three, and the folder is that of an undisturbed run."""
    video, rows = demo_dir / "carphone_pristine.mp4", np.array([1, 3, 4, 8, 9])
    metadata = CropMetadata((CropRegion(90.0, 70.0, 128.0),), (144, 176), 256)
    masks = np.full((1, 8, 8), 255, np.uint8)
    occlusion = replace(OcclusionTable.nothing(10, 8), rows=np.array([3]), masks=masks)

    def stopping(what, done, total):
        if done == 2:
            raise KeyboardInterrupt

    whole, stopped = VideoWorkspace("clip", tmp_path / "whole"), VideoWorkspace("clip", tmp_path / "stopped")
    write_crops(whole, video, metadata, occlusion, rows, silent)
    with pytest.raises(KeyboardInterrupt):
        write_crops(stopped, video, metadata, occlusion, rows, stopping)
    assert not stopped.crops.exists()
    cut = []
    real = binarizer_nerf.write_crop
    monkeypatch.setattr(binarizer_nerf, "write_crop", lambda *args: (cut.append(args[1]), real(*args)))
    write_crops(stopped, video, metadata, occlusion, rows, silent)
    assert cut == [4, 8, 9]
    assert [path.name for path in stopped.binary.iterdir()] == ["crops"]
    for path in sorted(whole.crops.iterdir()):
        assert path.read_bytes() == (stopped.crops / path.name).read_bytes()
    assert len(list(whole.crops.iterdir())) == len(list(stopped.crops.iterdir())) == 6


def test_crops_of_other_rows_are_cut_anew(tmp_path, demo_dir):
    video = demo_dir / "carphone_pristine.mp4"
    metadata = CropMetadata((CropRegion(90.0, 70.0, 128.0),), (144, 176), 256)
    occlusion = OcclusionTable.nothing(10, 8)
    space = VideoWorkspace("clip", tmp_path)

    def stopping(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_crops(space, video, metadata, occlusion, np.array([1, 2]), stopping)
    write_crops(space, video, metadata, occlusion, np.array([2, 5]), silent)
    assert sorted(path.name for path in space.crops.iterdir()) == ["000002.jpg", "000005.jpg"]
    assert [path.name for path in space.binary.iterdir()] == ["crops"]


def test_conditions_are_of_the_persons_own_units(tmp_path, demo_dir):
    """The statistics that training z-scores with belong to the corrected model, whichever model is handed in."""
    rng = np.random.default_rng(0)
    speaker = SyntheticSpeaker(4, size_hw=(360, 640))
    video = demo_dir / "carphone_pristine.mp4"
    correction = rng.normal(scale=0.3, size=(80, 52)).astype(np.float32)
    coeffs = replace(speaker.coeffs(12), correction=correction)
    workspace = VideoWorkspace("clip", tmp_path)
    workspace.processed.mkdir(parents=True)
    workspace.binary.mkdir(parents=True, exist_ok=True)
    coeffs.save(workspace.coeffs)
    speaker.landmarks(coeffs).save(workspace.landmarks)
    OcclusionTable.nothing(12, 8).save(workspace.occlusion)
    save_crop_metadata(CropMetadata((CropRegion(80.0, 60.0, 60.0),), (144, 176), 256), workspace.crop_metadata)
    own = speaker.model.corrected(correction)
    raw = condition_from_expression(own, coeffs.identity, coeffs.expression)
    assert np.abs(raw - condition_from_expression(speaker.model, coeffs.identity, coeffs.expression)).max() > 0.1
    expected = ConditionStatistics.of(raw)
    for model in (speaker.model, own):
        dataset = binarize(workspace, video, "0" * 64, model, BinarizerConfig(), silent)
        np.testing.assert_array_equal(dataset.condition_mean, expected.mean)
        np.testing.assert_array_equal(dataset.condition_std, expected.std)
        back = NeRFDataset.load(workspace.dataset)
        np.testing.assert_array_equal(back.coeffs.correction, correction)
