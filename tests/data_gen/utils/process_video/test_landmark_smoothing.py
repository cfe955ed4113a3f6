"""Smoothing by region: what must go, what must stay, at any frame rate, and what bad tables do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker, region_of_face, region_of_landmarks
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.face_geometry import steadied
from data_gen.utils.process_video.landmark_smoothing import (
    EYELIDS,
    SMOOTHED_SCORES,
    SmoothingConfig,
    TimeAverage,
    fit_similarity,
    smooth_landmarks,
    unbroken_runs,
)
from modules.structures.landmarks import (
    BROWS,
    INNER_LIP,
    IRISES,
    JAW_LINE,
    LOWER_FACE_SCORES,
    MEDIAPIPE_BLENDSHAPES,
    MOUTH,
    NOSE_BRIDGE,
    RIGID,
    Landmarks2D,
    inter_ocular_px,
    lip_opening,
)
from modules.video.colour import rgb_from_planes
from tests.data_gen.utils.process_video.moving_face import face_template
from tests.support.real_frames import DEMO_CLIP, read_frames

AVERAGED = np.setdiff1d(np.arange(478), MOUTH + EYELIDS + IRISES)
RATES = (23.976, 25.0, 29.97, 60.0)


def table(points, valid=None, blendshapes=None):
    points = np.asarray(points, dtype=np.float32)
    count = len(points)
    valid = np.ones(count, dtype=bool) if valid is None else valid
    points = np.where(valid[:, None, None], points, np.nan).astype(np.float32)
    scores = np.zeros((count, 52)) if blendshapes is None else blendshapes
    return Landmarks2D(points, points[..., 0], valid, scores.astype(np.float32))


def steady(count=40, size=200.0):
    rng = np.random.default_rng(3)
    face = face_template() + rng.normal(scale=0.03, size=(478, 2))
    return np.repeat(face[None], count, axis=0) * size


def times(count, rate):
    return np.arange(count) / rate


def bump(times_s, middle_s, length_s):
    """0 → 1 → 0 as lips and lids move: a raised cosine that lasts ``length_s``."""
    phase = np.clip(np.abs(times_s - middle_s) / (length_s / 2), 0, 1)
    return 0.5 + 0.5 * np.cos(np.pi * phase)


# --- what goes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", [BROWS, JAW_LINE, NOSE_BRIDGE])
def test_noise_falls_on_the_face_and_more_so_at_high_frame_rates(region):
    left = {}
    for rate in (25.0, 60.0):
        clean = steady(200)
        noisy = clean + np.random.default_rng(0).normal(scale=0.5, size=clean.shape)
        smoothed = smooth_landmarks(table(noisy), times(200, rate)).points
        left[rate] = (smoothed - clean)[10:-10, list(region)].std() / 0.5
    assert left[25.0] < 0.7
    assert left[60.0] < 0.5


def test_irises_are_smoothed_lightly_and_a_saccade_stays_quick():
    clean = steady(100)
    clean[50:, list(IRISES), 0] += 6.0
    noisy = clean + np.random.default_rng(0).normal(scale=0.5, size=clean.shape)
    smoothed = smooth_landmarks(table(noisy)).points
    assert (smoothed - clean)[5:40, list(IRISES)].std() < 0.9 * 0.5
    across = smooth_landmarks(table(clean)).points[:, list(IRISES), 0].mean(axis=1)
    assert across[51] - across[48] > 0.9 * 6.0


@pytest.mark.parametrize("group", [MOUTH, EYELIDS])
def test_jitter_of_the_whole_head_leaves_what_keeps_its_shape_too(group):
    clean = steady(100)
    jitter = np.random.default_rng(1).normal(scale=1.0, size=(len(clean), 1, 2))
    smoothed = smooth_landmarks(table(clean + jitter)).points
    assert (smoothed - clean)[5:-5, list(group)].mean(axis=1).std() < 0.7 * jitter[5:-5].std()


def test_upper_face_scores_lose_noise_and_mouth_blinks_and_gaze_keep_every_value():
    scores = 0.5 + np.random.default_rng(0).normal(scale=0.05, size=(80, 52))
    smoothed = smooth_landmarks(table(steady(80), blendshapes=scores)).blendshapes
    brow = MEDIAPIPE_BLENDSHAPES.index("browInnerUp")
    assert smoothed[5:-5, brow].std() < 0.8 * scores[5:-5, brow].std()
    kept = [i for i in range(52) if i not in SMOOTHED_SCORES]
    assert set(LOWER_FACE_SCORES) <= set(kept)
    assert {MEDIAPIPE_BLENDSHAPES.index(f"eyeBlink{side}") for side in ("Left", "Right")} <= set(kept)
    np.testing.assert_array_equal(smoothed[:, kept], scores.astype(np.float32)[:, kept])
    edge = np.where(np.arange(80)[:, None] % 2, 1.0, 0.0) * np.ones(52)
    assert ((v := smooth_landmarks(table(steady(80), blendshapes=edge)).blendshapes) >= 0).all()
    assert (v <= 1).all()


# --- what stays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_a_closure_of_60_ms_keeps_its_depth(rate):
    times_s = times(60, rate)
    moving = steady(60)
    upper, lower = list(INNER_LIP[1:10]), list(INNER_LIP[11:])
    opening = 20.0 * (1 - bump(times_s, times_s[30], 0.06))
    moving[:, lower, 1] += opening[:, None]
    smoothed = smooth_landmarks(table(moving), times_s).points
    gap = smoothed[:, lower, 1].mean(axis=1) - smoothed[:, upper, 1].mean(axis=1)
    was = moving[:, lower, 1].mean(axis=1) - moving[:, upper, 1].mean(axis=1)
    assert gap[20] - gap[30] >= 0.95 * (was[20] - was[30])
    np.testing.assert_allclose(gap, was, atol=0.05)


@pytest.mark.parametrize("rate", RATES)
def test_a_blink_of_three_frames_keeps_its_depth(rate):
    moving = steady(60)
    lids = list(EYELIDS)
    closed = np.zeros(60)
    closed[29:32] = 0.6, 1.0, 0.6
    moving[:, lids, 1] += 8.0 * closed[:, None]
    smoothed = smooth_landmarks(table(moving), times(60, rate)).points
    depth = smoothed[:, lids, 1].mean(axis=1) - smoothed[10, lids, 1].mean()
    assert depth[30] >= 0.95 * 8.0
    assert depth[29] == pytest.approx(4.8, rel=0.05)


@pytest.mark.parametrize("rate", RATES)
def test_nothing_comes_late(rate):
    """A brow that goes up and down symmetrically stays symmetric about the same frame: zero phase."""
    times_s = times(81, rate)
    moving = steady(81)
    moving[:, list(BROWS), 1] -= 6.0 * bump(times_s, times_s[40], 0.4)[:, None]
    lift = smooth_landmarks(table(moving), times_s).points[:, list(BROWS), 1].mean(axis=1)
    np.testing.assert_allclose(lift, lift[::-1], atol=1e-3)
    assert lift.argmin() == 40


@pytest.mark.parametrize("rate", RATES)
def test_constant_velocity_and_parabolas_pass_unchanged_even_at_uneven_times(rate):
    for uneven in (0.0, 0.4):
        times_s = (np.arange(30) + np.random.default_rng(2).uniform(-uneven, uneven, 30)) / rate
        t = (times_s * rate)[:, None, None]
        moving = steady(30) + np.array([2.0, -1.0]) * t + np.array([0.05, 0.02]) * t**2
        np.testing.assert_allclose(smooth_landmarks(table(moving), times_s).points, moving, atol=2e-2)


def test_a_turning_head_keeps_its_lips_in_place():
    angle = 0.3 * np.sin(2 * np.pi * 0.8 * times(100, 25.0))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    moving = np.einsum("tij,tnj->tni", turn, steady(100) - 100.0) + 300.0
    smoothed = smooth_landmarks(table(moving)).points
    assert np.abs(smoothed - moving).max() < 0.01 * 200


# --- where it starts anew ---------------------------------------------------------------------------------------------


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


def test_a_cut_between_faces_in_the_same_place_is_not_smoothed_over():
    points = steady(30)
    points[15:, list(BROWS), 1] -= 9.0
    source = table(points)
    assert unbroken_runs(source) == [(0, 30)], "no jump tells of it"
    starts = np.array([0, 15, 40])
    assert unbroken_runs(source, starts) == [(0, 15), (15, 30)]
    np.testing.assert_allclose(smooth_landmarks(source, None, starts).points, points, atol=1e-3)
    assert np.abs(smooth_landmarks(source).points - points).max() > 1.0


@settings(max_examples=20)
@given(
    count=st.integers(2, 60),
    cuts=st.sets(st.integers(1, 59), max_size=3),
    lost=st.sets(st.integers(0, 59), max_size=4),
    rate=st.floats(10, 120),
    seed=st.integers(0, 99),
)
def test_pieces_between_cuts_are_smoothed_as_if_alone(count, cuts, lost, rate, seed):
    rng = np.random.default_rng(seed)
    points = steady(count) + rng.normal(scale=1.0, size=(count, 478, 2))
    valid = np.array([row not in lost for row in range(count)])
    times_s = np.cumsum(rng.uniform(0.3, 1.7, count)) / rate
    starts = sorted({0, *(cut for cut in cuts if cut < count)})
    whole = smooth_landmarks(table(points, valid), times_s, np.array(starts))
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        rows = slice(start, stop)
        alone = smooth_landmarks(table(points[rows], valid[rows]), times_s[rows])
        np.testing.assert_array_equal(whole.points[rows], alone.points)
        np.testing.assert_array_equal(whole.depth[rows], alone.depth)
        np.testing.assert_array_equal(whole.blendshapes[rows], alone.blendshapes)


@settings(max_examples=20)
@given(start=st.integers(0, 50), length=st.integers(1, 20), rate=st.floats(12, 90), seed=st.integers(0, 99))
def test_rows_further_away_than_the_reach_do_not_matter(start, length, rate, seed):
    rng = np.random.default_rng(seed)
    points = steady(70) + rng.normal(scale=1.0, size=(70, 478, 2))
    times_s = np.cumsum(rng.uniform(0.5, 1.5, 70)) / rate
    stop = min(start + length, 70)
    reach = SmoothingConfig().reach_s
    near = (times_s >= times_s[start] - reach) & (times_s <= times_s[stop - 1] + reach)
    first = int(near.argmax())
    part = smooth_landmarks(table(points[near]), times_s[near]).points[start - first : stop - first]
    np.testing.assert_array_equal(part, smooth_landmarks(table(points), times_s).points[start:stop])


# --- real material ----------------------------------------------------------------------------------------------------


def test_a_real_speaker_trembles_less_and_speaks_as_before(demo_dir):
    """Raw looks at a woman who talks: her face is steadier, the fast part of her lips' opening is all there."""
    landmarker, seen = FaceLandmarker(), []
    for frame in read_frames(demo_dir / DEMO_CLIP, 0, 50):
        rgb = rgb_from_planes(frame)
        region = steadied(region, region_of_landmarks(seen[-1].points)) if seen else _first_region(rgb)
        seen.append(landmarker.detect(rgb, region))
    points, depth, scores = (np.stack([getattr(s, n) for s in seen]) for n in ("points", "depth", "blendshapes"))
    made = smooth_landmarks(Landmarks2D(points, depth, np.ones(50, bool), scores), times(50, 25.0)).points
    for region, most in ((RIGID, 0.75), (JAW_LINE, 0.75), (BROWS, 0.75)):
        assert _tremble(made[:, list(region)]) < most * _tremble(points[:, list(region)])
    was, now = np.diff(lip_opening(points), 2), np.diff(lip_opening(made), 2)
    assert (now**2).sum() >= 0.95 * (was**2).sum()
    assert np.linalg.norm(made - points, axis=2).mean() < 0.01 * inter_ocular_px(points).mean()


