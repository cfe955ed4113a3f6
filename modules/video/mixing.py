"""Sounds laid on one clock and summed, block by block; memory is one decoded block per sound.

The clock counts samples from output time 0. A sound lies on it either by counting its own samples, or by the times its
container states (``ClockedSound.by_time``), where gaps become silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from modules.commons.errors import AudioReadError

Samples = NDArray[np.float32]
"""``[C, n]``, full scale at 1."""

FADE_S = Fraction(1, 100)
"""Of every change between sounds: too short to be heard as a fade, long enough not to click."""
_JUMP_S = Fraction(3, 100)
"""Stated times that differ less than this from the samples counted are rounding, not a gap."""
_PEAK = 0.98
"""What a sum that would clip is turned down to; AAC overshoots a little."""
_BLOCK = 8192


class SoundFile:
    """One audio stream of a file, decoded to float at a given rate, with its own channels up to two.

    Raises:
        AudioReadError: when the file is missing, cannot be opened, or has no such stream.
    """

    def __init__(self, path: Path, number: int = 0) -> None:
        self.path = path
        self.container, self.stream = _opened(path, number)
        self.layout = "mono" if self.stream.channels == 1 else "stereo"

    @property
    def start_s(self) -> Fraction:
        """When the container says its sound begins; never before 0."""
        return max(Fraction(self.stream.start_time or 0) * (self.stream.time_base or 1), Fraction(0))

    def counted(self, rate_hz: int, first: int) -> Iterator[tuple[int, Samples]]:
        """(clock sample, block) of the whole sound without gaps, its first sample at ``first``."""
        resampler = self._resampler(rate_hz)
        at = first
        for frame in self._frames():
            for block in _resampled(resampler, frame):
                yield at, block
                at += block.shape[1]

    def by_time(self, rate_hz: int) -> Iterator[tuple[int, Samples]]:
        """(clock sample, block) of the whole sound where the container puts it; a jump starts a new run."""
        resampler: av.AudioResampler | None = None
        at, heard_s = 0, Fraction(0)
        for frame in self._frames():
            stated_s = heard_s if frame is None else _time_s(frame, heard_s)
            if frame is not None and (resampler is None or abs(stated_s - heard_s) > _JUMP_S):
                if resampler is not None:
                    for block in _resampled(resampler, None):
                        yield at, block
                resampler, at, heard_s = self._resampler(rate_hz), round(stated_s * rate_hz), stated_s
            if resampler is None:
                return
            if frame is not None:
                heard_s += Fraction(frame.samples, frame.sample_rate)
            for block in _resampled(resampler, frame):
                yield at, block
                at += block.shape[1]

    def close(self) -> None:
        """Release the file."""
        self.container.close()

    def _resampler(self, rate_hz: int) -> av.AudioResampler:
        return av.AudioResampler(format="fltp", layout=self.layout, rate=rate_hz)

    def _frames(self) -> Iterator[AudioFrame | None]:
        """Decoded frames, then None once: what a resampler still holds is to be fetched."""
        try:
            yield from self.container.decode(self.stream)
        except av.error.FFmpegError as error:
            reason = f"has sound that cannot be decoded ({error.strerror})"
            raise AudioReadError(f"{self.path} {reason}; re-encode it") from error
        yield None


class Voice:
    """Sequential reads from blocks that lie on the clock; silence in gaps, what overlaps is dropped.

    Args:
        blocks: (clock sample, block) in rising order.
        channels: 1 or 2; a mono sound is heard on both sides at its own strength.
    """

    def __init__(self, blocks: Iterator[tuple[int, Samples]], channels: int) -> None:
        self._blocks, self._channels = blocks, channels
        self._pending: tuple[int, Samples] | None = None

    def read(self, start: int, count: int) -> Samples:
        """``[C, n]`` from clock sample ``start`` on; n is below ``count`` only where the sound has ended."""
        heard = np.zeros((self._channels, count), np.float32)
        stop, filled = start + count, 0
        while filled < count:
            self._pending = self._pending or next(self._blocks, None)
            if self._pending is None:
                break
            at, block = self._pending
            first, last = max(at, start + filled), min(at + block.shape[1], stop)
            if first < last:
                heard[:, first - start : last - start] = block[:, first - at : last - at]
                filled = last - start
            if at + block.shape[1] >= stop:
                filled = count
            if at + block.shape[1] <= stop:
                self._pending = None
        return heard[:, :filled]


@dataclass(frozen=True, slots=True)
class Span:
    """Where new speech is heard on the clock: [start, stop), None = without end; faded where it ends are cut."""

    start: int
    stop: int | None = None
    fade_in: bool = False
    fade_out: bool = False

    def weight(self, start: int, count: int, fade: int) -> Samples:
        """0..1 for each of ``count`` clock samples; ``fade`` samples at the faded ends lie inside the span."""
        at = np.arange(start, start + count)
        weight = (at >= self.start).astype(np.float32)
        if self.fade_in:
            weight *= np.clip((at - self.start + 0.5) / fade, 0, 1).astype(np.float32)
        if self.stop is not None:
            weight *= at < self.stop
            if self.fade_out:
                weight *= np.clip((self.stop - at - 0.5) / fade, 0, 1).astype(np.float32)
        return weight


class Mixture:
    """New voices in their span, and what is heard outside it.

    Args:
        voices: summed.
        span: where they are heard.
        rate_hz: of the clock.
        gain: of every voice.
        source: heard where the voices are not; None = silence.
    """

    def __init__(
        self, voices: Sequence[Voice], span: Span, rate_hz: int, *, gain: float = 1.0, source: Voice | None = None
    ) -> None:
        self._voices, self._span, self._gain, self._source = voices, span, np.float32(gain), source
        self._fade = fade_length(span, rate_hz)

    def read(self, start: int, count: int) -> Samples:
        """``[C, n]``, n at most ``count``; below it only where every sound has ended."""
        parts = [(voice.read(start, count), True) for voice in self._voices]
        if self._source is not None:
            parts.append((self._source.read(start, count), False))
        longest = max(part.shape[1] for part, _ in parts)
        weight = self._span.weight(start, longest, self._fade)
        mixed = np.zeros((parts[0][0].shape[0], longest), np.float32)
        for part, is_new in parts:
            here = weight[: part.shape[1]]
            mixed[:, : part.shape[1]] += part * (here * self._gain if is_new else 1 - here)
        return mixed


def fade_length(span: Span, rate_hz: int) -> int:
    """Samples of a fade: 10 ms, less where the span is too short for two."""
    fade = round(FADE_S * rate_hz)
    return max(fade if span.stop is None else min(fade, (span.stop - span.start) // 2), 1)


def common_gain(voices: Sequence[Voice], span: Span, rate_hz: int) -> float:
    """What to turn voices down by so that their sum does not clip: 1 where it does not. Reads them to their end."""
    mixture = Mixture(voices, span, rate_hz)
    at, peak = span.start, 0.0
    while span.stop is None or at < span.stop:
        block = mixture.read(at, _BLOCK)
        if block.shape[1] == 0:
            break
        peak = max(peak, float(np.abs(block).max()))
        at += block.shape[1]
    return _PEAK / peak if peak > 1 else 1.0


def _time_s(frame: AudioFrame, expected_s: Fraction) -> Fraction:
    """When a frame is heard; as expected where it does not say."""
    if frame.pts is None or frame.time_base is None:
        return expected_s
    return frame.pts * frame.time_base


def _resampled(resampler: av.AudioResampler, frame: AudioFrame | None) -> Iterator[Samples]:
    if frame is not None:
        frame.pts = None  # times are counted in samples here
    for resampled in resampler.resample(frame):
        yield np.asarray(resampled.to_ndarray(), np.float32)


def _opened(path: Path, number: int) -> tuple[InputContainer, AudioStream]:
    if not path.is_file():
        raise AudioReadError(f"{path} is not a file; check the path of the sound")
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise AudioReadError(f"{path} cannot be opened as sound ({error.strerror}); give another file") from error
    if not container.streams.audio:
        container.close()
        raise AudioReadError(f"{path} holds no sound; give a file with an audio stream")
    if number >= len(container.streams.audio):
        count = len(container.streams.audio)
        container.close()
        raise AudioReadError(f"{path} holds {count} audio streams; number {number} (counted from 0) is not among them")
    return container, container.streams.audio[number]
