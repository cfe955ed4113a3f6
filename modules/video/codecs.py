"""Which encoder keeps a pixel format, its depth and its size; and planes as frames that encoders take."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
from av.video.plane import VideoPlane
from numpy.typing import NDArray

from modules.commons.errors import OutputError
from modules.structures.frames import FieldOrder, Frame, HdrMetadata, VideoInfo
from modules.video.encoders import (
    Codec,
    EncodeConfig,
    Picture,
    ffv1,
    is_flagged_as_fields,
    named_codec,
    vp9,
    x264,
    x265,
)

__all__ = ["TAG_OF_FIELD_ORDER", "Codec", "EncodeConfig", "choose_codec", "codec_for", "encodable", "samples"]

TAG_OF_FIELD_ORDER: dict[FieldOrder, int] = {"unknown": 0, "progressive": 1, "top": 2, "bottom": 3}
"""FFmpeg's numbers for the order of fields."""


def choose_codec(
    pixel_format: str,
    width: int,
    height: int,
    suffix: str,
    quality: EncodeConfig,
    *,
    hdr: HdrMetadata | None = None,
    field_order: FieldOrder = "progressive",
    full_range: bool = False,
) -> Codec:
    """The encoder that keeps this pixel format and exactly this size, or the one that was named.

    By itself H.264 wherever it can, to 10 bits; H.265 for 12. Their sizes are whole chroma samples, so odd 4:2:0 and
    4:2:2 sizes cannot be held even by their cropping. VP9 holds them at 8 bits in MP4 and Matroska, FFV1 at any depth
    in Matroska, where it is the lossless one; but only H.264 and H.265 state HDR10's metadata here.

    Args:
        pixel_format: one of ``CHROMA_SHIFT``.
        width: of the coded picture, px.
        height: of the coded picture, px.
        suffix: ``.mp4 | .m4v | .mov | .mkv``.
        quality: how well, or without loss.
        hdr: to be stated in the stream where the encoder can.
        field_order: to be flagged where the encoder or the container can.
        full_range: samples use all codes.

    Raises:
        OutputError: when the container holds no codec that can, or the one that was named cannot.
    """
    picture = Picture(pixel_format, width, height, full_range, hdr, field_order)
    if quality.codec != "auto":
        codec: Codec | None = named_codec(picture, suffix, quality)
    elif quality.encoder == "hardware":
        raise OutputError("--encoder hardware needs a codec's name: give --codec h264, hevc or av1")
    else:
        codec = _automatic(picture, suffix, quality)
    if codec is None:
        other = ".mkv" if picture.depth > 8 else ".mp4 or .mkv"
        raise OutputError(f"a {suffix} file cannot hold {pixel_format} at {width}x{height}; name the output {other}")
    return replace(codec, losses=_losses(codec, suffix, hdr, field_order))


def codec_for(info: VideoInfo, suffix: str, quality: EncodeConfig) -> Codec:
    """The encoder for a video's frames in their coded orientation.

    Raises:
        OutputError: when the container holds no codec that can.
    """
    is_turned = info.rotation_deg % 180 != 0
    size = (info.height, info.width) if is_turned else (info.width, info.height)
    layout = info.layout
    return choose_codec(
        layout.pixel_format, *size, suffix, quality, hdr=info.hdr, field_order=info.field_order,
        full_range=layout.full_range,
    )  # fmt: skip


def _automatic(picture: Picture, suffix: str, quality: EncodeConfig) -> Codec | None:
    """The encoder that keeps everything, None when the container holds none."""
    if not picture.has_whole_chroma:
        return _codec_of_odd_sizes(picture.depth, suffix, quality)
    if suffix == ".mkv" and quality.lossless and picture.hdr is None:
        return ffv1()
    return x265(picture, suffix, quality) if picture.depth > 10 else x264(picture, quality)


def _codec_of_odd_sizes(depth: int, suffix: str, quality: EncodeConfig) -> Codec | None:
    """The one for sizes that cut a chroma sample, None when the container holds none."""
    if suffix == ".mkv" and (quality.lossless or depth > 8):
        return ffv1()
    return None if suffix == ".mov" or depth > 8 else vp9(quality)


def _losses(codec: Codec, suffix: str, hdr: HdrMetadata | None, field_order: FieldOrder) -> tuple[str, ...]:
    """What of the source's description the output cannot keep, in words."""
    losses = list(codec.losses)
    if hdr is not None and codec.name not in {"libx264", "libx265"}:
        losses.append(f"{codec.name} cannot state the HDR mastering display and content light level, so they are lost")
    is_told = suffix == ".mkv" or is_flagged_as_fields(codec)
    if field_order == "unknown" or (field_order != "progressive" and not is_told):
        losses.append("the output is not flagged as interlaced, which its pictures are")
    return tuple(losses)


def encodable(frame: Frame, quarter_turns: int, pixel_format: str = "") -> av.VideoFrame:
    """A copy of ``frame`` for an encoder.

    Args:
        frame: upright.
        quarter_turns: that its planes are turned back by into the coded orientation.
        pixel_format: that the encoder takes, see ``Codec.pixel_format``; empty = the frame's own.
    """
    height, width = frame.size_hw[::-1] if quarter_turns % 2 else frame.size_hw
    coded = av.VideoFrame(width, height, frame.layout.pixel_format)
    for target, plane in zip(coded.planes, frame.planes, strict=True):
        samples(target, frame.layout.bit_depth)[:] = np.rot90(plane, -quarter_turns)
    if pixel_format:
        coded = coded.reformat(format=pixel_format, interpolation="BICUBIC")
    coded.pts, coded.time_base = frame.pts, frame.time_base
    return coded


def samples(plane: VideoPlane, bit_depth: int) -> NDArray:
    """The samples ``[h, w]`` of a decoded or coming frame's plane, as a view: uint8, or uint16 above 8 bits."""
    dtype = np.dtype(np.uint8) if bit_depth == 8 else np.dtype("<u2")
    rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // dtype.itemsize)  # type: ignore[call-overload]
    return rows[:, : plane.width]
