"""RGB pictures become a video and come back."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.rgb_video import TIME_BASE, rgb_frame, rgb_video_info
from modules.video.writer import EncodeConfig, VideoWriter
from tests.support.synthetic_video import ClipSpec, make_clip


def smooth(height: int, width: int, seed: int) -> np.ndarray:
    """Colours that change slowly enough for half as many chroma samples."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width, 64)
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform((0, 0, 0), (0.7, 0.7, 6), (3, 3))]
    return np.rint(128 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b).max())


@given(st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)))
def test_any_flat_colour_comes_back_within_two(colour):
    picture = np.full((4, 6, 3), colour, np.uint8)
    assert difference(rgb_from_planes(rgb_frame(0, Fraction(0), picture)), picture) <= 2


@pytest.mark.parametrize("size", [(48, 64), (2, 2), (514, 1024)])
def test_a_smooth_picture_comes_back_within_two(size):
    picture = smooth(*size, seed=1)
    assert difference(rgb_from_planes(rgb_frame(0, Fraction(0), picture)), picture) <= 2


def test_grey_detail_is_kept_and_shows_no_colour():
    grey = np.random.default_rng(0).integers(0, 256, (32, 48, 1), dtype=np.uint8)
    back = rgb_from_planes(rgb_frame(0, Fraction(0), np.repeat(grey, 3, axis=2)))
    assert difference(back, grey) <= 1 and difference(back[..., :1], back[..., 1:]) <= 1


def test_a_video_of_pictures_keeps_colours_and_times(tmp_path):
    source = make_clip(tmp_path / "made_from.mp4", ClipSpec(n_frames=1)).path
    times = [Fraction(0), Fraction(1001, 24000), Fraction(1, 10)]
    pictures = [smooth(48, 64, seed) for seed in range(3)]
    info = rgb_video_info(source, 64, 48, Fraction(24000, 1001))
    with VideoWriter(tmp_path / "out.mp4", info, quality=EncodeConfig(lossless=True)) as writer:
        for index, (time_s, picture) in enumerate(zip(times, pictures, strict=True)):
            writer.write(rgb_frame(index, time_s, picture))
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert reader.info.layout == info.layout and (reader.info.width, reader.info.height) == (64, 48)
        back = list(reader.frames())
    assert [frame.index for frame in back] == [0, 1, 2]
    for frame, time_s, picture in zip(back, times, pictures, strict=True):
        assert 0 <= time_s - frame.time_s < TIME_BASE
        assert difference(rgb_from_planes(frame), picture) <= 2
