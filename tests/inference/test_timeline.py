"""Time options: which part is edited, and what is shown when video and speech differ in length."""

import argparse
import logging
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inference.timeline import (
    TimeOptions,
    add_time_arguments,
    build_timeline,
    length_mode,
    warn_of_cut_speech,
)
from modules.commons.errors import ConfigError
from modules.structures.timeline import SourceClock, Turns


def clock(n=100, step=512, first=0, time_base=Fraction(1, 12800), rate=Fraction(25)):
    return SourceClock(first + step * np.arange(n, dtype=np.int64), time_base, rate)


def build(options=None, speech_s=2.0, source=None, turns=None, **given_options):
    return build_timeline(source or clock(), options or TimeOptions(**given_options), speech_s, turns)


# ---- as long as the video ----


def test_by_default_the_video_is_shown_as_it_is_and_the_speech_begins_with_it():
    made = build(source=clock(first=640))
    assert made.is_source and len(made) == 100 and made.in_part.all()
    np.testing.assert_array_equal(made.pts, clock(first=640).pts)
    np.testing.assert_array_equal(made.speech_s, np.arange(100) / 25)
    begins = Fraction(640, 12800)
    assert made.speech_start_s == begins and made.part_s == (begins, begins + 4) and made.duration_s == 4.0


@pytest.mark.parametrize("offset_s", [-0.52, 0.0, 1.0])
def test_a_part_is_edited_and_its_speech_begins_there(offset_s):
    made = build(start_s=1.0, end_s=3.0, audio_offset_s=offset_s)
    assert np.flatnonzero(made.in_part).tolist() == list(range(25, 75)) and made.is_source
    assert made.speech_s[25] == pytest.approx(-offset_s, abs=1e-12)
    assert float(made.speech_start_s) == pytest.approx(1 + offset_s) and made.part_s == (1, 3)


def test_the_end_may_be_the_videos_own():
    assert build(end_s=4.0).in_part.all() and build(end_s=4.0).part_s == (0, 4)
    assert build(end_s=4.03).part_s == (0, 4), "a frame's worth of rounding is forgiven"


# ---- trim ----


@pytest.mark.parametrize(
    ("speech_s", "offset_s", "start_s", "frames"),
    [(2.0, 0.0, None, 50), (2.01, 0.0, None, 51), (0.001, 0.0, None, 1), (9.0, 0.0, None, 100), (2.0, 0.5, None, 63),
     (2.0, -0.5, None, 38), (2.0, 0.0, 1.0, 75)],
)  # fmt: skip
def test_trim_ends_with_the_shorter(speech_s, offset_s, start_s, frames):
    made = build(speech_s=speech_s, length="trim", audio_offset_s=offset_s, start_s=start_s)
    assert len(made) == made.first_pass == frames and made.end_pts == frames * 512


# ---- longer than the video ----


def test_pingpong_goes_back_and_forth_between_its_turns():
    made = build(speech_s=0.64, source=clock(8), length="pingpong", turns=Turns(2, 6))
    assert made.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 3, 4, 5, 6, 5]
    assert made.pts.tolist() == (512 * np.arange(16)).tolist() and made.end_pts == 16 * 512 and made.first_pass == 7


def test_hold_shows_the_last_still_frame():
    made = build(speech_s=0.45, source=clock(8), length="hold", turns=Turns(2, 6))
    assert made.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6] and made.end_pts == 12 * 512


def test_frames_keep_their_own_durations_backwards():
    pts = np.array([100, 200, 500, 600, 1000], np.int64)
    source = SourceClock(pts, Fraction(1, 1000), Fraction(10))
    made = build(speech_s=2.35, source=source, length="pingpong", turns=Turns(1, 4))
    assert made.rows.tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 2, 3, 4]
    shown = np.diff(np.append(made.pts, made.end_pts))
    assert shown.tolist() == [100, 300, 100, 400, 100, 400, 100, 300, 100, 400, 100]


def test_a_rate_that_is_no_whole_number_of_ticks_does_not_drift():
    source = SourceClock(np.array([0, 33, 67, 100], np.int64), Fraction(1, 1000), Fraction(30000, 1001))
    made = build(speech_s=100.0, source=source, length="hold", turns=Turns(0, 3))
    gaps = np.diff(made.pts)
    assert set(gaps.tolist()) == {33, 34} and made.duration_s == pytest.approx(100.0, abs=0.04)
    count = len(made) - 4
    assert made.pts[-1] - made.pts[4] == pytest.approx(float((count - 1) * source.step), abs=0.51)


@pytest.mark.parametrize("length", ["pingpong", "hold"])
def test_a_speech_that_fits_lengthens_nothing(length):
    assert build(speech_s=4.0, length=length).is_source
    assert not TimeOptions(length=length).needs_more_frames(clock(), 4.0)
    assert TimeOptions(length=length).needs_more_frames(clock(), 4.001)
    assert TimeOptions(length=length, start_s=1.0).needs_more_frames(clock(), 3.5)
    assert not TimeOptions().needs_more_frames(clock(), 9.0)


def test_one_frame_can_only_be_held():
    made = build(speech_s=0.2, source=clock(1), length="pingpong", turns=Turns(0, 0))
    assert made.rows.tolist() == [0] * 5 and made.end_pts == 5 * 512


def test_lengthening_without_turning_points_is_a_mistake():
    with pytest.raises(ValueError, match="turn"):
        build(speech_s=9.0, length="hold")


