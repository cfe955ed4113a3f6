"""25 fps crops: which frame is shown when, and a real clip through the whole script."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_video.crop_utils import crop_frame
from data_gen.utils.process_video.resample_video_to_25fps_resize_to_512 import (
    LAYOUT,
    WholePicture,
    main,
    nearest_frames,
    planes_of,
    resample_video,
)
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.frames import Frame, VideoInfo
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


@pytest.mark.parametrize(
    ("size", "pixel", "rotation", "expected"),
    [
        ((1280, 720), None, 0, (512, 288)),
        ((480, 908), None, 0, (270, 512)),
        ((64, 48), None, 0, (512, 384)),
        ((720, 576), Fraction(64, 45), 0, (512, 288)),  # anamorphic PAL is a 16:9 picture
        ((576, 720), Fraction(64, 45), 90, (288, 512)),
        ((4000, 2), None, 0, (512, 2)),
    ],
)
def test_the_whole_picture_keeps_the_shape_it_is_shown_in(size, pixel, rotation, expected):
    width, height = size
    info = VideoInfo(
        Path("any.mp4"),
        width,
        height,
        Fraction(25),
        Fraction(1, 25),
        rotation,
        LAYOUT,
        (1, 1, 1, 1),
        False,
        None,
        pixel,
    )
    assert WholePicture(info).size_wh == expected


def test_any_video_is_resampled_whole(demo_dir, tmp_path):
    source, out = demo_dir / "carphone_pristine.mp4", tmp_path / "whole.mp4"
    assert main(["--video", str(source), "--out", str(out)]) == 0
    with VideoReader(source) as before, VideoReader(out) as after:
        assert (after.info.width, after.info.height, after.info.frame_rate) == (512, 382, 25), (
            "176 × 144 of 128:117 pixels"
        )
        first, written = next(before.frames()), list(after.frames())
        times = [frame.time_s for frame in before.frames()]
    start = times[0]
    assert [w.time_s - written[0].time_s for w in written] == [Fraction(i, 25) for i in range(len(written))]
    assert abs(written[0].time_s - start) < Fraction(1, 10000)
    assert len(written) == pytest.approx(float(times[-1] - start) * 25 + 1, abs=1)
    small = cv2.resize(rgb_from_planes(written[0]), (176, 144), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - rgb_from_planes(first)).mean() < 5


def test_a_video_must_be_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "x.mp4")])
    assert "--video" in capsys.readouterr().err
    assert main(["--video", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "x.mp4")]) == 1
    assert list(tmp_path.iterdir()) == []
