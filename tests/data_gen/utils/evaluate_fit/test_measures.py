"""Landmark errors against slow twins and known answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.evaluate_fit.measures import (
    REGIONS,
    correlation,
    frame_seconds,
    mean_measure,
    region_errors,
    relative_errors,
    visible_points,
    widest_open,
)
from modules.structures.landmarks import OUTER_EYE_CORNERS, Landmarks2D


def made_up(seed: int, count: int = 4):
    generator = np.random.default_rng(seed)
    tracked = generator.uniform(0, 500, (count, 478, 2)).astype(np.float32)
    fitted = tracked + generator.normal(0, 3, tracked.shape).astype(np.float32)
    return fitted, tracked, generator.uniform(size=(count, 478)) < 0.7


@pytest.mark.parametrize("seed", range(3))
def test_errors_equal_a_slow_twin(seed):
    fitted, tracked, visible = made_up(seed)
    errors = relative_errors(fitted, tracked, visible)
    left, right = OUTER_EYE_CORNERS
    for name, points in REGIONS.items():
        means = region_errors(errors, points)
        for row in range(len(tracked)):
            eyes = math.dist(tracked[row, left], tracked[row, right])
            seen = [k for k in points if visible[row, k]]
            wanted = [100 * math.dist(fitted[row, k], tracked[row, k]) / eyes for k in seen]
            assert means[row] == pytest.approx(sum(wanted) / len(wanted), rel=1e-4), name


def test_hidden_and_broken_points_do_not_count():
    fitted, tracked, visible = made_up(0)
    visible[:] = True
    visible[0, 5], fitted[0, 5] = False, 1e6
    fitted[1, 6] = np.nan
    visible[2] = False
    errors = relative_errors(fitted, tracked, visible)
    assert np.isnan(errors[0, 5]) and np.isnan(errors[1, 6]) and np.isnan(errors[2]).all()
    means = region_errors(errors, REGIONS["face"])
    assert np.isnan(means[2]) and np.isfinite(means[[0, 1, 3]]).all() and means[0] < 100


def test_the_size_of_the_picture_does_not_matter():
    fitted, tracked, visible = made_up(1)
    small = relative_errors(fitted, tracked, visible)
    assert np.allclose(relative_errors(8 * fitted, 8 * tracked, visible), small, equal_nan=True)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=60), st.floats(0.01, 1))
def test_the_widest_frames_are_the_widest(values, share):
    opening = np.array(values)
    opening[::7] = np.nan
    rows = widest_open(opening, share)
    known = opening[np.isfinite(opening)]
    assert len(rows) == min(len(known), max(1, round(share * len(known))))
    assert sorted(opening[rows]) == sorted(known)[len(known) - len(rows) :]
    assert (np.diff(rows) > 0).all()


def test_what_is_visible():
    points = np.zeros((3, 478, 2), np.float32)
    points[0, 1] = np.nan
    valid = np.array([True, True, False])
    landmarks = Landmarks2D(points, np.zeros((3, 478), np.float32), valid, np.zeros((3, 52), np.float32))
    weights = np.ones((3, 478), np.float32)
    weights[1, 2] = 0
    seen = visible_points(landmarks, weights)
    assert not seen[0, 1] and not seen[1, 2] and not seen[2].any() and seen.sum() == 2 * 478 - 2
    assert visible_points(landmarks).sum() == 2 * 478 - 1


def test_means_have_intervals_that_hold_them():
    values = np.random.default_rng(0).normal(3, 1, 400)
    values[7] = np.nan
    known = values[~np.isnan(values)]
    alone = mean_measure(values)
    assert alone.value == pytest.approx(known.mean()) and alone.count == 399
    assert 0.15 < alone.high - alone.low < 0.25, "2 · 1.96 · 1 / sqrt(400) is 0.196"
    slow = np.repeat(np.random.default_rng(1).normal(3, 1, 80), 5)
    assert np.diff(_ends(mean_measure(slow, 0.04))) > 1.7 * np.diff(_ends(mean_measure(slow)))
    assert not mean_measure(np.full(5, np.nan)).is_measured
    assert math.isnan(mean_measure(np.ones(7), 0.04).low), "a block and a half has no interval"


def _ends(measure):
    return np.array([measure.low, measure.high])


def test_correlation():
    x = np.arange(10.0)
    assert correlation(x, 3 - 2 * x) == pytest.approx(-1)
    broken = x.copy()
    broken[3] = np.nan
    assert correlation(broken, x) == pytest.approx(1)
    assert math.isnan(correlation(np.ones(10), x)) and math.isnan(correlation(x[:1], x[:1]))


def test_frame_seconds():
    assert frame_seconds(np.array([0.0, 0.04, 0.08, 0.5])) == pytest.approx(0.04)
    assert frame_seconds(np.array([1.0])) == 0.04
