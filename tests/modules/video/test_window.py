"""Windows: whole chroma samples, the source's own samples, and a video of their own that gives them back."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.structures.frames import Frame, PlaneLayout, VideoInfo
from modules.video.colour import BIT_DEPTH, CHROMA_SHIFT, rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.window import FRAME_RATE, aligned_window, window_frame, window_info
from modules.video.writer import EncodeConfig, VideoWriter
from tests.support.synthetic_video import ClipSpec, frame_planes, make_clip

FORMATS = tuple(CHROMA_SHIFT)


def video(pixel_format: str, width: int, height: int) -> VideoInfo:
    layout = PlaneLayout(pixel_format, CHROMA_SHIFT[pixel_format], "left", False, "bt709", BIT_DEPTH[pixel_format])
    return VideoInfo(
        Path("in.mp4"), width, height, Fraction(30000, 1001), Fraction(1, 30000), 90, layout, (1, 1, 1, 1), True, 9.0,
        Fraction(4, 3),
    )  # fmt: skip


def frame_of(info: VideoInfo, index: int = 0) -> Frame:
    spec = ClipSpec(width=info.width, height=info.height, pixel_format=info.layout.pixel_format)
    return Frame(index, 1001 * index, info.time_base, frame_planes(spec, index), info.layout)


@st.composite
def bounds_in_a_video(draw):
    width, height = draw(st.integers(2, 70)), draw(st.integers(2, 70))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return video(draw(st.sampled_from(FORMATS)), width, height), (x0, y0, x1, y1)


@given(bounds_in_a_video())
def test_a_window_is_the_smallest_of_whole_chroma_samples_that_holds_the_bounds(case):
    info, (x0, y0, x1, y1) = case
    left, top, right, bottom = aligned_window((x0, y0, x1, y1), info)
    assert 0 <= left <= x0 and x1 <= right <= info.width and 0 <= top <= y0 and y1 <= bottom <= info.height
    for start, stop, low, high, size, shift in (
        (left, right, x0, x1, info.width, info.layout.chroma_shift[0]),
        (top, bottom, y0, y1, info.height, info.layout.chroma_shift[1]),
    ):
        step = 2**shift
        assert start % step == 0 and (stop % step == 0 or stop == size)
        assert low - start < step and stop - high < step


@given(bounds_in_a_video())
def test_planes_are_the_source_s_own_samples(case):
    info, bounds = case
    window = aligned_window(bounds, info)
    frame = frame_of(info, 7)
    part = window_frame(frame, window, 3)
    x0, y0, x1, y1 = window
    shift_x, shift_y = info.layout.chroma_shift
    for plane, found in zip(frame.planes[1:], part.planes[1:], strict=True):
        rows = sorted({y >> shift_y for y in range(y0, y1)})
        columns = sorted({x >> shift_x for x in range(x0, x1)})
        np.testing.assert_array_equal(found, plane[np.ix_(rows, columns)])
    np.testing.assert_array_equal(part.planes[0], frame.planes[0][y0:y1, x0:x1])
    assert all(np.shares_memory(a, b) for a, b in zip(part.planes, frame.planes, strict=True))
    assert (part.index, part.layout) == (3, frame.layout) and part.time_s == Fraction(3, FRAME_RATE)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("bounds", [(5, 3, 30, 22), (8, 6, 33, 25), (0, 0, 33, 25), (21, 17, 33, 25)])
def test_a_window_is_written_and_read_back_sample_by_sample(tmp_path, pixel_format, bounds):
    info = replace(video(pixel_format, 33, 25), rotation_deg=0)
    window = aligned_window(bounds, info)
    shown = window_info(info, window)
    assert (shown.width, shown.height) == (window[2] - window[0], window[3] - window[1])
    assert not shown.has_audio and shown.duration_s is None and shown.sample_aspect_ratio is None
    frames = [window_frame(frame_of(info, 4 * number), window, number) for number in range(3)]
    file = tmp_path / "window.mkv"
    with VideoWriter(file, shown, quality=EncodeConfig(lossless=True)) as writer:
        for frame in frames:
            writer.write(frame)
    with VideoReader(file) as reader:
        back = list(reader.frames())
    for frame, found in zip(frames, back, strict=True):
        assert (found.index, found.time_s, found.layout) == (frame.index, frame.time_s, frame.layout)
        assert all(np.array_equal(a, b) for a, b in zip(frame.planes, found.planes, strict=True))


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_colours_are_the_whole_frame_s_but_for_chroma_beyond_the_border(pixel_format):
    info = video(pixel_format, 65, 49)
    frame, window = frame_of(info), aligned_window((11, 9, 40, 30), info)
    part = rgb_from_planes(window_frame(frame, window, 0))
    whole = rgb_from_planes(frame, window)
    np.testing.assert_array_equal(part[1:-1, 1:-1], whole[1:-1, 1:-1])
    if pixel_format.startswith("yuv444p"):
        np.testing.assert_array_equal(part, whole)


def test_a_turned_video_s_window_stands_upright(tmp_path):
    clip = make_clip(tmp_path / "turned.mp4", ClipSpec(n_frames=2, rotation_deg=90))
    with VideoReader(clip.path) as reader:
        info, frames = reader.info, list(reader.frames())
    window = aligned_window((3, 7, 30, 40), info)
    file = tmp_path / "window.mkv"
    with VideoWriter(file, window_info(info, window), quality=EncodeConfig(lossless=True)) as writer:
        for number, frame in enumerate(frames):
            writer.write(window_frame(frame, window, number))
    x0, y0, x1, y1 = window
    with VideoReader(file) as reader:
        for frame, found in zip(frames, reader.frames(), strict=True):
            np.testing.assert_array_equal(found.planes[0], frame.planes[0][y0:y1, x0:x1])
