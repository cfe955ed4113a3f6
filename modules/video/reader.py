"""Streaming video reader: upright frames as planes, with exact presentation times.

Reads: any container and codec PyAV decodes. Edit lists are honoured by the demuxer; header frame counts are not used.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, dropwhile
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from modules.commons.errors import VideoReadError
from modules.structures.frames import Frame, VideoInfo
from modules.video.colour import rotated_layout
from modules.video.pixel_formats import Conversion, conversion_of, field_order_of, has_dynamic_hdr, hdr_of
from modules.video.truncation import missing_bytes

logger = logging.getLogger(__name__)

_TIMED_PACKETS = frozenset({"mp4", "matroska", "mpegts"})
"""Containers whose every packet has its presentation time, so that a place in them can be found again."""
_SEEK_EARLIER_S = (0, 10)
"""How long before the wanted frame reading starts; the later tries are for streams without real key frames."""
_DEINTERLACE = "ffmpeg -i {} -vf bwdif deinterlaced.mp4"

Timed = tuple[int, int, VideoFrame]
"""(index, pts, decoded frame)."""
T = TypeVar("T")


class VideoReader:
    """A video file as a re-iterable stream of frames.

    Opening decodes the first frame, so ``info`` is known and a file that cannot be used fails here. Every call of
    ``frames()`` opens the file anew. Frames are delivered upright: a rotation of 90, 180 or 270 degrees in the
    display matrix is applied to the planes exactly. Y'CbCr 4:2:0, 4:2:2 and 4:4:4 of 8, 10 and 12 bits stay as
    decoded, whatever their packing. libswscale converts other formats to the nearest of these, and where planes do
    not turn (4:2:2 by a quarter, odd sizes). An alpha channel is left out where it is opaque, else refused.

    Raises:
        VideoReadError: when the file is missing, not a video, cut off, transparent, or holds no frame.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._iterators: weakref.WeakSet[Generator[object, None, None]] = weakref.WeakSet()
        with _opened(self._path) as (container, stream):
            first = next(_decoded(container, stream, self._path), None)
            if first is None:
                raise VideoReadError(f"{self._path} holds no video frame that can be decoded; check or re-encode it")
            self._conversion = conversion_of(first, stream, self._path)
            self.info = _video_info(container, stream, self._conversion, first)
        self._warn(first)

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

    def frames(self, first: int = 0, pts: int | None = None) -> Generator[Frame, None, None]:
        """Upright frames in presentation order, from frame ``first``; ``pts`` rises strictly.

        Args:
            first: index of the first frame wanted; the frames are the same as those of a full pass from there on.
            pts: that frame's time as an earlier full pass gave it. With it, reading begins at a key frame before;
                without it, and where the container's times cannot be relied on, all frames before are decoded too.

        Raises:
            VideoReadError: while iterating, where the stream turns out damaged (what came before was sound), or where
                frame ``first`` is not at ``pts``.
            ValueError: when ``first`` is negative.
        """
        return self._closed_with_reader(self._frames(self._timed(first, pts)))

    def times(self) -> Generator[tuple[int, int], None, None]:
        """(index, pts) of every frame; decodes like ``frames`` but makes no planes.

        Raises:
            VideoReadError: while iterating, where the stream turns out damaged.
        """
        return self._closed_with_reader((index, time) for index, time, _ in self._timed(0, None))

    def _closed_with_reader(self, iterator: Generator[T, None, None]) -> Generator[T, None, None]:
        self._iterators.add(iterator)
        return iterator

    def _frames(self, timed: Iterator[Timed]) -> Generator[Frame, None, None]:
        for index, time, decoded in timed:
            planes = self._conversion.planes(decoded, index)
            yield Frame(index, time, self.info.time_base, planes, self.info.layout)

    def _timed(self, first: int, pts: int | None) -> Generator[Timed, None, None]:
        """Decoded frames from ``first`` on, over the shortest way that is sure."""
        if first < 0:
            raise ValueError(f"there is no frame {first}")
        if first > 0 and pts is not None:
            for earlier_s in _SEEK_EARLIER_S:
                with _opened(self._path) as (container, stream):
                    start = pts - round(earlier_s / self.info.time_base)
                    found = _found(_after_seek(container, stream, self.info, start, pts), pts)
                    if found is not None:
                        for index, (time, decoded) in enumerate(found, first):
                            yield index, time, decoded
                        return
        yield from self._timed_from_start(first, pts)

    def _timed_from_start(self, first: int, pts: int | None) -> Generator[Timed, None, None]:
        clock = _Clock(self.info)
        with _opened(self._path) as (container, stream):
            for index, decoded in enumerate(_decoded(container, stream, self._path)):
                time = clock.pts(decoded)
                if index == first and pts is not None and time != pts:
                    raise VideoReadError(
                        f"{self._path} has its frame {first} at {time}, not at {pts} as was read before; "
                        "it changed meanwhile, so start over"
                    )
                if index >= first:
                    yield index, time, decoded

    def _warn(self, first: VideoFrame) -> None:
        """Say once what will not be as in the file."""
        if self._conversion.reason:
            logger.warning("%s: %s", self._path, self._conversion.reason)
        if self.info.is_interlaced:
            how = _DEINTERLACE.format(self._path.name)
            logger.warning(
                "%s is interlaced: its frames are edited as they are woven; for the best results deinterlace it first, "
                "for example with: %s", self._path, how,
            )  # fmt: skip
        if has_dynamic_hdr(first):
            logger.warning("%s: HDR data of single frames (HDR10+, Dolby Vision) is not kept", self._path)


