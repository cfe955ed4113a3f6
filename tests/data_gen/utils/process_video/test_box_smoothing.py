import tracemalloc

import numpy as np
import pytest
from filterpy.common import Q_discrete_white_noise
from filterpy.kalman import KalmanFilter
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_video.box_smoothing import (
    ACCELERATION_STD,
    MEASUREMENT_STD,
    START_SPEED_VARIANCE,
    LiveBoxSmoother,
    OneEuroFilter,
    kalman_rts,
    smooth_boxes,
    split_at_jumps,
)


def walk(count=60, noise=0.0, seed=0):
    """A head that nods and drifts, with boxes 100 × 130 px."""
    t = np.arange(count)
    center = np.stack([300 + 2 * t, 200 + 25 * np.sin(t / 8)], axis=1)
    half = np.array([50, 65]) * (1 + 0.1 * np.sin(t / 15))[:, None]
    boxes = np.concatenate([center - half, center + half], axis=1)
    return boxes, boxes + np.random.default_rng(seed).normal(scale=noise, size=boxes.shape)


def test_noise_falls_and_motion_stays():
    true, seen = walk(noise=1.5)
    smoothed = smooth_boxes(seen, np.ones(len(seen), dtype=bool))
    assert np.sqrt(np.mean((smoothed - true) ** 2)) < 0.75 * np.sqrt(np.mean((seen - true) ** 2))
    jitter = np.abs(np.diff(smoothed, 2, axis=0)).mean()
    assert jitter < 0.4 * np.abs(np.diff(seen, 2, axis=0)).mean()


def test_a_still_box_stays_exactly():
    boxes = np.tile([10.0, 20.0, 110.0, 150.0], (20, 1))
    np.testing.assert_allclose(smooth_boxes(boxes, np.ones(20, dtype=bool)), boxes, atol=1e-6)


def test_gaps_are_bridged_on_the_way_and_ends_hold():
    true, _ = walk()
    is_detected = np.ones(len(true), dtype=bool)
    is_detected[20:26] = False
    is_detected[:3] = is_detected[-4:] = False
    seen = np.where(is_detected[:, None], true, np.nan)
    smoothed = smooth_boxes(seen, is_detected)
    assert np.isfinite(smoothed).all()
    assert np.abs(smoothed[20:26] - true[20:26]).max() < 4
    np.testing.assert_array_equal(smoothed[:3], np.tile(smoothed[3], (3, 1)))
    np.testing.assert_array_equal(smoothed[-4:], np.tile(smoothed[-5], (4, 1)))


def test_a_jump_cuts_the_track_instead_of_smearing_it():
    boxes = np.tile([10.0, 20.0, 110.0, 150.0], (30, 1))
    boxes[15:] += 400
    smoothed = smooth_boxes(boxes, np.ones(30, dtype=bool))
    np.testing.assert_allclose(smoothed, boxes, atol=1e-6)
    assert [len(piece) for piece in split_at_jumps(boxes, np.arange(30))] == [15, 15]


def test_growth_is_a_jump_too():
    boxes = np.tile([0.0, 0.0, 100.0, 100.0], (10, 1))
    boxes[5:] = [-100.0, -100.0, 200.0, 200.0]
    assert len(split_at_jumps(boxes, np.arange(10))) == 2


def test_no_detection_is_an_error():
    with pytest.raises(ValueError, match="without any detection"):
        smooth_boxes(np.zeros((3, 4)), np.zeros(3, dtype=bool))


def test_size_of_the_face_does_not_matter():
    _, seen = walk(noise=1.5)
    ones = np.ones(len(seen), dtype=bool)
    np.testing.assert_allclose(smooth_boxes(seen * 8, ones), smooth_boxes(seen, ones) * 8, rtol=1e-6, atol=1e-6)


