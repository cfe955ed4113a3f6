"""Any sound file, or the sound of any video, as 16 kHz mono float32.

Reads: an audio or video file. Writes: nothing that stays.

Sound is decoded, mixed and resampled in a stream; from 10 minutes on the samples lie in an unnamed temporary file, so
that memory does not grow with the length.
"""

from __future__ import annotations

import logging
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import av
import imageio_ffmpeg
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from data_gen.utils.process_audio.bad_values import count_bad, mended
from data_gen.utils.process_audio.sample_store import SampleStore, pieces_of
from modules.commons.errors import AudioReadError
from modules.structures.audio import AudioClip

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
MIN_DURATION_S = 0.2
SILENCE_RMS = 1e-3
"""-60 dBFS: the loudest 20 ms of a silent recording stay below this."""
GAP_S = 0.05
"""Time stamps that jump further than this are a real gap, not rounding; it is filled with silence."""
MAX_FILL_S = 600.0
"""A longer jump is a broken time stamp; filling it would only eat memory."""
CANCELLED_SHARE = 1e-3
"""Channels that have nothing in common leave a quarter of a lone one's energy, 1/18 in surround sound."""
_FLOATS = {"flt": np.float32, "dbl": np.float64}
_CHANNEL_WEIGHTS = {"FC": 1.0, "FL": 0.71, "FR": 0.71}


class _NoAudioStreamError(Exception):
    """The container opened but holds no sound."""


def load_audio_16k(path: Path) -> AudioClip:
    """Decode the first audio stream of ``path``: 16 kHz, its channels mixed to one.

    Of several channels those in front count, speech's own (the centre) most, and low-frequency effects not at all.
    Values that are no numbers are replaced, with a warning. Level and offset stay the file's own
    (``front_end.prepare_speech`` sees to them).

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
    offset = np.float32(clip.samples.mean(dtype=np.float64))
    return all(_loudest_rms(piece - offset, frame) < SILENCE_RMS for piece in pieces_of(clip.samples))


def _loudest_rms(samples: NDArray[np.float32], frame: int) -> float:
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    return float(np.sqrt((padded**2).mean(axis=1)).max())


def _decode_or_fall_back(path: Path) -> NDArray[np.float32]:
    """PyAV first; the ffmpeg program (more codecs, more forgiving) when PyAV cannot."""
    try:
        return _decode(str(path.resolve()))
    except _NoAudioStreamError as error:
        raise AudioReadError(f"{path}: the file holds no audio stream; give a file with sound") from error
    except av.FFmpegError:
        try:
            with tempfile.TemporaryFile(prefix="sound-", suffix=".wav") as wav:
                _transcode_to_wav(path, wav)
                return _decode(wav)
        except (av.FFmpegError, _NoAudioStreamError) as error:
            raise AudioReadError(
                f"{path}: not an audio or video file that can be decoded; give a wav, mp3, m4a, mp4, ... file"
            ) from error


def _transcode_to_wav(path: Path, out: IO[bytes]) -> None:
    """The first audio stream through the ffmpeg program as 16 kHz float WAV; nothing is written when it fails."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", f"file:{path.resolve()}"]
    command += ["-map", "0:a:0", "-ar", str(SAMPLE_RATE_HZ), "-c:a", "pcm_f32le", "-f", "wav", "-"]
    subprocess.run(command, stdout=out, stderr=subprocess.DEVNULL, check=False)  # argv list, no shell
    out.seek(0)


def _decode(source: str | IO[bytes]) -> NDArray[np.float32]:
    mixer = _Mixer()
    samples = _decode_mixed(source, mixer)
    alone = mixer.channel_that_survives()
    if alone is None:
        return samples
    logger.warning(
        "the channels of the sound cancel each other (one is wired the wrong way round); one of them is used"
    )
    if not isinstance(source, str):
        source.seek(0)
    return _decode_mixed(source, _Mixer(alone))


def _decode_mixed(source: str | IO[bytes], mixer: _Mixer) -> NDArray[np.float32]:
    with av.open(source, "r") as container:
        if not container.streams.audio:
            raise _NoAudioStreamError
        start_s = (container.start_time or 0) / av.time_base
        timeline = _Timeline()
        for frame_start_s, chunk in _mono_chunks(container, mixer):
            timeline.add(None if frame_start_s is None else frame_start_s - start_s, chunk)
    return timeline.samples()


