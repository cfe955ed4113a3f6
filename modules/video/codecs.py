"""Which encoder keeps a pixel format, its depth and its size; and planes as frames that encoders take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import av
import numpy as np
from av.video.plane import VideoPlane
from numpy.typing import NDArray

from modules.commons.errors import OutputError
from modules.structures.frames import FieldOrder, Frame, HdrMetadata, VideoInfo
from modules.video.colour import BIT_DEPTH, CHROMA_SHIFT

TAG_OF_FIELD_ORDER: dict[FieldOrder, int] = {"unknown": 0, "progressive": 1, "top": 2, "bottom": 3}
"""FFmpeg's numbers for the order of fields."""
_HEVC_BLOCK = 64
"""Below this many pixels x265 needs smaller coding blocks to keep every sample."""
_X264_FIELD: dict[FieldOrder, str] = {"top": "tff=1", "bottom": "bff=1"}


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """How the picture and the sound are encoded.

    Attributes:
        crf: quality, lower is better; 14 cannot be told from the source side by side.
        preset: x264's and x265's speed against size.
        lossless: keep every sample (x264 at qp 0, x265, VP9 or FFV1 where H.264 cannot hold the format).
        audio_bit_rate: bits per second of AAC.
        threads: what x264's threads share: the slices of one frame, or several frames at once, which many cores do
            1.7 times faster.
    """

    crf: int = 14
    preset: str = "medium"
    lossless: bool = False
    audio_bit_rate: int = 192_000
    threads: Literal["slices", "frames"] = "slices"

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be 0..51, got {self.crf}")


@dataclass(frozen=True, slots=True)
class Codec:
    """A libavcodec encoder and its options.

    Attributes:
        name: libavcodec's.
        options: its private options.
        tag: the four characters that name it in MP4 and MOV; empty = the muxer's choice.
        losses: what the output cannot keep, one clause each, to be said to the user.
    """

    name: str
    options: dict[str, str]
    tag: str = ""
    losses: tuple[str, ...] = ()


def choose_codec(
    pixel_format: str,
    width: int,
    height: int,
    suffix: str,
    quality: EncodeConfig,
    *,
    hdr: HdrMetadata | None = None,
    field_order: FieldOrder = "progressive",
) -> Codec:
    """The encoder that keeps this pixel format and exactly this size.

    H.264 wherever it can, to 10 bits; H.265 for 12. Their sizes are whole chroma samples, so odd 4:2:0 and 4:2:2
    sizes cannot be held even by their cropping. VP9 holds them at 8 bits in MP4 and Matroska, FFV1 at any depth in
    Matroska, where it is the lossless one; but only H.264 and H.265 state HDR10's metadata here.

    Args:
        pixel_format: one of ``CHROMA_SHIFT``.
        width: of the coded picture, px.
        height: of the coded picture, px.
        suffix: ``.mp4 | .m4v | .mov | .mkv``.
        quality: how well, or without loss.
        hdr: to be stated in the stream where the encoder can.
        field_order: to be flagged where the encoder or the container can.

    Raises:
        OutputError: when the container holds no codec that can.
    """
    shift_x, shift_y = CHROMA_SHIFT[pixel_format]
    depth = BIT_DEPTH[pixel_format]
    has_whole_chroma = width % (1 << shift_x) == 0 and height % (1 << shift_y) == 0
    if not has_whole_chroma:
        codec = _codec_of_odd_sizes(depth, suffix, quality)
    elif suffix == ".mkv" and quality.lossless and hdr is None:
        codec = _FFV1
    elif depth > 10:
        codec = _x265(min(width, height), suffix, quality, hdr)
    else:
        order = field_order if height % (2 << shift_y) == 0 else "progressive"  # x264 codes fields of whole chroma
        codec = _x264(quality, hdr, order)
    if codec is None:
        other = ".mkv" if depth > 8 else ".mp4 or .mkv"
        raise OutputError(f"a {suffix} file cannot hold {pixel_format} at {width}x{height}; name the output {other}")
    return replace(codec, losses=_losses(codec, suffix, hdr, field_order))


def codec_for(info: VideoInfo, suffix: str, quality: EncodeConfig) -> Codec:
    """The encoder for a video's frames in their coded orientation.

    Raises:
        OutputError: when the container holds no codec that can.
    """
    is_turned = info.rotation_deg % 180 != 0
    size = (info.height, info.width) if is_turned else (info.width, info.height)
    return choose_codec(info.layout.pixel_format, *size, suffix, quality, hdr=info.hdr, field_order=info.field_order)


