"""Streaming video writer: the source's planes, times, rotation and colour tags; new or kept sound.

Writes: one MP4, MOV or Matroska file, under a temporary name in its folder until it is complete.
"""

from __future__ import annotations

import logging
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import av.error
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream

from modules.commons.errors import GeneFaceError, OutputError
from modules.structures.frames import Frame, VideoInfo
from modules.video.colour import CHROMA_SHIFT, RANGE_FULL
from modules.video.sound import AudioTrack, SoundFeed, open_sound

logger = logging.getLogger(__name__)

SYNTHESISED = "The lips and the speech in this video are synthesised by a neural network."
_EXACT_TIMES = frozenset({".mp4", ".m4v", ".mov"})
_CONTAINERS = _EXACT_TIMES | {".mkv"}


@dataclass(frozen=True, slots=True)
class EncodeConfig:
    """How the picture and the sound are encoded.

    Attributes:
        crf: quality, lower is better; 14 cannot be told from the source side by side.
        preset: x264's speed against size.
        lossless: keep every sample (x264 at qp 0, VP9 or FFV1 where H.264 cannot hold the size).
        audio_bit_rate: bits per second of AAC.
    """

    crf: int = 14
    preset: str = "medium"
    lossless: bool = False
    audio_bit_rate: int = 192_000

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf must be 0..51, got {self.crf}")


@dataclass(frozen=True, slots=True)
class Codec:
    """A libavcodec encoder and its options."""

    name: str
    options: dict[str, str]


def choose_codec(pixel_format: str, width: int, height: int, suffix: str, quality: EncodeConfig) -> Codec:
    """The encoder that keeps this pixel format and exactly this size.

    H.264 wherever it can: its sizes are whole chroma samples, so odd 4:2:0 and 4:2:2 sizes cannot be held even by
    its cropping. VP9 holds them in MP4 and Matroska, MPEG-4 part 2 in MOV (which takes no VP9); FFV1 is the lossless
    one in Matroska. All were decoded back at 175x143.

    Raises:
        OutputError: when the container holds no codec that can.
    """
    if suffix == ".mkv" and quality.lossless:
        return Codec("ffv1", {"level": "3", "slicecrc": "1"})
    shift_x, shift_y = CHROMA_SHIFT[pixel_format]
    if width % (1 << shift_x) == 0 and height % (1 << shift_y) == 0:
        rate = {"qp": "0"} if quality.lossless else {"crf": str(quality.crf)}
        return Codec("libx264", {"preset": quality.preset, **rate})
    if suffix == ".mov":
        raise OutputError(f"a .mov file cannot hold {pixel_format} at {width}x{height}; name the output .mp4 or .mkv")
    rate = {"lossless": "1"} if quality.lossless else {"crf": str(quality.crf)}
    return Codec("libvpx-vp9", {"deadline": "good", "cpu-used": "4", "row-mt": "1", **rate})


