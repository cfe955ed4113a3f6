"""Which part of a video is edited, when the speech is heard, and what is shown when one outlasts the other."""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import ConfigError
from modules.structures.timeline import SourceClock, Timeline, Turns

logger = logging.getLogger(__name__)

LengthMode = Literal["source", "trim", "pingpong", "hold"]
LENGTH_MODES = get_args(LengthMode)
SHORTEST = "shortest"
"""Another name of 'trim'."""
_ROUNDING_TICKS = 1e-4
"""Seconds as floats that miss a whole tick by less mean it."""
CUT_WORTH_SAYING_S = 0.5
"""Speech that is cut by less than this ends in the silence that most recordings end with."""


@dataclass(frozen=True, slots=True)
class TimeOptions:
    """When what is edited.

    Attributes:
        start_s, end_s: only frames from ``start_s`` up to ``end_s`` are edited, in seconds after the first frame, and
            the speech begins at ``start_s``; None = the video's own start and end.
        audio_offset_s: the speech is heard this much later; below 0 its beginning is cut off.
        length: 'source' keeps the video's length, 'trim' ends with the shorter of video and speech, 'pingpong' plays
            the video back and forth until the speech ends, 'hold' keeps a frame until then.

    Raises:
        ConfigError: a value that makes no sense whatever the video.
    """

    start_s: float | None = None
    end_s: float | None = None
    audio_offset_s: float = 0.0
    length: LengthMode = "source"

    def __post_init__(self) -> None:
        for flag, value in (("--start", self.start_s), ("--end", self.end_s), ("--audio_offset", self.audio_offset_s)):
            if value is not None and not math.isfinite(value):
                raise ConfigError(f"{flag} {value}: give a number of seconds")
        if self.start_s is not None and self.start_s < 0:
            raise ConfigError(f"--start {self.start_s:g}: seconds count from the video's first frame, so from 0 on")
        if self.end_s is not None and self.end_s <= self.begins_s:
            raise ConfigError(f"--end {self.end_s:g} must lie after --start {self.begins_s:g}")
        if self.length not in LENGTH_MODES:
            raise ConfigError(f"--length {self.length!r}: choose one of {', '.join(LENGTH_MODES)}")
        if self.end_s is not None and self.length != "source":
            raise ConfigError(
                f"--length {self.length} changes the end of the video, but --end {self.end_s:g} leaves it untouched; "
                "leave one of them out"
            )

    @property
    def begins_s(self) -> float:
        """Where the edited part begins, seconds after the first frame."""
        return self.start_s or 0.0

    @property
    def speech_starts_s(self) -> float:
        """When sample 0 of the speech is heard, seconds after the first frame."""
        return self.begins_s + self.audio_offset_s

    def needs_more_frames(self, clock: SourceClock, speech_s: float) -> bool:
        """Whether the video must be made longer: only then turning points matter.

        Args:
            clock: the video's.
            speech_s: how long the speech is.
        """
        return self.length in ("pingpong", "hold") and self.speech_starts_s + speech_s > clock.duration_s


