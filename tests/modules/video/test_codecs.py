"""Codecs: every kept format and depth comes back sample by sample, with its tags, HDR data and order of fields."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from modules.commons.errors import OutputError
from modules.structures.frames import FramePatch, HdrMetadata
from modules.video.codecs import EncodeConfig, choose_codec
from modules.video.colour import blend_patch, chroma_alpha
from modules.video.reader import VideoReader
from modules.video.writer import VideoWriter
from tests.support.synthetic_video import ClipSpec, make_clip, read_video

LOSSLESS = EncodeConfig(preset="ultrafast", lossless=True)
FAST = EncodeConfig(preset="ultrafast")
PQ, HLG, SDR_DEEP = (9, 16, 9, 1), (9, 18, 9, 1), (1, 1, 1, 1)
DISPLAY = (13250, 34500, 7500, 3000, 34000, 16000, 15635, 16450, 10_000_000, 50)
HDR10 = HdrMetadata(DISPLAY, (1000, 400))
STATED = "mastering-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):cll=1000,400"


def rewrite(source, target, *, quality=LOSSLESS, edit=None):
    with VideoReader(source) as reader, VideoWriter(target, reader.info, quality=quality) as writer:
        for frame in reader.frames():
            writer.write(edit(frame) if edit else frame)
    return target


def assert_same_video(source, target):
    """The same decoded samples, format, size, times and description; read without this project's reader too."""
    times, images, last = read_video(source)
    new_times, new_images, new_last = read_video(target)
    assert new_times == times
    assert (new_last.format.name, new_last.rotation) == (last.format.name, last.rotation)
    for before, after in zip(images, new_images, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    before, after = VideoReader(source).info, VideoReader(target).info
    same = {"path": before.path, "duration_s": None, "frame_rate": before.frame_rate, "time_base": before.time_base}
    assert replace(after, **same) == replace(before, duration_s=None)


@pytest.mark.parametrize("tags", [PQ, HLG, SDR_DEEP])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("pixel_format", "width", "height"),
    [
        ("yuv420p10le", 64, 48), ("yuv422p10le", 64, 47), ("yuv444p10le", 33, 17),
        ("yuv420p12le", 64, 48), ("yuv422p12le", 64, 47), ("yuv444p12le", 35, 33),
    ],
)  # fmt: skip
def test_deep_video_comes_back_bit_exact_with_its_tags(tmp_path, tags, suffix, pixel_format, width, height):
    spec = ClipSpec(width, height, 3, pixel_format, color_tags=tags, time_base=Fraction(1, 1000))
    clip = make_clip(tmp_path / "in.mkv", spec)
    assert_same_video(clip.path, rewrite(clip.path, tmp_path / f"out{suffix}"))
    assert VideoReader(tmp_path / f"out{suffix}").info.color_tags == tags


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_turned_video_with_b_frames_comes_back_bit_exact(tmp_path, pixel_format, rotation):
    options = {"qp": "12", "bf": "3", "x264-params": "b-adapt=0"}  # x264 makes no B-frames at qp 0
    clip = make_clip(tmp_path / "in.mp4", ClipSpec(pixel_format=pixel_format, rotation_deg=rotation, options=options))
    with av.open(str(clip.path)) as container:
        order = [p.pts for p in container.demux(container.streams.video[0]) if p.pts is not None]
    assert order != sorted(order)
    assert_same_video(clip.path, rewrite(clip.path, tmp_path / "out.mp4"))


