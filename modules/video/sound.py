"""The sound of an output: new speech encoded to AAC, or a source's own packets copied, fed as the picture grows.

Reads: any container with sound. Memory is one decoded block per sound and what the muxer holds between picture and
sound.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.container import OutputContainer

from modules.video.mixing import Mixture, Samples, SoundFile, Span, Voice, common_gain
from modules.video.packet_copy import CopiedStreams

logger = logging.getLogger(__name__)

_AAC_RATES_HZ = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})
_DEFAULT_RATE_HZ = 48000
_COPIED_INTO_MP4 = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "alac", "opus", "flac"})
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Which sound an output carries, and when.

    Attributes:
        path: any file with sound.
        start_s: output time (the scale of ``Frame.time_s``) at which the first sample is heard; None is the time of
            the first frame written.
        duration_s: the sound is cut or padded with silence to this; None keeps its own length. Either way it ends
            with the picture.
        keep_source: carry the sound of a source video over at its own times: packets are copied bit-exact where the
            container can hold them, else encoded. ``start_s`` and ``duration_s`` must be left alone.
        number: which of the file's audio streams, from 0.
    """

    path: Path
    start_s: Fraction | None = None
    duration_s: Fraction | None = None
    keep_source: bool = False
    number: int = 0

    def __post_init__(self) -> None:
        if any(time is not None and time < 0 for time in (self.start_s, self.duration_s)):
            raise ValueError(f"sound cannot start or last less than 0 s: {self}")
        if self.keep_source and (self.start_s is not None or self.duration_s is not None):
            raise ValueError(f"a kept source sound has its own times: {self}")

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path,)


@dataclass(frozen=True, slots=True)
class Speech:
    """One voice of a ``SoundPlan``.

    Attributes:
        path: any file with sound; its first audio stream is used, from its first sample, without gaps.
        start_s: output time at which its first sample is heard, before any offset; None is the begin of the plan's
            part. What would be heard before that is cut.
    """

    path: Path
    start_s: Fraction | None = None


@dataclass(frozen=True, slots=True)
class SoundPlan:
    """New speech in a part of a video, with the source's own sound or silence around it; as long as the picture.

    Everything is brought to one rate and layout: the best of what is heard. Inside the part only the new speech is
    heard, with silence where there is none; outside it the source's sound is what it was, at its own times. The change
    takes 10 ms inside the part. Voices that would clip together are all turned down by one gain.

    Attributes:
        speeches: at least one; several are summed.
        offset_s: shifts all speech: positive = later, negative = its beginning is cut.
        span_s: the part, output times [start, end); None = from the first frame, to the end of the picture.
        source: the video whose first audio stream is heard outside the part; None = silence.
    """

    speeches: tuple[Speech, ...]
    offset_s: Fraction = Fraction(0)
    span_s: tuple[Fraction | None, Fraction | None] = (None, None)
    source: Path | None = None

    def __post_init__(self) -> None:
        if not self.speeches:
            raise ValueError("a plan needs at least one speech")
        start, stop = self.span_s
        if (start is not None and start < 0) or (stop is not None and stop <= (start or 0)):
            raise ValueError(f"the part of the new speech is empty or begins before 0: {self.span_s}")

    @property
    def paths(self) -> tuple[Path, ...]:
        return (*(speech.path for speech in self.speeches), *([self.source] if self.source else []))


class SoundFeed(Protocol):
    """Fills streams of an output; the writer calls it between frames."""

    def advance(self, until_s: Fraction) -> None:
        """Write the sound up to an output time; the first call gives the time of the first frame."""

    def finish(self, until_s: Fraction) -> None:
        """Write what is left up to the picture's end, and flush."""

    def close(self) -> None:
        """Release the input files."""


def open_sound(track: AudioTrack | SoundPlan, output: OutputContainer, bit_rate: int) -> SoundFeed:
    """Add a sound stream to ``output`` and return what fills it.

    Raises:
        AudioReadError: when a file is missing, holds no sound or cannot be opened.
    """
    if isinstance(track, SoundPlan):
        return _planned_sound(track, output, bit_rate)
    file = SoundFile(track.path, track.number)
    if not track.keep_source:
        return _EncodedSound(_TrackSound(track, file), [file], output, bit_rate)
    codec = file.stream.codec_context.name
    if holds_sound(output, codec):
        copied = output.add_stream_from_template(file.stream)
        return CopiedStreams(track.path, file.container, {file.stream.index: copied}, output)
    logger.info("%s: %s sound does not fit the output's container and is encoded to AAC", track.path, codec)
    return _EncodedSound(_TrackSound(track, file), [file], output, bit_rate)


def holds_sound(output: OutputContainer, codec: str) -> bool:
    """Whether packets of a codec can be copied into an output."""
    return "matroska" in output.format.name or codec in _COPIED_INTO_MP4


class _Sound(Protocol):
    """What an encoded track is made of."""

    def begin(self, first_frame_s: Fraction, rate_hz: int) -> tuple[int, int | None]:
        """Lay everything on the clock; (first sample, sample after the last or None) of the track."""
        ...

    def read(self, start: int, count: int) -> Samples:
        """``[C, n]``; n = 0 where the track ends."""
        ...


