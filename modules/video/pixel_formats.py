"""What a stream's decoded frames are, and how they become upright planes of a kept format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from modules.commons.errors import VideoReadError
from modules.structures.frames import FieldOrder, HdrMetadata, PlaneLayout
from modules.video.codecs import samples
from modules.video.colour import BIT_DEPTH, CHROMA_SHIFT, RANGE_FULL, ColorTags, deepened, resolve_layout

_SWS_OF_MATRIX = {"bt601": 5, "bt709": 1, "bt2020": 9}
"""libswscale's numbers for the matrices."""
_TAG_OF_MATRIX = {"bt601": 6, "bt709": 1, "bt2020": 9}
"""FFmpeg's colour space tags written for a stream that had none of its own (RGB)."""
_SHOWN_FIRST: dict[int, FieldOrder] = {2: "top", 3: "bottom", 4: "bottom", 5: "top"}
"""FFmpeg's AVFieldOrder of interlaced streams; 4 and 5 are coded in the other order than shown."""
_DYNAMIC_HDR = ("DYNAMIC_HDR_PLUS", "DYNAMIC_HDR_VIVID", "DOVI_RPU_BUFFER", "DOVI_METADATA")
_VPX = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""The decoders that read the alpha of WebM, which FFmpeg's own leave out."""
_PRIMARIES_STEP, _LUMINANCE_STEP = 50_000, 10_000


@dataclass(frozen=True, slots=True)
class Conversion:
    """How decoded frames become the delivered format, fixed by the first frame.

    Attributes:
        path: of the video.
        layout: of the delivered planes before the rotation.
        tags: raw colour tags to write back.
        rotation_deg: counter-clockwise.
        coded_size: width and height before the rotation, px.
        reason: in one clause why the format is not the decoded one; empty where it is, or where only the packing of
            the same samples changes.
    """

    path: Path
    layout: PlaneLayout
    tags: ColorTags
    rotation_deg: int
    coded_size: tuple[int, int]
    reason: str

    def planes(self, frame: VideoFrame, index: int) -> tuple[NDArray, NDArray, NDArray]:
        """Upright copies of the frame's planes: the decoder may still refer to its own buffers.

        Raises:
            VideoReadError: where the frame has another size than the first one, or transparent pixels.
        """
        if (frame.width, frame.height) != self.coded_size:
            raise VideoReadError(
                f"{self.path} changes its frame size to {frame.width}x{frame.height} at frame {index}; "
                "split it there or re-encode it with one size"
            )
        refuse_transparency(frame, self.path)
        turns, depth = self.rotation_deg // 90, self.layout.bit_depth
        luma, blue, red = (np.rot90(samples(plane, depth), turns).copy() for plane in self._delivered(frame).planes[:3])
        return luma, blue, red

    def _delivered(self, frame: VideoFrame) -> VideoFrame:
        """The frame in the delivered pixel format; the frame itself where its first three planes already are."""
        if _plain_name(frame.format.name) == self.layout.pixel_format:
            return frame
        matrix = _SWS_OF_MATRIX[self.layout.matrix]
        value_range = RANGE_FULL if self.layout.full_range else 1
        return frame.reformat(
            format=self.layout.pixel_format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=RANGE_FULL if _is_always_full_range(frame.format) else value_range,
            dst_color_range=value_range,
            interpolation="BICUBIC",
        )


def conversion_of(first: VideoFrame, stream: VideoStream, path: Path) -> Conversion:
    """What to do with the frames of ``stream``.

    Args:
        first: the first decoded frame.
        stream: it came from; already decoding, so that it knows its tags.
        path: named in errors.

    Raises:
        VideoReadError: when the picture is transparent, mirrored or turned by other than quarters.
    """
    refuse_transparency(first, path)
    context = stream.codec_context
    metadata = {key.lower(): value for key, value in stream.metadata.items()}
    if metadata.get("alpha_mode") == "1" and context.name in _VPX:
        raise VideoReadError(_transparency(path, first, f"-c:v {_VPX[context.name]} "))
    tags: ColorTags = (
        int(context.color_primaries), int(context.color_trc), int(context.colorspace), int(context.color_range)
    )  # fmt: skip
    rotation = _rotation_deg(first, path)
    target, reason = _nearest_format(first, rotation)
    if first.format.is_rgb or _is_always_full_range(first.format):
        tags = (tags[0], tags[1], 2, 1)
    layout = resolve_layout(target, tags, first.height, context.name)
    if first.format.is_rgb:
        tags = (tags[0], tags[1], _TAG_OF_MATRIX[layout.matrix], 1)
    return Conversion(path, layout, tags, rotation, (first.width, first.height), reason)


def refuse_transparency(frame: VideoFrame, path: Path) -> None:
    """Raise where a frame is not opaque everywhere; an alpha channel that says nothing is no obstacle.

    Raises:
        VideoReadError: when some pixel is transparent.
    """
    if frame.format.has_palette or any(component.is_alpha for component in frame.format.components):
        alpha, opaque = _alpha(frame)
        if int(alpha.min()) < opaque:
            raise VideoReadError(_transparency(path, frame))


def field_order_of(first: VideoFrame, stream: VideoStream) -> FieldOrder:
    """Which field is shown first, from the stream's header and the first frame's flag."""
    order = _SHOWN_FIRST.get(int(stream.codec_context.field_order))
    return order or ("unknown" if first.interlaced_frame else "progressive")