def _first_region(rgb):
    face = FaceDetector().detect_face_bbox(rgb)[0]
    return region_of_face(face)


def _tremble(points):
    return np.sqrt((np.diff(points, 2, axis=0) ** 2).mean())


# --- bad tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_very_short_tables_stay_as_they_are(count):
    points = steady(40)[:count] + np.random.default_rng(0).normal(size=(count, 478, 2))
    made = smooth_landmarks(table(points.reshape(count, 478, 2)))
    assert len(made) == count
    np.testing.assert_allclose(made.points, points.astype(np.float32), atol=1e-3)


def test_nothing_valid_is_nothing_to_do():
    source = table(steady(5), np.zeros(5, dtype=bool))
    assert np.isnan(smooth_landmarks(source).points).all()


@pytest.mark.parametrize("column", ["points", "depth", "blendshapes"])
def test_a_nan_in_a_valid_row_does_not_spread(column):
    source = table(steady(30) + np.random.default_rng(0).normal(size=(30, 478, 2)))
    getattr(source, column)[12, 3] = np.nan
    made = smooth_landmarks(source)
    np.testing.assert_array_equal(made.points[12], source.points[12])
    others = np.arange(30) != 12
    for name in ("points", "depth", "blendshapes"):
        assert np.isfinite(getattr(made, name)[others]).all()
    assert made.valid.all()


