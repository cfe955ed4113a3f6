"""Streaming video reader: upright frames as planes, with exact presentation times.

Reads: any container and codec PyAV decodes. Edit lists are honoured by the demuxer; header frame counts are not used.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from modules.commons.errors import VideoReadError
from modules.structures.frames import Frame, PlaneLayout, VideoInfo
from modules.video.colour import CHROMA_SHIFT, RANGE_FULL, ColorTags, resolve_layout, rotated_layout
from modules.video.truncation import missing_bytes

logger = logging.getLogger(__name__)

_SWS_OF_MATRIX = {"bt601": 5, "bt709": 1, "bt2020": 9}
"""libswscale's numbers for the matrices."""
_TAG_OF_MATRIX = {"bt601": 6, "bt709": 1, "bt2020": 9}
"""FFmpeg's colour space tags written for a stream that had none of its own (RGB)."""


class VideoReader:
    """A video file as a re-iterable stream of frames.

    Opening decodes the first frame, so ``info`` is known and a file that cannot be used fails here. Every call of
    ``frames()`` opens the file anew. Frames are delivered upright: a rotation of 90, 180 or 270 degrees in the
    display matrix is applied to the planes exactly. Where that is not possible (4:2:2 turned by a quarter, odd sizes)
    and where the format is not 8-bit planar 4:2:0, 4:2:2 or 4:4:4, libswscale converts to the nearest of these.

    Raises:
        VideoReadError: when the file is missing, not a video, cut off, or holds no frame.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._iterators: weakref.WeakSet[Generator[Frame, None, None]] = weakref.WeakSet()
        with _opened(self._path) as (container, stream):
            first = next(_decoded(container, stream, self._path), None)
            if first is None:
                raise VideoReadError(f"{self._path} holds no video frame that can be decoded; check or re-encode it")
            self._conversion = _conversion(first, stream, self._path)
            self.info = _video_info(self._path, container, stream, self._conversion)
        if self._conversion.reason:
            logger.warning("%s: %s", self._path, self._conversion.reason)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every file this reader still holds open; its iterators end."""
        for iterator in list(self._iterators):
            iterator.close()

    def frames(self) -> Generator[Frame, None, None]:
        """Upright frames in presentation order, from the start; ``pts`` rises strictly.

        Raises:
            VideoReadError: while iterating, where the stream turns out damaged; what came before was sound.
        """
        iterator = self._frames()
        self._iterators.add(iterator)
        return iterator

    def _frames(self) -> Generator[Frame, None, None]:
        clock = _Clock(self.info)
        with _opened(self._path) as (container, stream):
            for index, decoded in enumerate(_decoded(container, stream, self._path)):
                if (decoded.width, decoded.height) != self._conversion.coded_size:
                    raise VideoReadError(
                        f"{self._path} changes its frame size to {decoded.width}x{decoded.height} at frame {index}; "
                        "split it there or re-encode it with one size"
                    )
                planes = _planes(self._conversion.apply(decoded), self.info.rotation_deg)
                yield Frame(index, clock.pts(decoded), self.info.time_base, planes, self.info.layout)


@dataclass(frozen=True, slots=True)
class _Conversion:
    """How decoded frames become the delivered format, fixed by the first frame.

    ``layout`` is before the rotation, ``reason`` is empty where the decoded format stays.
    """

    layout: PlaneLayout
    tags: ColorTags
    rotation_deg: int
    coded_size: tuple[int, int]
    reason: str

    def apply(self, frame: VideoFrame) -> VideoFrame:
        """The frame in the delivered pixel format; the frame itself where it already is."""
        if frame.format.name.replace("yuvj", "yuv") == self.layout.pixel_format:
            return frame
        matrix = _SWS_OF_MATRIX[self.layout.matrix]
        value_range = RANGE_FULL if self.layout.full_range else 1
        return frame.reformat(
            format=self.layout.pixel_format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=RANGE_FULL if _is_always_full_range(frame) else value_range,
            dst_color_range=value_range,
            interpolation="BICUBIC",
        )


