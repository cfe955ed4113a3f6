"""Streaming video writer: the source's planes, times, rotation and colour tags; new or kept sound.

Writes: one MP4, MOV or Matroska file, under a temporary name in its folder until it is complete.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import av.error
from av.container import OutputContainer
from av.video.stream import VideoStream

from modules.commons.errors import GeneFaceError, OutputError
from modules.structures.frames import Frame, VideoInfo
from modules.video.codecs import TAG_OF_FIELD_ORDER, Codec, EncodeConfig, choose_codec, codec_for, encodable
from modules.video.colour import RANGE_FULL
from modules.video.passengers import Passengers, open_passengers
from modules.video.smart_copy import CopyPlan
from modules.video.sound import AudioTrack, SoundFeed, SoundPlan, open_sound

__all__ = ["SYNTHESISED", "AudioTrack", "Codec", "EncodeConfig", "VideoWriter", "choose_codec"]

logger = logging.getLogger(__name__)

SYNTHESISED = "The lips and the speech in this video are synthesised by a neural network."
_EXACT_TIMES = frozenset({".mp4", ".m4v", ".mov"})
_CONTAINERS = _EXACT_TIMES | {".mkv"}


class VideoWriter:
    """Writes frames of one ``VideoInfo`` with their own times; used as a context manager.

    The planes are turned back into the coded orientation and the display rotation is written again, so an unedited
    frame is the source's own sample by sample. The file appears under ``path`` only when the block ends well; on an
    exception nothing stays.

    Args:
        path: of the file.
        info: of the frames.
        quality: of picture and sound.
        audio: the sound.
        passengers: the source's other streams.
        comment: stored in the file.
        copies: packets of this source come too, see ``copy``.
        check: looks at the complete file before it gets its name, and raises where it is not right.

    Raises:
        OutputError: when ``path`` cannot be written, is an input, or has a suffix other than mp4, m4v, mov, mkv.
        AudioReadError: when the sound cannot be read.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        *,
        quality: EncodeConfig | None = None,
        audio: AudioTrack | SoundPlan | Path | None = None,
        passengers: Passengers | None = None,
        comment: str = SYNTHESISED,
        copies: CopyPlan | None = None,
        check: Callable[[Path], None] | None = None,
    ) -> None:
        self._path = Path(path)
        self._info = info
        self._quality = quality or EncodeConfig()
        self._track = AudioTrack(audio) if isinstance(audio, Path) else audio
        self._passengers = passengers
        self._comment = comment
        self._turns = info.rotation_deg // 90
        self._last_pts: int | None = None
        self._before_last_pts: int | None = None
        self._has_encoded = False
        check_output(self._path, [info.path, *(self._track.paths if self._track else ())])
        self._codec = codec_for(info, self._path.suffix.lower(), self._quality) if copies is None else copies.codec
        self._copies, self._check = copies, check
        self._said: set[str] = set()
        self.temporary = self._path.with_name(f".{self._path.stem}.{uuid.uuid4().hex[:8]}.part{self._path.suffix}")
        self._container: OutputContainer | None = None
        self._feeds: list[SoundFeed] = []

    def __enter__(self) -> VideoWriter:
        try:
            self._container = self._open()
            self._stream = add_picture(self._container, self._info, self._codec)
            if self._copies is not None:
                context = self._stream.codec_context
                context.open(strict=False)
                context.extradata = self._copies.file_headers(context.extradata or b"")
            if self._track is not None:
                self._feeds.append(open_sound(self._track, self._container, self._quality.audio_bit_rate))
            if self._passengers is not None:
                self._take_on(self._passengers, self._container)
            for loss in self._codec.losses:
                self._say(loss)
        except av.error.FFmpegError as error:
            self._discard()
            raise self._failure(error) from error
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            self._finish()
        except (av.error.FFmpegError, OSError) as problem:
            self._discard()
            raise self._failure(problem) from problem
        except GeneFaceError:
            self._discard()
            raise

    def check(self) -> None:
        """Open all inputs and the output and let them go: what would fail on entering fails now.

        Raises:
            GeneFaceError: as on entering.
        """
        self.__enter__()
        self._discard()

    def write(self, frame: Frame) -> None:
        """Encode one frame; its ``pts`` must rise.

        Raises:
            OutputError: when the disk or the encoder fails.
            ValueError: when the frame is not of this video.
        """
        check_frame(frame, self._info, self._last_pts)
        try:
            self._has_encoded = True
            self._mux(self._stream.encode(encodable(frame, self._turns, self._codec.pixel_format)))
            self._advance(frame.pts)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def copy(self, packet: av.Packet) -> None:
        """Write a packet that ``add_picture``'s encoder gave with the same settings, or one of ``copies``.

        Packets come in decoding order.

        Args:
            packet: with the ``pts`` and ``dts`` it shall have, in the video's time base.

        Raises:
            OutputError: when the disk fails.
        """
        packet.stream, packet.time_base = self._stream, self._info.time_base
        pts = packet.pts
        assert pts is not None
        try:
            self._mux([packet])
            self._advance(pts)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _advance(self, pts: int) -> None:
        """Let sound and passengers follow the picture, which comes in decoding order when copied."""
        before = self._before_last_pts
        if self._last_pts is None or pts > self._last_pts:
            self._before_last_pts, self._last_pts = self._last_pts, pts
        elif before is None or pts > before:
            self._before_last_pts = pts
        until_s = self._last_pts * self._info.time_base
        for feed in self._feeds:
            feed.advance(until_s)
        self._note_inexact_time(pts * self._info.time_base)

    @property
    def _end_s(self) -> Fraction:
        """When the last frame ends: it is shown for as long as the one before."""
        assert self._last_pts is not None
        step = max(round(1 / (self._info.frame_rate * self._info.time_base)), 1)
        if self._before_last_pts is not None:
            step = self._last_pts - self._before_last_pts
        return (self._last_pts + step) * self._info.time_base

    def _note_inexact_time(self, time_s: Fraction) -> None:
        """Say once that Matroska will round times, where it does."""
        if self._path.suffix.lower() not in _EXACT_TIMES and (time_s * 1000).denominator != 1:
            self._say("Matroska rounds times to milliseconds; use .mp4 to keep them exactly")

    def _say(self, loss: str) -> None:
        """Warn of what the output cannot keep, once."""
        if loss not in self._said:
            self._said.add(loss)
            logger.warning("%s: %s", self._path, loss)

    def _take_on(self, passengers: Passengers, container: OutputContainer) -> None:
        aboard = open_passengers(passengers, container, self._stream, self._quality.audio_bit_rate)
        self._feeds.extend(aboard.feeds)
        for loss in aboard.left_out:
            self._say(loss)

    def _open(self) -> OutputContainer:
        try:
            self.temporary.touch(exist_ok=False)
            container = open_container(self.temporary, self._info)
        except OSError as error:
            raise self._failure(error) from error
        container.metadata["comment"] = self._comment
        return container

    def _mux(self, packets: list[av.Packet]) -> None:
        assert self._container is not None
        self._container.mux(packets)

    def _finish(self) -> None:
        """Flush picture and sound, close, and give the file its name."""
        if self._last_pts is None:
            raise OutputError(f"no frame was written, so {self._path} was not made; check that the input has frames")
        assert self._container is not None
        if self._has_encoded:
            self._mux(self._stream.encode(None))
        for feed in self._feeds:
            feed.finish(self._end_s)
            feed.close()
        self._container.close()
        if self._check is not None:
            self._check(self.temporary)
        self.temporary.replace(self._path)

    def _discard(self) -> None:
        """Close what is open and remove the temporary file; a second failure here would hide the first."""
        for thing in (*self._feeds, *([self._container] if self._container else [])):
            try:
                thing.close()
            except (av.error.FFmpegError, OSError) as error:
                logger.debug("closing after a failure: %s", error)
        self._feeds, self._container = [], None
        self.temporary.unlink(missing_ok=True)

    def _failure(self, error: Exception) -> OutputError:
        return OutputError(
            f"cannot write {self._path} ({getattr(error, 'strerror', None) or error}); check disk and folder"
        )


