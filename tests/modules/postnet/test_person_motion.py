"""A person on top of a general prediction: order of the three steps, pieces, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modules.postnet.person_motion import FeatureReducer, PersonMotion, filtered, neighbours

UNITS, FEATURES, RANK = 3, 6, 2
COLUMNS = np.array([1, 4, 5])


def person(**changes) -> PersonMotion:
    reducer = FeatureReducer(
        np.full(FEATURES, 0.5, np.float32), np.full(FEATURES, 2.0, np.float32), np.eye(FEATURES, RANK, dtype=np.float32)
    )
    nobody = PersonMotion(
        columns=COLUMNS,
        general_mean=np.zeros(UNITS, np.float32),
        own_mean=np.zeros(UNITS, np.float32),
        scale=np.ones(UNITS, np.float32),
        reducer=reducer,
        taps=np.zeros((3, RANK, UNITS), np.float32),
        bias=np.zeros(UNITS, np.float32),
        step=2,
        gain=1.0,
        opening_effect=np.array([0.3, 0.0, 0.1], np.float32),
        opening_floor=-1e3,
        face_model_version="v",
        extractor="e",
    )
    return replace(nobody, **changes)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_nobody_in_particular_changes_nothing():
    deviation, features = random(9, 8), random(9, FEATURES, seed=1)
    one = person()
    np.testing.assert_allclose(one(deviation, one.reducer(features)), deviation, atol=1e-6)


def test_size_then_filter_then_range():
    deviation, features = random(20, 8), random(20, FEATURES, seed=1)
    one = person(
        general_mean=np.float32([0.1, 0.0, 0.2]),
        own_mean=np.float32([0.3, 0.1, 0.0]),
        scale=np.float32([0.5, 2.0, 1.0]),
        taps=0.1 * random(3, RANK, UNITS, seed=2),
        bias=np.float32([0.0, 0.05, 0.0]),
        gain=1.5,
    )
    reduced = one.reducer(features)
    np.testing.assert_allclose(reduced, ((features - 0.5) / 2.0)[:, :RANK], atol=1e-6)
    rows = np.arange(20)
    added = sum(reduced[(rows + 2 * (k - 1)).clip(0, 19)] @ one.taps[k] for k in range(3)) + one.bias
    sized = one.own_mean + one.scale * (deviation[:, COLUMNS] - one.general_mean) + added
    result = one(deviation, reduced)
    np.testing.assert_allclose(result[:, COLUMNS], one.own_mean + 1.5 * (sized - one.own_mean), atol=1e-5)
    others = [0, 2, 3, 6, 7]
    np.testing.assert_array_equal(result[:, others], deviation[:, others])


def test_lips_never_close_further_than_the_floor():
    one = person(opening_floor=-0.02, gain=2.0)
    deviation = np.zeros((50, 8), np.float32)
    deviation[:, 1] = np.linspace(-1.0, 1.0, 50)  # opens and shuts by 0.3 dm
    result = one(deviation, one.reducer(random(50, FEATURES)))
    opening = result[:, COLUMNS] @ one.opening_effect
    assert opening.min() > -0.021 and opening.max() == pytest.approx(0.6, abs=1e-3)
    assert (np.diff(opening) >= -1e-6).all()


def test_features_can_be_reduced_in_pieces():
    features, one = random(30, FEATURES), person()
    pieces = np.concatenate([one.reducer(features[:7]), one.reducer(features[7:])])
    np.testing.assert_array_equal(pieces, one.reducer(features))


def test_the_filter_is_that_of_its_windows():
    rows, taps = random(12, RANK), random(5, RANK, UNITS, seed=3)
    windows = neighbours(rows, 2, 3)
    assert windows.shape == (12, 5, RANK)
    np.testing.assert_array_equal(windows[0, :3], np.tile(rows[0], (3, 1)))
    np.testing.assert_allclose(filtered(rows, taps, 3), np.einsum("tkr,kru->tu", windows, taps), atol=1e-5)


def test_rows_that_do_not_belong_together_are_refused():
    one = person()
    with pytest.raises(ValueError, match="do not belong together"):
        one(random(5, 8), random(4, RANK))
    with pytest.raises(ValueError, match="do not belong together"):
        one(random(5, 8), random(5, RANK + 1))
    assert one(np.zeros((0, 8), np.float32), np.zeros((0, RANK), np.float32)).shape == (0, 8)
