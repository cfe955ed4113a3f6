import numpy as np
import pytest

from data_gen.utils.process_video.landmark_smoothing import fit_similarity, smooth_landmarks, unbroken_runs
from modules.structures.landmarks import MOUTH, Landmarks2D
from tests.data_gen.utils.process_video.moving_face import face_template

NOT_MOUTH = np.setdiff1d(np.arange(478), MOUTH)


def table(points, valid=None):
    points = np.asarray(points, dtype=np.float32)
    count = len(points)
    valid = np.ones(count, dtype=bool) if valid is None else valid
    points = np.where(valid[:, None, None], points, np.nan).astype(np.float32)
    depth = points[..., 0]
    return Landmarks2D(points, depth, valid, np.zeros((count, 52), dtype=np.float32))


def steady(count=40, size=200.0):
    rng = np.random.default_rng(3)
    face = face_template() + rng.normal(scale=0.03, size=(478, 2))
    return np.repeat(face[None], count, axis=0) * size


def test_noise_falls_on_the_face():
    clean = steady()
    noisy = clean + np.random.default_rng(0).normal(scale=0.5, size=clean.shape)
    error = smooth_landmarks(table(noisy)).points - clean
    assert error[:, NOT_MOUTH].std() < 0.8 * 0.5


def test_a_closure_of_one_frame_survives_on_the_mouth():
    moving = steady()
    moving[20, list(MOUTH), 1] += 12.0
    smoothed = smooth_landmarks(table(moving)).points
    shift = smoothed[20, list(MOUTH), 1] - smoothed[19, list(MOUTH), 1]
    np.testing.assert_allclose(shift, 12.0, atol=0.05)


def test_jitter_of_the_whole_head_leaves_the_mouth_too():
    clean = steady()
    jitter = np.random.default_rng(1).normal(scale=1.0, size=(len(clean), 1, 2))
    smoothed = smooth_landmarks(table(clean + jitter)).points
    mouth = (smoothed - clean)[2:-2, list(MOUTH)].mean(axis=1)
    assert mouth.std() < 0.8 * jitter[2:-2].std()


def test_constant_velocity_and_parabolas_pass_unchanged():
    t = np.arange(30)[:, None, None]
    moving = steady(30) + np.array([2.0, -1.0]) * t + np.array([0.05, 0.02]) * t**2
    np.testing.assert_allclose(smooth_landmarks(table(moving)).points, moving, atol=2e-2)


def test_gaps_and_jumps_are_not_smoothed_over():
    points = steady(30)
    points[15:] += 500
    valid = np.ones(30, dtype=bool)
    valid[7:9] = False
    source = table(points, valid)
    assert unbroken_runs(source) == [(0, 7), (9, 15), (15, 30)]
    smoothed = smooth_landmarks(source)
    np.testing.assert_allclose(smoothed.points[valid], points[valid], atol=1e-2)
    assert np.isnan(smoothed.points[~valid]).all()


def test_short_runs_stay_as_they_are():
    points = steady(4) + np.random.default_rng(0).normal(size=(4, 478, 2))
    np.testing.assert_allclose(smooth_landmarks(table(points)).points, points.astype(np.float32), atol=1e-3)


def test_nothing_valid_is_nothing_to_do():
    source = table(steady(5), np.zeros(5, dtype=bool))
    assert np.isnan(smooth_landmarks(source).points).all()


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
def test_similarity_is_recovered(angle):
    rng = np.random.default_rng(0)
    source = rng.normal(size=(9, 2))
    rotate = 1.7 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix, offset = fit_similarity(source, source @ rotate.T + (3, -4))
    np.testing.assert_allclose(matrix, rotate, atol=1e-9)
    np.testing.assert_allclose(offset, (3, -4), atol=1e-9)
