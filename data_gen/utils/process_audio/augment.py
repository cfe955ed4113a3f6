"""The same speech as other rooms, microphones and moments would have it, for training.

Reads: nothing. Writes: nothing; all randomness comes from the generator that is passed in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modules.structures.audio import AudioClip


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


def random_recording(clip: AudioClip, rng: np.random.Generator) -> AudioClip:
    """Another microphone and room: ±5 dB equalisation, 8 to 25 dB signal over noise, ±12 dB level."""
    shaped = equalize(clip, rng.uniform(-5.0, 5.0, 7))
    noisy = add_noise(shaped, float(rng.uniform(8.0, 25.0)), rng, colour=float(rng.uniform(0.0, 1.5)))
    level = np.float32(10 ** (rng.uniform(-12.0, 12.0) / 20))
    return AudioClip(np.clip(noisy.samples * level, -1.0, 1.0).astype(np.float32), clip.sample_rate_hz)
