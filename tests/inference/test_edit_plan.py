"""The edit plan: who is edited, how strongly, with which expression."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_audio.vad import RATE_HZ, detect_speech
from inference.edit_plan import (
    AFTER_SPEECH,
    EDITED,
    NO_FACE,
    POOR_FIT,
    EditConfig,
    EditPlan,
    SourceMotion,
    fade_edges,
    plan_edits,
    resting_lips,
    shot_ranges,
)
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from modules.structures.spans import Reason, SpanTable

UNITS = np.array([1, 2])
SMILE = np.array([2])
FADE = 4
"""Frames that the default fade takes at 25 per second."""


def source(n=100, fps=25.0, bad=None, bridges=(), **changes):
    """Usable frames, but for ``bad`` = {frame: reason}; those in ``bridges`` may be bridged."""
    reasons = [(bad or {}).get(row, EDITED) for row in range(n)]
    fields = {
        "times_s": np.arange(n) / fps,
        "expression": np.full((n, 4), 0.3, np.float32),
        "opening": np.full(n, 0.1, np.float32),
        "reasons": tuple(reasons),
        "bridgeable": np.array([reason is EDITED or row in bridges for row, reason in enumerate(reasons)]),
        "rest": np.full(4, 0.1, np.float32),
    }
    return SourceMotion(**{**fields, **changes})


def bad(*stretches, reason=Reason.LOST):
    return {row: reason for first, stop in stretches for row in range(first, stop)}


def motion(seconds=4.0, speech=1.0):
    rows = int(seconds * 50)
    return MotionSequence(np.zeros((rows, 4), np.float32), np.full(rows, speech, np.float32), 50.0, "v")


def plan(src, mot=None, dev=0.2, shot_starts=None, in_part=None, **config):
    sampled = np.full((len(src.times_s), 4), dev, np.float32)
    return plan_edits(
        src, mot or motion(), sampled, mouth_units=UNITS, smile_units=SMILE, config=EditConfig(**config),
        shot_starts=shot_starts, in_part=in_part,
    )  # fmt: skip


# ---- expressions ----


def test_only_mouth_units_change_and_stay_in_range():
    result = plan(source(), dev=0.2, keep_smile=0.0)
    np.testing.assert_allclose(result.expression[:, [0, 3]], 0.3)
    np.testing.assert_allclose(result.expression[:, 1], 0.3, atol=1e-6)
    assert plan(source(), dev=5.0).expression.max() <= 1.0


def test_slow_smile_of_the_source_is_kept_in_part():
    result = plan(source(), dev=0.0, keep_smile=0.5)
    np.testing.assert_allclose(result.expression[:, 2], 0.1 + 0.5 * 0.2, atol=1e-5)
    np.testing.assert_allclose(result.expression[:, 1], 0.1, atol=1e-6)


def test_what_was_fitted_to_nothing_does_not_bleed_into_the_smile():
    expression = np.full((100, 4), 0.3, np.float32)
    expression[40:60] = 0.9
    result = plan(source(bad=bad((40, 60)), expression=expression), dev=0.0, keep_smile=0.5)
    np.testing.assert_allclose(result.expression[:40, 2], 0.1 + 0.5 * 0.2, atol=1e-5)


# ---- who is edited ----


def test_reasons_name_why_a_frame_passes_through():
    result = plan(source(bad=bad((0, 10), reason=NO_FACE) | bad((20, 30), reason=POOR_FIT)), motion(seconds=2.0))
    assert result.reasons[0] == NO_FACE and result.reasons[25] == POOR_FIT and result.reasons[99] == AFTER_SPEECH
    assert result.reasons[40] == EDITED and result.strength[40] == 1
    assert sum(result.counts().values()) == 100
    assert not result.strength[:10].any() and not result.strength[20:30].any() and not result.strength[50:].any()


def test_before_the_speech_and_outside_the_part_nothing_is_edited():
    times = np.arange(100) / 25 - 1.0
    in_part = np.arange(100) >= 10
    result = plan(source(times_s=times), motion(seconds=2.0), in_part=in_part)
    expected = [Reason.OUTSIDE_PART] * 10 + [Reason.BEFORE_SPEECH] * 15 + [EDITED] * 50 + [AFTER_SPEECH] * 25
    assert list(result.reasons) == expected
    assert result.strength[25 + FADE] == 1 and 0 < result.strength[25] < 0.2


def test_a_plan_has_one_expression_per_frame():
    with pytest.raises(ValueError, match="3 expressions"):
        EditPlan(np.zeros((3, 4), np.float32), SpanTable(np.ones(2, np.float32), (EDITED, EDITED)))


# ---- holes and flashes ----


@pytest.mark.parametrize("hole", [1, 2])
def test_a_short_hole_that_can_be_bridged_does_not_make_the_edit_pump(hole):
    result = plan(source(bad=bad((50, 50 + hole)), bridges=(50, 51)))
    assert (result.strength == 1).all() and set(result.reasons) == {EDITED}


@pytest.mark.parametrize(("hole", "bridges"), [(3, (50, 51, 52)), (1, ()), (2, (50,))])
def test_other_holes_are_faded_around(hole, bridges):
    result = plan(source(bad=bad((50, 50 + hole)), bridges=bridges))
    assert (result.strength[50 : 50 + hole] == 0).all() and set(result.reasons[50 : 50 + hole]) == {Reason.LOST}
    fading = result.strength[50 - FADE + 1 : 50]
    assert (np.diff(fading) < 0).all() and result.strength[50 - FADE] == 1
    np.testing.assert_allclose(result.strength[50 + hole : 50 + hole + FADE - 1], fading[::-1], atol=1e-6)


def test_a_hole_at_a_cut_or_an_end_is_no_hole_inside_a_run():
    for starts, row in ((np.array([0, 50]), 50), (np.array([0, 50]), 49), (None, 0), (None, 99)):
        result = plan(source(bad=bad((row, row + 1)), bridges=(row,)), shot_starts=starts)
        assert result.strength[row] == 0


def test_islands_too_short_to_fade_in_and_out_are_dropped():
    short = plan(source(bad=bad((20, 40), (47, 60))))
    assert set(short.reasons[40:47]) == {Reason.SHORT} and not short.strength[20:60].any()
    long = plan(source(bad=bad((20, 40), (48, 60))))
    assert set(long.reasons[40:48]) == {EDITED} and long.strength[20:60].max() == 1
    assert plan(source(bad=bad((20, 40), (41, 60))), fade_s=0.0).strength[40] == 1, "without fades nothing is too short"


def test_a_whole_shot_is_kept_however_short():
    result = plan(source(bad=bad((20, 40), (43, 60))), shot_starts=np.array([0, 40, 43]))
    assert (result.strength[40:43] == 1).all()
    half = plan(source(bad=bad((20, 40), (43, 60))), shot_starts=np.array([0, 43]))
    assert set(half.reasons[40:43]) == {Reason.SHORT}, "with one cut beside it one fade must fit"
    assert set(plan(source(bad=bad((20, 40), (44, 60))), shot_starts=np.array([0, 44])).reasons[40:44]) == {EDITED}


def test_a_short_speech_is_edited():
    result = plan(source(), motion(seconds=0.2))
    assert list(result.reasons[:5]) == [EDITED] * 5 and result.strength[0] == 1


# ---- fades ----


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.0, 0.5), st.sets(st.integers(1, 60)))
def test_fades_are_zero_outside_and_bounded_and_never_cross_a_cut(flags, fade_s, cuts):
    wanted, times = np.array(flags), np.arange(len(flags)) / 25
    starts = np.array([0, *sorted(cuts)])
    strength = fade_edges(wanted, times, fade_s, starts)
    assert (strength[~wanted] == 0).all() and (strength[wanted] > 0).all() and (strength <= 1).all()
    for first, stop in shot_ranges(starts, len(wanted)):
        alone = fade_edges(wanted[first:stop], times[first:stop], fade_s)
        np.testing.assert_array_equal(strength[first:stop], alone)
        if wanted[first:stop].all():
            assert (alone == 1).all()


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.floats(0.01, 0.5))
def test_fades_are_what_a_loop_finds(flags, fade_s):
    times = np.arange(len(flags)) / 25
    outside = [time for time, flag in zip(times, flags, strict=True) if not flag]
    for time, flag, strength in zip(times, flags, fade_edges(np.array(flags), times, fade_s), strict=True):
        near = min((abs(time - other) for other in outside), default=np.inf)
        ramp = min(near / fade_s, 1.0)
        assert strength == pytest.approx(max(ramp * ramp * (3 - 2 * ramp), 1e-6) if flag else 0.0, abs=1e-6)


def test_fades_do_not_start_at_the_ends_of_the_clip():
    assert (fade_edges(np.ones(10, bool), np.arange(10) / 25, 0.2) == 1).all()


def test_an_edit_begins_at_full_strength_at_a_cut():
    result = plan(source(bad=bad((0, 50))), shot_starts=np.array([0, 50]))
    assert (result.strength[50:] == 1).all()


@pytest.mark.parametrize("fade_s", [-0.1, float("nan"), float("inf")])
def test_a_fade_takes_time(fade_s):
    with pytest.raises(ValueError, match="fade"):
        EditConfig(fade_s=fade_s)


# ---- pauses ----


def test_long_pause_fades_back_only_when_the_source_mouth_rests():
    silent = motion(speech=0.0)
    resting = source(opening=np.full(100, 0.005, np.float32))
    assert not plan(resting, silent).edited.any()
    assert set(plan(resting, silent).reasons) == {Reason.PAUSE}
    assert plan(source(), silent).edited.all()


def test_the_fade_into_a_pause_costs_no_speech():
    gate = np.ones(200, np.float32)
    gate[50:150] = 0.0
    paused = MotionSequence(np.zeros((200, 4), np.float32), gate, 50.0, "v")
    result = plan(source(opening=np.full(100, 0.005, np.float32)), paused)
    assert (result.strength[:25] == 1).all() and (result.strength[75:] == 1).all(), "every frame with speech"
    assert {Reason.PAUSE} == set(result.reasons[30:70])
    word = gate.copy()
    word[95:105] = 1.0  # 0.2 s
    said = plan(source(opening=np.full(100, 0.005, np.float32)), MotionSequence(paused.expression, word, 50.0, "v"))
    assert (said.strength[48:52] == 1).all()


def pauses(speech, *stretches):
    """Motion of 50 rows per second that says nothing in stretches of seconds."""
    gate = np.full(int(speech * 50), 1.0, np.float32)
    for first, stop in stretches:
        gate[int(first * 50) : int(stop * 50)] = 0
    return MotionSequence(np.zeros((len(gate), 4), np.float32), gate, 50.0, "v")


def is_a_loop(opening, low, high):
    """``resting_lips``, frame by frame."""
    state, found = False, []
    for value in opening:
        if np.isnan(value) or value > high:
            state = False
        elif value < low:
            state = True
        found.append(state)
    return np.array(found, bool)


@given(st.lists(st.sampled_from([0.0, 0.01, 0.02, 0.025, 0.03, 0.035, 0.04, float("nan")]), max_size=60))
def test_lips_rest_until_they_wake(opening):
    values = np.array(opening, np.float64)
    np.testing.assert_array_equal(resting_lips(values, 0.02, 0.035), is_a_loop(values, 0.02, 0.035))


def test_lips_that_tremble_around_the_threshold_do_not_switch_the_edit_to_and_fro():
    """4 s of pause: one fade to the source, one back, and never faster than a fade."""
    rng = np.random.default_rng(1)
    opening = np.full(150, 0.1, np.float32)
    opening[25:125] = rng.uniform(0.012, 0.03, 100)
    opening[25] = 0.01
    result = plan(source(150, opening=opening), pauses(6.0, (1.0, 5.0)))
    steps = np.diff(result.strength)
    assert (result.strength[30:120] == 0).all() and set(result.reasons[30:120]) == {Reason.PAUSE}
    assert (result.strength[:25] == 1).all() and (result.strength[125:] == 1).all()
    assert np.count_nonzero(np.diff(np.sign(steps[steps != 0]))) == 1, "down once, up once"
    assert np.abs(steps).max() <= 1.5 / FADE + 1e-6, "the steepest step of a smooth fade"


def test_only_the_resting_part_of_a_pause_fades_to_the_source():
    """Its own mouth speaks from 2 s to 3 s of the pause: there the new one stays shut over it."""
    opening = np.full(200, 0.005, np.float32)
    opening[75:100] = 0.1
    result = plan(source(200, opening=opening), pauses(8.0, (1.0, 7.0)))
    assert (result.strength[75:100] == 1).all()
    assert (result.strength[30:70] == 0).all() and (result.strength[105:170] == 0).all()


def test_a_mouth_that_rests_for_a_moment_is_no_pause():
    opening = np.tile(np.r_[np.full(12, 0.005), np.full(4, 0.1)], 10).astype(np.float32)
    assert plan(source(len(opening), opening=opening), pauses(6.4, (0.0, 6.4))).edited.all()


def test_real_speech_with_a_pause_fades_once_and_costs_no_word(demo_dir):
    """3 s of speech, 2.5 s of faint noise, 2 s of speech; the lips of the source rest all the time."""
    said = load_audio_16k(demo_dir / "obama_speech.wav").samples
    noise = 1e-4 * np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    samples = np.concatenate([said[:48_000], noise, said[48_000:80_000]])
    active = detect_speech(AudioClip(samples, 16_000)).astype(np.float32)
    heard = MotionSequence(np.zeros((len(active), 4), np.float32), active, float(RATE_HZ), "v")
    frames = int(len(samples) / 16_000 * 25)
    result = plan(source(frames, opening=np.full(frames, 0.004, np.float32)), heard)
    row = (result_s := np.arange(frames) / 25) * RATE_HZ
    spoken = active[row.astype(int)] > 0.5
    assert (result.strength[spoken] == 1).all(), "every frame in which somebody speaks"
    middle = (result_s > 3.6) & (result_s < 4.9)
    assert (result.strength[middle] == 0).all() and set(np.array(result.reasons)[middle]) == {Reason.PAUSE}
    inside = (result_s > 2) & (result_s < 6.5)
    falls = np.flatnonzero(np.diff((result.strength[inside] > 0).astype(int)))
    assert len(falls) == 2, "it leaves once and comes back once"
    assert np.abs(np.diff(result.strength)).max() <= 1.5 / FADE + 1e-6


# ---- all of it ----


@given(
    st.lists(st.sampled_from([EDITED, EDITED, EDITED, *Reason]), min_size=1, max_size=80),
    st.sets(st.integers(1, 79)),
    st.floats(0.0, 0.3),
    st.floats(0.0, 3.0),
    st.floats(-1.0, 1.0),
    st.randoms(),
)
def test_no_plan_edits_what_it_must_not(reasons, cuts, fade_s, speech_s, first_s, random):
    n = len(reasons)
    may = np.array([random.random() < 0.5 for _ in range(n)])
    in_part = np.array([random.random() < 0.9 for _ in range(n)])
    times = first_s + np.arange(n) / 25
    clip = source(n, times_s=times, reasons=tuple(reasons), bridgeable=may)
    mot = motion(seconds=speech_s) if speech_s >= 0.02 else motion(0.02)
    result = plan(clip, mot, shot_starts=np.array([0, *sorted(cuts)]), in_part=in_part, fade_s=fade_s)
    allowed = (clip.usable | may) & in_part & (times >= 0) & (times < mot.duration_s)
    assert not result.edited[~allowed].any()
    for row in np.flatnonzero(~result.edited & clip.usable & in_part):
        assert result.reasons[row] in (Reason.SHORT, Reason.PAUSE, Reason.BEFORE_SPEECH, AFTER_SPEECH)


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_clips(n):
    assert len(plan(source(n=n)).reasons) == n
