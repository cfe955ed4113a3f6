"""Formats: packed samples are kept exactly, transparency is never dropped, fields and HDR data are found."""

from __future__ import annotations

import logging
from fractions import Fraction

import av
import numpy as np
import pytest

from modules.commons.errors import VideoReadError
from modules.structures.frames import HdrMetadata
from modules.video.codecs import samples
from modules.video.pixel_formats import conversion_of
from modules.video.reader import VideoReader
from tests.support.synthetic_video import ClipSpec, depth_of, frame_planes, make_clip, video_frame

RATE = Fraction(25)


def encode(path, codec, pixel_format, frames, **options):
    """Write ready frames, converted where they are in another format."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pixel_format
        stream.codec_context.color_range = 1
        for i, frame in enumerate(frames):
            given = frame if frame.format.name == pixel_format else frame.reformat(format=pixel_format)
            given.pts, given.time_base = i, 1 / RATE
            container.mux(stream.encode(given))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("packed", "delivered"),
    [
        ("nv12", "yuv420p"), ("nv21", "yuv420p"), ("nv16", "yuv422p"), ("nv24", "yuv444p"), ("yuyv422", "yuv422p"),
        ("uyvy422", "yuv422p"), ("p010le", "yuv420p10le"), ("p210le", "yuv422p10le"), ("y210le", "yuv422p10le"),
        ("yuv420p10be", "yuv420p10le"), ("p012le", "yuv420p12le"), ("p412le", "yuv444p12le"),
    ],
)  # fmt: skip
def test_another_packing_of_the_same_samples_is_unpacked_exactly(tmp_path, packed, delivered):
    image = frame_planes(ClipSpec(pixel_format=delivered), 0)
    decoded = video_frame(image, delivered, 0, 1 / RATE).reformat(format=packed)
    clip = make_clip(tmp_path / "other.mkv", ClipSpec(n_frames=1))
    with av.open(str(clip.path)) as container:  # few containers hold such frames; some decoders make them
        conversion = conversion_of(decoded, container.streams.video[0], clip.path)
    assert conversion.layout.pixel_format == delivered and conversion.layout.bit_depth == depth_of(delivered)
    assert conversion.reason == ""
    assert all(np.array_equal(a, b) for a, b in zip(conversion.planes(decoded, 0), image, strict=True))


def with_alpha(pixel_format, alpha, index=0):
    """A Y'CbCr frame with an alpha plane; ``alpha`` is 0..1."""
    depth = depth_of(pixel_format)
    image = frame_planes(ClipSpec(pixel_format=pixel_format.replace("yuva", "yuv")), index)
    frame = av.VideoFrame(64, 48, pixel_format)
    for plane, values in zip(frame.planes, (*image, np.full((48, 64), round(alpha * (2**depth - 1)))), strict=True):
        samples(plane, depth)[:] = values
    return frame


def rgba(alpha):
    image = np.full((48, 64, 4), 90, np.uint8)
    image[..., 3] = alpha
    image[:24, :, 3] = 255
    return av.VideoFrame.from_ndarray(image, format="rgba")


