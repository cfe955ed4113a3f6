"""The same speech as other rooms, microphones and moments would have it, for training.

Reads: nothing. Writes: nothing; all randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, oaconvolve, resample_poly

from modules.structures.audio import AudioClip

_LOW_PASS_TAPS = 201


def add_noise(clip: AudioClip, snr_db: float, rng: np.random.Generator, colour: float = 1.0) -> AudioClip:
    """Steady noise whose power falls with frequency to the power ``colour`` (0 white, 1 pink), at ``snr_db``."""
    spectrum = np.fft.rfft(rng.standard_normal(len(clip.samples)))
    spectrum *= np.maximum(np.arange(len(spectrum)), 8.0) ** (-colour / 2)
    noise = np.fft.irfft(spectrum, len(clip.samples))
    signal_rms, noise_rms = (float(np.sqrt(np.mean(x**2) + 1e-20)) for x in (clip.samples, noise))
    scaled = noise * (signal_rms / noise_rms * 10 ** (-snr_db / 20))
    return AudioClip((clip.samples + scaled).astype(np.float32), clip.sample_rate_hz)


def equalize(clip: AudioClip, gains_db: NDArray[np.floating]) -> AudioClip:
    """Smooth spectral gain through ``gains_db`` at points evenly spaced in log-frequency, 60 Hz to Nyquist."""
    hz = np.fft.rfftfreq(len(clip.samples), 1 / clip.sample_rate_hz)
    points = np.geomspace(60.0, clip.sample_rate_hz / 2, len(gains_db))
    gain_db = np.interp(np.log(np.maximum(hz, 1.0)), np.log(points), gains_db)
    shaped = np.fft.irfft(np.fft.rfft(clip.samples) * 10 ** (gain_db / 20), len(clip.samples))
    return AudioClip(shaped.astype(np.float32), clip.sample_rate_hz)


def band_limit(clip: AudioClip, cutoff_hz: float) -> AudioClip:
    """Nothing above ``cutoff_hz``, without delay: 4 kHz is what a telephone or an 8 kHz recording leaves.

    Raises:
        ValueError: the cut-off does not lie between 0 and half the sample rate.
    """
    if not 0 < cutoff_hz < clip.sample_rate_hz / 2:
        raise ValueError(f"cutoff_hz must lie in (0, {clip.sample_rate_hz / 2:g}), got {cutoff_hz}")
    taps = firwin(_LOW_PASS_TAPS, cutoff_hz, fs=clip.sample_rate_hz)
    return _same_length(oaconvolve(clip.samples, taps)[_LOW_PASS_TAPS // 2 :], clip)


def add_reverb(clip: AudioClip, decay_s: float, direct_db: float, rng: np.random.Generator) -> AudioClip:
    """A room: an exponentially decaying tail of noise after the direct sound, which keeps its place.

    Args:
        clip: the sound.
        decay_s: time in which the tail falls by 60 dB.
        direct_db: power of the direct sound over the tail's.
        rng: the room.
    """
    time_s = np.arange(max(round(decay_s * clip.sample_rate_hz), 1)) / clip.sample_rate_hz
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / decay_s)
    tail *= 10 ** (-direct_db / 20) / np.sqrt((tail**2).sum())
    return _same_length(clip.samples + oaconvolve(clip.samples, tail)[: len(clip.samples)], clip)


def change_speed(clip: AudioClip, percent: int) -> AudioClip:
    """The same played ``percent`` % as fast (110: shorter and higher), so that motion must be resampled with it.

    Samples at time t come to stand at ``t · 100 / percent``.

    Raises:
        ValueError: ``percent`` is out of 50..200.
    """
    if not 50 <= percent <= 200:
        raise ValueError(f"speed must lie in 50..200 %, got {percent}")
    return AudioClip(resample_poly(clip.samples, 100, percent).astype(np.float32), clip.sample_rate_hz)


def change_pitch(clip: AudioClip, percent: int) -> AudioClip:
    """Another voice at the same speed: pitch and resonances ``percent`` % as high, each moment at its place.

    Played faster or slower, then brought back to its length by overlapping pieces of 40 ms, each moved by up to 10 ms
    to where it fits the one before (WSOLA; Verhelst and Roelands, 1993).
    """
    moved = change_speed(clip, percent).samples
    piece, search = clip.sample_rate_hz // 25, clip.sample_rate_hz // 100
    hop, window = piece // 2, np.hanning(piece + 1)[:-1]
    source = np.pad(moved.astype(np.float64), (piece, 2 * piece + search))
    out = np.zeros(len(clip.samples) + 2 * piece)
    expected: NDArray[np.float64] | None = None
    for start in range(0, len(clip.samples) + piece, hop):
        # out[start] stands at time start - piece of the clip, padded source likewise
        place = max(round((start - piece) * 100 / percent) + piece, 0)
        if expected is not None:
            first = max(place - search, 0)
            near = source[first : place + search + piece]
            place = first + int(np.correlate(near, expected, mode="valid").argmax()) if len(near) >= piece else first
        part = source[place : place + piece]
        out[start : start + len(part)] += part * window[: len(part)]
        expected = source[place + hop : place + hop + piece]
        if len(expected) < piece:
            break
    return _same_length(out[piece:], clip)


def _same_length(samples: NDArray[np.floating], clip: AudioClip) -> AudioClip:
    count = len(clip.samples)
    padded = np.pad(samples[:count], (0, max(count - len(samples), 0)))
    return AudioClip(padded.astype(np.float32), clip.sample_rate_hz)


def random_recording(clip: AudioClip, rng: np.random.Generator) -> AudioClip:
    """Another microphone and room: ±5 dB equalisation, 8 to 25 dB signal over noise, ±12 dB level."""
    shaped = equalize(clip, rng.uniform(-5.0, 5.0, 7))
    noisy = add_noise(shaped, float(rng.uniform(8.0, 25.0)), rng, colour=float(rng.uniform(0.0, 1.5)))
    level = np.float32(10 ** (rng.uniform(-12.0, 12.0) / 20))
    return AudioClip(np.clip(noisy.samples * level, -1.0, 1.0).astype(np.float32), clip.sample_rate_hz)
