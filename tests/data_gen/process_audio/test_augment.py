"""Other rooms and microphones."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.utils.process_audio.augment import (
    add_noise,
    add_reverb,
    band_limit,
    change_pitch,
    change_speed,
    equalize,
    random_recording,
)
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


def test_band_limit_keeps_what_is_below_in_place(clip):
    limited = band_limit(clip, 4_000.0)
    before, after = np.abs(np.fft.rfft(clip.samples)), np.abs(np.fft.rfft(limited.samples))
    hz = np.fft.rfftfreq(len(clip.samples), 1 / 16_000)
    assert after[hz > 4_400].max() < 2e-3 * before.max()
    low_only = np.fft.irfft(np.fft.rfft(clip.samples) * (hz < 4_000), len(clip.samples))
    assert np.corrcoef(low_only, limited.samples)[0, 1] > 0.999
    with pytest.raises(ValueError, match="cutoff_hz"):
        band_limit(clip, 8_000.0)


@pytest.mark.parametrize("direct_db", [0.0, 10.0])
def test_reverb_follows_the_direct_sound(direct_db):
    click = np.zeros(16_000, np.float32)
    click[4_000] = 1.0
    heard = add_reverb(AudioClip(click, 16_000), 0.4, direct_db, np.random.default_rng(0)).samples
    assert np.abs(heard[:4_000]).max() < 1e-6 and heard[4_000:4_002].max() > 0.5
    tail = heard[4_001:].astype(np.float64) ** 2
    assert 10 * np.log10(1 / tail.sum()) == pytest.approx(direct_db, abs=1.0)
    assert tail[:1_600].sum() > 100 * tail[4_800:6_400].sum()


def test_speed_moves_every_moment():
    hz, samples = 440, np.zeros(32_000, np.float32)
    samples[16_000:17_600] = np.sin(2 * np.pi * hz * np.arange(1_600) / 16_000)
    fast = change_speed(AudioClip(samples, 16_000), 110).samples
    assert abs(len(fast) - 32_000 / 1.1) <= 1
    spoken = np.flatnonzero(np.abs(fast) > 0.1)
    assert spoken[0] == pytest.approx(16_000 / 1.1, abs=20) and spoken[-1] == pytest.approx(17_600 / 1.1, abs=20)
    with pytest.raises(ValueError, match="50"):
        change_speed(AudioClip(samples, 16_000), 10)


@pytest.mark.parametrize("percent", [85, 100, 115])
def test_pitch_changes_and_time_does_not(percent):
    time = np.arange(32_000) / 16_000
    loud = 0.2 + 0.2 * np.sin(2 * np.pi * 2 * time)
    voice = AudioClip((loud * np.sin(2 * np.pi * 200 * time)).astype(np.float32), 16_000)
    other = change_pitch(voice, percent).samples
    assert len(other) == 32_000 and other.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(other * np.hanning(32_000)))
    assert spectrum.argmax() / 2 == pytest.approx(2 * percent, abs=3)
    levels = [np.sqrt((x.reshape(-1, 320) ** 2).mean(axis=1)) for x in (voice.samples, other)]
    agreement = {lag: np.corrcoef(levels[0][4:-4], np.roll(levels[1], lag)[4:-4])[0, 1] for lag in (-1, 0, 1)}
    assert agreement[0] > 0.98 and agreement[0] == max(agreement.values())
