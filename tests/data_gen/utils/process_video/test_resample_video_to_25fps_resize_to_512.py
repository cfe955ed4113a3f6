"""25 fps crops: which frame is shown when, and a real clip through the whole script."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_video.crop_utils import crop_frame
from data_gen.utils.process_video.resample_video_to_25fps_resize_to_512 import (
    LAYOUT,
    nearest_frames,
    planes_of,
    resample_video,
)
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.frames import Frame
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader


def frame_at(index: int, time_s: Fraction) -> Frame:
    planes = (np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    return Frame(index, int(time_s * 90000), Fraction(1, 90000), planes, LAYOUT)


@given(st.lists(st.integers(200, 9000), min_size=1, max_size=40), st.integers(0, 90000))
def test_every_output_shows_the_frame_nearest_in_time(gaps, start):
    ticks = np.cumsum([start, *gaps]).tolist()
    frames = [frame_at(i, Fraction(t, 90000)) for i, t in enumerate(ticks)]
    shown = list(nearest_frames(iter(frames)))
    assert [number for number, _ in shown] == list(range(len(shown)))
    for number, frame in shown:
        wanted = frames[0].time_s + Fraction(number, 25)
        nearest = min(abs(f.time_s - wanted) for f in frames)
        assert abs(frame.time_s - wanted) == nearest
    duration = frames[-1].time_s - frames[0].time_s
    assert abs(len(shown) - (duration * 25 + 1)) <= Fraction(1, 2) + 1


def test_25_fps_passes_through():
    frames = [frame_at(i, Fraction(i, 25)) for i in range(10)]
    assert [frame.index for _, frame in nearest_frames(iter(frames))] == list(range(10))


def test_colours_survive_the_planes():
    y, x = np.mgrid[:512, :512]
    rgb = np.stack([60 + x // 4, 60 + y // 4, 200 - x // 4], axis=-1).astype(np.uint8)
    back = rgb_from_planes(planes_of(rgb, 3))
    assert np.abs(back.astype(int) - rgb).mean() < 1.5


def test_a_real_clip_becomes_25_fps_crops_with_sound_or_without(demo_dir, tmp_path):
    source = demo_dir / "single_face.mp4"
    with VideoReader(source) as reader:
        info, frames = reader.info, list(reader.frames())
    region = CropRegion(info.width / 2, info.height / 2, min(info.width, info.height) * 0.8)
    metadata = CropMetadata((region,), (info.height, info.width), 256)
    out = tmp_path / "crop.mp4"
    count = resample_video(source, metadata, out)
    with VideoReader(out) as reader:
        written = list(reader.frames())
        assert (reader.info.width, reader.info.height, reader.info.frame_rate) == (512, 512, 25)
        assert reader.info.has_audio == info.has_audio
    assert len(written) == count == pytest.approx(float(frames[-1].time_s - frames[0].time_s) * 25 + 1, abs=1)
    assert {w.time_s for w in written} == {Fraction(i, 25) for i in range(count)}
    expected = crop_frame(frames[0], CropMetadata((region,), (info.height, info.width), 512))
    assert np.abs(rgb_from_planes(written[0]).astype(int) - expected).mean() < 4