@pytest.mark.parametrize(
    "rate", [Fraction(24000, 1001), Fraction(24), Fraction(30000, 1001), Fraction(50), Fraction(60000, 1001)], ids=str
)
def test_rates_and_a_late_start_are_kept_to_the_tick(tmp_path, rate):
    time_base = 1 / (rate.numerator * Fraction(1, 1))
    pts = tuple(7 * rate.denominator + i * rate.denominator for i in range(9))
    clip = make_clip(tmp_path / "in.mp4", ClipSpec(rate=rate, time_base=time_base, pts=pts))
    out = rewrite(clip.path, tmp_path / "out.mp4")
    assert_same_video(clip.path, out)
    with VideoReader(out) as reader:
        assert [frame.time_s for frame in reader.frames()] == [(7 + i) / rate for i in range(9)]
        assert reader.info.frame_rate == rate


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv420p12le"])
def test_lossy_deep_video_stays_deep_and_close(tmp_path, pixel_format):
    clip = make_clip(tmp_path / "in.mkv", ClipSpec(pixel_format=pixel_format, color_tags=HLG, n_frames=4))
    _, images, last = read_video(rewrite(clip.path, tmp_path / "out.mp4", quality=FAST))
    assert last.format.name == pixel_format and VideoReader(tmp_path / "out.mp4").info.color_tags == HLG
    top = 1023 if "10" in pixel_format else 4095
    error = np.mean([(a[0].astype(float) - b[0]) ** 2 for a, b in zip(images, clip.planes, strict=True)])
    assert 10 * np.log10(top**2 / error) > 38


def test_an_edit_of_hdr_video_changes_only_what_it_covers(tmp_path):
    spec = ClipSpec(96, 80, 3, "yuv420p10le", color_tags=PQ, options={"x264-params": STATED})
    clip = make_clip(tmp_path / "in.mp4", spec)
    alpha = np.clip(1.2 - np.hypot(*np.mgrid[-1:1:40j, -1:1:50j]), 0, 1).astype(np.float32)
    patch = FramePatch((21, 17, 71, 57), np.full((40, 50, 3), 0.4, np.float32), alpha)
    with VideoReader(rewrite(clip.path, tmp_path / "out.mp4", edit=lambda frame: blend_patch(frame, patch))) as reader:
        frames, info = list(reader.frames()), reader.info
    assert info.color_tags == PQ and info.hdr == HDR10 and info.layout.bit_depth == 10
    whole = np.zeros((80, 96), np.float32)
    whole[17:57, 21:71] = alpha
    masks = (whole > 0, *(chroma_alpha(whole, info.layout) > 0,) * 2)
    for frame, image in zip(frames, clip.planes, strict=True):
        for after, before, mask in zip(frame.planes, image, masks, strict=True):
            assert after.dtype == np.uint16
            assert np.array_equal(after[~mask], before[~mask]) and not np.array_equal(after[mask], before[mask])


@pytest.mark.parametrize("quality", [FAST, LOSSLESS])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p12le"])
@pytest.mark.parametrize("hdr", [HDR10, HdrMetadata(DISPLAY), HdrMetadata(light=(800, 200))])
def test_hdr10_metadata_is_stated_again(tmp_path, caplog, quality, suffix, pixel_format, hdr):
    clip = make_clip(tmp_path / "in.mkv", ClipSpec(n_frames=1, pixel_format=pixel_format, color_tags=PQ))
    with VideoReader(clip.path) as reader:
        assert reader.info.hdr is None
        with VideoWriter(tmp_path / f"out{suffix}", replace(reader.info, hdr=hdr), quality=quality) as writer:
            for frame in reader.frames():
                writer.write(frame)
    assert VideoReader(tmp_path / f"out{suffix}").info.hdr == hdr
    assert not [r for r in caplog.records if "HDR" in r.message]


def test_hdr10_metadata_that_cannot_be_stated_is_said_once(tmp_path, caplog):
    clip = make_clip(tmp_path / "in.mkv", ClipSpec(33, 31, 3, "yuv420p10le", color_tags=PQ))
    with VideoReader(clip.path) as reader, caplog.at_level(logging.WARNING):
        info = replace(reader.info, hdr=HDR10)
        with VideoWriter(tmp_path / "out.mkv", info, quality=FAST) as writer:
            for frame in reader.frames():
                writer.write(frame)
    assert [r.message for r in caplog.records if "HDR" in r.message and "lost" in r.message and "out.mkv" in r.message]
    assert_same_video(clip.path, tmp_path / "out.mkv")