def open_container(path: Path, info: VideoInfo) -> OutputContainer:
    """A new output that keeps a video's times; nothing is on the disk until the first packet is written."""
    if path.suffix.lower() in _EXACT_TIMES:
        options = {"movflags": "+faststart", **_mp4_time_scales(info.time_base.denominator)}
    else:
        # Sound starts with the coder's priming before 0; shifting that to 0 would delay the picture.
        # Without bitexact every file gets random identifiers, and two runs would not give the same bytes.
        options = {"avoid_negative_ts": "disabled", "fflags": "+bitexact"}
    return av.open(str(path), "w", options=options)


def add_picture(container: OutputContainer, info: VideoInfo, codec: Codec) -> VideoStream:
    """The stream that encodes frames of a video in its coded orientation, with all its tags."""
    quarter_turned = info.rotation_deg % 180 != 0
    coded_size = (info.height, info.width) if quarter_turned else (info.width, info.height)
    added = container.add_stream(codec.name, rate=info.frame_rate, options=codec.options)
    stream = cast(VideoStream, added)
    context = stream.codec_context
    stream.width, stream.height = coded_size
    stream.pix_fmt = codec.pixel_format or info.layout.pixel_format
    stream.bit_rate = 0  # quality alone decides; VP9 would cap its rate at PyAV's default
    stream.time_base = context.time_base = info.time_base
    context.color_primaries, context.color_trc, context.colorspace, context.color_range = info.color_tags
    if info.layout.full_range:
        context.color_range = RANGE_FULL
    context.field_order = TAG_OF_FIELD_ORDER[info.field_order]
    if codec.tag:
        context.codec_tag = codec.tag
    if info.sample_aspect_ratio:
        context.sample_aspect_ratio = info.sample_aspect_ratio
    if info.rotation_deg:
        stream.set_display_rotation(info.rotation_deg)
    return stream


