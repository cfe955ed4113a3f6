"""Motion at a video's own frame times: closures survive, everything else is linear."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.audio_to_motion import closure_rows, sample_motion
from modules.structures.motion import MotionSequence

RATES = (23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 60.0)


def motion_of(opening: np.ndarray, *, known: bool = True) -> MotionSequence:
    expression = np.zeros((len(opening), 4), np.float32)
    expression[:, 2] = opening
    return MotionSequence(
        expression,
        np.ones(len(opening), np.float32),
        50.0,
        "v",
        opening=opening.astype(np.float32) if known else None,
    )


def closure(at_row: float, count: int = 100) -> np.ndarray:
    """Lips open but for 60 ms around ``at_row``: 20 ms shut, with 20 ms to close and 20 ms to open."""
    distance = np.abs(np.arange(count) - at_row)
    return np.clip((distance - 0.5) / 1.0, 0.0, 1.0)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("frame_rate", RATES)
def test_a_60_ms_closure_survives_whatever_its_phase(frame_rate, known):
    for phase in np.linspace(0.0, 1.0, 6):
        times = (np.arange(int(1.9 * frame_rate)) + phase) / frame_rate
        sampled = sample_motion(motion_of(closure(47.0), known=known), times)[:, 2]
        assert sampled.min() < 0.05
        assert (np.delete(sampled, np.flatnonzero(np.abs(times - 0.95) < 0.09)) == 1.0).all()


def test_plain_sampling_would_lose_it():
    """The test above tests something: at film rate and the worst phase, linear sampling leaves the lips half open."""
    row_times = (np.arange(100) + 0.5) / 50.0
    worst = 0.0
    for phase in np.linspace(0.0, 1.0, 25):
        times = (np.arange(45) + phase) / 23.976
        worst = max(worst, np.interp(times, row_times, closure(47.0)).min())
    assert worst > 0.4


@given(st.integers(0, 10_000), st.sampled_from(RATES), st.floats(0.0, 1.0))
@settings(max_examples=15, deadline=None)
def test_frames_show_a_moment_within_their_own_span(seed, frame_rate, phase):
    rng = np.random.default_rng(seed)
    opening = np.convolve(rng.standard_normal(120), np.ones(3) / 3, mode="same")
    motion = motion_of(opening)
    times = (np.arange(int(2.3 * frame_rate)) + phase) / frame_rate
    sampled = sample_motion(motion, times)[:, 2]
    fine = np.linspace(-0.5, 0.5, 401) / frame_rate
    row_times = (np.arange(120) + 0.5) / 50.0
    for value, time in zip(sampled, times, strict=True):
        near = np.interp(time + fine, row_times, opening)
        assert near.min() - 2e-2 <= value <= max(near.max(), np.interp(time, row_times, opening)) + 2e-2


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_no_closure_means_linear_sampling(seed):
    rng = np.random.default_rng(seed)
    opening = np.sort(rng.random(80))
    times = np.sort(rng.uniform(0.0, 1.6, 30))
    times = times[np.append(True, np.diff(times) > 1e-6)]
    expected = np.interp(times, (np.arange(80) + 0.5) / 50.0, opening)
    np.testing.assert_allclose(sample_motion(motion_of(opening), times)[:, 2], expected, atol=1e-5)


def test_row_times_give_the_rows():
    opening = np.random.default_rng(0).random(60)
    motion = motion_of(opening)
    np.testing.assert_allclose(sample_motion(motion, (np.arange(60) + 0.5) / 50.0), motion.expression, atol=1e-6)


def test_past_the_end_the_mouth_comes_to_rest():
    sampled = sample_motion(motion_of(np.ones(50)), np.array([0.5, 0.99, 1.0, 1.08, 1.17, 5.0]))[:, 2]
    np.testing.assert_allclose(sampled[:3], 1.0, atol=1e-6)
    assert 0.0 < sampled[3] < 1.0 and sampled[4] == sampled[5] == 0.0


def test_closures_of_a_flat_bottom_and_of_noise():
    opening = np.ones(40)
    opening[[5, 20, 21, 22]] = 0.0
    opening[30] = 0.97
    assert closure_rows(opening).tolist() == [5, 20, 21, 22]
    assert len(closure_rows(np.zeros(10))) == len(closure_rows(np.zeros(0))) == 0


def test_bad_times():
    with pytest.raises(ValueError, match="rising"):
        sample_motion(motion_of(np.ones(5)), np.array([0.1, 0.1]))
    assert sample_motion(motion_of(np.ones(5)), np.zeros(0)).shape == (0, 4)
    assert sample_motion(motion_of(np.ones(0)), np.array([0.0, 0.1])).shape == (2, 4)
