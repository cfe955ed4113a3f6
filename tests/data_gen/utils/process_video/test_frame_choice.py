"""Choosing the frames to learn from: cover, spread, quality."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_video.frame_choice import (
    LEAST_QUALITY,
    choose_frames,
    farthest_points,
    frame_quality,
    lip_and_pose_features,
)


@given(st.integers(0, 1000), st.integers(5, 30), st.integers(1, 5))
def test_farthest_points_matches_a_loop(seed, count, chosen):
    rng = np.random.default_rng(seed)
    features, quality = rng.normal(size=(count, 3)).astype(np.float32), rng.uniform(0.25, 1, count).astype(np.float32)
    picked = [int(np.argmin([np.linalg.norm(f - features.mean(axis=0)) for f in features]))]
    while len(picked) < chosen:
        scores = {
            row: quality[row] * min(np.linalg.norm(features[row] - features[p]) for p in picked)
            for row in range(count)
            if row not in picked
        }
        picked.append(max(scores, key=lambda row: scores[row]))
    assert farthest_points(features, chosen, quality).tolist() == picked


def test_farthest_points_never_repeats_even_when_frames_are_equal():
    assert sorted(farthest_points(np.zeros((7, 4)), 7).tolist()) == list(range(7))
    assert len(farthest_points(np.zeros((7, 4)), 0)) == 0


def a_clip(n_frames=1000, rare=(700, 701)):
    """Small lip motion, and an open mouth in two frames."""
    rng = np.random.default_rng(0)
    mouth, euler = rng.normal(size=(n_frames, 60)) * 0.1, rng.normal(size=(n_frames, 3)) * 0.1
    mouth[list(rare)] += 3.0
    return lip_and_pose_features(mouth, euler, 0.5)


def test_rare_shapes_are_kept_and_the_rest_is_spread_over_time():
    chosen = choose_frames(a_clip(), np.ones(1000), 50, 0.5)
    assert len(set(chosen.tolist())) == 50 and (np.diff(chosen) > 0).all()
    assert {700, 701} & set(chosen.tolist())
    even = choose_frames(a_clip(), np.ones(1000), 50, 0.0)
    np.testing.assert_allclose(np.diff(even), 20, atol=1)
    assert np.diff(np.r_[0, chosen, 999]).max() <= 45  # no stretch of time is left out
    assert (choose_frames(a_clip(), np.ones(1000), 50, 0.5) == chosen).all()


def test_of_equal_frames_the_better_one_is_taken():
    features = np.repeat(np.eye(4, dtype=np.float32) * 5, 2, axis=0)
    quality = np.tile([0.3, 1.0], 4)
    later = farthest_points(features, 4, quality)[1:]
    assert (later % 2 == 1).all()


def test_all_frames_or_too_many():
    features = a_clip(30, (3,))
    assert choose_frames(features, np.ones(30), 30, 0.5).tolist() == list(range(30))
    with pytest.raises(ValueError, match="31 of 30"):
        choose_frames(features, np.ones(30), 31, 0.5)


def test_features_keep_distances_and_weigh_pose():
    rng = np.random.default_rng(1)
    mouth, euler = rng.normal(size=(50, 60)), rng.normal(size=(50, 3))
    found = lip_and_pose_features(mouth, euler, 0.0)
    wanted = mouth / np.sqrt(mouth.var(axis=0).sum())
    between = np.linalg.norm(found[:, None] - found[None], axis=2)
    np.testing.assert_allclose(between, np.linalg.norm(wanted[:, None] - wanted[None], axis=2), rtol=0.05, atol=0.02)
    still = lip_and_pose_features(np.zeros((50, 60)), euler, 0.5)
    assert still.shape[1] <= 3 and still.var(axis=0).sum() == pytest.approx(0.25, rel=0.02)


def test_quality_falls_with_misfit_and_cover_but_never_to_nothing():
    quality = frame_quality(np.array([0.0, 0.04, 0.08, np.nan]), np.array([0.0, 0.2, 0.0, 0.0]), 0.08)
    np.testing.assert_allclose(quality, [1.0, 0.4, LEAST_QUALITY, LEAST_QUALITY])


def test_twenty_minutes_take_seconds():
    rng = np.random.default_rng(0)
    features = lip_and_pose_features(rng.normal(size=(36000, 20)).cumsum(axis=1), rng.normal(size=(36000, 3)), 0.5)
    start = time.monotonic()
    assert len(choose_frames(features, np.ones(36000), 400, 0.5)) == 400
    assert time.monotonic() - start < 5.0
