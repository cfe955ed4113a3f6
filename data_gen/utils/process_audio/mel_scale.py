"""Slaney's mel scale (Auditory Toolbox, 1998), linear below 1 kHz and logarithmic above, and filters on it.

Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BEND_HZ = 1000.0
_BEND_MEL = 15.0
_MEL_PER_LOG = 27.0 / np.log(6.4)


def mel_from_hz(hz: NDArray | float) -> NDArray[np.float64]:
    """Slaney's mel of a frequency ≥ 0."""
    hz = np.asarray(hz, np.float64)
    return np.where(
        hz < _BEND_HZ, hz * _BEND_MEL / _BEND_HZ, _BEND_MEL + _MEL_PER_LOG * np.log(np.maximum(hz, 1.0) / _BEND_HZ)
    )


def hz_from_mel(mel: NDArray | float) -> NDArray[np.float64]:
    """Frequency of Slaney's mel."""
    mel = np.asarray(mel, np.float64)
    return np.where(mel < _BEND_MEL, mel * _BEND_HZ / _BEND_MEL, _BEND_HZ * np.exp((mel - _BEND_MEL) / _MEL_PER_LOG))


def mel_filters(
    n_mels: int, n_fft: int, sample_rate_hz: int, low_hz: float = 0.0, high_hz: float | None = None
) -> NDArray[np.float32]:
    """``[n_mels, n_fft // 2 + 1]`` triangles of equal area between ``low_hz`` and ``high_hz`` (None: Nyquist)."""
    top_hz = sample_rate_hz / 2 if high_hz is None else high_hz
    edges_hz = hz_from_mel(np.linspace(mel_from_hz(low_hz), mel_from_hz(top_hz), n_mels + 2))
    bins_hz = np.linspace(0.0, sample_rate_hz / 2, n_fft // 2 + 1)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (high - low))).astype(np.float32)
