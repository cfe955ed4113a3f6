"""Landmarks that disagree with the fit: found where they were moved, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest

from data_gen.utils.process_video.fitted_points import fitted_points
from data_gen.utils.process_video.landmark_surprise import (
    LEAST_FRAMES,
    LIVELY,
    WATCHED,
    LandmarkSurprise,
    SurpriseConfig,
    UsualResidual,
)
from modules.face_model.model import FaceModel
from modules.structures.landmarks import MOUTH, Landmarks2D, inter_ocular_px
from tests.support.synthetic_head import FACE_MODEL, SyntheticSpeaker

COUNT = 60
CHEEK = (50, 101, 118, 123, 147, 187, 205)
CONFIG = SurpriseConfig()


@pytest.fixture(scope="module")
def model():
    return FaceModel.load(FACE_MODEL)


@pytest.fixture(scope="module")
def clip(model):
    """A speaker whose landmarks are the fit's, each a little aside (a landmarker's habit), with noise."""
    coeffs = SyntheticSpeaker(1, size_hw=(360, 640), face_px=180).coeffs(COUNT)
    fitted = fitted_points(coeffs, model)
    generator = np.random.default_rng(0)
    habit = generator.normal(0, 2.0, (1, 478, 2))
    points = (fitted + habit + generator.normal(0, 0.5, fitted.shape)).astype(np.float32)
    nothing = np.zeros((COUNT, 52), np.float32)
    return coeffs, Landmarks2D(points, np.zeros((COUNT, 478), np.float32), np.ones(COUNT, bool), nothing)


def found(clip, model, config=CONFIG):
    surprise = LandmarkSurprise.found(clip[1], clip[0], model, config)
    assert surprise is not None
    return surprise


def moved(clip, row, numbers, by_px):
    """The clip with some landmarks of a frame elsewhere."""
    points = clip[1].points.copy()
    points[row, list(numbers)] += by_px
    return clip[0], replace(clip[1], points=points)


def test_habits_and_noise_are_usual(clip, model):
    surprise = found(clip, model)
    assert len(surprise.rows) < 2e-3 * COUNT * len(WATCHED) and (surprise.shares < 0.8).all()


def test_points_that_something_pushed_aside_speak_for_an_occluder_there(clip, model):
    surprise = found(moved(clip, 20, CHEEK, (6.0, 0.0)), model)
    own = surprise.points[surprise.rows == 20]
    assert set(CHEEK) <= set(own.tolist())
    points = clip[1].points[20] - clip[1].points[20].mean(axis=0) + 128
    odds = surprise.log_odds(20, points, 256)
    assert odds is not None and odds.shape == (256, 256) and odds.dtype == np.float32
    x, y = points[list(CHEEK)].mean(axis=0).astype(int)
    assert odds[y, x] > 0.5 * CONFIG.log_odds and odds.max() <= CONFIG.log_odds + 1e-6 and odds.min() >= 0
    far = 3 * CONFIG.reach * float(inter_ocular_px(points)) + 1
    grid = np.mgrid[:256, :256][::-1].transpose(1, 2, 0)
    away = np.linalg.norm(grid[:, :, None] - points[own], axis=-1).min(axis=-1)
    assert odds[away > far].max() < 0.02 * CONFIG.log_odds
    calm = next(row for row in range(COUNT) if row not in surprise.rows)
    assert surprise.log_odds(calm, points, 256) is None


def test_points_outside_the_picture_say_nothing_in_it(clip, model):
    surprise = found(moved(clip, 20, CHEEK, (6.0, 0.0)), model)
    assert surprise.log_odds(20, np.full((478, 2), -5.0), 256) is None


def test_a_mouth_may_do_what_it_likes(clip, model):
    usual = found(clip, model)
    surprise = found(moved(clip, 20, MOUTH, (0.0, 9.0)), model)
    assert set(MOUTH) <= LIVELY and not set(surprise.points.tolist()) & LIVELY
    assert (surprise.rows == 20).sum() <= (usual.rows == 20).sum() + 1


def test_a_frame_in_which_everything_strays_is_measured_by_itself(clip, model):
    shaken = found(moved(clip, 20, range(478), np.random.default_rng(1).normal(0, 4.0, (478, 2))), model)
    assert (shaken.rows == 20).sum() < 0.05 * len(WATCHED)


def test_one_wrong_frame_does_not_change_what_is_usual():
    """Twin by loops of the robust deviation."""
    away = np.random.default_rng(0).normal(0, 0.01, (41, 478, 2)).astype(np.float32)
    away[7] += 5.0
    usual = UsualResidual.of(away)
    for point in (0, 100, 477):
        middle = [sorted(away[:, point, axis])[20] for axis in (0, 1)]
        lengths = sorted(float(np.hypot(*(row - middle))) for row in away[:, point])
        assert usual.offset[point] == pytest.approx(middle) and usual.spread[point] == pytest.approx(
            1.4826 * lengths[20], rel=1e-5
        )
    calm = usual.deviations(away[:1])
    assert 0.4 < np.median(calm) < 1.1


def test_frames_without_a_face_say_nothing_and_too_few_teach_nothing(clip, model):
    valid = np.ones(COUNT, bool)
    valid[20] = False
    strange = moved(clip, 20, CHEEK, (6.0, 0.0))
    assert 20 not in found((strange[0], replace(strange[1], valid=valid)), model).rows
    few = np.arange(COUNT) < LEAST_FRAMES - 1
    assert LandmarkSurprise.found(replace(clip[1], valid=few), clip[0], model, CONFIG) is None