def check_frame(frame: Frame, info: VideoInfo, last_pts: int | None) -> None:
    """See that a frame belongs to a video and comes after the last one.

    Raises:
        ValueError: when it does not.
    """
    expected = (info.height, info.width)
    if frame.size_hw != expected or frame.layout != info.layout:
        raise ValueError(f"{frame} does not belong to a video of {expected} {info.layout.pixel_format}")
    if frame.time_base != info.time_base:
        raise ValueError(f"{frame} counts time in {frame.time_base}, the video in {info.time_base}")
    if last_pts is not None and frame.pts <= last_pts:
        raise ValueError(f"{frame} does not come after the last one written (pts {frame.pts} <= {last_pts})")


def _mp4_time_scales(ticks_per_s: int) -> dict[str, str]:
    """Muxer options that keep times exact.

    By itself the muxer multiplies small track time scales until they pass 10000, and rounds the start of a track
    that does not begin at 0 to the movie's time scale of milliseconds.
    """
    movie = ticks_per_s * -(-10_000 // ticks_per_s)
    return {"video_track_timescale": str(ticks_per_s), "movie_timescale": str(movie)}


def check_output(path: Path, inputs: list[Path]) -> None:
    """Refuse an output that could harm an input or cannot be made."""
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise OutputError(f"{path} is also an input; name another output file")
    if path.suffix.lower() not in _CONTAINERS:
        raise OutputError(f"{path} has no suffix of a supported container; name it .mp4, .mov or .mkv")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} of the output does not exist; make it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the folder {folder} of the output cannot be written to; choose another or mend its rights")