class VideoWriter:
    """Writes frames of one ``VideoInfo`` with their own times; used as a context manager.

    The planes are turned back into the coded orientation and the display rotation is written again, so an unedited
    frame is the source's own sample by sample. The file appears under ``path`` only when the block ends well; on an
    exception nothing stays.

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
        audio: AudioTrack | Path | None = None,
        comment: str = SYNTHESISED,
    ) -> None:
        self._path = Path(path)
        self._info = info
        self._quality = quality or EncodeConfig()
        self._track = AudioTrack(audio) if isinstance(audio, Path) else audio
        self._comment = comment
        self._turns = info.rotation_deg // 90
        self._last_pts: int | None = None
        self._is_rounding_said = False
        self._step = max(round(1 / (info.frame_rate * info.time_base)), 1)
        _check_output(self._path, [info.path, *([self._track.path] if self._track else [])])
        self._codec = choose_codec(
            info.layout.pixel_format, *self._coded_size(), self._path.suffix.lower(), self._quality
        )
        self._temporary = self._path.with_name(f".{self._path.stem}.{uuid.uuid4().hex[:8]}.part{self._path.suffix}")
        self._container: OutputContainer | None = None
        self._sound: SoundFeed | None = None

    def __enter__(self) -> VideoWriter:
        try:
            self._container = self._open()
            self._stream = self._add_picture(self._container)
            if self._track is not None:
                self._sound = open_sound(self._track, self._container, self._quality.audio_bit_rate)
        except BaseException as error:
            self._discard()
            if isinstance(error, av.error.FFmpegError):
                raise self._failure(error) from error
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

    def write(self, frame: Frame) -> None:
        """Encode one frame; its ``pts`` must rise.

        Raises:
            OutputError: when the disk or the encoder fails.
            ValueError: when the frame is not of this video.
        """
        self._check_frame(frame)
        try:
            self._mux(self._stream.encode(self._encodable(frame)))
            if self._sound is not None:
                self._sound.advance(frame.time_s)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        if self._last_pts is not None:
            self._step = frame.pts - self._last_pts
        self._last_pts = frame.pts
        self._note_inexact_time(frame)

    def _note_inexact_time(self, frame: Frame) -> None:
        """Say once that Matroska will round times, where it does."""
        keeps_it = self._path.suffix.lower() in _EXACT_TIMES or (frame.time_s * 1000).denominator == 1
        if not keeps_it and not self._is_rounding_said:
            logger.warning("%s: Matroska rounds times to milliseconds; use .mp4 to keep them exactly", self._path)
            self._is_rounding_said = True

    def _open(self) -> OutputContainer:
        if self._path.suffix.lower() in _EXACT_TIMES:
            options = {"movflags": "+faststart", **_mp4_time_scales(self._info.time_base.denominator)}
        else:
            # Sound starts with the coder's priming before 0; shifting that to 0 would delay the picture.
            options = {"avoid_negative_ts": "disabled"}
        try:
            self._temporary.touch(exist_ok=False)
            container = av.open(str(self._temporary), "w", options=options)
        except OSError as error:
            raise self._failure(error) from error
        container.metadata["comment"] = self._comment
        return container

    def _add_picture(self, container: OutputContainer) -> VideoStream:
        info = self._info
        added = container.add_stream(self._codec.name, rate=info.frame_rate, options=self._codec.options)
        stream = cast(VideoStream, added)
        context = stream.codec_context
        stream.width, stream.height = self._coded_size()
        stream.pix_fmt = info.layout.pixel_format
        stream.bit_rate = 0  # quality alone decides; VP9 would cap its rate at PyAV's default
        stream.time_base = context.time_base = info.time_base
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = info.color_tags
        if info.layout.full_range:
            context.color_range = RANGE_FULL
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        if info.rotation_deg:
            stream.set_display_rotation(info.rotation_deg)
        return stream

    def _coded_size(self) -> tuple[int, int]:
        width, height = self._info.width, self._info.height
        return (height, width) if self._turns % 2 else (width, height)

    def _check_frame(self, frame: Frame) -> None:
        expected = (self._info.height, self._info.width)
        if frame.size_hw != expected or frame.layout != self._info.layout:
            raise ValueError(f"{frame} does not belong to a video of {expected} {self._info.layout.pixel_format}")
        if frame.time_base != self._info.time_base:
            raise ValueError(f"{frame} counts time in {frame.time_base}, the video in {self._info.time_base}")
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise ValueError(f"{frame} does not come after the last one written (pts {frame.pts} <= {self._last_pts})")

    def _encodable(self, frame: Frame) -> av.VideoFrame:
        width, height = self._coded_size()
        coded = av.VideoFrame(width, height, self._info.layout.pixel_format)
        for target, plane in zip(coded.planes, frame.planes, strict=True):
            rows = np.frombuffer(target, np.uint8).reshape(target.height, target.line_size)  # type: ignore[call-overload]
            rows[:, : target.width] = np.rot90(plane, -self._turns)
        coded.pts, coded.time_base = frame.pts, frame.time_base
        return coded

    def _mux(self, packets: list[av.Packet]) -> None:
        assert self._container is not None
        self._container.mux(packets)

    def _finish(self) -> None:
        """Flush picture and sound, close, and give the file its name."""
        if self._last_pts is None:
            raise OutputError(f"no frame was written, so {self._path} was not made; check that the input has frames")
        assert self._container is not None
        self._mux(self._stream.encode(None))
        if self._sound is not None:
            self._sound.finish((self._last_pts + self._step) * self._info.time_base)
            self._sound.close()
        self._container.close()
        self._temporary.replace(self._path)

    def _discard(self) -> None:
        """Close what is open and remove the temporary file; a second failure here would hide the first."""
        for thing in (self._sound, self._container):
            try:
                if thing is not None:
                    thing.close()
            except (av.error.FFmpegError, OSError) as error:
                logger.debug("closing after a failure: %s", error)
        self._temporary.unlink(missing_ok=True)

    def _failure(self, error: Exception) -> OutputError:
        return OutputError(
            f"cannot write {self._path} ({getattr(error, 'strerror', None) or error}); check disk and folder"
        )


def _mp4_time_scales(ticks_per_s: int) -> dict[str, str]:
    """Muxer options that keep times exact.

    By itself the muxer multiplies small track time scales until they pass 10000, and rounds the start of a track
    that does not begin at 0 to the movie's time scale of milliseconds.
    """
    movie = ticks_per_s * -(-10_000 // ticks_per_s)
    return {"video_track_timescale": str(ticks_per_s), "movie_timescale": str(movie)}


def _check_output(path: Path, inputs: list[Path]) -> None:
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
