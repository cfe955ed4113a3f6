"""Clocks of sources and timelines of outputs: what they derive, what they refuse."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.structures.timeline import SourceClock, Timeline, Turns

TICK = Fraction(1, 90000)


def clock(*pts, time_base=TICK, rate=Fraction(25)):
    return SourceClock(np.array(pts, np.int64), time_base, rate)


def timeline(rows=(0, 1, 2, 1, 0), first_pass=3, **changes):
    count = len(rows)
    fields = {
        "rows": np.array(rows, np.int64),
        "pts": np.arange(count, dtype=np.int64) * 3600,
        "speech_s": np.arange(count) / 25,
        "in_part": np.ones(count, bool),
        "first_pass": first_pass,
        "end_pts": count * 3600,
        "time_base": TICK,
        "speech_start_s": Fraction(0),
        "part_s": (Fraction(0), Fraction(count, 25)),
    }
    return Timeline(**{**fields, **changes})


def test_durations_are_the_gaps_and_at_last_the_nominal_one():
    made = clock(100, 3700, 9000)
    assert made.durations.tolist() == [3600, 5300, 3600] and made.end_pts == 12600
    assert made.duration_s == pytest.approx(12500 / 90000) and made.times_s.tolist() == [0.0, 0.04, 8900 / 90000]
    assert clock(0, 1, time_base=Fraction(1, 10), rate=Fraction(60)).step == 1, "a coarse clock still ticks"


@given(
    st.lists(st.integers(1, 10_000), min_size=1, max_size=50),
    st.integers(-100_000, 10**9),
    st.sampled_from([TICK, Fraction(1, 1000), Fraction(1001, 30000), Fraction(1, 12800)]),
)
def test_seconds_are_the_floats_nearest_to_the_exact_ones(steps, first, time_base):
    pts = first + np.cumsum(steps, dtype=np.int64)
    exact = [float((int(p) - int(pts[0])) * time_base) for p in pts]
    assert SourceClock(pts, time_base, Fraction(25)).times_s.tolist() == exact


@pytest.mark.parametrize("pts", [(), (0, 0), (3, 2)])
def test_frame_times_must_rise(pts):
    with pytest.raises(ValueError, match="times"):
        clock(*pts)


def test_a_clock_ticks():
    with pytest.raises(ValueError, match="no clock"):
        clock(0, 1, rate=Fraction(0))


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": (0, 1, 2, 0, 1)},  # jumps back
        {"rows": (0, 2, 3, 2, 1)},
        {"rows": (1, 2, 3, 2, 1)},
        {"rows": (0, 1, 2, 3, 2)},  # shows what the first pass did not
        {"rows": (0, 1, 0, -1, 0), "first_pass": 2},
        {"first_pass": 0},
        {"first_pass": 6},
        {"end_pts": 4 * 3600},
        {"pts": np.array([0, 3600, 3600, 7200, 9000])},
        {"speech_s": np.zeros(5)},
        {"in_part": np.ones(4, bool)},
        {"part_s": (Fraction(1), Fraction(1))},
    ],
)
def test_a_broken_timeline_is_refused(changes):
    with pytest.raises(ValueError, match=r".+"):
        timeline(**changes)


def test_a_timeline_describes_itself():
    made = timeline()
    assert len(made) == 5 and not made.is_source and made.duration_s == pytest.approx(0.2)
    assert timeline(rows=range(5), first_pass=5).is_source
    assert "frames=5" in repr(made) and "first_pass=3" in repr(made)
    assert replace(made, end_pts=5 * 3600 + 1).duration_s > made.duration_s


def test_shots_follow_the_rows_shown():
    made = timeline(rows=(0, 1, 2, 3, 4, 3, 2, 3), first_pass=5)
    assert made.shot_starts(np.array([0])).tolist() == [0]
    assert made.shot_starts(np.array([0, 2])).tolist() == [0, 2]
    assert made.shot_starts(np.array([0, 2, 4])).tolist() == [0, 2, 4, 5]


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (3, 2)])
def test_turning_points_ascend(first, last):
    with pytest.raises(ValueError, match="turning points"):
        Turns(first, last)