def test_points_that_never_move_or_all_lie_in_one_place_stay_finite():
    for points in (steady(20), np.full((20, 478, 2), 55.5)):
        np.testing.assert_allclose(smooth_landmarks(table(points)).points, points, atol=1e-3)


def test_the_input_is_not_touched():
    source = table(steady(20) + np.random.default_rng(0).normal(size=(20, 478, 2)))
    before = source.points.copy(), source.depth.copy(), source.blendshapes.copy()
    smooth_landmarks(source)
    for old, new in zip(before, (source.points, source.depth, source.blendshapes), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("times_s", [np.arange(4.0), np.array([0.0, 1, 1, 2, 3]), np.array([0, 1, np.nan, 3, 4])])
def test_times_that_do_not_belong_to_the_rows_are_refused(times_s):
    with pytest.raises(ValueError, match="times of 5 landmark rows"):
        smooth_landmarks(table(steady(5)), times_s)


def test_absurd_strengths_are_refused_and_none_changes_nothing():
    with pytest.raises(ValueError, match="smoothing times"):
        SmoothingConfig(face_s=-0.1)
    points = steady(20) + np.random.default_rng(0).normal(size=(20, 478, 2))
    made = smooth_landmarks(table(points), config=SmoothingConfig(0.0, 0.0, 0.0))
    np.testing.assert_allclose(made.points, points, atol=1e-4)


# --- the parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
def test_the_average_is_a_parabola_fitted_around_each_row(rate):
    rng = np.random.default_rng(0)
    times_s = np.cumsum(rng.uniform(0.6, 1.4, 25)) / rate
    values = rng.normal(size=25)
    made = TimeAverage.over(times_s, 0.15).of(values)
    for row in range(25):
        apart = (times_s - times_s[row]) / 0.15
        weights = np.where(np.abs(apart) < 1, (1 - np.minimum(np.abs(apart), 1) ** 3) ** 3, 0)
        near = weights >= 1e-4
        expected = values[row]
        if near.sum() > 3:
            expected = np.polynomial.Polynomial.fit(apart[near], values[near], 2, w=np.sqrt(weights[near]))(0.0)
        assert made[row] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
def test_similarity_is_recovered(angle):
    rng = np.random.default_rng(0)
    source = rng.normal(size=(3, 9)) + 1j * rng.normal(size=(3, 9))
    turn, shift = 1.7 * np.exp(1j * angle), np.array([3 - 4j, 0, 1j])
    found = fit_similarity(source, turn * source + shift[:, None])
    np.testing.assert_allclose(found.turn, turn, atol=1e-9)
    np.testing.assert_allclose(found.shift, shift, atol=1e-9)
