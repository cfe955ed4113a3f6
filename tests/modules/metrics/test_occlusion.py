"""Measures of masks: cases that can be counted by hand, and naive twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from modules.metrics.occlusion import (
    Matches,
    SequenceJudge,
    backward_flow,
    blurred,
    frames_until_found,
    outline,
    outline_matches,
    overlap,
    region_matches,
    warped_change,
    within,
)

SIZE = 64
EVERYWHERE = np.ones((SIZE, SIZE), bool)
small_masks = arrays(bool, (9, 11), elements=st.booleans())


def square(x: int, y: int, side: int = 20) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[y : y + side, x : x + side] = 1
    return mask


def test_overlap_of_shifted_squares_is_counted_inside_the_area():
    a, b = square(10, 10), square(15, 10)
    assert overlap(a, b, EVERYWHERE) == (15 * 20, 25 * 20)
    left = EVERYWHERE.copy()
    left[:, 20:] = False
    assert overlap(a, b, left) == (5 * 20, 10 * 20)


@settings(max_examples=25)
@given(small_masks, st.floats(0, 4))
def test_within_is_the_naive_distance(mask, reach):
    rows, columns = np.nonzero(mask)
    expected = np.zeros_like(mask)
    for r in range(mask.shape[0]):
        for c in range(mask.shape[1]):
            expected[r, c] = bool(len(rows)) and bool(np.any(np.hypot(rows - r, columns - c) <= reach + 1e-4))
    assert np.array_equal(within(mask, reach), expected)


@settings(max_examples=25)
@given(small_masks)
def test_an_outline_is_what_has_an_uncovered_neighbour(mask):
    height, width = mask.shape
    for r in range(height):
        for c in range(width):
            beside = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
            open_beside = any(0 <= i < height and 0 <= j < width and not mask[i, j] for i, j in beside)
            assert outline(mask)[r, c] == (mask[r, c] and open_beside)


@pytest.mark.parametrize(("shift", "score"), [(0, 1.0), (2, 1.0), (12, None)])
def test_outlines_match_up_to_two_pixels(shift, score):
    found = outline_matches(square(10 + shift, 10), square(10, 10), EVERYWHERE)
    if score is not None:
        assert found.f_score == pytest.approx(score)
    else:
        assert found.f_score < 0.7
    # an outline that is 3 px away everywhere has no counterpart
    assert outline_matches(square(7, 7, 26), square(10, 10), EVERYWHERE).f_score == 0.0


def test_a_thin_thing_found_one_pixel_beside_itself_counts_in_full():
    true, found = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    true[5:55, 30:33] = 1
    found[5:30, 31:35] = 1  # its upper half, a pixel to the right and wider
    matches = region_matches(found, true, EVERYWHERE)
    assert matches.precision == 1.0
    assert matches.recall == pytest.approx((25 + 2) / 50, abs=0.01)


def test_only_a_smeared_outline_is_blurred():
    ramp = np.zeros((SIZE, SIZE), np.float32)
    ramp[:, 20:40] = np.linspace(0, 1, 20)
    ramp[:, 40:] = 1
    area = blurred(ramp)
    assert area[:, 24:36].all() and not area[:, :12].any() and not area[:, 50:].any()
    assert not blurred(square(10, 10)).any()
    sharp = np.zeros((SIZE, SIZE), np.float32)
    sharp[:, 29:32] = 0.25, 0.5, 0.75
    sharp[:, 32:] = 1
    assert not blurred(sharp).any(), "three pixels of softness are a lens, not motion"


def test_scores_of_nothing():
    assert math.isnan(Matches().f_score) and math.isnan(Matches().recall)
    assert Matches(found=5).f_score == 0.0
    assert (Matches(1, 1, 2, 1) + Matches(1, 0, 2, 1)) == Matches(2, 1, 4, 2)


@settings(max_examples=25)
@given(small_masks, small_masks)
def test_f_scores_are_symmetric(a, b):
    area = np.ones_like(a)
    one, other = outline_matches(a, b, area).f_score, outline_matches(b, a, area).f_score
    assert one == pytest.approx(other, nan_ok=True)


@pytest.mark.parametrize(
    ("seen", "found", "frames"),
    [
        ("0000", "1111", math.nan),
        ("0111", "0111", 0),
        ("0111", "0001", 2),
        ("0110", "0000", 2),
        ("0111", "0000", 3),
        ("1100011", "1100001", 1),
        ("1010", "1000", 1),
    ],
)
def test_frames_until_found(seen, found, frames):
    given_, got = [c == "1" for c in seen], [c == "1" for c in found]
    assert frames_until_found(given_, got) == pytest.approx(frames, nan_ok=True)


def test_a_mask_that_moves_with_the_picture_does_not_change():
    flow = np.zeros((SIZE, SIZE, 2), np.float32)
    flow[..., 0] = -4.0
    assert warped_change(square(14, 10), square(10, 10), flow, EVERYWHERE) == 0.0
    still = np.zeros_like(flow)
    assert warped_change(square(14, 10), square(10, 10), still, EVERYWHERE) == pytest.approx(2 * 4 * 20 / SIZE**2)
    assert warped_change(square(14, 10), square(10, 10), still, ~EVERYWHERE) == 0.0


def test_flow_points_to_where_things_were():
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
    texture = np.kron(noise, np.ones((8, 8, 1), np.uint8))
    flow = backward_flow(np.roll(texture, 3, axis=1), texture)
    assert np.abs(np.median(flow[40:-40, 40:-40], axis=(0, 1)) - [-3, 0]).max() < 0.3


def judged(found: list[np.ndarray], true: list[np.ndarray]) -> SequenceJudge:
    judge = SequenceJudge()
    still = np.zeros((SIZE, SIZE, 2), np.float32)
    for row, (f, t) in enumerate(zip(found, true, strict=True)):
        judge.add(f, t, EVERYWHERE, EVERYWHERE, 1 - f)
        judge.add_around(f, t, EVERYWHERE)
        if row:
            judge.add_change((f, found[row - 1]), (t, true[row - 1]), still, EVERYWHERE)
    return judge


def test_the_truth_is_judged_perfect():
    true = [np.zeros((SIZE, SIZE), np.float32), square(10, 10), square(14, 10), np.zeros((SIZE, SIZE), np.float32)]
    scores = judged(true, true).scores()
    assert (scores.iou, scores.iou_around, scores.worst_iou, scores.outline_f, scores.recall) == (1, 1, 1, 1, 1)
    assert scores.sharp_outline_f == 1
    assert (scores.precision, scores.found_after, scores.false_share, scores.flicker, scores.edited) == (1, 0, 0, 1, 0)


def test_a_mask_that_comes_late_leaks_and_flickers_is_found_out():
    nothing = np.zeros((SIZE, SIZE), np.float32)
    true = [nothing, square(10, 10), square(10, 10), square(10, 10)]
    found = [square(0, 0, 8), nothing, square(10, 10), nothing]
    scores = judged(found, true).scores()
    assert scores.iou == pytest.approx(400 / (3 * 400 + 64))
    assert scores.worst_iou == 0.0
    assert scores.found_after == 1
    assert scores.false_share == pytest.approx(64 / SIZE**2)
    assert scores.edited == pytest.approx(2 / 3)
    assert scores.flicker > 2


def test_a_clip_without_a_thing_has_no_overlap_to_tell():
    nothing = np.zeros((SIZE, SIZE), np.float32)
    scores = judged([nothing] * 3, [nothing] * 3).scores()
    assert math.isnan(scores.iou) and math.isnan(scores.flicker) and math.isnan(scores.found_after)
    assert scores.false_share == 0.0
