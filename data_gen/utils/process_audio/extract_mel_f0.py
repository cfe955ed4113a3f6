"""Log-mel spectrum and pitch with GeneFace++'s settings, at 50 rows a second.

Reads: nothing. Writes: nothing.

The settings are those that official GeneFace++ files were made with (1.4 of its data preparation). Pitch is Praat's
(``praat-parselmouth``, an optional package), by autocorrelation: Boersma, "Accurate short-term analysis of the
fundamental frequency", 1993.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_audio.mel_scale import mel_filters
from data_gen.utils.process_audio.resample_audio_to_16k import SAMPLE_RATE_HZ
from data_gen.utils.process_audio.window_grid import WindowGrid
from modules.commons.errors import BackendUnavailableError
from modules.structures.audio import AudioClip, AudioFeatures

RATE_HZ = 50
HOP = SAMPLE_RATE_HZ // RATE_HZ
N_FFT = 512
N_MELS = 80
LOW_HZ, HIGH_HZ = 80.0, 7600.0
SMALLEST = 1e-6

PITCH_FLOOR_HZ, PITCH_CEILING_HZ = 80.0, 750.0
VOICING_THRESHOLD = 0.6
# Praat weighs a moment against the loudest of all it is given and looks for one best path through it. Up to 10 minutes
# that is the whole recording, as in GeneFace++; longer ones are cut, with 20 s of context on both sides.
_PITCH_GRID = WindowGrid(content_rows=30_000, stride_rows=28_000, after_rows=1_000)
_ROWS_PER_PIECE = 2_000


def row_count(n_samples: int) -> int:
    """Rows whose 512 samples lie within ``n_samples``."""
    return max((n_samples - N_FFT) // HOP + 1, 0)


class MelExtractor:
    """``[T, 80]`` log10 of mel magnitudes; row i is of samples ``320·i .. 320·i + 512``."""

    name = "mel-80"
    rate_hz = float(RATE_HZ)
    width = N_MELS
    first_s = N_FFT / 2 / SAMPLE_RATE_HZ

    def __init__(self) -> None:
        self._filters = mel_filters(N_MELS, N_FFT, SAMPLE_RATE_HZ, LOW_HZ, HIGH_HZ)
        # periodic, as a transform wants it: np.hanning is the symmetric one
        self._window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)

    def extract(self, clip: AudioClip) -> AudioFeatures:
        """Features of a 16 kHz clip."""
        parts = [rows for _, rows in self.extract_windows(clip)]
        values = np.concatenate(parts) if parts else np.zeros((0, N_MELS), np.float32)
        return AudioFeatures(values, self.rate_hz, self.name, self.first_s)

    def extract_windows(self, clip: AudioClip) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same in pieces, in order: (first row, rows ``[t, 80]``)."""
        _check_rate(clip)
        n_rows = row_count(len(clip.samples))
        for first in range(0, n_rows, _ROWS_PER_PIECE):
            stop = min(first + _ROWS_PER_PIECE, n_rows)
            samples = clip.samples[first * HOP : (stop - 1) * HOP + N_FFT]
            frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP]
            magnitude = np.abs(np.fft.rfft(frames * self._window, axis=1)).astype(np.float32)
            yield first, np.log10(np.maximum(magnitude @ self._filters.T, SMALLEST))


class PitchExtractor:
    """``[T, 1]`` pitch, Hz, 0 where there is no voice; as many rows as ``MelExtractor`` has.

    Row i is Praat's frame i, centred on 0.02·(i + 1) s: the sound is padded to whole rows, which puts them there.

    Raises:
        BackendUnavailableError: praat-parselmouth is not installed.
    """

    name = "f0"
    rate_hz = float(RATE_HZ)
    width = 1
    first_s = 1.0 / RATE_HZ

    def __init__(self) -> None:
        self._parselmouth = _import_parselmouth()

    def extract(self, clip: AudioClip) -> AudioFeatures:
        """Pitch of a 16 kHz clip."""
        parts = [rows for _, rows in self.extract_windows(clip)]
        values = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
        return AudioFeatures(values, self.rate_hz, self.name, self.first_s)

    def extract_windows(self, clip: AudioClip) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same in pieces, in order: (first row, rows ``[t, 1]``)."""
        _check_rate(clip)
        n_rows = row_count(len(clip.samples))
        if n_rows == 0:
            return
        for window in _PITCH_GRID.windows(n_rows):
            # the last window hears all that is left, also the part of a row that the mel has no row for
            last = window.keep_to == n_rows
            found = self._pitch(clip.samples[window.first * HOP : None if last else window.stop * HOP])
            yield window.keep_from, _kept(found, window.keep_from - window.first, window.keep_to - window.first)

    def _pitch(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Praat's frames of some samples, which are padded by 1 to 320 zeros to whole rows."""
        padded = np.pad(samples.astype(np.float64), (0, HOP - len(samples) % HOP))
        sound = self._parselmouth.Sound(padded, sampling_frequency=SAMPLE_RATE_HZ)
        pitch = sound.to_pitch_ac(
            time_step=1 / RATE_HZ,
            voicing_threshold=VOICING_THRESHOLD,
            pitch_floor=PITCH_FLOOR_HZ,
            pitch_ceiling=PITCH_CEILING_HZ,
        )
        return pitch.selected_array["frequency"].astype(np.float32)


def _kept(found: NDArray[np.float32], begin: int, end: int) -> NDArray[np.float32]:
    """Rows ``begin .. end`` as a column; Praat's last value goes on where it has fewer."""
    short = max(end - len(found), 0)
    return np.pad(found, (0, short), mode="edge" if len(found) else "constant")[begin:end, None]


def _check_rate(clip: AudioClip) -> None:
    if clip.sample_rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(f"these features are of 16 kHz sound, got {clip.sample_rate_hz} Hz")


def _import_parselmouth() -> Any:
    try:
        import parselmouth
    except ImportError as error:
        raise BackendUnavailableError(
            "pitch needs the package praat-parselmouth, which is not installed; run: pip install praat-parselmouth"
        ) from error
    return parselmouth
