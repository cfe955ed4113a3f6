"""Mel-frequency cepstral coefficients as SyncNet heard them in training: the defaults of ``python_speech_features``.

Those differ from most libraries: a rectangular 25 ms window, band edges rounded down to whole spectrum bins, a
logarithm without offset, and the frame's log energy in place of coefficient 0.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from modules.structures.audio import AudioClip

SAMPLE_RATE_HZ = 16_000
N_COEFFICIENTS = 13

_PRE_EMPHASIS = 0.97
_FRAME = 400  # 25 ms
_STEP = 160  # 10 ms
_N_FFT = 512
_N_BANDS = 26
_LIFTER = 22
_BLOCK = 4096
"""Frames whose spectra are held at a time."""


def mfcc(clip: AudioClip) -> NDArray[np.float64]:
    """Coefficients of 25 ms frames every 10 ms; row i starts at ``i / 100`` s.

    Samples are rounded to 16 bits first, as the WAV files of the published evaluation are.

    Args:
        clip: 16 kHz. Every sample is used: the last frame is padded with zeros; no sample, no row.

    Returns:
        ``[M, 13]``: log energy of the frame, then liftered coefficients 1..12.

    Raises:
        ValueError: another sample rate.
    """
    if clip.sample_rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(f"mfcc takes {SAMPLE_RATE_HZ} Hz, got {clip.sample_rate_hz} Hz; resample first")
    if len(clip.samples) == 0:
        return np.zeros((0, N_COEFFICIENTS))
    samples = np.clip(np.rint(clip.samples.astype(np.float64) * 32768), -32768, 32767)
    emphasised = np.append(samples[0], samples[1:] - _PRE_EMPHASIS * samples[:-1])
    count = 1 + max(0, -(-(len(emphasised) - _FRAME) // _STEP))
    padded = np.pad(emphasised, (0, (count - 1) * _STEP + _FRAME - len(emphasised)))
    frames = sliding_window_view(padded, _FRAME)[::_STEP]  # [M, 400], a view
    bands = mel_bands()
    return np.concatenate([_cepstra(frames[i : i + _BLOCK], bands) for i in range(0, count, _BLOCK)])


def mel_bands() -> NDArray[np.float64]:
    """``[26, 257]`` triangles, evenly spaced on the mel scale ``2595 log10(1 + f / 700)`` over 0..8000 Hz."""
    top = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top, _N_BANDS + 2) / 2595) - 1)
    edges = np.floor((_N_FFT + 1) * edges_hz / SAMPLE_RATE_HZ)
    bins = np.arange(_N_FFT // 2 + 1)
    return np.stack([np.interp(bins, edges[i : i + 3], (0.0, 1.0, 0.0)) for i in range(_N_BANDS)])


def _cepstra(frames: NDArray[np.float64], bands: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.abs(np.fft.rfft(frames, _N_FFT, axis=1)) ** 2 / _N_FFT  # [M, 257]
    energy = _without_zeros(power.sum(axis=1))
    log_mel = np.log(_without_zeros(power @ bands.T))  # [M, 26]
    cepstra = np.asarray(scipy.fft.dct(log_mel, type=2, axis=1, norm="ortho"))[:, :N_COEFFICIENTS]
    lifted = cepstra * (1 + _LIFTER / 2 * np.sin(np.pi * np.arange(N_COEFFICIENTS) / _LIFTER))
    lifted[:, 0] = np.log(energy)
    return lifted


def _without_zeros(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Digital silence has no logarithm; the smallest step of float64 stands for it."""
    return np.where(values == 0, np.finfo(np.float64).eps, values)