@st.composite
def lengthened(draw):
    """A variable clock, turning points in it and a speech that outlasts it."""
    steps = draw(st.lists(st.integers(1, 4000), min_size=1, max_size=40))
    time_base = draw(st.sampled_from([Fraction(1, 90000), Fraction(1, 1000), Fraction(1001, 30000)]))
    rate = draw(st.sampled_from([Fraction(25), Fraction(24000, 1001), Fraction(60)]))
    pts = draw(st.integers(0, 10**6)) + np.cumsum(steps, dtype=np.int64)
    source = SourceClock(pts, time_base, rate)
    last = draw(st.integers(0, len(pts) - 1))
    offset_s = draw(st.floats(-0.5, 0.5))
    speech_s = source.duration_s * draw(st.floats(1.0, 4.0)) + abs(offset_s) + 0.01
    assume(source.duration_s > offset_s)
    length = draw(st.sampled_from(["pingpong", "hold"]))
    return source, Turns(draw(st.integers(0, last)), last), length, offset_s, speech_s


@given(lengthened())
def test_whatever_the_clock_a_longer_video_holds_together(case):
    source, turns, length, offset_s, speech_s = case
    options = TimeOptions(length=length, audio_offset_s=offset_s)
    assert options.needs_more_frames(source, speech_s)
    made = build_timeline(source, options, speech_s, turns)
    passed = turns.last + 1
    assert made.first_pass == passed
    np.testing.assert_array_equal(made.rows[:passed], np.arange(passed))
    np.testing.assert_array_equal(made.pts[:passed], source.pts[:passed])
    later = made.rows[passed - 1 :]
    shown = np.diff(np.append(made.pts, made.end_pts))
    assert (shown > 0).all() and (np.diff(made.speech_s) > 0).all()
    if length == "pingpong" and turns.first < turns.last:
        assert (np.abs(np.diff(later)) == 1).all() and later.min() >= turns.first and later.max() == turns.last
        inner = later[1:-1][np.diff(later)[1:] != np.diff(later)[:-1]]
        assert set(inner) <= {turns.first, turns.last}, "it turns where it may"
        np.testing.assert_array_equal(shown, source.durations[made.rows])
        assert made.end_pts - made.pts[0] == source.durations[made.rows].sum()
    else:
        assert (later == turns.last).all()
        assert (np.abs(shown[passed:] - float(source.step)) <= 1).all()
    ends_s = float((made.end_pts - int(source.pts[0])) * source.time_base)
    rounding_s = 1e-4 * float(source.time_base) + 1e-9
    assert ends_s >= options.speech_starts_s + speech_s - rounding_s, "all of the speech is heard"
    last_begins_s = float((int(made.pts[-1]) - int(source.pts[0])) * source.time_base)
    assert last_begins_s < options.speech_starts_s + speech_s, "and not a frame too many is shown"


# ---- mistakes ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_s": -1.0}, "--start -1"),
        ({"start_s": float("nan")}, "--start nan"),
        ({"end_s": float("inf")}, "--end inf"),
        ({"audio_offset_s": float("nan")}, "--audio_offset nan"),
        ({"start_s": 2.0, "end_s": 2.0}, "--end 2 must lie after --start 2"),
        ({"end_s": 0.0}, "--end 0 must lie after --start 0"),
        ({"end_s": -3.0}, "--end -3"),
        ({"length": "loop"}, "pingpong"),
        ({"end_s": 2.0, "length": "pingpong"}, "leave one of them out"),
        ({"end_s": 2.0, "length": "trim"}, "leave one of them out"),
        ({"start_s": 4.0}, "lasts 4.00 s"),
        ({"end_s": 5.0}, "lasts 4.00 s"),
        ({"audio_offset_s": -2.0}, "whole speech"),
        ({"audio_offset_s": 4.0}, "begin at 4.00 s"),
        ({"audio_offset_s": 1.0, "start_s": 1.0, "end_s": 2.0}, "begin at 2.00 s"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build(**options)
    assert "\n" not in str(caught.value)


# ---- the speech's end ----


@pytest.mark.parametrize(
    ("options", "speech_s", "message"),
    [
        ({}, 4.6, "longer than the video; its last 0.6 s"),
        ({}, 4.4, None),
        ({"audio_offset_s": 1.0}, 3.9, "its last 0.9 s"),
        ({"start_s": 1.0, "end_s": 2.0}, 2.0, "longer than the edited part; its last 1.0 s"),
        ({"length": "trim"}, 9.0, "longer than the video"),
        ({"length": "trim"}, 2.0, None),
    ],
)
def test_a_speech_that_is_cut_is_said_so(caplog, options, speech_s, message):
    with caplog.at_level(logging.WARNING):
        warn_of_cut_speech(build(speech_s=speech_s, **options), speech_s)
    assert [r.getMessage() for r in caplog.records if message is None or message not in r.getMessage()] == []
    assert len(caplog.records) == (message is not None)


# ---- flags ----


def test_the_flags():
    parser = argparse.ArgumentParser()
    add_time_arguments(parser)
    plain = parser.parse_args([])
    assert (plain.start, plain.end, plain.audio_offset, plain.length) == (None, None, 0.0, "source")
    full = parser.parse_args(["--start", "1.5", "--end", "3", "--audio_offset", "-0.2", "--length", "shortest"])
    assert (full.start, full.end, full.audio_offset, length_mode(full.length)) == (1.5, 3.0, -0.2, "trim")
    assert [length_mode(mode) for mode in ("source", "trim", "pingpong", "hold")] == [
        "source",
        "trim",
        "pingpong",
        "hold",
    ]
    with pytest.raises(ConfigError, match="--length 'loop'"):
        length_mode("loop")
