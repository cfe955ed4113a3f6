"""Frames in the order of a timeline: the right ones, at the right times, in bounded memory."""

import gc
import weakref
from contextlib import closing
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.timeline import TimeOptions, build_timeline
from modules.commons.errors import VideoReadError
from modules.structures.timeline import SourceClock, Turns
from modules.video import frame_order
from modules.video.frame_order import TimelineReader, frames_between, frames_in_order
from modules.video.pipeline import decoding
from modules.video.reader import VideoReader
from tests.support.synthetic_video import ClipSpec, make_clip

COUNT = 40
PTS = tuple(6400 + 512 * i + (300 if i % 3 else 0) for i in range(COUNT))
TICK = Fraction(1, 12800)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("order") / "clip.mp4", ClipSpec(pts=PTS))


def timeline_of(length, turns, speech_s, pts=PTS, time_base=TICK):
    clock = SourceClock(np.array(pts, np.int64), time_base, Fraction(25))
    return build_timeline(clock, TimeOptions(length=length), speech_s, turns)


def shown(clip, timeline, **options):
    with VideoReader(clip.path) as reader:
        return list(frames_in_order(reader, timeline, **options))


def assert_is(frames, clip, timeline):
    assert [frame.index for frame in frames] == list(range(len(timeline)))
    assert [frame.pts for frame in frames] == timeline.pts.tolist()
    for frame, row in zip(frames, timeline.rows, strict=True):
        for plane, truth in zip(frame.planes, clip.planes[row], strict=True):
            np.testing.assert_array_equal(plane, truth)


@pytest.mark.parametrize(
    ("length", "turns", "speech_s"),
    [
        ("source", None, 1.0),
        ("trim", None, 0.5),
        ("pingpong", Turns(5, 36), 6.0),
        ("pingpong", Turns(0, COUNT - 1), 4.0),
        ("pingpong", Turns(20, 21), 2.0),
        ("hold", Turns(5, 36), 3.0),
        ("pingpong", Turns(7, 7), 2.0),
    ],
)
def test_every_frame_is_the_one_the_timeline_names(clip, length, turns, speech_s):
    timeline = timeline_of(length, turns, speech_s)
    assert_is(shown(clip, timeline), clip, timeline)


@settings(max_examples=12)
@given(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1), st.integers(0, 12), st.floats(1.7, 5.0))
def test_blocks_of_any_size_show_the_same(clip, one, other, frames_held, speech_s):
    timeline = timeline_of("pingpong", Turns(min(one, other), max(one, other)), speech_s)
    assert_is(shown(clip, timeline, block_bytes=frames_held * 64 * 48 * 3 // 2), clip, timeline)


@pytest.mark.parametrize(("length", "turns"), [("pingpong", Turns(5, 36)), ("hold", Turns(5, 36)), ("source", None)])
@pytest.mark.parametrize("first", [0, 1, 20, 36, 37, 38, 39, 50, 67, 68, 69, 70])
def test_it_may_begin_anywhere(clip, length, turns, first):
    """After a kill an output goes on where it was, in the middle of a leg or at a turn."""
    timeline = timeline_of(length, turns, 3.2 if turns else 1.0)
    whole, rest = shown(clip, timeline), shown(clip, timeline, first=min(first, len(timeline)))
    assert [(f.index, f.pts) for f in rest] == [(f.index, f.pts) for f in whole[first:]]
    for frame, expected in zip(rest, whole[first:], strict=True):
        np.testing.assert_array_equal(frame.planes[0], expected.planes[0])


def test_going_back_holds_a_block_and_decodes_it_once(clip, monkeypatch):
    """Two frames fit; what was shown is let go."""
    reads = []

    def spied(reader, pts, first, stop):
        reads.append((first, stop))
        for frame in frames_between(reader, pts, first, stop):
            alive.append(weakref.ref(frame.planes[0]))
            yield frame

    alive, most = [], 0
    monkeypatch.setattr(frame_order, "frames_between", spied)
    timeline = timeline_of("pingpong", Turns(10, 19), 2.4)
    with VideoReader(clip.path) as reader:
        for _ in frames_in_order(reader, timeline, block_bytes=2 * 64 * 48 * 3 // 2):
            most = max(most, sum(reference() is not None for reference in alive))
    assert reads[:6] == [(0, 20), (17, 19), (15, 17), (13, 15), (11, 13), (10, 11)]
    assert most <= 3 + 1, "the block, the frame in hand and the one before it"


def test_a_block_spans_two_seconds_of_a_slow_video(tmp_path):
    pts = tuple(12800 * i for i in range(8))
    clip = make_clip(tmp_path / "slow.mp4", ClipSpec(pts=pts, rate=Fraction(1)))
    timeline = timeline_of("pingpong", Turns(0, 7), 13.0, pts=pts)
    with VideoReader(clip.path) as reader:
        assert frame_order._block_begin(reader, timeline.pts, 0, 7, 2**28) == 4
        assert frame_order._block_begin(reader, timeline.pts, 5, 7, 2**28) == 5
        assert frame_order._block_begin(reader, timeline.pts, 0, 7, 1) == 6


def test_a_timeline_reader_feeds_the_pipeline(clip):
    timeline = timeline_of("pingpong", Turns(5, 36), 4.0)
    with VideoReader(clip.path) as reader, decoding(TimelineReader(reader, timeline)) as decoded:
        assert_is(list(decoded), clip, timeline)


def test_an_abandoned_walk_closes_its_file(clip):
    timeline = timeline_of("pingpong", Turns(5, 36), 4.0)
    with VideoReader(clip.path) as reader:
        with closing(frames_in_order(reader, timeline)) as frames:
            for frame in frames:
                if timeline.rows[frame.index] < timeline.rows[frame.index - 1]:
                    break
        gc.collect()
        assert not [iterator for iterator in reader._iterators if iterator.gi_frame is not None]


def test_another_video_than_the_one_prepared_is_refused(clip, tmp_path):
    late = make_clip(tmp_path / "late.mp4", ClipSpec(pts=tuple(p + 1 for p in PTS)))
    short = make_clip(tmp_path / "short.mp4", ClipSpec(pts=PTS[:30]))
    other = make_clip(tmp_path / "other.mp4", ClipSpec(time_base=Fraction(1, 90000), n_frames=40))
    timeline = timeline_of("pingpong", Turns(5, 36), 4.0)
    for wrong, message in ((late, "late.mp4"), (short, "short.mp4 ends before frame 30"), (other, "other frame times")):
        with pytest.raises(VideoReadError, match=message):
            shown(wrong, timeline)