def add_time_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags behind ``TimeOptions``; ``time_options`` reads them."""
    parser.add_argument("--start", type=float, metavar="S", help="edit from this second of the video on; speech starts")
    parser.add_argument("--end", type=float, metavar="S", help="edit up to this second; the rest stays as it is")
    parser.add_argument("--audio_offset", type=float, default=0.0, metavar="S", help="seconds; above 0 = later speech")
    parser.add_argument(
        "--length",
        choices=(*LENGTH_MODES, SHORTEST),
        default="source",
        help="whose length the result has: the video's, the shorter one's (trim), or the speech's, with the picture "
        "going back and forth (pingpong) or standing still (hold) when it is too short",
    )


def length_mode(text: str) -> LengthMode:
    """The mode a flag means.

    Raises:
        ConfigError: it is none.
    """
    for mode in LENGTH_MODES:
        if text == mode or (text == SHORTEST and mode == "trim"):
            return mode
    raise ConfigError(f"--length {text!r}: choose one of {', '.join(LENGTH_MODES)}")


def build_timeline(clock: SourceClock, options: TimeOptions, speech_s: float, turns: Turns | None = None) -> Timeline:
    """What is shown when, and which moment of the speech is heard with it.

    The source's frames keep their own times as far as they are shown in order; what follows goes on with the source's
    own frame durations (pingpong) or at its nominal rate (hold).

    Args:
        clock: when the source's frames are shown.
        options: what was asked for.
        speech_s: how long the speech is.
        turns: where the picture may turn or stand; needed where ``options.needs_more_frames``.

    Raises:
        ConfigError: the part or the speech lies outside the video.
        ValueError: turning points are needed and there are none.
    """
    check_times(clock, options, speech_s)
    first_pts, tick_s = int(clock.pts[0]), clock.time_base
    speech_start = first_pts * tick_s + Fraction(options.begins_s) + Fraction(options.audio_offset_s)
    speech_end_s = options.speech_starts_s + speech_s
    rows, pts, first_pass, end_pts = np.arange(len(clock)), clock.pts, len(clock), clock.end_pts
    if options.needs_more_frames(clock, speech_s):
        if turns is None:
            raise ValueError("the video must be made longer, but nobody said where it may turn")
        rows, pts, end_pts = _lengthened(clock, turns, speech_end_s, goes_back=options.length == "pingpong")
        first_pass = turns.last + 1
    elif options.length == "trim":
        first_pass = max(1, int(np.searchsorted(clock.times_s, speech_end_s, side="left")))
        rows, pts = rows[:first_pass], pts[:first_pass]
        end_pts = int(clock.pts[first_pass]) if first_pass < len(clock) else end_pts
    shown_s = clock.seconds_after_first(pts)
    part_end_s = np.inf if options.end_s is None else options.end_s
    end_s = end_pts * tick_s if options.end_s is None else first_pts * tick_s + Fraction(options.end_s)
    return Timeline(
        rows=rows.astype(np.int64),
        pts=pts.astype(np.int64),
        speech_s=shown_s - options.speech_starts_s,
        in_part=(shown_s >= options.begins_s) & (shown_s < part_end_s),
        first_pass=first_pass,
        end_pts=end_pts,
        time_base=tick_s,
        speech_start_s=speech_start,
        part_s=(first_pts * tick_s + Fraction(options.begins_s), min(end_s, end_pts * tick_s)),
    )


def check_times(clock: SourceClock, options: TimeOptions, speech_s: float) -> None:
    """Whether the edited part and the speech meet in the video.

    Raises:
        ConfigError: they do not; or the part reaches beyond the video.
    """
    length_s = clock.duration_s
    if options.begins_s >= length_s:
        raise ConfigError(f"--start {options.begins_s:g} lies beyond the video, which lasts {length_s:.2f} s")
    frame_s = float(clock.step * clock.time_base)
    if options.end_s is not None and options.end_s > length_s + frame_s:
        raise ConfigError(f"--end {options.end_s:g} lies beyond the video, which lasts {length_s:.2f} s")
    if options.audio_offset_s + speech_s <= 0:
        raise ConfigError(
            f"--audio_offset {options.audio_offset_s:g} cuts off the whole speech, which lasts {speech_s:.2f} s"
        )
    part_end_s = length_s if options.end_s is None else min(options.end_s, length_s)
    if options.speech_starts_s >= part_end_s:
        raise ConfigError(
            f"--audio_offset {options.audio_offset_s:g}: the speech would begin at {options.speech_starts_s:.2f} s, "
            f"after the edited part ends at {part_end_s:.2f} s"
        )


def warn_of_cut_speech(timeline: Timeline, speech_s: float) -> None:
    """Say it where the end of the speech is not heard.

    Args:
        timeline: of the output.
        speech_s: how long the speech is.
    """
    heard_s = float(timeline.part_s[1] - timeline.speech_start_s)
    if speech_s > heard_s + CUT_WORTH_SAYING_S:
        ends_first = "video" if timeline.part_s[1] == timeline.end_pts * timeline.time_base else "edited part"
        logger.warning(
            "the speech (%.1f s) is longer than the %s; its last %.1f s are cut off",
            speech_s, ends_first, speech_s - heard_s,
        )  # fmt: skip


def _lengthened(
    clock: SourceClock, turns: Turns, until_s: float, *, goes_back: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """(rows, pts, where the last frame ends) of a video that goes on until ``until_s`` after its first frame."""
    begun = np.arange(turns.last + 1)
    resumes_pts = int(clock.pts[turns.last] + clock.durations[turns.last])
    # the first time at which no frame is needed any more
    until_pts = int(clock.pts[0]) + math.ceil(until_s / float(clock.time_base) - _ROUNDING_TICKS)
    if goes_back and turns.first < turns.last:
        there = np.arange(turns.last - 1, turns.first - 1, -1)
        period = np.concatenate([there, np.arange(turns.first + 1, turns.last + 1)])
        round_trip = int(clock.durations[period].sum())
        rows = np.tile(period, max(-(-(until_pts - resumes_pts) // round_trip), 0))
        ends = resumes_pts + np.cumsum(clock.durations[rows])
    else:
        count = max(math.ceil((until_pts - resumes_pts) / clock.step), 0)
        rows = np.full(count, turns.last)
        ends = resumes_pts + _rounded_multiples(clock.step, count)
    starts = np.concatenate([[resumes_pts], ends])
    kept = int(np.searchsorted(starts[:-1], until_pts, side="left"))
    pts = np.concatenate([clock.pts[begun], starts[:kept]])
    return np.concatenate([begun, rows[:kept]]), pts.astype(np.int64), int(starts[kept])


def _rounded_multiples(step: Fraction, count: int) -> NDArray[np.int64]:
    """``round(k * step)`` for k = 1 .. count, without drift."""
    multiples = np.arange(1, count + 1, dtype=np.int64)
    return (2 * multiples * step.numerator + step.denominator) // (2 * step.denominator)
