"""A stretch of a video is what a full pass gives there."""

from fractions import Fraction

import numpy as np
import pytest

from modules.commons.errors import VideoReadError
from modules.structures.frame_index import FrameIndex
from modules.video.frame_range import FrameRange, frames_at
from modules.video.pipeline import decoding
from modules.video.reader import VideoReader
from tests.support.synthetic_video import ClipSpec, make_clip

N = 30
PTS = (1000, 1300, 1700, *range(2000, 2000 + 27 * 333, 333))
"""Irregular, and not from 0 on."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    spec = ClipSpec(
        n_frames=N,
        pts=PTS,
        time_base=Fraction(1, 10_000),
        options={"g": "7", "bf": "2", "preset": "veryfast", "qp": "8"},
    )
    return make_clip(tmp_path_factory.mktemp("range") / "clip.mp4", spec).path


@pytest.fixture(scope="module")
def reader(clip):
    with VideoReader(clip) as reader:
        yield reader


@pytest.fixture(scope="module")
def whole(reader):
    return list(reader.frames())


@pytest.fixture(scope="module")
def index(reader, whole):
    return FrameIndex(np.array([frame.pts for frame in whole]), reader.info.time_base, np.array([0]))


@pytest.mark.parametrize(
    ("first", "stop"),
    [(0, None), (0, 30), (0, 1), (1, 2), (6, 14), (7, 14), (13, None), (13, 13), (29, 30), (29, None)],
)
def test_a_stretch_is_the_same_frames(reader, whole, index, first, stop):
    made = list(FrameRange(reader, index, first, stop).frames())
    expected = whole[first:stop]
    assert [(f.index, f.pts, f.time_base) for f in made] == [(f.index, f.pts, f.time_base) for f in expected]
    for one, other in zip(made, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.planes, other.planes, strict=True))


@pytest.mark.parametrize("numbers", [set(), {0}, {3, 11, 29}, {5, 400}])
def test_chosen_frames_come_in_order_and_no_later_one_is_decoded(reader, whole, numbers, monkeypatch):
    decoded = []
    frames = reader.frames
    monkeypatch.setattr(reader, "frames", lambda: (decoded.append(f.index) or f for f in frames()))
    made = list(frames_at(reader, numbers))
    assert [frame.index for frame in made] == sorted(n for n in numbers if n < N)
    assert all(np.array_equal(frame.planes[0], whole[frame.index].planes[0]) for frame in made)
    assert max(decoded, default=-1) == min(max(numbers, default=-1), N - 1)


def test_it_is_the_whole_video_by_default_and_can_be_read_twice(reader, whole, index):
    stretch = FrameRange(reader, index)
    for _ in range(2):
        assert [frame.index for frame in stretch.frames()] == list(range(N))


def test_it_decodes_ahead_like_a_reader(reader, whole, index):
    with decoding(FrameRange(reader, index, 9, 21)) as frames:
        read = list(frames)
    assert [frame.pts for frame in read] == [frame.pts for frame in whole[9:21]]
    assert np.array_equal(read[-1].planes[0], whole[20].planes[0])


def test_times_of_another_video_are_refused(reader, index):
    wrong = FrameIndex(index.pts + 5, index.time_base, index.shot_starts)
    with pytest.raises(VideoReadError, match=r"has its frame 12 at \d+, not at \d+ as was read before"):
        list(FrameRange(reader, wrong, 12).frames())
