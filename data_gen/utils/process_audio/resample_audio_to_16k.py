"""Any sound file, or the sound of any video, as 16 kHz mono float32.

Reads: an audio or video file. Writes: nothing.
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from modules.commons.errors import AudioReadError
from modules.structures.audio import AudioClip

SAMPLE_RATE_HZ = 16_000
MIN_DURATION_S = 0.2
SILENCE_RMS = 1e-3
"""-60 dBFS: the loudest 20 ms of a silent recording stay below this."""
GAP_S = 0.05
"""Time stamps that jump further than this are a real gap, not rounding; it is filled with silence."""
MAX_FILL_S = 600.0
"""A longer jump is a broken time stamp; filling it would only eat memory."""


class _NoAudioStreamError(Exception):
    """The container opened but holds no sound."""


def load_audio_16k(path: Path) -> AudioClip:
    """Decode the first audio stream of ``path``: 16 kHz, mean of its channels.

    Sample 0 stands at the file's own start: where the sound of a video begins after its picture, silence fills the
    time between, so that sample times and frame times share one clock.

    Args:
        path: any container with sound (wav, mp3, mp4, mkv, ...), any sample rate and channel count.

    Returns:
        the clip, float32 in about -1..1.

    Raises:
        AudioReadError: the file is missing, holds no sound, is not audio, or is shorter than 0.2 s.
    """
    if not path.is_file():
        raise AudioReadError(f"{path}: no such audio file; give the path of a sound or video file")
    if path.stat().st_size == 0:
        raise AudioReadError(f"{path}: the file is empty (0 bytes); give a file that holds sound")
    samples = _decode_or_fall_back(path)
    if len(samples) == 0:
        raise AudioReadError(f"{path}: its audio stream holds no samples; give a file that holds sound")
    clip = AudioClip(samples, SAMPLE_RATE_HZ)
    if clip.duration_s < MIN_DURATION_S:
        raise AudioReadError(
            f"{path}: only {clip.duration_s:.2f} s of sound; at least {MIN_DURATION_S} s are needed to move lips"
        )
    return clip


def file_start_s(path: Path) -> float:
    """Time stamp, in seconds, that sample 0 of ``load_audio_16k`` stands at; subtract it from a frame's time."""
    try:
        with av.open(str(path.resolve()), "r") as container:
            return (container.start_time or 0) / av.time_base
    except (av.FFmpegError, OSError) as error:
        raise AudioReadError(f"{path}: cannot be opened ({error})") from error


def is_silent(clip: AudioClip) -> bool:
    """True when even the loudest 20 ms stay below -60 dBFS (a constant offset does not count as sound)."""
    if len(clip.samples) == 0:
        return True
    frame = max(1, clip.sample_rate_hz // 50)
    samples = clip.samples - clip.samples.mean()
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    return bool(np.sqrt((padded**2).mean(axis=1)).max() < SILENCE_RMS)


def _decode_or_fall_back(path: Path) -> NDArray[np.float32]:
    """PyAV first; the ffmpeg program (more codecs, more forgiving) when PyAV cannot."""
    try:
        return _decode(str(path.resolve()))
    except _NoAudioStreamError as error:
        raise AudioReadError(f"{path}: the file holds no audio stream; give a file with sound") from error
    except av.FFmpegError:
        try:
            return _decode(io.BytesIO(_transcode_to_wav(path)))
        except (av.FFmpegError, _NoAudioStreamError) as error:
            raise AudioReadError(
                f"{path}: not an audio or video file that can be decoded; give a wav, mp3, m4a, mp4, ... file"
            ) from error


def _transcode_to_wav(path: Path) -> bytes:
    """The first audio stream through the ffmpeg program as 16 kHz float WAV; empty when it fails."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", f"file:{path.resolve()}"]
    command += ["-map", "0:a:0", "-ar", str(SAMPLE_RATE_HZ), "-c:a", "pcm_f32le", "-f", "wav", "-"]
    return subprocess.run(command, capture_output=True, check=False).stdout  # argv list, no shell


def _decode(source: str | io.BytesIO) -> NDArray[np.float32]:
    with av.open(source, "r") as container:
        if not container.streams.audio:
            raise _NoAudioStreamError
        start_s = (container.start_time or 0) / av.time_base
        timeline = _Timeline()
        for frame_start_s, chunk in _mono_chunks(container):
            timeline.add(None if frame_start_s is None else frame_start_s - start_s, chunk)
    return timeline.samples()


def _mono_chunks(container: InputContainer) -> Iterator[tuple[float | None, NDArray[np.float32]]]:
    """(start time s or None when unknown, mono 16 kHz samples) per run of decoded frames."""
    resampler: av.AudioResampler | None = None
    source_format: tuple[str, str, int] | None = None
    for frame in container.decode(container.streams.audio[0]):
        current = (frame.format.name, frame.layout.name, frame.sample_rate)
        if current != source_format:
            if resampler is not None:
                yield None, _mean_of_channels(resampler.resample(None))
            resampler = av.AudioResampler(format="fltp", layout=frame.layout.name, rate=SAMPLE_RATE_HZ)
            source_format = current
        assert resampler is not None
        start_s = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        frame.pts = None  # the resampler must not invent or drop samples on time-stamp jitter
        yield start_s, _mean_of_channels(resampler.resample(frame))
    if resampler is not None:
        yield None, _mean_of_channels(resampler.resample(None))


def _mean_of_channels(frames: list[av.AudioFrame]) -> NDArray[np.float32]:
    parts = [frame.to_ndarray().mean(axis=0, dtype=np.float32) for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


class _Timeline:
    """Joins chunks in order, filling real gaps between their time stamps with silence."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.float32]] = []
        self._length = 0

    def add(self, start_s: float | None, chunk: NDArray[np.float32]) -> None:
        if start_s is not None:
            missing_s = start_s - self._length / SAMPLE_RATE_HZ
            if self._length == 0 or missing_s > GAP_S:
                self._append(np.zeros(round(min(max(missing_s, 0.0), MAX_FILL_S) * SAMPLE_RATE_HZ), np.float32))
        self._append(chunk)

    def samples(self) -> NDArray[np.float32]:
        joined = np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        return np.nan_to_num(joined, posinf=0.0, neginf=0.0)

    def _append(self, part: NDArray[np.float32]) -> None:
        self._parts.append(part)
        self._length += len(part)
