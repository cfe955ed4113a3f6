"""Named codecs: what each keeps in which container, and the one sentence where it cannot."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from modules.commons.errors import OutputError
from modules.video.codecs import choose_codec, encodable
from modules.video.encoders import EncodeConfig, check_hardware
from modules.video.reader import VideoReader
from modules.video.segments import SegmentedWriter
from tests.support.synthetic_video import ClipSpec, make_clip, read_video

TAGS = (9, 16, 9, 1)
NAMED = [
    ("h264", ".mp4", "yuv420p"), ("h264", ".mov", "yuv422p10le"), ("h264", ".mkv", "yuv444p"),
    ("hevc", ".mp4", "yuv420p"), ("hevc", ".mov", "yuv420p10le"), ("hevc", ".mkv", "yuv422p12le"),
    ("av1", ".mp4", "yuv420p"), ("av1", ".mkv", "yuv420p10le"), ("ffv1", ".mkv", "yuv420p"),
    ("ffv1", ".mkv", "yuv422p12le"),
]  # fmt: skip
"""Codec, container and pixel format."""


def segmented(source, target, quality):
    """The clip, encoded in segments of four frames as a job does."""
    with (
        VideoReader(source) as reader,
        SegmentedWriter(
            target.parent / "segments", target, reader.info, key="k", quality=quality, frames_per_segment=4
        ) as writer,
    ):
        for frame in reader.frames():
            writer.write(frame)
    return target


def psnr(found, wanted, top):
    error = np.mean([(a[0].astype(float) - b[0]) ** 2 for a, b in zip(found, wanted, strict=True)])
    return 10 * np.log10(top**2 / max(error, 1e-9))


@pytest.mark.parametrize(
    ("codec", "suffix", "pixel_format", "is_lossless"),
    [
        (*named, is_lossless)
        for named in NAMED
        for is_lossless in (False, True)
        if (*named, is_lossless) != ("av1", ".mkv", "yuv420p10le", True)  # not exact, so refused: see below
    ],
)
def test_a_named_codec_keeps_depth_tags_and_every_frame(tmp_path, codec, suffix, pixel_format, is_lossless):
    clip = make_clip(
        tmp_path / "in.mkv", ClipSpec(96, 64, 9, pixel_format, color_tags=TAGS, time_base=Fraction(1, 1000))
    )
    quality = EncodeConfig(preset="ultrafast", codec=codec, lossless=is_lossless)
    out = segmented(clip.path, tmp_path / f"out{suffix}", quality)
    times, images, last = read_video(out)
    assert times == [pts * Fraction(1, 1000) for pts in clip.pts]
    assert last.format.name == pixel_format and VideoReader(out).info.color_tags == TAGS
    if is_lossless or codec == "ffv1":
        for found, wanted in zip(images, clip.planes, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    else:
        top = 255 << (VideoReader(out).info.layout.bit_depth - 8)
        assert 38 < psnr(images, clip.planes, top) < 70


@pytest.mark.parametrize(
    ("pixel_format", "stored"),
    [
        ("yuv420p", "yuv422p10le"),
        ("yuv422p10le", "yuv422p10le"),
        ("yuv444p", "yuv444p12le"),
    ],  # decoders give 4444's samples as 12 bits
)
@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_prores_holds_ten_bits_and_says_what_it_changes(tmp_path, caplog, suffix, pixel_format, stored):
    clip = make_clip(tmp_path / "in.mkv", ClipSpec(96, 64, 5, pixel_format, time_base=Fraction(1, 1000)))
    out = segmented(clip.path, tmp_path / f"out{suffix}", EncodeConfig(codec="prores"))
    times, images, last = read_video(out)
    assert times == [pts * Fraction(1, 1000) for pts in clip.pts] and last.format.name == stored
    finer = {"yuv420p": 4, "yuv422p10le": 1, "yuv444p": 16}[pixel_format]
    wanted = [[plane.astype(float) * finer for plane in planes] for planes in clip.planes]
    assert psnr(images, wanted, 4095 if "12" in stored else 1023) > 45
    said = [record.message for record in caplog.records if "prores" in record.message]
    assert len(said) == {"yuv420p": 2, "yuv422p10le": 0, "yuv444p": 1}[pixel_format]


def test_eight_bits_become_ten_exactly_where_the_encoder_wants_ten(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", ClipSpec(48, 32, 1, "yuv422p"))
    frame = next(VideoReader(clip.path).frames())
    deeper = encodable(frame, 0, "yuv422p10le")
    for plane, wanted in zip(deeper.planes, frame.planes, strict=True):
        rows = np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, : plane.width]
        assert np.array_equal(rows, wanted.astype(np.uint16) * 4)


def test_ten_bits_keep_their_samples_in_the_packing_of_graphics_cards(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", ClipSpec(48, 32, 1, "yuv420p10le"))
    frame = next(VideoReader(clip.path).frames())
    luma, both = (
        np.frombuffer(plane, "<u2").reshape(plane.height, -1)[:, :48] >> 6
        for plane in encodable(frame, 0, "p010le").planes
    )
    for found, wanted in zip((luma, both[:, ::2], both[:, 1::2]), frame.planes, strict=True):
        assert np.array_equal(found, wanted)


def test_one_scale_of_quality_serves_all():
    """The number given is x264's; AV1 gets the one of its own scale with the same PSNR."""
    named = {name: EncodeConfig(codec=name) for name in ("h264", "hevc", "av1")}
    given = {name: choose_codec("yuv420p", 64, 64, ".mp4", quality) for name, quality in named.items()}
    assert {name: codec.options["crf"] for name, codec in given.items()} == {"h264": "14", "hevc": "14", "av1": "8"}
    rising = [
        int(choose_codec("yuv420p", 64, 64, ".mp4", EncodeConfig(crf=crf, codec="av1")).options["crf"])
        for crf in range(52)
    ]
    assert rising == sorted(rising) and rising[0] >= 1 and rising[-1] == 63