def _mono_chunks(container: InputContainer, mixer: _Mixer) -> Iterator[tuple[float | None, NDArray[np.float32]]]:
    """(start time s or None when unknown, mono 16 kHz samples) per run of decoded frames."""
    resampler: av.AudioResampler | None = None
    source_format: tuple[str, str, int] | None = None
    mender = _Mender()
    for frame in container.decode(container.streams.audio[0]):
        current = (frame.format.name, frame.layout.name, frame.sample_rate)
        if current != source_format:
            if resampler is not None:
                yield None, mixer.mixed(resampler.resample(None))
            resampler = av.AudioResampler(format="fltp", layout=frame.layout.name, rate=SAMPLE_RATE_HZ)
            source_format = current
            mixer.expect(tuple(channel.name for channel in frame.layout.channels))
        assert resampler is not None
        start_s = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        whole = mender.mend(frame)
        whole.pts = None  # the resampler must not invent or drop samples on time-stamp jitter
        yield start_s, mixer.mixed(resampler.resample(whole))
    if resampler is not None:
        yield None, mixer.mixed(resampler.resample(None))
    if mender.count:
        logger.warning("%d values of the sound are not numbers or absurdly large; they were replaced", mender.count)


class _Mender:
    """Replaces what is no sample value before the resampler smears it; counts what it replaced."""

    def __init__(self) -> None:
        self.count = 0

    def mend(self, frame: av.AudioFrame) -> av.AudioFrame:
        """The frame itself, or a copy whose values are all finite and within bounds."""
        if not frame.format.name.startswith(("flt", "dbl")):
            return frame
        values = frame.to_ndarray().astype(_FLOATS[frame.format.name[:3]], copy=False)
        bad = count_bad(values)
        if bad == 0:
            return frame
        self.count += bad
        if not frame.format.is_planar:
            good = np.stack([mended(channel) for channel in values.reshape(-1, len(frame.layout.channels)).T], axis=1)
        else:
            good = np.stack([mended(channel) for channel in values])
        copy = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(good.reshape(values.shape)), format=frame.format.name, layout=frame.layout.name
        )
        copy.sample_rate, copy.time_base = frame.sample_rate, frame.time_base
        return copy


def channel_shares(names: tuple[str, ...]) -> NDArray[np.float32]:
    """``[C]`` share of each channel in the mono mix, summing to 1.

    In surround sound speech comes from the front centre; left and right, at 0.71 of it (ITU-R BS.775), carry music,
    the rest noises, which only disturb. One channel, or two, count alike; so do those of an unknown layout.

    Args:
        names: FFmpeg's names of the channels, in order.
    """
    weights = np.array([_CHANNEL_WEIGHTS.get(name, 0.0) for name in names], np.float32)
    if "FC" not in names or len(names) <= 2:
        weights = np.array([name != "LFE" for name in names], np.float32)
    return weights / weights.sum() if weights.any() else np.full(len(names), 1 / len(names), np.float32)


class _Mixer:
    """Channels to one, and a watch on whether they cancel each other.

    Args:
        alone: use this channel only; None = all, by ``channel_shares``.
    """

    def __init__(self, alone: int | None = None) -> None:
        self._alone = alone
        self._shares = np.ones(1, np.float32)
        self._mixed_energy = 0.0
        self._energies = np.zeros(1)

    def expect(self, names: tuple[str, ...]) -> None:
        """What follows has these channels."""
        self._shares = channel_shares(names)
        if self._alone is not None and self._alone < len(names):
            self._shares = np.eye(len(names), dtype=np.float32)[self._alone]
        if len(self._energies) != len(names):
            self._energies = np.zeros(len(names))

    def mixed(self, frames: list[av.AudioFrame]) -> NDArray[np.float32]:
        """Resampled planar frames to mono samples ``[N]``."""
        if not frames:
            return np.zeros(0, np.float32)
        channels = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
        mono = (self._shares @ channels).astype(np.float32)
        self._mixed_energy += float(np.square(mono, dtype=np.float64).sum())
        self._energies += np.square(channels, dtype=np.float64).sum(axis=1)
        return mono

    def channel_that_survives(self) -> int | None:
        """The loudest channel when hardly anything is left of it in the mix; None when all is well."""
        loudest = int(self._energies.argmax())
        cancelled = self._mixed_energy < CANCELLED_SHARE * self._energies[loudest]
        return loudest if cancelled and self._alone is None else None


class _Timeline:
    """Joins chunks in order, filling real gaps between their time stamps with silence."""

    def __init__(self) -> None:
        self._store = SampleStore()

    def add(self, start_s: float | None, chunk: NDArray[np.float32]) -> None:
        if start_s is not None:
            missing_s = start_s - len(self._store) / SAMPLE_RATE_HZ
            if len(self._store) == 0 or missing_s > GAP_S:
                self._store.append_silence(round(min(max(missing_s, 0.0), MAX_FILL_S) * SAMPLE_RATE_HZ))
        self._store.append(chunk)

    def samples(self) -> NDArray[np.float32]:
        return self._store.array()
