"""Each lip figure on cases whose answer is known, and against a naive loop."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.metrics.lips import (
    closure_scores,
    correlation,
    expression_error,
    landmark_distance,
    leakage,
    lip_speeds,
    opening_spread_ratio,
    relative_landmark_distance,
    resting_frames,
    shown_share,
    shut_frames,
    shut_threshold,
    silence_motion,
    speed_ratio,
)
from modules.structures.landmarks import LM68, MEDIAPIPE_BLENDSHAPES, OUTER_EYE_CORNERS


def generator(seed=0):
    return np.random.default_rng(seed)


def at_rate(count, rate=25.0):
    return np.arange(count) / rate, np.zeros(count, np.int64)


def faces(count, seed=0):
    points = generator(seed).uniform(0, 512, (count, 478, 2))
    left, right = OUTER_EYE_CORNERS
    points[:, left], points[:, right] = (100, 200), (250, 200)
    return points


# landmark distance


def test_landmark_distance_matches_a_loop():
    a, b = faces(3, 1), faces(3, 2)
    naive = []
    for one, other in zip(a, b, strict=True):
        first, second = one[list(LM68[48:68])], other[list(LM68[48:68])]
        moved = [p - first.mean(axis=0) - (q - second.mean(axis=0)) for p, q in zip(first, second, strict=True)]
        naive.append(sum(math.hypot(*m) for m in moved) / 20)
    np.testing.assert_allclose(landmark_distance(a, b), naive)
    np.testing.assert_allclose(relative_landmark_distance(a, b), np.array(naive) / 150)


def test_landmark_distance_looks_at_shape_not_place():
    points = faces(4)
    assert (landmark_distance(points, points) == 0).all()
    np.testing.assert_allclose(landmark_distance(points + np.array([7.0, -3.0]), points), 0, atol=1e-9)
    wider = points.copy()
    lips = list(LM68[48:68])
    spread = points[:, lips] - points[:, lips].mean(axis=1, keepdims=True)
    wider[:, lips] += 0.1 * spread
    np.testing.assert_allclose(landmark_distance(wider, points), 0.1 * np.linalg.norm(spread, axis=-1).mean(axis=1))
    assert (landmark_distance(2 * wider, 2 * points) > 1.9 * landmark_distance(wider, points)).all()
    np.testing.assert_allclose(
        relative_landmark_distance(2 * wider, 2 * points), relative_landmark_distance(wider, points)
    )


def test_a_missing_face_has_no_distance():
    points, reference = faces(3), faces(3, 1)
    points[0], reference[2] = np.nan, np.nan
    assert np.isnan(landmark_distance(points, reference)).tolist() == [True, False, True]
    assert landmark_distance(points[:0], reference[:0]).shape == (0,)


# expression scores


def test_expression_error_by_half_of_the_face():
    reference = generator().uniform(0, 1, (2, 52))
    scores = reference.copy()
    scores[:, MEDIAPIPE_BLENDSHAPES.index("jawOpen")] += 0.28
    scores[1, MEDIAPIPE_BLENDSHAPES.index("browInnerUp")] -= 0.23
    scores[:, 0] += 5.0
    lower, upper = expression_error(scores, reference)
    np.testing.assert_allclose(lower, 0.01)
    np.testing.assert_allclose(upper, [0, 0.01], atol=1e-12)
    scores[0] = np.nan
    assert np.isnan(expression_error(scores, reference)[0]).tolist() == [True, False]


# closures


def test_threshold_is_of_this_person_in_speech():
    opening = np.concatenate([np.linspace(0.1, 0.2, 101), np.full(50, 0.01), [np.nan]])
    is_speech = np.arange(152) < 101
    assert shut_threshold(opening, is_speech) == pytest.approx(0.12)
    assert math.isnan(shut_threshold(opening, np.zeros(152, bool)))
    np.testing.assert_array_equal(shut_frames(np.array([0.11, 0.12, np.nan, 0.3]), 0.12), [1, 0, np.nan, 0])
    assert np.isnan(shut_frames(opening, math.nan)).all()


def naive_closures(shut, reference, times, block, tolerance):
    def near(i, flags):
        return any(
            flags[j] == 1 and block[i] == block[j] and abs(times[i] - times[j]) <= tolerance + 0.002
            for j in range(len(flags))
            if not (np.isnan(shut[j]) or np.isnan(reference[j]))
        )

    known = [i for i in range(len(shut)) if not (np.isnan(shut[i]) or np.isnan(reference[i]))]
    wanted, made = [i for i in known if reference[i] == 1], [i for i in known if shut[i] == 1]
    recall = sum(near(i, shut) for i in wanted) / len(wanted) if wanted else math.nan
    precision = sum(near(i, reference) for i in made) / len(made) if made else math.nan
    return recall, precision


flag = st.sampled_from([0.0, 0.0, 1.0, math.nan])


@given(st.lists(st.tuples(flag, flag, st.floats(0.005, 0.06), st.booleans()), min_size=0, max_size=30))
def test_closures_match_a_loop(rows):
    shut, reference = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    times = np.cumsum([r[2] for r in rows])
    block = np.cumsum([r[3] and r[2] > 0.04 for r in rows]).astype(np.int64)
    scores = closure_scores(shut, reference, times, block, generator(), shifts=3)
    expected = naive_closures(shut, reference, times, block, 0.04)
    np.testing.assert_allclose((scores.recall, scores.precision), expected)
    assert scores.n_compared == int((~np.isnan(shut) & ~np.isnan(reference)).sum())


@pytest.mark.parametrize(
    ("rate", "late", "hit"), [(24, 1, 1), (25, 1, 1), (25, 2, 0), (30, 1, 1), (30, 2, 0), (60, 2, 1), (60, 3, 0)]
)
def test_tolerance_in_frames(rate, late, hit):
    times, block = at_rate(100, rate)
    reference = np.zeros(100)
    reference[10::20] = 1
    scores = closure_scores(np.roll(reference, late), reference, times, block, generator())
    assert scores.recall == scores.precision == hit
    assert (scores.n_shut, scores.n_reference, scores.n_compared) == (5, 5, 100)


def test_closures_and_chance():
    rng = generator(3)
    times, block = at_rate(500)
    reference = (rng.random(500) < 0.1).astype(float)
    perfect = closure_scores(reference, reference, times, block, rng)
    assert perfect.recall == perfect.precision == 1.0
    # chance: a frame is matched when one of three is shut
    assert perfect.chance_recall == pytest.approx(1 - 0.9**3, abs=0.08)
    assert perfect.chance_precision == pytest.approx(1 - 0.9**3, abs=0.08)
    always = closure_scores(np.ones(500), reference, times, block, rng)
    assert always.recall == always.chance_recall == 1.0
    assert always.precision == pytest.approx(always.chance_precision, abs=0.02)
    never = closure_scores(np.zeros(500), reference, times, block, rng)
    assert never.recall == 0 and math.isnan(never.precision) and math.isnan(never.chance_precision)
    open_reference = closure_scores(reference, np.zeros(500), times, block, rng)
    assert math.isnan(open_reference.recall) and open_reference.precision == 0


def test_no_closure_is_matched_across_a_cut():
    times = np.arange(4) / 25
    scores = closure_scores(
        np.array([0, 1.0, 0, 0]), np.array([0, 0, 1.0, 0]), times, np.array([0, 0, 1, 1]), generator()
    )
    assert scores.recall == scores.precision == 0
    assert math.isnan(scores.chance_recall)  # too short for any shift


def test_chance_depends_on_the_generator_alone():
    times, block = at_rate(300)
    shut = (generator(1).random((2, 300)) < 0.2).astype(float)
    first, again = (closure_scores(*shut, times, block, generator(5)) for _ in range(2))
    assert (first.chance_recall, first.chance_precision) == (again.chance_recall, again.chance_precision)


# silence


def test_pauses_begin_after_their_onset():
    times, block = at_rate(60)
    is_speech = np.ones(60, bool)
    is_speech[10:19] = False  # 0.36 s
    is_speech[30:40] = False  # 0.40 s
    assert np.flatnonzero(resting_frames(times, is_speech, block)).tolist() == [35, 36, 37, 38, 39]
    block[35:] = 1  # a cut in the middle leaves two short ones
    assert not resting_frames(times, is_speech, block).any()
    assert not resting_frames(times[:1], is_speech[:1], block[:1]).any()


def test_silence_motion_is_a_ratio_of_speeds():
    times, block = at_rate(200)
    is_speech = np.arange(200) < 100
    swing = np.tile([0.0, 1.0], 100)
    for share in (0.0, 0.25, 1.0):
        opening = swing * np.where(is_speech, 0.2, 0.2 * share)
        assert silence_motion(opening, times, is_speech, block) == pytest.approx(share)
    uneven = np.sort(np.concatenate([times, times[::3] + 0.01]))
    line = np.abs(uneven - 4.0)
    assert silence_motion(line, uneven, uneven < 4.0, np.zeros(len(uneven), np.int64)) == pytest.approx(1.0)


def test_silence_motion_skips_gaps_and_cuts():
    times, block = at_rate(200)
    is_speech = np.arange(200) < 100
    opening = np.tile([0.0, 0.1], 100) * np.where(is_speech, 1.0, 0.5)
    opening[150:] += 9.0
    block[150:] = 1
    opening[50] = np.nan
    assert silence_motion(opening, times, is_speech, block) == pytest.approx(0.5)


def test_silence_motion_needs_both():
    times, block = at_rate(50)
    opening = generator().random(50)
    assert math.isnan(silence_motion(opening, times, np.ones(50, bool), block))
    assert math.isnan(silence_motion(opening, times, np.zeros(50, bool), block))
    assert math.isnan(silence_motion(np.ones(50), times, np.arange(50) < 25, block))
    assert math.isnan(silence_motion(opening[:0], times[:0], np.zeros(0, bool), block[:0]))


# spread, correlation, leakage


@pytest.mark.parametrize("share", [0.0, 0.8, 1.0])
def test_the_share_of_a_change_that_is_seen(share):
    """Noise of detection and a constant offset do not count, nor frames without a face."""
    rng = np.random.default_rng(3)
    asked = 0.05 * np.sin(np.arange(400) / 3)
    made = share * asked + 0.02 + 0.005 * rng.standard_normal(400)
    made[::7] = np.nan
    assert shown_share(made, asked) == pytest.approx(share, abs=0.02)


def test_a_picture_left_alone_shows_nothing_of_a_change():
    """However lively it is: its own change is 0 in every frame."""
    assert shown_share(np.zeros(50), np.random.default_rng(0).random(50)) == 0
    assert math.isnan(shown_share(np.ones(50), np.full(50, 0.1))), "nothing is asked"
    assert math.isnan(shown_share(np.ones(2), np.array([0.0, 1.0])))


def test_spread_and_correlation():
    rng = generator(2)
    a, b = rng.standard_normal(80), rng.standard_normal(80)
    a[3], b[9] = np.nan, np.nan
    keep = np.isfinite(a) & np.isfinite(b)
    assert correlation(a, b) == pytest.approx(np.corrcoef(a[keep], b[keep])[0, 1])
    assert opening_spread_ratio(a, b) == pytest.approx(a[keep].std() / b[keep].std())
    assert (
        correlation(b, b) == 1.0
        and correlation(b, -3 * b) == -1.0
        and opening_spread_ratio(0.6 * b, b) == pytest.approx(0.6)
    )
    assert opening_spread_ratio(np.ones(80), b) == 0.0


@pytest.mark.parametrize("a", [[], [1.0, 2.0], [1.0, np.nan, 2.0, np.nan], [4.0, 4.0, 4.0]])
def test_too_little_to_correlate(a):
    assert math.isnan(correlation(np.array(a), np.arange(len(a), dtype=float)))
    if len(a) != 3:
        assert math.isnan(opening_spread_ratio(np.array(a), np.arange(len(a), dtype=float)))


def lip_motion(rng, count):
    return np.convolve(rng.standard_normal(count + 6), np.hanning(9)[1:-1], mode="valid")


def test_leakage_is_seen_and_chance_is_not():
    rng = generator(4)
    times, block = at_rate(500)
    alarms = 0
    for _ in range(40):
        source, driven = lip_motion(rng, 500), lip_motion(rng, 500)
        size, band = leakage(driven, source, times, block, rng)
        alarms += size > band
        size, band = leakage(driven + 0.5 * source, source, times, block, rng)
        assert size > band and 0.2 < size < 0.7
    assert alarms <= 6


def test_a_cut_is_no_leak():
    rng = generator(6)
    times, block = at_rate(400)
    block[150:] = 1
    source, driven = lip_motion(rng, 400), lip_motion(rng, 400)
    plain = leakage(driven, source, times, block, generator(1))
    cut = leakage(driven + 20.0 * block, source + 30.0 * block, times, block, generator(1))
    np.testing.assert_allclose(cut, plain, atol=1e-6)


def test_leakage_without_lips():
    times, block = at_rate(100)
    moving = lip_motion(generator(), 100)
    assert all(map(math.isnan, leakage(np.full(100, 0.1), moving, times, block, generator())))
    assert all(map(math.isnan, leakage(np.full(100, np.nan), moving, times, block, generator())))
    size, band = leakage(moving[:15], moving[:15], times[:15], block[:15], generator())
    assert size == pytest.approx(1.0) and math.isnan(band)


def test_hits_lie_at_their_frames_and_average_to_the_scores():
    times, block = at_rate(60)
    shut, wanted = (generator(3).random((2, 60)) < 0.3).astype(float)
    shut[:5] = np.nan
    found = closure_scores(shut, wanted, times, block, generator(5))
    assert np.nanmean(found.met) == pytest.approx(found.recall) and np.nanmean(found.meant) == pytest.approx(
        found.precision
    )
    np.testing.assert_array_equal(np.isfinite(found.met), (wanted == 1) & np.isfinite(shut))
    np.testing.assert_array_equal(np.isfinite(found.meant), shut == 1)


def test_speeds_are_those_of_a_loop():
    times, block = at_rate(80)
    opening, speaking = generator(4).random(80), np.arange(80) < 40
    still, lively = lip_speeds(opening, times, speaking, block)
    for i in range(1, 80):
        speed = abs(opening[i] - opening[i - 1]) / (times[i] - times[i - 1])
        known = lively[i] if i < 40 else still[i]
        assert np.isnan(known) or known == pytest.approx(speed)
    assert np.isnan(lively[41:]).all() and np.isnan(still[:40]).all() and np.isfinite(still[60:]).all()
    assert speed_ratio(still, lively) == pytest.approx(silence_motion(opening, times, speaking, block))
