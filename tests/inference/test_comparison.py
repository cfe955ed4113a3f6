"""Source | result: every sample of both, upright, at the same times; and the strip of mouths in rows and columns."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from inference.comparison import ENLARGED, QUALITY, ShownMouth, beside, beside_info, mouth_strip
from modules.structures.landmarks import MOUTH, Landmarks2D
from modules.structures.timeline import Timeline
from modules.video.codecs import EncodeConfig
from modules.video.reader import VideoReader
from modules.video.writer import VideoWriter
from tests.support.synthetic_video import ClipSpec, make_clip

GAP = 6
N = 12


@pytest.mark.parametrize(
    ("pixel_format", "size", "rotation"),
    [("yuv420p", (64, 48), 0), ("yuv420p10le", (64, 48), 90), ("yuv422p", (64, 47), 0), ("yuv420p", (63, 47), 0)],
)
def test_both_pictures_are_there_sample_by_sample(tmp_path, pixel_format, size, rotation):
    clip = make_clip(tmp_path / "in.mkv", ClipSpec(*size, 3, pixel_format, rotation_deg=rotation))
    out = tmp_path / "out.mkv"
    with VideoReader(clip.path) as reader:
        shown = beside_info(reader.info)
        assert shown.rotation_deg == 0 and shown.width % 4 == 0 and shown.height % 2 == 0
        frames = list(reader.frames())
        with VideoWriter(out, shown, quality=EncodeConfig(lossless=True)) as writer:
            for frame in frames:
                writer.write(beside(frame, replace(frame, planes=frames[0].planes)))
    for frame, pair in zip(frames, VideoReader(out).frames(), strict=True):
        assert pair.time_s == frame.time_s and pair.layout.bit_depth == frame.layout.bit_depth
        for plane, old, new in zip(pair.planes, frame.planes, frames[0].planes, strict=True):
            middle = plane.shape[1] // 2
            assert np.array_equal(plane[:, :middle], old[: plane.shape[0], :middle])
            assert np.array_equal(plane[:, middle:], new[: plane.shape[0], :middle])


def test_the_pixels_of_a_turned_video_keep_their_shape():
    from modules.structures.frames import PlaneLayout, VideoInfo

    layout = PlaneLayout("yuv420p", (1, 1), "left", False, "bt709")
    turned = VideoInfo(
        Path("x"), 48, 64, Fraction(25), Fraction(1, 25), 90, layout, (1, 1, 1, 1), False, None, Fraction(4, 3)
    )
    assert beside_info(turned).sample_aspect_ratio == Fraction(3, 4)
    assert beside_info(replace(turned, rotation_deg=180)).sample_aspect_ratio == Fraction(4, 3)
    assert not QUALITY.lossless


def timeline(rows):
    pts = np.arange(len(rows), dtype=np.int64) * 512
    return Timeline(
        np.array(rows, np.int64), pts, pts / 12800, np.ones(len(rows), bool), N, len(rows) * 512, Fraction(1, 12800),
        Fraction(0), (Fraction(0), Fraction(len(rows), 25)),
    )  # fmt: skip


def mouths(edited, valid=None):
    points = np.zeros((N, 478, 2), np.float32)
    points[:, list(MOUTH)] = (30, 24)
    seen = (np.ones(N, bool) if valid is None else valid, np.zeros((N, 52), np.float32))
    points[:, MOUTH[0]], points[:, MOUTH[1]] = (25, 22), (35, 26)
    return ShownMouth(Landmarks2D(points, np.ones((N, 478), np.float32), *seen), edited)


def test_the_strip_shows_source_over_result_at_the_same_frames(tmp_path):
    """Result: the source, each frame turned upside down; then the strip's lower tile must be that frame, too."""
    clip = make_clip(tmp_path / "in.mp4", ClipSpec(n_frames=N))
    rows = [*range(N), N - 2, N - 3]
    out = tmp_path / "out.mp4"
    with VideoReader(clip.path) as reader:
        frames = list(reader.frames())
        with VideoWriter(out, reader.info, quality=EncodeConfig(lossless=True)) as writer:
            for index, row in enumerate(rows):
                planes = tuple(np.ascontiguousarray(plane[::-1]) for plane in frames[row].planes)
                writer.write(replace(frames[row], index=index, pts=index * 512, planes=planes))
    edited = np.zeros(len(rows), bool)
    edited[[2, 5, 13]] = True
    strip = mouth_strip(clip.path, out, timeline(rows), [mouths(edited)])
    assert strip is not None and strip.dtype == np.uint8
    tile_w, tile_h = (strip.shape[1] - 2 * GAP) // 3, (strip.shape[0] - 2 * GAP) // 2
    assert tile_w % ENLARGED == 0 and tile_w > 10 * ENLARGED
    from modules.video.colour import rgb_from_planes

    for column, number in enumerate((2, 5, 13)):
        left = column * (tile_w + GAP)
        above = strip[:tile_h:ENLARGED, left : left + tile_w : ENLARGED]
        below = strip[tile_h + GAP : 2 * tile_h + GAP : ENLARGED, left : left + tile_w : ENLARGED]
        width, height = tile_w // ENLARGED, tile_h // ENLARGED
        x, y = round(30 - width / 2), min(round(24 + 0.2 * width / 1.5 - height / 2), 48 - height)
        whole = rgb_from_planes(frames[rows[number]])
        flipped = replace(frames[0], planes=tuple(p[::-1].copy() for p in frames[rows[number]].planes))
        assert np.array_equal(above, whole[y : y + height, x : x + width])
        assert np.array_equal(below, rgb_from_planes(flipped)[y : y + height, x : x + width])


def test_what_was_not_edited_or_not_seen_is_not_shown(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", ClipSpec(n_frames=N))
    nothing, everything = np.zeros(N, bool), np.ones(N, bool)
    assert mouth_strip(clip.path, clip.path, timeline(range(N)), [mouths(nothing)]) is None
    assert mouth_strip(clip.path, clip.path, timeline(range(N)), [mouths(everything, nothing)]) is None
    one = mouth_strip(clip.path, clip.path, timeline(range(N)), [mouths(everything)])
    two = mouth_strip(clip.path, clip.path, timeline(range(N)), [mouths(everything), mouths(everything)])
    assert one is not None and two is not None and two.shape == (2 * one.shape[0], one.shape[1], 3)
