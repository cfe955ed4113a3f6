"""Loudness against BS.1770's own figures, and what normalising must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.process_audio.loudness import LoudnessMeter, gain_to, k_weighting, loudness_lufs
from modules.structures.audio import AudioClip
from tests.data_gen.process_audio.whisper_golden import waveform

VOICE = waveform()[:80_000]


def test_filters_equal_the_standards_table():
    """ITU-R BS.1770-4, tables 1 and 2 (48 kHz)."""
    shelf, high_pass = k_weighting(48_000)
    np.testing.assert_allclose(shelf[:3], [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-8)
    np.testing.assert_allclose(shelf[3:], [1.0, -1.69065929318241, 0.73248077421585], atol=1e-8)
    np.testing.assert_allclose(high_pass[3:], [1.0, -1.99004745483398, 0.99007225036621], atol=1e-8)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("level_db", [0.0, -23.0])
def test_a_sine_of_full_scale_is_3_lufs_below_it(rate_hz, level_db):
    """BS.1770-4: a 997 Hz sine at 0 dBFS on one channel reads -3.01 LKFS."""
    samples = 10 ** (level_db / 20) * np.sin(2 * np.pi * 997 * np.arange(5 * rate_hz) / rate_hz)
    assert loudness_lufs(AudioClip(samples.astype(np.float32), rate_hz)) == pytest.approx(level_db - 3.01, abs=0.06)


def test_pauses_and_what_is_much_quieter_do_not_count():
    speech = VOICE[8_000:]
    alone = loudness_lufs(AudioClip(speech, 16_000))
    silence = np.zeros(160_000, np.float32)
    hiss = np.random.default_rng(0).standard_normal(160_000).astype(np.float32) * np.float32(1e-4)
    for rest in (silence, hiss):
        assert loudness_lufs(AudioClip(np.concatenate([rest, speech, rest]), 16_000)) == pytest.approx(alone, abs=0.25)


@given(st.lists(st.integers(0, 80_000), max_size=8), st.floats(-40.0, 20.0))
@settings(max_examples=20)
def test_pieces_and_level(cuts, gain_db):
    """Any cutting gives the whole's figure, and a gain changes it by exactly that gain."""
    samples = VOICE
    whole = loudness_lufs(AudioClip(samples, 16_000))
    meter = LoudnessMeter(16_000)
    for piece in np.split(samples * np.float32(10 ** (gain_db / 20)), sorted(cuts)):
        meter.add(piece)
    assert meter.lufs() == pytest.approx(whole + gain_db, abs=1e-3)


@pytest.mark.parametrize("n_samples", [0, 16_000])
def test_silence_has_no_loudness_and_no_gain(n_samples):
    lufs = loudness_lufs(AudioClip(np.zeros(n_samples, np.float32), 16_000))
    assert lufs == -np.inf and gain_to(lufs) == 1.0


def test_short_sound_has_a_loudness():
    samples = (0.1 * np.sin(np.arange(1_000) * 0.4)).astype(np.float32)
    assert -35 < loudness_lufs(AudioClip(samples, 16_000)) < -15


def test_gain_is_bounded():
    assert gain_to(-29.0, -23.0) == pytest.approx(10**0.3)
    assert gain_to(-100.0) == pytest.approx(10**1.5)