def one_block_twin(values, seen):
    """The same model as one 8-state block in filterpy."""
    kalman = KalmanFilter(dim_x=8, dim_z=4)
    kalman.F = np.kron(np.eye(4), np.array([[1.0, 1.0], [0.0, 1.0]]))
    kalman.H = np.kron(np.eye(4), np.array([[1.0, 0.0]]))
    kalman.R = np.eye(4) * MEASUREMENT_STD**2
    kalman.Q = np.kron(np.eye(4), Q_discrete_white_noise(dim=2, dt=1.0, var=ACCELERATION_STD**2))
    kalman.P = np.kron(np.eye(4), np.diag([MEASUREMENT_STD**2, START_SPEED_VARIANCE]))
    kalman.x = np.stack([values[0], np.zeros(4)], axis=1).reshape(8)
    means, covariances, _, _ = kalman.batch_filter([v if s else None for v, s in zip(values, seen, strict=True)])
    return kalman.rts_smoother(means, covariances)[0].reshape(len(values), 4, 2)[:, :, 0]


@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0, 0.6))
def test_four_filters_equal_one_block(seed, count, missing):
    rng = np.random.default_rng(seed)
    values = rng.normal(scale=0.05, size=(count, 4)).cumsum(axis=0)
    seen = rng.random(count) >= missing
    seen[0] = True
    values[~seen] = np.nan
    np.testing.assert_allclose(kalman_rts(values, seen), one_block_twin(values, seen), atol=1e-10)


def test_a_long_video_fits_in_little_memory():
    _, seen = walk(noise=1.0, count=2000)
    tracemalloc.start()
    smooth_boxes(seen, np.ones(len(seen), dtype=bool))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2000 * 400, "a few small tables, no covariance of all signals together"


def slow_one_euro(values, times, min_cutoff, beta, speed_cutoff):
    """The published recipe, one number at a time."""

    def alpha(cutoff, dt):
        return 1 / (1 + (1 / (2 * np.pi * cutoff)) / dt)

    out, speed = [values[0]], 0.0
    for i in range(1, len(values)):
        dt = times[i] - times[i - 1]
        a = alpha(speed_cutoff, dt)
        speed = a * (values[i] - out[-1]) / dt + (1 - a) * speed
        a = alpha(min_cutoff + beta * abs(speed), dt)
        out.append(a * values[i] + (1 - a) * out[-1])
    return np.array(out)


@given(st.integers(0, 10_000), st.floats(0.1, 5), st.floats(0, 10), st.floats(0.2, 3))
def test_one_euro_follows_the_paper(seed, min_cutoff, beta, speed_cutoff):
    rng = np.random.default_rng(seed)
    values, times = rng.normal(size=(30, 2)).cumsum(axis=0), np.cumsum(rng.uniform(0.01, 0.1, size=30))
    live = OneEuroFilter(min_cutoff, beta, speed_cutoff)
    seen = np.array([live.update(value, time) for value, time in zip(values, times, strict=True)])
    for column in range(2):
        expected = slow_one_euro(values[:, column], times, min_cutoff, beta, speed_cutoff)
        np.testing.assert_allclose(seen[:, column], expected, atol=1e-9)


def test_one_euro_refuses_time_that_stands_still_and_bad_settings():
    live = OneEuroFilter()
    live.update(np.zeros(1), 1.0)
    with pytest.raises(ValueError, match="order of time"):
        live.update(np.zeros(1), 1.0)
    live.reset()
    assert live.update(np.ones(1), 0.5) == 1
    for bad in ({"min_cutoff_hz": 0.0}, {"beta": -1.0}, {"speed_cutoff_hz": 0.0}):
        with pytest.raises(ValueError, match="must be positive"):
            OneEuroFilter(**bad)


def test_live_boxes_are_calmer_and_soon_there():
    true, _ = walk(count=200)
    still = np.tile(true[0], (200, 1)) + np.random.default_rng(1).normal(scale=1.0, size=(200, 4))
    live = LiveBoxSmoother()
    calm = np.array([live.update(box, i / 25) for i, box in enumerate(still)])
    assert np.diff(calm[20:], 2, axis=0).std() < 0.4 * np.diff(still[20:], 2, axis=0).std()
    live.reset()
    follows = np.array([live.update(box, i / 25) for i, box in enumerate(true)])
    assert np.abs(follows - true).max() < 0.12 * 130, "a nod is followed without much lag"
    np.testing.assert_allclose(live.update(true[-1] + 500, 8.0), true[-1] + 500, err_msg="a jump starts over")