class _TrackSound:
    """One file, cut or padded."""

    def __init__(self, track: AudioTrack, file: SoundFile) -> None:
        self._track, self._file = track, file

    def begin(self, first_frame_s: Fraction, rate_hz: int) -> tuple[int, int | None]:
        track, file = self._track, self._file
        start_s = max(first_frame_s, Fraction(0)) if track.start_s is None else track.start_s
        start = round((file.start_s if track.keep_source else start_s) * rate_hz)
        blocks = file.by_time(rate_hz) if track.keep_source else file.counted(rate_hz, start)
        self._voice = Voice(blocks, channels_of([file]))
        return start, None if track.duration_s is None else start + round(track.duration_s * rate_hz)

    def read(self, start: int, count: int) -> Samples:
        heard = self._voice.read(start, count)
        return heard if self._track.duration_s is None else _padded(heard, count)


class _PlannedSound:
    """A ``SoundPlan`` on the clock; padded with silence for as long as the picture lasts."""

    def __init__(self, plan: SoundPlan, speeches: Sequence[SoundFile], source: SoundFile | None) -> None:
        self._plan, self._speeches, self._source = plan, speeches, source

    def begin(self, first_frame_s: Fraction, rate_hz: int) -> tuple[int, int | None]:
        begin_s = max(first_frame_s, Fraction(0))
        start_s, stop_s = self._plan.span_s
        span_start_s = begin_s if start_s is None else start_s
        firsts = [self._first_sample(speech, span_start_s, rate_hz) for speech in self._plan.speeches]
        start = round(span_start_s * rate_hz)
        span = Span(
            start,
            None if stop_s is None else round(stop_s * rate_hz),
            fade_in=start_s is not None or min(firsts) < start,
            fade_out=stop_s is not None,
        )
        channels = channels_of([*self._speeches, *([self._source] if self._source else [])])
        source = Voice(self._source.by_time(rate_hz), channels) if self._source else None
        voices = [Voice(f.counted(rate_hz, first), channels) for f, first in zip(self._speeches, firsts, strict=True)]
        gain = self._gain(firsts, span, rate_hz, channels) if len(voices) > 1 else 1.0
        self._mixture = Mixture(voices, span, rate_hz, gain=gain, source=source)
        return round(begin_s * rate_hz), None

    def read(self, start: int, count: int) -> Samples:
        return _padded(self._mixture.read(start, count), count)

    def _first_sample(self, speech: Speech, span_start_s: Fraction, rate_hz: int) -> int:
        start_s = span_start_s if speech.start_s is None else speech.start_s
        return round((start_s + self._plan.offset_s) * rate_hz)

    def _gain(self, firsts: Sequence[int], span: Span, rate_hz: int, channels: int) -> float:
        """One gain for all voices, found by reading them once before."""
        files = [SoundFile(speech.path) for speech in self._plan.speeches]
        try:
            voices = [Voice(f.counted(rate_hz, first), channels) for f, first in zip(files, firsts, strict=True)]
            gain = common_gain(voices, span, rate_hz)
        finally:
            for file in files:
                file.close()
        if gain < 1:
            logger.info("the speeches together would clip; all are turned down to %.0f %%", 100 * gain)
        return gain


class _EncodedSound:
    """Reads a track's samples up to the picture's time and encodes them."""

    def __init__(self, sound: _Sound, files: Sequence[SoundFile], output: OutputContainer, bit_rate: int) -> None:
        self._sound, self._files, self._output = sound, files, output
        self._rate_hz = max(_encodable_rate(file.stream.sample_rate, len(files)) for file in files)
        self._layout = "stereo" if channels_of(files) == 2 else "mono"
        self._stream = output.add_stream("aac", rate=self._rate_hz, layout=self._layout)
        self._stream.bit_rate = bit_rate
        self._at: int | None = None
        self._stop: int | None = None

    def advance(self, until_s: Fraction) -> None:
        if self._at is None:
            self._at, self._stop = self._sound.begin(until_s, self._rate_hz)
        at, target = self._at, int(until_s * self._rate_hz)
        if self._stop is not None:
            target = min(target, self._stop)
        while at < target:
            samples = self._sound.read(at, min(target - at, _BLOCK))
            if samples.shape[1] == 0:
                break
            self._encode(samples, at)
            at += samples.shape[1]
        self._at = at

    def finish(self, until_s: Fraction) -> None:
        self.advance(until_s)
        self._output.mux(self._stream.encode(None))

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _encode(self, samples: Samples, at: int) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate_hz
        frame.time_base = Fraction(1, self._rate_hz)
        # The encoder's own delay comes before the first sample; the muxer hides it (edit list or codec delay).
        frame.pts = at
        self._output.mux(self._stream.encode(frame))


def channels_of(files: Sequence[SoundFile]) -> int:
    """How many channels hold all of them: 1 or 2."""
    return 2 if any(file.layout == "stereo" for file in files) else 1


def _planned_sound(plan: SoundPlan, output: OutputContainer, bit_rate: int) -> SoundFeed:
    files: list[SoundFile] = []
    try:
        for path in plan.paths:
            files.append(SoundFile(path))
        speeches = files[: len(plan.speeches)]
        source = files[-1] if plan.source else None
        return _EncodedSound(_PlannedSound(plan, speeches, source), files, output, bit_rate)
    except BaseException:
        for file in files:
            file.close()
        raise


def _encodable_rate(rate_hz: int, n_files: int) -> int:
    """A file's own rate where AAC knows it; among several, none above the usual one is worth its cost."""
    if rate_hz not in _AAC_RATES_HZ or (n_files > 1 and rate_hz > _DEFAULT_RATE_HZ):
        return _DEFAULT_RATE_HZ
    return rate_hz


def _padded(samples: Samples, count: int) -> Samples:
    return np.pad(samples, ((0, 0), (0, count - samples.shape[1]))) if samples.shape[1] < count else samples