class _Clock:
    """Presentation times of decoded frames; strictly rising even where the file's are missing or repeat."""

    def __init__(self, info: VideoInfo) -> None:
        self._path = info.path
        self._step = max(round(1 / (info.frame_rate * info.time_base)), 1)
        self._last: int | None = None
        self._warned = False
        self.is_the_files = True
        """Whether every time so far was the file's own."""

    def pts(self, frame: VideoFrame) -> int:
        given = frame.pts if frame.pts is not None else frame.dts
        expected = 0 if self._last is None else self._last + self._step
        if given is None:
            given = expected
            self.is_the_files = False
        elif self._last is not None and given <= self._last:
            if not self._warned:
                logger.warning("%s repeats presentation times; its frames are spread to stay in order", self._path)
                self._warned = True
            given = self._last + 1
            self.is_the_files = False
        self._last = given
        return given


def _after_seek(
    container: InputContainer, stream: VideoStream, info: VideoInfo, start: int, latest: int
) -> Iterator[tuple[int, VideoFrame]]:
    """(pts, decoded frame) from a key frame at or before ``start`` on; nothing where one cannot be relied on.

    Frames that are shown before the key frame they follow in the file are not whole after a seek, so a key frame
    shown after ``latest`` is of no use.
    """
    if _TIMED_PACKETS.isdisjoint(container.format.name.split(",")):
        return
    try:
        container.seek(start, stream=stream, backward=True, any_frame=False)
    except av.error.FFmpegError:
        return
    packets = dropwhile(lambda packet: not packet.is_keyframe, container.demux(stream))
    key = next(packets, None)
    if key is None or key.pts is None or key.pts > latest:
        return
    clock = _Clock(info)
    for frame in _decoded(container, stream, info.path, chain([key], packets)):
        time = clock.pts(frame)
        if time <= latest and not clock.is_the_files:
            return
        yield time, frame


def _found(timed: Iterator[tuple[int, VideoFrame]], pts: int) -> Iterator[tuple[int, VideoFrame]] | None:
    """What comes from ``pts`` on, None when no frame is exactly there."""
    try:
        head = next((pair for pair in timed if pair[0] >= pts), None)
    except VideoReadError:  # a decoder may stumble where it would not have coming from the start
        return None
    return chain([head], timed) if head is not None and head[0] == pts else None


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


def _decoded(
    container: InputContainer, stream: VideoStream, path: Path, packets: Iterable[av.Packet] | None = None
) -> Iterator[VideoFrame]:
    """Decoded frames in presentation order, of all packets or of the given ones.

    Players skip what cannot be decoded before the first frame, and so does this; later damage raises.
    """
    count, last = 0, None
    try:
        for packet in packets or container.demux(stream):
            if packet.is_corrupt and container.format.name != "mpegts":
                raise VideoReadError(
                    f"{path} is damaged or cut off after {_place(count, last, packets)}; copy or download it again"
                )
            for last in _decode_packet(packet, is_first=count == 0):
                yield last
                count += 1
    except av.error.FFmpegError as error:
        raise VideoReadError(
            f"{path} cannot be decoded after {_place(count, last, packets)} ({error.strerror}); copy or re-encode it"
        ) from error


def _place(count: int, last: VideoFrame | None, packets: Iterable[av.Packet] | None) -> str:
    """Where in the video, in words; a number only where all frames were counted."""
    if packets is None or last is None or last.time is None:
        return f"frame {count - 1}"
    return f"{last.time:.3f} s"


def _decode_packet(packet: av.Packet, *, is_first: bool) -> list[VideoFrame]:
    try:
        return packet.decode()  # type: ignore[return-value]
    except av.error.InvalidDataError:
        if is_first:
            return []
        raise


def _video_info(container: InputContainer, stream: VideoStream, conversion: Conversion, first: VideoFrame) -> VideoInfo:
    width, height = conversion.coded_size
    quarter_turns = conversion.rotation_deg // 90
    time_base = stream.time_base
    if time_base is None:
        raise VideoReadError(f"{conversion.path} states no time base; re-encode it")
    if stream.duration is not None:
        duration_s = float(stream.duration * time_base)
    else:
        duration_s = None if container.duration is None else container.duration / av.time_base
    return VideoInfo(
        path=conversion.path,
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
        field_order=field_order_of(first, stream),
        hdr=hdr_of(first),
    )


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