class _Clock:
    """Presentation times of decoded frames; strictly rising even where the file's are missing or repeat."""

    def __init__(self, info: VideoInfo) -> None:
        self._path = info.path
        self._step = max(round(1 / (info.frame_rate * info.time_base)), 1)
        self._last: int | None = None
        self._warned = False

    def pts(self, frame: VideoFrame) -> int:
        given = frame.pts if frame.pts is not None else frame.dts
        expected = 0 if self._last is None else self._last + self._step
        if given is None:
            given = expected
        elif self._last is not None and given <= self._last:
            if not self._warned:
                logger.warning("%s repeats presentation times; its frames are spread to stay in order", self._path)
                self._warned = True
            given = self._last + 1
        self._last = given
        return given


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream; every way of failing becomes one sentence."""
    if not path.exists():
        raise VideoReadError(f"{path} does not exist; check the path of the video")
    if path.is_dir():
        raise VideoReadError(f"{path} is a folder; give a video file")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoReadError(_why_unopenable(path, error)) from error
    with container:
        stream = next((s for s in container.streams.video if not _is_cover_art(s)), None)
        if stream is None:
            raise VideoReadError(f"{path} has no video stream; give a file with a picture")
        missing = missing_bytes(path, container.format.name, stream)
        if missing:
            raise VideoReadError(
                f"{path} is cut off: {missing} bytes are missing at its end; copy or download it again"
            )
        stream.thread_type = "AUTO"
        yield container, stream


def _decoded(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[VideoFrame]:
    """Decoded frames in presentation order.

    Players skip what cannot be decoded before the first frame, and so does this; later damage raises.
    """
    count = 0
    try:
        for packet in container.demux(stream):
            if packet.is_corrupt and container.format.name != "mpegts":
                raise VideoReadError(f"{path} is damaged or cut off after frame {count - 1}; copy or download it again")
            for frame in _decode_packet(packet, is_first=count == 0):
                yield frame
                count += 1
    except av.error.FFmpegError as error:
        raise VideoReadError(
            f"{path} cannot be decoded after frame {count - 1} ({error.strerror}); copy or re-encode it"
        ) from error


def _decode_packet(packet: av.Packet, *, is_first: bool) -> list[VideoFrame]:
    try:
        return packet.decode()  # type: ignore[return-value]
    except av.error.InvalidDataError:
        if is_first:
            return []
        raise


def _conversion(first: VideoFrame, stream: VideoStream, path: Path) -> _Conversion:
    """What to do with the stream's frames, and in one sentence why, when they cannot stay as they are."""
    context = stream.codec_context
    tags: ColorTags = (
        int(context.color_primaries), int(context.color_trc), int(context.colorspace), int(context.color_range)
    )  # fmt: skip
    rotation = _rotation_deg(first, path)
    target, reason = _nearest_format(first, rotation)
    if first.format.is_rgb or _is_always_full_range(first):
        tags = (tags[0], tags[1], 2, 1)
    layout = resolve_layout(target, tags, first.height, context.name)
    if first.format.is_rgb:
        tags = (tags[0], tags[1], _TAG_OF_MATRIX[layout.matrix], 1)
    return _Conversion(layout, tags, rotation, (first.width, first.height), reason)


def _nearest_format(frame: VideoFrame, rotation_deg: int) -> tuple[str, str]:
    """(pixel format to deliver, why it differs from the decoded one or '')."""
    name, fmt = frame.format.name, frame.format
    kept = name.replace("yuvj", "yuv") in CHROMA_SHIFT
    if kept:
        target = name
    elif fmt.is_rgb or fmt.has_palette:
        target = "yuv444p"
    elif len(fmt.components) < 3:
        target = "yuv420p"
    else:
        wide, tall = 256 // fmt.chroma_width(256), 256 // fmt.chroma_height(256)
        target = "yuv444p" if wide == 1 else "yuv422p" if tall == 1 else "yuv420p"
    shift_x, shift_y = CHROMA_SHIFT[target.replace("yuvj", "yuv")]
    is_odd = frame.width % (1 << shift_x) or frame.height % (1 << shift_y)
    if rotation_deg and (is_odd or (rotation_deg != 180 and shift_x != shift_y)):
        full = "yuvj444p" if "yuvj" in target else "yuv444p"
        return full, f"{name} turned by {rotation_deg} degrees is delivered as {full}: its chroma grid does not turn"
    return target, "" if kept else f"{name} is converted to {target}: planes are edited as 8-bit Y'CbCr"


def _video_info(path: Path, container: InputContainer, stream: VideoStream, conversion: _Conversion) -> VideoInfo:
    width, height = conversion.coded_size
    quarter_turns = conversion.rotation_deg // 90
    time_base = stream.time_base
    if time_base is None:
        raise VideoReadError(f"{path} states no time base; re-encode it")
    if stream.duration is not None:
        duration_s = float(stream.duration * time_base)
    else:
        duration_s = None if container.duration is None else container.duration / av.time_base
    return VideoInfo(
        path=path,
        width=height if quarter_turns % 2 else width,
        height=width if quarter_turns % 2 else height,
        frame_rate=stream.average_rate or stream.guessed_rate or Fraction(25),
        time_base=time_base,
        rotation_deg=conversion.rotation_deg,
        layout=rotated_layout(conversion.layout, quarter_turns),
        color_tags=conversion.tags,
        has_audio=bool(container.streams.audio),
        duration_s=duration_s,
        sample_aspect_ratio=stream.sample_aspect_ratio or None,
    )


def _planes(frame: VideoFrame, rotation_deg: int) -> tuple[NDArray, NDArray, NDArray]:
    """Upright copies of the planes: the decoder may still refer to its own buffers."""
    turned = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]  # type: ignore[call-overload]
        turned.append(np.rot90(rows, rotation_deg // 90).copy())
    return turned[0], turned[1], turned[2]


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


def _is_always_full_range(frame: VideoFrame) -> bool:
    """Whether libswscale reads the format as full range whatever its tags say (grey)."""
    return len(frame.format.components) < 3 and not frame.format.has_palette


def _is_cover_art(stream: VideoStream) -> bool:
    return "attached_pic" in str(stream.disposition)


def _why_unopenable(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as problem:
        return f"{path} cannot be read ({problem.strerror}); check its permissions"
    if not head:
        return f"{path} is empty; copy or download it again"
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free"}:
        return f"{path} is cut off: the index at its end is missing; copy or download it again"
    return f"{path} is not a video that can be opened ({getattr(error, 'strerror', error)}); give another file"