@pytest.mark.parametrize(
    ("options", "picture", "suffix", "words"),
    [
        ({"codec": "prores"}, ("yuv420p", 64, 48), ".mp4", r"a \.mp4 file does not hold prores.*\.mov or \.mkv"),
        ({"codec": "ffv1"}, ("yuv420p", 64, 48), ".mov", r"does not hold ffv1; name the output \.mkv"),
        ({"codec": "av1"}, ("yuv420p", 64, 64), ".mov", r"\.mov file does not hold av1"),
        ({"codec": "av1"}, ("yuv444p", 64, 64), ".mp4", "av1 cannot hold yuv444p at 64x64 here.*leave --codec out"),
        ({"codec": "av1"}, ("yuv420p", 64, 48), ".mp4", "even sizes from 64 px"),
        ({"codec": "av1", "lossless": True}, ("yuv420p10le", 64, 64), ".mp4", "not exact at 10 bits.*--codec hevc"),
        ({"codec": "h264"}, ("yuv420p12le", 64, 48), ".mp4", "h264 cannot hold yuv420p12le"),
        ({"codec": "hevc"}, ("yuv420p", 175, 143), ".mp4", "hevc cannot hold yuv420p at 175x143"),
        ({"codec": "prores", "lossless": True}, ("yuv422p", 64, 48), ".mov", "never lossless"),
        ({"codec": "prores"}, ("yuv422p12le", 64, 48), ".mov", "prores cannot hold yuv422p12le"),
        ({"encoder": "hardware"}, ("yuv420p", 64, 48), ".mp4", "needs a codec's name"),
        ({"encoder": "hardware", "codec": "h264"}, ("yuv420p10le", 64, 48), ".mp4", "8 bits only"),
        ({"encoder": "hardware", "codec": "hevc"}, ("yuv422p", 64, 48), ".mp4", "graphics card cannot encode"),
        ({"encoder": "hardware", "codec": "prores"}, ("yuv422p", 64, 48), ".mov", "graphics card cannot encode"),
    ],
)
def test_what_cannot_be_held_is_one_sentence(options, picture, suffix, words):
    with pytest.raises(OutputError, match=words) as caught:
        choose_codec(*picture, suffix, EncodeConfig(**options))
    assert "\n" not in str(caught.value)


def test_full_range_is_refused_by_prores_alone():
    quality = EncodeConfig(codec="prores")
    with pytest.raises(OutputError, match="full range"):
        choose_codec("yuv422p", 64, 48, ".mov", quality, full_range=True)
    assert choose_codec("yuv422p", 64, 48, ".mov", replace(quality, codec="hevc"), full_range=True).name == "libx265"


def test_hardware_is_taken_by_name_only():
    quality = EncodeConfig(codec="hevc", encoder="hardware", crf=18)
    codec = choose_codec("yuv420p10le", 64, 48, ".mp4", quality)
    assert (codec.name, codec.tag, codec.pixel_format, codec.options["cq"]) == ("hevc_nvenc", "hvc1", "p010le", "18")
    lossless = choose_codec("yuv420p", 64, 48, ".mkv", replace(quality, lossless=True))
    assert lossless.options["tune"] == "lossless" and "cq" not in lossless.options
    assert choose_codec("yuv420p", 64, 48, ".mp4", EncodeConfig(codec="hevc")).name == "libx265"


def test_hardware_that_is_not_there_is_found_out_first():
    with pytest.raises(OutputError, match="needs --codec h264, hevc, av1, got auto"):
        check_hardware("auto")
    try:
        check_hardware("h264")
    except OutputError as error:  # most machines, and every GPU made for computing alone
        assert "no graphics card here encodes h264" in str(error) and "--encoder software" in str(error)
    else:
        assert choose_codec("yuv420p", 64, 48, ".mp4", EncodeConfig(codec="h264", encoder="hardware"))
