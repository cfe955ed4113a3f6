"""The encoders this project knows: what each can hold, how well it is asked to do it, and in which words it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import av
import av.error
import numpy as np

from modules.commons.errors import OutputError
from modules.structures.frames import FieldOrder, HdrMetadata
from modules.video.colour import BIT_DEPTH, CHROMA_SHIFT

CodecName = Literal["auto", "h264", "hevc", "av1", "prores", "ffv1"]
EncoderKind = Literal["software", "hardware"]

HELD_BY: dict[CodecName, tuple[str, ...]] = {
    "h264": (".mp4", ".m4v", ".mov", ".mkv"),
    "hevc": (".mp4", ".m4v", ".mov", ".mkv"),
    "av1": (".mp4", ".mkv"),
    "prores": (".mov", ".mkv"),
    "ffv1": (".mkv",),
}
"""Containers whose players expect the codec; the first one is named to who chose another."""
_HARDWARE: dict[CodecName, str] = {"h264": "h264_nvenc", "hevc": "hevc_nvenc", "av1": "av1_nvenc"}
_NVENC_INPUT = {"yuv420p": "", "yuv444p": "", "yuv420p10le": "p010le"}
"""Formats NVENC takes, and under which name: P010 holds the same samples in another packing."""
_SVT_FORMATS = frozenset({"yuv420p", "yuv420p10le"})
_SVT_SMALLEST = 64
_HEVC_BLOCK = 64
"""Below this many pixels x265 needs smaller coding blocks to keep every sample."""
_X264_FIELD: dict[FieldOrder, str] = {"top": "tff=1", "bottom": "bff=1"}
_CRF_OF_X264, _CRF_OF_SVT = (0, 10, 14, 18, 23, 51), (1, 5, 8, 13, 26, 63)
"""Where both gave the same PSNR within 0.7 dB on three clips (24 frames each); x265's scale is x264's within 1 dB."""


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """How the picture and the sound are encoded.

    Attributes:
        crf: quality on x264's scale, lower is better; 14 cannot be told from the source side by side. Other encoders
            get the number of their own scale that does the same; ProRes and FFV1 have none.
        preset: x264's and x265's speed against size.
        lossless: keep every sample (x264 at qp 0, x265, VP9, AV1 or FFV1).
        audio_bit_rate: bits per second of AAC.
        threads: what x264's threads share: the slices of one frame, or several frames at once, which many cores do
            1.7 times faster.
        codec: 'auto' takes the one that keeps the source's format and depth, see ``codecs.choose_codec``.
        encoder: 'hardware' takes the graphics card's, which is faster and needs more bits for the same quality.
    """

    crf: int = 14
    preset: str = "medium"
    lossless: bool = False
    audio_bit_rate: int = 192_000
    threads: Literal["slices", "frames"] = "slices"
    codec: CodecName = "auto"
    encoder: EncoderKind = "software"

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
        pixel_format: that the encoder takes; empty = the frames' own.
    """

    name: str
    options: dict[str, str]
    tag: str = ""
    losses: tuple[str, ...] = ()
    pixel_format: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is to be encoded.

    Attributes:
        pixel_format: one of ``CHROMA_SHIFT``.
        width, height: of the coded picture, px.
        full_range: samples use all codes.
        hdr: to be stated in the stream where the encoder can.
        field_order: to be flagged where the encoder or the container can.
    """

    pixel_format: str
    width: int
    height: int
    full_range: bool = False
    hdr: HdrMetadata | None = None
    field_order: FieldOrder = "progressive"

    @property
    def depth(self) -> int:
        """Bits per sample."""
        return BIT_DEPTH[self.pixel_format]

    @property
    def has_whole_chroma(self) -> bool:
        """Whether the size cuts no chroma sample."""
        shift_x, shift_y = CHROMA_SHIFT[self.pixel_format]
        return self.width % (1 << shift_x) == 0 and self.height % (1 << shift_y) == 0

    def __str__(self) -> str:
        return f"{self.pixel_format} at {self.width}x{self.height}"


def named_codec(picture: Picture, suffix: str, quality: EncodeConfig) -> Codec:
    """The encoder that ``quality.codec`` names.

    Args:
        picture: what it shall hold.
        suffix: of the output.
        quality: with a codec other than 'auto'.

    Raises:
        OutputError: the container, the codec or the encoder cannot; the sentence says what can.
    """
    name = quality.codec
    if suffix not in HELD_BY[name]:
        raise OutputError(f"a {suffix} file does not hold {name}; name the output {' or '.join(HELD_BY[name])}")
    if quality.encoder == "hardware":
        return _nvenc(picture, suffix, quality)
    if name == "ffv1":
        return ffv1()
    if name == "prores":
        return _prores(picture, quality)
    if name == "av1":
        return _svt_av1(picture, quality)
    if not picture.has_whole_chroma or (name == "h264" and picture.depth > 10):
        raise OutputError(f"{name} cannot hold {picture}; leave --codec out, or use ffv1 with a .mkv output")
    return x264(picture, quality) if name == "h264" else x265(picture, suffix, quality)


def ffv1() -> Codec:
    """FFV1, which is always lossless."""
    return Codec("ffv1", {"level": "3", "slicecrc": "1"})


def vp9(quality: EncodeConfig) -> Codec:
    """VP9, which holds sizes that cut a chroma sample."""
    rate = {"lossless": "1"} if quality.lossless else {"crf": str(quality.crf)}
    return Codec("libvpx-vp9", {"deadline": "good", "cpu-used": "4", "row-mt": "1", **rate})


def x264(picture: Picture, quality: EncodeConfig) -> Codec:
    """H.264 up to 10 bits."""
    shift_y = CHROMA_SHIFT[picture.pixel_format][1]
    has_whole_fields = picture.height % (2 << shift_y) == 0  # x264 codes fields of whole chroma
    stated = ["sliced-threads=0"] if quality.threads == "frames" else []  # PyAV asks for slices
    stated += [_X264_FIELD[picture.field_order]] if has_whole_fields and picture.field_order in _X264_FIELD else []
    hdr = picture.hdr
    if hdr is not None and hdr.display is not None:
        stated.append(f"mastering-display={_mastering_display(hdr.display)}")
    if hdr is not None and hdr.light is not None:
        stated.append(f"cll={hdr.light[0]},{hdr.light[1]}")
    rate = {"qp": "0"} if quality.lossless else {"crf": str(quality.crf)}
    return Codec("libx264", {"preset": quality.preset, **rate, **({"x264-params": ":".join(stated)} if stated else {})})


def x265(picture: Picture, suffix: str, quality: EncodeConfig) -> Codec:
    """H.265 up to 12 bits."""
    # With B-frames, x265 gives no decoding times to videos and segments of one or two frames.
    stated = ["log-level=none", "bframes=0"]
    if min(picture.width, picture.height) < _HEVC_BLOCK:
        stated.append("ctu=16")
    hdr = picture.hdr
    if hdr is not None and hdr.display is not None:
        stated.append(f"master-display={_mastering_display(hdr.display)}")
    if hdr is not None and hdr.light is not None:
        stated.append(f"max-cll={hdr.light[0]},{hdr.light[1]}")
    if quality.lossless:
        stated.append("lossless=1")
    rate = {} if quality.lossless else {"crf": str(quality.crf)}
    options = {"preset": quality.preset, **rate, "x265-params": ":".join(stated)}
    return Codec("libx265", options, tag="" if suffix == ".mkv" else "hvc1")  # some players know no other tag


def is_flagged_as_fields(codec: Codec) -> bool:
    """Whether the stream itself says that its pictures are interlaced."""
    return any(field in codec.options.get("x264-params", "") for field in _X264_FIELD.values())


def with_parameter_set_id(codec: Codec, number: int) -> Codec:
    """x264 with other numbers for its parameter sets, so that a foreign stream's can lie beside them.

    Args:
        codec: of libx264.
        number: 0..31.
    """
    stated = codec.options.get("x264-params", "")
    params = f"{stated}:sps-id={number}" if stated else f"sps-id={number}"
    options = {**codec.options, "x264-params": params}
    return Codec(codec.name, options, codec.tag, codec.losses, codec.pixel_format)


def check_hardware(name: CodecName) -> None:
    """Find out before any work whether the graphics card encodes.

    Raises:
        OutputError: it does not, or nothing was named that it could.
    """
    if name not in _HARDWARE:
        raise OutputError(
            f"--encoder hardware needs --codec {', '.join(_HARDWARE)}, got {name}; "
            "graphics cards encode nothing else"
        )  # fmt: skip
    try:
        context = av.CodecContext.create(_HARDWARE[name], "w")
        context.width, context.height, context.pix_fmt, context.framerate = 256, 256, "yuv420p", 25  # type: ignore[attr-defined]
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        raise OutputError(
            f"--encoder hardware: no graphics card here encodes {name} ({_HARDWARE[name]} does not open); "
            "use --encoder software"
        ) from error


def _nvenc(picture: Picture, suffix: str, quality: EncodeConfig) -> Codec:
    name = quality.codec
    if name not in _HARDWARE or picture.pixel_format not in _NVENC_INPUT or not picture.has_whole_chroma:
        raise OutputError(f"the graphics card cannot encode {picture} as {name}; use --encoder software")
    if picture.depth > 8 and name == "h264":
        raise OutputError("the graphics card encodes h264 at 8 bits only; use --codec hevc or --encoder software")
    if name == "av1" and quality.lossless:
        raise OutputError("the graphics card encodes no av1 without loss; use --encoder software")
    rate = {"tune": "lossless"} if quality.lossless else {"tune": "hq", "rc": "vbr", "cq": str(max(quality.crf, 1))}
    options = {"preset": "p7", "bf": "0", **rate}
    tag = "hvc1" if name == "hevc" and suffix != ".mkv" else ""
    return Codec(_HARDWARE[name], options, tag=tag, pixel_format=_NVENC_INPUT[picture.pixel_format])


def _svt_av1(picture: Picture, quality: EncodeConfig) -> Codec:
    fits = picture.has_whole_chroma and min(picture.width, picture.height) >= _SVT_SMALLEST
    if picture.pixel_format not in _SVT_FORMATS or not fits:
        raise OutputError(
            f"av1 cannot hold {picture} here: 4:2:0 of 8 or 10 bits, even sizes from 64 px; leave --codec out"
        )
    if quality.lossless and picture.depth > 8:  # measured: not every sample comes back
        raise OutputError(
            f"av1 is not exact at {picture.depth} bits here; use --codec hevc, or ffv1 with a .mkv output"
        )
    stated = ["lossless=1"] if quality.lossless else []
    crf = round(float(np.interp(quality.crf, _CRF_OF_X264, _CRF_OF_SVT)))
    rate = {} if quality.lossless else {"crf": str(crf)}
    options = {"preset": "6", **rate, **({"svtav1-params": ":".join(stated)} if stated else {})}
    return Codec("libsvtav1", options)


def _prores(picture: Picture, quality: EncodeConfig) -> Codec:
    """ProRes 422 HQ, or 4444 for whole chroma: always 10 bits, limited range."""
    if quality.lossless:
        raise OutputError("prores is never lossless; use --codec ffv1 with a .mkv output, or leave --lossless out")
    if picture.depth > 10 or picture.full_range or not picture.has_whole_chroma:
        what = "full range" if picture.full_range else str(picture)
        raise OutputError(f"prores cannot hold {what}: limited range of 10 bits, even sizes; leave --codec out")
    is_whole = CHROMA_SHIFT[picture.pixel_format] == (0, 0)
    target = "yuv444p10le" if is_whole else "yuv422p10le"
    losses = ()
    if CHROMA_SHIFT[picture.pixel_format] == (1, 1):
        losses = ("prores has no 4:2:0, so the colour of every line is interpolated (4:2:2)",)
    if picture.depth < 10:
        losses = (*losses, "prores stores 10 bits; 8-bit samples are kept exactly, four times as large")
    own = "" if target == picture.pixel_format else target
    profile = "4" if is_whole else "3"
    return Codec("prores_ks", {"profile": profile, "vendor": "apl0"}, losses=losses, pixel_format=own)


def _mastering_display(numbers: tuple[int, ...]) -> str:
    """x264's and x265's spelling of ``HdrMetadata.display``."""
    pairs = [f"({a},{b})" for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return "".join(name + pair for name, pair in zip(("G", "B", "R", "WP", "L"), pairs, strict=True))
