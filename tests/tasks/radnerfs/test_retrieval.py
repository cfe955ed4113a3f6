"""The baseline: shapes that differ by a similarity are equal, warps hit their landmarks."""

from __future__ import annotations

import numpy as np
import pytest

from modules.structures.landmarks import N_MEDIAPIPE
from tasks.radnerfs.retrieval import RetrievalBaseline, align_error, normalized_lips, warp_by_landmarks
from tests.support.synthetic_clip import prepare_synthetic_clip

SIZE = 128


def grid_landmarks() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(30, 98, (N_MEDIAPIPE, 2)).astype(np.float32)


def picture() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack([x * 2, y * 2, 128 + 60 * np.sin(x / 9) * np.cos(y / 7)], axis=-1).clip(0, 255).astype(np.uint8)


def test_rotation_scale_and_shift_do_not_count():
    points = grid_landmarks()[None]
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = 1.8 * points @ turn + np.array([5.0, -9.0])
    mirrored = points * np.array([-1.0, 1.0])
    wanted = normalized_lips(points)[0]
    errors = align_error(np.concatenate([normalized_lips(moved), normalized_lips(mirrored)]), wanted)
    assert errors[0] < 1e-9 < errors[1]


def test_equal_landmarks_change_nothing():
    image, points = picture(), grid_landmarks()
    same = warp_by_landmarks(image, points, points, (10, 20, 110, 120))
    np.testing.assert_allclose(same.astype(int), image[20:120, 10:110], atol=1)


def test_a_shift_of_all_landmarks_shifts_the_picture_between_them():
    image, points = picture(), grid_landmarks()
    moved = warp_by_landmarks(image, points, points + np.array([3.0, -2.0], np.float32), (0, 0, SIZE, SIZE))
    inner = (slice(45, 80), slice(45, 80))
    expected = np.roll(image, (-2, 3), axis=(0, 1))
    assert np.abs(moved[inner].astype(int) - expected[inner]).mean() < 1.0


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    source, _ = prepare_synthetic_clip(tmp_path_factory.mktemp("data"))
    return RetrievalBaseline(source, np.flatnonzero(source.is_train))


def test_nearest_is_the_best_of_all_training_frames(baseline):
    index = 20
    shapes = normalized_lips(baseline.source.landmarks_px)
    errors = align_error(shapes[baseline.train], shapes[index])
    points = baseline.source.landmarks_px
    assert baseline.nearest(points[index]) == baseline.train[np.argmin(errors)]
    assert baseline.nearest(points[7]) == 7  # a training frame finds itself


def test_in_frame_pixels_it_is_the_same_picture_at_another_size(baseline):
    index, bounds = 20, (60, 110, 200, 230)
    frame_from_crop = np.array([[0.5, 0, 30.0], [0, 0.5, 10.0], [0, 0, 1]])
    wanted = baseline.source.landmarks_px[index] * 0.5 + np.array([30, 10])
    small = baseline.render_in_frame(wanted, frame_from_crop, (60, 65, 130, 125)).astype(float)
    large = baseline.render(index, bounds).astype(float).reshape(60, 2, 70, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - large).mean() < 3


def test_retrieval_resembles_the_frame_and_the_mean_less(baseline):
    index, bounds = 20, (60, 110, 200, 230)
    source = baseline.source.crop(index)[110:230, 60:200].astype(float)
    retrieved, mean = (np.abs(f(index, bounds) - source).mean() for f in (baseline.render, baseline.render_mean))
    assert retrieved < 8 and retrieved < mean + 1
