"""The sound of an output: any file encoded to AAC, or a source's own packets copied, fed as the picture grows.

Reads: any container with sound. Memory is one decoded block and what the muxer holds between picture and sound.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from numpy.typing import NDArray

from modules.commons.errors import AudioReadError

logger = logging.getLogger(__name__)

_AAC_RATES_HZ = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})
_DEFAULT_RATE_HZ = 48000
_COPIED_INTO_MP4 = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "flac"})


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Which sound an output carries, and when.

    Attributes:
        path: any file with sound; its first audio stream is used.
        start_s: output time (the scale of ``Frame.time_s``) at which the first sample is heard; None is the time of
            the first frame written.
        duration_s: the sound is cut or padded with silence to this; None keeps its own length. Either way it ends
            with the picture.
        keep_source: carry the sound of a source video over at its own times: packets are copied bit-exact where the
            container can hold them, else encoded. ``start_s`` and ``duration_s`` must be left alone.
    """

    path: Path
    start_s: Fraction | None = None
    duration_s: Fraction | None = None
    keep_source: bool = False

    def __post_init__(self) -> None:
        if any(time is not None and time < 0 for time in (self.start_s, self.duration_s)):
            raise ValueError(f"sound cannot start or last less than 0 s: {self}")
        if self.keep_source and (self.start_s is not None or self.duration_s is not None):
            raise ValueError(f"a kept source sound has its own times: {self}")


class SoundFeed(Protocol):
    """Fills an output's sound stream; the writer calls it between frames."""

    def advance(self, until_s: Fraction) -> None:
        """Write the sound up to an output time; the first call gives the time of the first frame."""

    def finish(self, until_s: Fraction) -> None:
        """Write what is left up to the picture's end, and flush."""

    def close(self) -> None:
        """Release the input file."""


def open_sound(track: AudioTrack, output: OutputContainer, bit_rate: int) -> SoundFeed:
    """Add a sound stream to ``output`` and return what fills it.

    Raises:
        AudioReadError: when the file is missing, holds no sound or cannot be opened.
    """
    source, stream = _opened(track.path)
    codec = stream.codec_context.name
    if track.keep_source and ("matroska" in output.format.name or codec in _COPIED_INTO_MP4):
        return _CopiedSound(track.path, source, stream, output)
    start_s = track.start_s
    if track.keep_source:
        logger.info("%s: %s sound does not fit the output's container and is encoded to AAC", track.path, codec)
        if stream.start_time is not None and stream.time_base is not None:
            start_s = max(stream.start_time * stream.time_base, Fraction(0))
    return _EncodedSound(track, source, stream, output, bit_rate, start_s)


class _CopiedSound:
    """Copies packets at their own times."""

    def __init__(self, path: Path, source: InputContainer, stream: AudioStream, output: OutputContainer) -> None:
        self._path, self._source, self._output = path, source, output
        self._stream = output.add_stream_from_template(stream)
        self._packets = source.demux(stream)
        self._next: av.Packet | None = None

    def advance(self, until_s: Fraction) -> None:
        try:
            while True:
                packet = self._next or next(self._packets, None)
                self._next = packet
                if packet is None or (packet.pts is not None and packet.pts * packet.time_base >= until_s):
                    return
                self._next = None
                if packet.dts is not None:  # the last, empty packet only flushes decoders
                    packet.stream = self._stream
                    self._output.mux(packet)
        except av.error.InvalidDataError as error:
            raise AudioReadError(f"{self._path} has damaged sound ({error.strerror}); re-encode it") from error

    def finish(self, until_s: Fraction) -> None:
        self.advance(until_s)

    def close(self) -> None:
        self._source.close()


class _EncodedSound:
    """Decodes, resamples where AAC needs it, cuts or pads, encodes."""

    def __init__(
        self,
        track: AudioTrack,
        source: InputContainer,
        stream: AudioStream,
        output: OutputContainer,
        bit_rate: int,
        start_s: Fraction | None,
    ) -> None:
        self._source, self._output, self._start_s = source, output, start_s
        self._rate_hz = stream.sample_rate if stream.sample_rate in _AAC_RATES_HZ else _DEFAULT_RATE_HZ
        self._layout = "mono" if stream.channels == 1 else "stereo"
        self._stream = output.add_stream("aac", rate=self._rate_hz, layout=self._layout)
        self._stream.bit_rate = bit_rate
        self._total = None if track.duration_s is None else round(track.duration_s * self._rate_hz)
        self._blocks = _decoded_blocks(track.path, source, stream, self._rate_hz, self._layout)
        self._pending = np.zeros((1 if self._layout == "mono" else 2, 0), np.float32)
        self._written = 0

    def advance(self, until_s: Fraction) -> None:
        if self._start_s is None:
            self._start_s = max(until_s, Fraction(0))
        target = int((until_s - self._start_s) * self._rate_hz)
        if self._total is not None:
            target = min(target, self._total)
        while self._written < target:
            samples = self._take(target - self._written)
            if samples.shape[1] == 0:
                return
            self._encode(samples, self._start_s)

    def finish(self, until_s: Fraction) -> None:
        self.advance(until_s)
        self._output.mux(self._stream.encode(None))

    def close(self) -> None:
        self._source.close()

    def _take(self, most: int) -> NDArray[np.float32]:
        """Up to ``most`` samples ``[C, n]``; silence after the end when a length was asked for, else none."""
        if self._pending.shape[1] == 0:
            block = next(self._blocks, None)
            if block is None and self._total is not None:
                block = np.zeros((len(self._pending), most), np.float32)
            if block is None:
                return self._pending
            self._pending = block
        taken, self._pending = self._pending[:, :most], self._pending[:, most:]
        return taken

    def _encode(self, samples: NDArray[np.float32], start_s: Fraction) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate_hz
        frame.time_base = Fraction(1, self._rate_hz)
        # The encoder's own delay comes before the first sample; the muxer hides it (edit list or codec delay).
        frame.pts = round(start_s * self._rate_hz) + self._written
        self._written += samples.shape[1]
        self._output.mux(self._stream.encode(frame))


def _decoded_blocks(
    path: Path, source: InputContainer, stream: AudioStream, rate_hz: int, layout: str
) -> Iterator[NDArray[np.float32]]:
    """Blocks ``[C, n]`` float32 of the whole stream at ``rate_hz``, in order, without gaps."""
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate_hz)
    try:
        for frame in source.decode(stream):
            frame.pts = None  # times are counted in samples: a file's own may start late or jump
            for resampled in resampler.resample(frame):
                yield np.asarray(resampled.to_ndarray(), np.float32)
        for resampled in resampler.resample(None):
            yield np.asarray(resampled.to_ndarray(), np.float32)
    except av.error.FFmpegError as error:
        raise AudioReadError(f"{path} has sound that cannot be decoded ({error.strerror}); re-encode it") from error


def _opened(path: Path) -> tuple[InputContainer, AudioStream]:
    if not path.is_file():
        raise AudioReadError(f"{path} is not a file; check the path of the sound")
    try:
        source = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise AudioReadError(f"{path} cannot be opened as sound ({error.strerror}); give another file") from error
    if not source.streams.audio:
        source.close()
        raise AudioReadError(f"{path} holds no sound; give a file with an audio stream")
    return source, source.streams.audio[0]