@pytest.mark.parametrize("order", ["top", "bottom"])
@pytest.mark.parametrize(
    ("suffix", "pixel_format", "height"),
    [(".mp4", "yuv420p", 48), (".mov", "yuv422p10le", 50), (".mkv", "yuv420p", 48), (".mkv", "yuv420p12le", 50)],
)
@pytest.mark.parametrize("quality", [FAST, LOSSLESS])
def test_interlaced_video_stays_flagged(tmp_path, caplog, order, suffix, pixel_format, height, quality):
    source, target = tmp_path / "in.mkv", tmp_path / f"out{suffix}"
    options = {"x264-params": {"top": "tff=1", "bottom": "bff=1"}[order]}
    make_clip(source, ClipSpec(height=height, n_frames=3, pixel_format="yuv422p", options=options))
    with VideoReader(source) as reader:
        assert reader.info.field_order == order
    plain = make_clip(tmp_path / "plain.mkv", ClipSpec(64, height, 3, pixel_format))
    with VideoReader(plain.path) as reader:
        info = replace(reader.info, field_order=order)
        with VideoWriter(target, info, quality=quality) as writer:
            for frame in reader.frames():
                writer.write(frame)
    assert VideoReader(target).info.field_order == order
    assert not [r for r in caplog.records if "not flagged" in r.message]
    if quality.lossless:
        back = [f.planes for f in VideoReader(target).frames()]
        for found, wanted in zip(back, plain.planes, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("pixel_format", "size", "order"),
    [("yuv420p", (64, 50), "top"), ("yuv420p12le", (64, 48), "bottom"), ("yuv420p", (64, 48), "unknown")],
)
def test_an_interlaced_flag_that_cannot_be_kept_is_said(pixel_format, size, order):
    codec = choose_codec(pixel_format, *size, ".mp4", FAST, field_order=order)
    assert len(codec.losses) == 1 and "not flagged as interlaced" in codec.losses[0]


def test_the_codec_is_named_by_format_depth_size_and_container():
    assert choose_codec("yuv420p", 64, 48, ".mp4", EncodeConfig()).name == "libx264"
    assert choose_codec("yuv422p", 64, 47, ".mov", EncodeConfig()).options["crf"] == "14"
    assert choose_codec("yuv420p", 175, 143, ".mp4", EncodeConfig()).name == "libvpx-vp9"
    assert choose_codec("yuv420p", 64, 48, ".mkv", EncodeConfig(lossless=True)).name == "ffv1"
    assert choose_codec("yuv420p10le", 64, 48, ".mkv", EncodeConfig(lossless=True), hdr=HDR10).name == "libx264"
    assert choose_codec("yuv420p10le", 175, 143, ".mkv", EncodeConfig()).name == "ffv1"
    assert choose_codec("yuv444p12le", 64, 48, ".mp4", EncodeConfig()).tag == "hvc1"
    assert choose_codec("yuv420p", 64, 48, ".mp4", EncodeConfig()).losses == ()
    for name, suffix, other in (("yuv420p", ".mov", r"\.mp4 or"), ("yuv420p10le", ".mp4", r"\.mkv")):
        with pytest.raises(OutputError, match=rf"\{suffix}.*{other}"):
            choose_codec(name, 175, 143, suffix, EncodeConfig())


def test_a_mastering_display_has_ten_numbers():
    with pytest.raises(ValueError, match="10 numbers"):
        HdrMetadata((1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vfr_700x700.mp4", "lectern_profile_editlist_640x360_30fps.mp4"])
def test_real_clips_come_back_with_every_time_and_sample(tmp_path, shared_clips, name):
    out = rewrite(shared_clips / name, tmp_path / "out.mp4")
    with VideoReader(shared_clips / name) as source, VideoReader(out) as target:
        count = 0
        for before, after in zip(source.frames(), target.frames(), strict=True):
            assert (after.index, after.time_s) == (before.index, before.time_s)
            assert all(np.array_equal(a, b) for a, b in zip(before.planes, after.planes, strict=True))
            count += 1
    assert count == {"vfr_700x700.mp4": 135}.get(name, 687)