TRANSPARENT = {
    "vp9.webm": ("libvpx-vp9", "yuva420p"),
    "vp8.webm": ("libvpx", "yuva420p"),
    "vp9.mkv": ("libvpx-vp9", "yuva420p"),
    "prores.mov": ("prores_ks", "yuva444p10le"),
    "ffv1.mkv": ("ffv1", "yuva420p"),
    "ffv1_10.mkv": ("ffv1", "yuva422p10le"),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_a_transparent_video_is_refused_in_one_sentence_that_says_what_to_do(tmp_path, name):
    codec, pixel_format = TRANSPARENT[name]
    frames = [with_alpha(pixel_format, 0.5, i) for i in range(3)]
    options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
    path = encode(tmp_path / name, codec, pixel_format, frames, **options)
    with pytest.raises(VideoReadError, match="has transparent pixels") as caught:
        VideoReader(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    decoder = {"vp9": " -c:v libvpx-vp9 ", "vp8": " -c:v libvpx "}.get(name.partition(".")[0], " ")
    assert f"s=64x48{decoder}-i {name} " in str(caught.value)


@pytest.mark.parametrize("codec", ["png", "qtrle"])
def test_transparent_rgb_is_refused_and_opaque_rgb_is_read(tmp_path, codec):
    pixel_format = {"png": "rgba", "qtrle": "argb"}[codec]
    with pytest.raises(VideoReadError, match="has transparent pixels"):
        VideoReader(encode(tmp_path / "clear.mov", codec, pixel_format, [rgba(200)]))
    with VideoReader(encode(tmp_path / "opaque.mov", codec, pixel_format, [rgba(255)] * 2)) as reader:
        assert len(list(reader.frames())) == 2


def test_a_gif_is_read_and_one_with_holes_is_not(tmp_path):
    frames = [rgba(255)] * 3
    with VideoReader(encode(tmp_path / "whole.gif", "gif", "rgb8", frames)) as reader:
        assert len(list(reader.frames())) == 3
    holes = tmp_path / "holes.gif"
    encode(holes, "gif", "rgb8", frames[:1])
    data = bytearray(holes.read_bytes())
    at = data.index(b"\x21\xf9\x04")
    palette_index = 0
    data[at + 3] |= 1  # a transparent colour is given ...
    for palette_index in range(256):
        data[at + 6] = palette_index  # ... and it is this one
        holes.write_bytes(data)
        with av.open(str(holes)) as container:
            if next(container.decode(video=0)).to_ndarray(format="rgba")[..., 3].min() == 0:
                break
    with pytest.raises(VideoReadError, match="has transparent pixels"):
        VideoReader(holes)


@pytest.mark.parametrize("pixel_format", ["yuva420p", "yuva422p10le", "yuva444p12le"])
def test_an_opaque_alpha_channel_is_left_out_and_the_planes_are_exact(tmp_path, caplog, pixel_format):
    frames = [with_alpha(pixel_format, 1.0, i) for i in range(2)]
    with VideoReader(encode(tmp_path / "opaque.mkv", "ffv1", pixel_format, frames)) as reader:
        found = list(reader.frames())
    plain = pixel_format.replace("yuva", "yuv")
    assert reader.info.layout.pixel_format == plain and not caplog.records
    for i, frame in enumerate(found):
        wanted = frame_planes(ClipSpec(pixel_format=plain), i)
        assert all(np.array_equal(a, b) for a, b in zip(frame.planes, wanted, strict=True))


def test_transparency_that_begins_later_is_an_error_there(tmp_path):
    frames = [with_alpha("yuva420p", alpha, i) for i, alpha in enumerate((1.0, 1.0, 0.99))]
    reader = VideoReader(encode(tmp_path / "later.mkv", "ffv1", "yuva420p", frames))
    iterator = reader.frames()
    assert [next(iterator).index, next(iterator).index] == [0, 1]
    with pytest.raises(VideoReadError, match="has transparent pixels"):
        next(iterator)


@pytest.mark.parametrize(
    ("name", "codec", "options", "order"),
    [
        ("x.mp4", "libx264", {"x264-params": "tff=1"}, "top"),
        ("x.ts", "libx264", {"x264-params": "bff=1"}, "bottom"),
        ("x.mkv", "libx264", {}, "progressive"),
        ("x.mpg", "mpeg2video", {"flags": "+ildct+ilme"}, "bottom"),
    ],
)
def test_interlaced_video_is_known_and_said_once(tmp_path, caplog, name, codec, options, order):
    images = [frame_planes(ClipSpec(), i) for i in range(3)]
    frames = [video_frame(image, "yuv420p", i, 1 / RATE) for i, image in enumerate(images)]
    path = encode(tmp_path / name, codec, "yuv420p", frames, qp="0", **options)
    with caplog.at_level(logging.WARNING), VideoReader(path) as reader:
        found = list(reader.frames())
    assert reader.info.field_order == order and reader.info.is_interlaced == (order != "progressive")
    said = [r.getMessage() for r in caplog.records if "is interlaced" in r.getMessage()]
    assert len(said) == (order != "progressive")
    assert all("as they are woven" in words and f"ffmpeg -i {name} -vf" in words for words in said)
    for frame, image in zip(found, images, strict=True):
        errors = [np.abs(a.astype(int) - b).max() for a, b in zip(frame.planes, image, strict=True)]
        assert max(errors) == 0 or codec == "mpeg2video"  # which is never without loss


def test_hdr_metadata_is_read_in_its_own_steps(tmp_path):
    numbers = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    options = {"x264-params": f"mastering-display={numbers}:cll=1000,400"}
    clip = make_clip(tmp_path / "hdr.mkv", ClipSpec(n_frames=2, pixel_format="yuv420p10le", options=options))
    display = (13250, 34500, 7500, 3000, 34000, 16000, 15635, 16450, 10_000_000, 50)
    assert VideoReader(clip.path).info.hdr == HdrMetadata(display, (1000, 400))
    assert VideoReader(make_clip(tmp_path / "sdr.mkv", ClipSpec(n_frames=2)).path).info.hdr is None