def hdr_of(first: VideoFrame) -> HdrMetadata | None:
    """HDR10's static metadata, which a decoder hands out with the first frame."""
    found = {kind: first.side_data.get(kind) for kind in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")}
    display = light = None
    if found["MASTERING_DISPLAY_METADATA"] is not None:
        display = _mastering_display(bytes(found["MASTERING_DISPLAY_METADATA"]))
    if found["CONTENT_LIGHT_LEVEL"] is not None:
        most, mean = np.frombuffer(bytes(found["CONTENT_LIGHT_LEVEL"]), np.uint32)[:2].tolist()
        light = (most, mean) if most or mean else None  # 0 stands for unknown
    return HdrMetadata(display, light) if display or light else None


def has_dynamic_hdr(first: VideoFrame) -> bool:
    """Whether frames carry HDR10+, HDR Vivid or Dolby Vision data of their own, which no encoder here writes."""
    return any(first.side_data.get(kind) is not None for kind in _DYNAMIC_HDR)


def _mastering_display(data: bytes) -> tuple[int, ...] | None:
    """``HdrMetadata.display`` of FFmpeg's structure: red, green, blue, white, lowest and highest luminance, flags."""
    values = np.frombuffer(data, np.int32)
    ratios, (has_primaries, has_luminance) = values[:20].reshape(10, 2).tolist(), values[20:22].tolist()
    if not (has_primaries and has_luminance and all(below for _, below in ratios)):
        return None
    red, green, blue, white = range(0, 2), range(2, 4), range(4, 6), range(6, 8)
    chosen = [*green, *blue, *red, *white, 9, 8]
    steps = [_PRIMARIES_STEP] * 8 + [_LUMINANCE_STEP] * 2
    return tuple(round(ratios[k][0] * step / ratios[k][1]) for k, step in zip(chosen, steps, strict=True))


def _nearest_format(frame: VideoFrame, rotation_deg: int) -> tuple[str, str]:
    """(pixel format to deliver, why its samples differ from the decoded ones or '')."""
    name, fmt = frame.format.name, frame.format
    bits = max(component.bits for component in fmt.components)
    sampling, same_sampling = _sampling(fmt)
    target = _without_alpha(name) if _plain_name(name) in CHROMA_SHIFT else deepened(sampling, bits)
    plain = _plain_name(target)
    shift_x, shift_y = CHROMA_SHIFT[plain]
    is_odd = frame.width % (1 << shift_x) or frame.height % (1 << shift_y)
    if rotation_deg and (is_odd or (rotation_deg != 180 and shift_x != shift_y)):
        full = deepened("yuvj444p" if "yuvj" in target else "yuv444p", BIT_DEPTH[plain])
        return full, f"{name} turned by {rotation_deg} degrees is delivered as {full}: its chroma grid does not turn"
    if same_sampling and bits == BIT_DEPTH[plain]:
        return target, ""
    return target, f"{name} is converted to {target}: planes are edited as Y'CbCr of 8, 10 or 12 bits"


def _sampling(fmt: VideoFormat) -> tuple[str, bool]:
    """(kept 8-bit format with the nearest chroma sampling, whether it is the same sampling)."""
    if fmt.is_rgb or fmt.has_palette:
        return "yuv444p", False
    if _is_always_full_range(fmt):
        return "yuv420p", False
    wide, tall = 256 // fmt.chroma_width(256), 256 // fmt.chroma_height(256)
    name = "yuv444p" if wide == 1 else "yuv422p" if tall == 1 else "yuv420p"
    return name, (wide, tall) in {(1, 1), (2, 1), (2, 2)}


def _plain_name(name: str) -> str:
    """The format without FFmpeg's old full-range letter and without alpha, whose first three planes are the same."""
    return _without_alpha(name).replace("yuvj", "yuv")


def _without_alpha(name: str) -> str:
    return name.replace("yuva", "yuv", 1)


def _is_always_full_range(fmt: VideoFormat) -> bool:
    """Whether libswscale reads the format as full range whatever its tags say (grey)."""
    return sum(not component.is_alpha for component in fmt.components) < 3 and not fmt.has_palette


def _alpha(frame: VideoFrame) -> tuple[NDArray, int]:
    """Alpha samples of a frame and the number that means opaque."""
    fmt = frame.format
    if fmt.name.startswith("yuva") and not fmt.is_big_endian:
        bits = fmt.components[3].bits
        return samples(frame.planes[3], bits), (1 << bits) - 1
    return frame.reformat(format="rgba").to_ndarray()[..., 3], 255


def _transparency(path: Path, frame: VideoFrame, decoder: str = "") -> str:
    return (
        f"{path} has transparent pixels (alpha), which an edit would lose; lay it over a background first, for "
        f"example with: ffmpeg -f lavfi -i color=white:s={frame.width}x{frame.height} {decoder}-i {path.name} "
        "-filter_complex '[0][1]overlay=shortest=1' opaque.mp4"
    )


def _rotation_deg(frame: VideoFrame, path: Path) -> int:
    """Counter-clockwise display rotation: 0, 90, 180 or 270."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # type: ignore[call-overload]
        if a * d - b * c < 0:
            raise VideoReadError(f"{path} asks players to mirror its picture, which is not supported; re-encode it")
    if frame.rotation % 90:
        raise VideoReadError(f"{path} is turned by {frame.rotation} degrees, which is not supported; re-encode it")
    return frame.rotation % 360
