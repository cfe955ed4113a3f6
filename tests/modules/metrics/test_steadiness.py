"""Steadiness: analytic motion, naive twins, and jitter that moves its figure in step with its size."""

import math
import time

import cv2
import numpy as np
import pytest

from modules.metrics.steadiness import (
    HEAD_POINTS,
    FlickerMeter,
    landmark_acceleration,
    warp_errors,
    worst_quantile_ratio,
)
from modules.structures.landmarks import JAW_LINE, MOUTH, RIGID
from tests.modules.metrics.seam_cases import face_frames
from tests.support.synthetic_head import SyntheticSpeaker


def still_points(count, seed=0):
    one = np.random.default_rng(seed).uniform(50, 250, (478, 2))
    return np.repeat(one[None], count, axis=0)


def regular(count, rate_hz=25.0):
    return np.arange(count) / rate_hz


def one_block(count):
    return np.zeros(count, np.int64)


def texture(height=120, width=160, seed=0):
    """Smooth enough that optical flow finds small motion."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width)).astype(np.float32)
    return np.clip(5 * (cv2.GaussianBlur(noise, (0, 0), 3) - 128) + 128, 10, 245).astype(np.uint8)


# Landmarks.


def test_the_head_points_keep_away_from_mouth_and_jaw():
    assert set(HEAD_POINTS) <= set(RIGID) and not set(HEAD_POINTS) & {*MOUTH, *JAW_LINE} and len(HEAD_POINTS) > 8


def test_steady_motion_has_no_acceleration_and_a_parabola_a_constant_one():
    frame = np.arange(8.0)[:, None, None]
    steady = still_points(8) + frame * [3.0, -1.0]
    assert np.nanmax(landmark_acceleration(steady, regular(8), one_block(8))) < 1e-9
    thrown = steady + 0.5 * frame**2 * [0.6, 0.8]
    found = landmark_acceleration(thrown, regular(8), one_block(8))
    assert np.isnan(found[[0, -1]]).all() and found[1:-1] == pytest.approx(1, abs=1e-9)


def test_it_is_what_loops_count():
    points = still_points(9) + np.random.default_rng(1).normal(0, 2, (9, 478, 2))
    expected = np.full(9, np.nan)
    for n in range(1, 8):
        lengths = [
            sum((points[n + 1, k, a] - 2 * points[n, k, a] + points[n - 1, k, a]) ** 2 for a in (0, 1))
            for k in HEAD_POINTS
        ]
        expected[n] = math.sqrt(sum(lengths) / len(lengths))
    np.testing.assert_allclose(landmark_acceleration(points, regular(9), one_block(9)), expected, rtol=1e-9)


def test_irregular_times_see_the_same_throw():
    times = np.array([0, 1, 2, 3.5, 4, 5, 6, 7, 9, 10]) / 30
    frame = times[:, None, None] * 30
    thrown = still_points(10) + frame * [4.0, 2.0] + 0.5 * frame**2 * [0.6, 0.8]
    assert landmark_acceleration(thrown, times, one_block(10))[1:-1] == pytest.approx(1, abs=1e-6)


def test_blocks_and_missing_faces_leave_gaps():
    points = still_points(12)
    points[9] = np.nan
    block = np.array([0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4])
    points[block == 4] += 100  # a cut is no jitter
    found = landmark_acceleration(points, regular(12), block)
    assert np.array_equal(np.flatnonzero(~np.isnan(found)), [1, 2, 5, 6, 7]) and np.nanmax(found) == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_frames_have_none(count):
    found = landmark_acceleration(still_points(count), regular(count), one_block(count))
    assert found.shape == (count,) and np.isnan(found).all()
    scattered = landmark_acceleration(still_points(5), regular(5), np.arange(5))
    assert np.isnan(scattered).all()


def test_times_that_stand_still_and_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match="ascend"):
        landmark_acceleration(still_points(4), np.zeros(4), one_block(4))
    with pytest.raises(ValueError, match="expected"):
        landmark_acceleration(still_points(4)[:, :68], regular(4), one_block(4))


def test_jitter_of_a_talking_head_shows_in_step_with_its_size():
    speaker = SyntheticSpeaker(4)
    points = speaker.landmarks(speaker.coeffs(60)).points.astype(np.float64)
    noise = np.random.default_rng(2).normal(size=points.shape)
    own, *jittered = (
        float(np.nanmean(landmark_acceleration(points + sigma * noise, regular(60), one_block(60))))
        for sigma in (0, 0.5, 1, 2)
    )
    assert own < 0.5  # talking and swaying is smooth
    # The second difference of white noise has the variance 1 + 4 + 1, in each of two axes.
    for sigma, found in zip((0.5, 1, 2), jittered, strict=True):
        assert found == pytest.approx(sigma * math.sqrt(12), rel=0.1)
    mouth_only = points.copy()
    mouth_only[:, MOUTH + JAW_LINE] += 5 * noise[:, MOUTH + JAW_LINE]
    assert float(np.nanmean(landmark_acceleration(mouth_only, regular(60), one_block(60)))) == own


# Flicker.


def test_warp_error_is_what_a_loop_counts():
    generator = np.random.default_rng(5)
    luma, previous = generator.integers(0, 256, (2, 9, 11), dtype=np.uint8)
    flow = (generator.integers(-96, 97, (9, 11, 2)) / 32).astype(np.float32)
    band = generator.random((9, 11)) < 0.5

    def sample(x, y):
        left, top = math.floor(x), math.floor(y)
        total = 0.0
        for r, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
            for c, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                total += weight_x * weight_y * float(previous[min(max(r, 0), 8), min(max(c, 0), 10)])
        return total

    errors = [abs(luma[r, c] - sample(c + flow[r, c, 0], r + flow[r, c, 1])) for r, c in np.argwhere(band)]
    assert warp_errors(luma, previous, flow, (band,))[0] == pytest.approx(np.mean(errors), rel=1e-4)


def test_a_change_of_brightness_is_the_error():
    still, band = texture(), np.ones((120, 160), bool)
    meter = FlickerMeter()
    assert all(math.isnan(error) for error in meter.update(still, still, band, is_block_start=False))
    of_result, of_source = meter.update(still + 7, still, band, is_block_start=False)
    assert of_source == pytest.approx(0, abs=0.02) and of_result == pytest.approx(7, abs=0.02)
    band[:, :80] = False
    half = still.copy()
    half[:, :60] += 9  # seen outside the band only
    meter.update(still, still, band, is_block_start=True)
    assert meter.update(half, still, band, is_block_start=False)[0] == pytest.approx(0, abs=0.02)


def test_the_motion_of_the_source_is_taken_out():
    wide = texture(width=200)
    band = np.zeros((120, 160), bool)
    band[16:-16, 16:-16] = True
    meter = FlickerMeter()
    with_motion, without = [], []
    for shift in range(0, 12, 2):
        moved = np.ascontiguousarray(wide[:, shift : shift + 160])
        stuck = np.ascontiguousarray(wide[:, :160])
        result_error, source_error = meter.update(stuck, moved, band, is_block_start=shift == 0)
        with_motion.append(source_error)
        without.append(result_error)
    plain = np.abs(np.diff(wide.astype(float), 2))[band.nonzero()[0].min() :].mean()
    assert np.nanmax(with_motion) < 1 < plain
    assert np.nanmin(without) > 5 * np.nanmax(with_motion)  # a patch that stays behind when the head moves


def test_equal_pictures_give_equal_errors():
    meter, band, generator = FlickerMeter(), np.ones((120, 160), bool), np.random.default_rng(0)
    for number in range(4):
        noisy = np.clip(texture() + generator.normal(0, 3, (120, 160)), 0, 255).astype(np.uint8)
        of_result, of_source = meter.update(noisy, noisy.copy(), band, is_block_start=number == 0)
        assert of_result == of_source or number == 0
    assert of_source > 1


def test_blocks_empty_bands_and_odd_sizes():
    meter = FlickerMeter()
    for size_hw in ((1, 1), (1, 300), (5, 7), (33, 31), (121, 9)):
        dark, light = np.full(size_hw, 60, np.uint8), np.full(size_hw, 64, np.uint8)
        band = np.ones(size_hw, bool)
        assert np.isnan(meter.update(dark, dark, band, is_block_start=True)).all()  # a new size begins a block
        assert np.isnan(meter.update(dark, dark, ~band, is_block_start=False)).all()
        # The frame with the empty band is still the one before.
        assert meter.update(light, dark, band, is_block_start=False) == pytest.approx((4, 0))
    with pytest.raises(ValueError, match="size changed"):
        meter.update(texture(), texture(), np.ones((120, 160), bool), is_block_start=False)
    with pytest.raises(ValueError, match="disagree"):
        meter.update(texture(), texture(), np.ones((120, 159), bool), is_block_start=True)


def test_only_the_frame_before_is_remembered():
    still, band = texture(), np.ones((120, 160), bool)
    long, short = FlickerMeter(), FlickerMeter()
    for number in range(6):
        found = long.update(still + 3 * (number % 3), still, band, is_block_start=number == 0)
    short.update(still + 3, still, band, is_block_start=True)
    assert short.update(still + 6, still, band, is_block_start=False) == found


def test_a_real_face_is_measured_fast_enough(demo_dir):
    frames = face_frames(demo_dir)
    large = [cv2.resize(frame.planes[0], (400, 400)) for frame in frames]
    meter, band = FlickerMeter(), np.ones((400, 400), bool)
    took = []
    for number, luma in enumerate(large):
        begun = time.perf_counter()
        of_result, of_source = meter.update(luma, luma, band, is_block_start=number == 0)
        took.append(time.perf_counter() - begun)
    assert of_result == of_source and 0 < of_source < 3
    assert min(took[1:]) < 0.25, f"{min(took[1:]):.3f} s a frame of 400 x 400"


def test_a_flash_now_and_then_shows_in_the_worst_quantile_and_hardly_in_the_mean():
    own = np.random.default_rng(0).uniform(0.9, 1.1, 100)
    made = own.copy()
    made[::9] *= 2
    assert made.mean() / own.mean() < 1.15 and worst_quantile_ratio(made, own) == pytest.approx(2, abs=0.15)
    assert worst_quantile_ratio(1.5 * own, own) == pytest.approx(1.5)
    made[5] = np.nan
    assert worst_quantile_ratio(made, own) > 1.8, "an unknown frame is left out"


@pytest.mark.parametrize("own", [np.ones(7), np.zeros(20), np.full(20, np.nan)])
def test_too_little_for_quantiles(own):
    assert math.isnan(worst_quantile_ratio(np.ones(len(own)), own))
