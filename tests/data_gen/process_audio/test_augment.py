"""Other rooms and microphones."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.utils.process_audio.augment import add_noise, equalize, random_recording
from modules.structures.audio import AudioClip
from tests.data_gen.process_audio.whisper_golden import waveform


@pytest.fixture(scope="module")
def clip():
    return AudioClip(waveform()[:48_000], 16_000)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 30.0])
def test_noise_has_the_asked_level(clip, snr_db):
    noise = add_noise(clip, snr_db, np.random.default_rng(0)).samples - clip.samples
    measured = 10 * np.log10(np.mean(clip.samples**2) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=0.05)


def test_coloured_noise_falls_with_frequency(clip):
    noise = add_noise(clip, 0.0, np.random.default_rng(0), colour=1.0).samples - clip.samples
    power = np.abs(np.fft.rfft(noise)) ** 2
    low, high = power[1000:2000].mean(), power[10_000:20_000].mean()
    assert low / high == pytest.approx(10.0, rel=0.1)


def test_equalizer_gains(clip):
    np.testing.assert_allclose(equalize(clip, np.full(5, 6.0)).samples, clip.samples * 10**0.3, atol=1e-4)
    tilted = np.abs(np.fft.rfft(equalize(clip, np.array([-6.0, 6.0])).samples))
    before = np.abs(np.fft.rfft(clip.samples))
    assert 20 * np.log10(tilted[-2] / before[-2]) == pytest.approx(6.0, abs=0.1)


def test_recordings_follow_the_generator(clip):
    first = random_recording(clip, np.random.default_rng(5)).samples
    again = random_recording(clip, np.random.default_rng(5)).samples
    other = random_recording(clip, np.random.default_rng(6)).samples
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(first) == len(clip.samples) and np.abs(first).max() <= 1.0 and first.dtype == np.float32
