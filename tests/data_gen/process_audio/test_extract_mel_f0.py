"""Mel against a second way of computing it; pitch of tones; both on GeneFace++'s rows."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from data_gen.utils.process_audio import extract_mel_f0
from data_gen.utils.process_audio.extract_mel_f0 import MelExtractor, PitchExtractor, row_count
from data_gen.utils.process_audio.window_grid import WindowGrid
from modules.commons.errors import BackendUnavailableError
from modules.structures.audio import AudioClip
from tests.data_gen.process_audio.whisper_golden import waveform

VOICE = waveform()[:48_000]


def naive_mel(samples: np.ndarray, row: int) -> np.ndarray:
    """One row by sums: a discrete Fourier transform, then triangles on Slaney's scale drawn one by one."""
    n = np.arange(512)
    frame = samples[320 * row : 320 * row + 512] * (0.5 - 0.5 * np.cos(2 * np.pi * n / 512))
    magnitude = np.abs(np.exp(-2j * np.pi * np.outer(np.arange(257), n) / 512) @ frame)

    def hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    top = 15 + 27 * np.log(7.6) / np.log(6.4)
    edges = [hz(mel) for mel in np.linspace(80 * 3 / 200, top, 82)]
    out = []
    for low, centre, high in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
        bins = np.arange(257) * 16_000 / 512
        triangle = np.clip(np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)), 0, None)
        out.append(np.log10(max(1e-6, float(2 / (high - low) * triangle @ magnitude))))
    return np.array(out)


def test_mel_equals_the_naive_one():
    mel = MelExtractor().extract(AudioClip(VOICE, 16_000))
    assert mel.values.shape == (149, 80) and mel.times_s[0] == pytest.approx(0.016)
    for row in (0, 20, 77, 148):
        np.testing.assert_allclose(
            mel.values[row], naive_mel(VOICE, row), atol=1e-3
        )  # values near the floor lose digits


@pytest.mark.parametrize(("n_samples", "rows"), [(0, 0), (511, 0), (512, 1), (831, 1), (832, 2), (16_000, 49)])
def test_rows(n_samples, rows):
    assert row_count(n_samples) == rows
    assert len(MelExtractor().extract(AudioClip(np.zeros(n_samples, np.float32), 16_000))) == rows


def test_mel_does_not_depend_on_pieces(monkeypatch):
    clip = AudioClip(VOICE, 16_000)
    whole = MelExtractor().extract(clip).values
    monkeypatch.setattr(extract_mel_f0, "_ROWS_PER_PIECE", 11)
    np.testing.assert_allclose(MelExtractor().extract(clip).values, whole, atol=1e-5)


def glide(seconds: float) -> AudioClip:
    """A voice-like tone rising from 100 to 300 Hz, then 0.3 s of silence."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * (100 * time + 100 * time**2 / seconds)
    samples = sum(np.sin(k * phase) / k for k in range(1, 6)) * 0.1
    return AudioClip(np.append(samples, np.zeros(4_800)).astype(np.float32), 16_000)


def test_pitch_of_a_glide_at_its_times():
    pytest.importorskip("parselmouth")
    clip = glide(3.0)
    pitch = PitchExtractor().extract(clip)
    assert pitch.values.shape == (row_count(len(clip.samples)), 1) and pitch.times_s[0] == pytest.approx(0.02)
    voiced = (pitch.times_s > 0.05) & (pitch.times_s < 2.95)
    expected = 100 + 200 * pitch.times_s / 3.0
    np.testing.assert_allclose(pitch.values[voiced, 0], expected[voiced], rtol=0.01)
    assert (pitch.values[pitch.times_s > 3.05] == 0).all()


def test_long_pitch_goes_in_windows(monkeypatch):
    pytest.importorskip("parselmouth")
    clip = glide(6.0)
    whole = PitchExtractor().extract(clip).values
    monkeypatch.setattr(extract_mel_f0, "_PITCH_GRID", WindowGrid(120, 60, 30))
    windowed = PitchExtractor().extract(clip).values
    assert windowed.shape == whole.shape
    np.testing.assert_allclose(windowed, whole, atol=1.0)


@pytest.mark.parametrize("n_samples", [0, 400, 512, 1_200])
def test_short_pitch(n_samples):
    pytest.importorskip("parselmouth")
    if n_samples >= 1_200:
        clip = AudioClip(VOICE[8_000 : 8_000 + n_samples], 16_000)
    else:
        clip = AudioClip(np.zeros(n_samples, np.float32), 16_000)
    assert PitchExtractor().extract(clip).values.shape == (row_count(n_samples), 1)


def test_missing_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "parselmouth", None)
    with pytest.raises(BackendUnavailableError, match="pip install praat-parselmouth"):
        PitchExtractor()


def test_other_rates_are_refused():
    with pytest.raises(ValueError, match="16 kHz"):
        MelExtractor().extract(AudioClip(np.zeros(1000, np.float32), 8_000))