_FFV1 = Codec("ffv1", {"level": "3", "slicecrc": "1"})


def _codec_of_odd_sizes(depth: int, suffix: str, quality: EncodeConfig) -> Codec | None:
    """The one for sizes that cut a chroma sample, None when the container holds none."""
    if suffix == ".mkv" and (quality.lossless or depth > 8):
        return _FFV1
    if suffix == ".mov" or depth > 8:
        return None
    rate = {"lossless": "1"} if quality.lossless else {"crf": str(quality.crf)}
    return Codec("libvpx-vp9", {"deadline": "good", "cpu-used": "4", "row-mt": "1", **rate})


def _x264(quality: EncodeConfig, hdr: HdrMetadata | None, field_order: FieldOrder) -> Codec:
    stated = ["sliced-threads=0"] if quality.threads == "frames" else []  # PyAV asks for slices
    stated += [_X264_FIELD[field_order]] if field_order in _X264_FIELD else []
    if hdr is not None and hdr.display is not None:
        stated.append(f"mastering-display={_mastering_display(hdr.display)}")
    if hdr is not None and hdr.light is not None:
        stated.append(f"cll={hdr.light[0]},{hdr.light[1]}")
    rate = {"qp": "0"} if quality.lossless else {"crf": str(quality.crf)}
    return Codec("libx264", {"preset": quality.preset, **rate, **({"x264-params": ":".join(stated)} if stated else {})})


def _x265(shorter_side: int, suffix: str, quality: EncodeConfig, hdr: HdrMetadata | None) -> Codec:
    # With B-frames, x265 gives no decoding times to videos and segments of one or two frames.
    stated = ["log-level=none", "bframes=0"]
    if shorter_side < _HEVC_BLOCK:
        stated.append("ctu=16")
    if hdr is not None and hdr.display is not None:
        stated.append(f"master-display={_mastering_display(hdr.display)}")
    if hdr is not None and hdr.light is not None:
        stated.append(f"max-cll={hdr.light[0]},{hdr.light[1]}")
    if quality.lossless:
        stated.append("lossless=1")
    rate = {} if quality.lossless else {"crf": str(quality.crf)}
    options = {"preset": quality.preset, **rate, "x265-params": ":".join(stated)}
    return Codec("libx265", options, tag="" if suffix == ".mkv" else "hvc1")  # some players know no other tag


def _mastering_display(numbers: tuple[int, ...]) -> str:
    """x264's and x265's spelling of ``HdrMetadata.display``."""
    pairs = [f"({a},{b})" for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return "".join(name + pair for name, pair in zip(("G", "B", "R", "WP", "L"), pairs, strict=True))


def _losses(codec: Codec, suffix: str, hdr: HdrMetadata | None, field_order: FieldOrder) -> tuple[str, ...]:
    """What of the source's description the output cannot keep, in words."""
    losses = []
    if hdr is not None and codec.name not in {"libx264", "libx265"}:
        losses.append(f"{codec.name} cannot state the HDR mastering display and content light level, so they are lost")
    flagged = any(field in codec.options.get("x264-params", "") for field in _X264_FIELD.values())
    if field_order == "unknown" or (field_order != "progressive" and suffix != ".mkv" and not flagged):
        losses.append("the output is not flagged as interlaced, which its pictures are")
    return tuple(losses)


def encodable(frame: Frame, quarter_turns: int) -> av.VideoFrame:
    """A copy of ``frame`` for an encoder, its planes turned back by ``quarter_turns`` into the coded orientation."""
    height, width = frame.size_hw[::-1] if quarter_turns % 2 else frame.size_hw
    coded = av.VideoFrame(width, height, frame.layout.pixel_format)
    for target, plane in zip(coded.planes, frame.planes, strict=True):
        samples(target, frame.layout.bit_depth)[:] = np.rot90(plane, -quarter_turns)
    coded.pts, coded.time_base = frame.pts, frame.time_base
    return coded


def samples(plane: VideoPlane, bit_depth: int) -> NDArray:
    """The samples ``[h, w]`` of a decoded or coming frame's plane, as a view: uint8, or uint16 above 8 bits."""
    dtype = np.dtype(np.uint8) if bit_depth == 8 else np.dtype("<u2")
    rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // dtype.itemsize)  # type: ignore[call-overload]
    return rows[:, : plane.width]
