"""Voice activity: hysteresis against a naive twin, and clips whose speech is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_audio import vad
from data_gen.utils.process_audio.vad import detect_speech, frame_level_db, hysteresis, voiced_speech
from modules.structures.audio import AudioClip
from tests.data_gen.process_audio.whisper_golden import waveform


def naive_hysteresis(level, enter, leave):
    active, out = False, []
    for value in level:
        active = value >= enter or (active and value >= leave)
        out.append(active)
    return out


@given(st.lists(st.floats(-90, 0), max_size=60), st.floats(-50, -20), st.floats(0, 20))
def test_hysteresis_equals_the_loop(level, enter, gap):
    values = np.array(level, dtype=np.float64)
    assert hysteresis(values, enter, enter - gap).tolist() == naive_hysteresis(level, enter, enter - gap)


def speech_between(start_s: float, end_s: float, total_s: float, noise: float) -> AudioClip:
    samples = np.random.default_rng(1).standard_normal(round(total_s * 16_000)) * noise
    first, last = round(start_s * 16_000), round(end_s * 16_000)
    samples[first:last] += waveform()[8_000 : 8_000 + last - first]
    return AudioClip(samples.astype(np.float32), 16_000)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 2e-3])
@pytest.mark.parametrize("gain", [1.0, 0.05])
def test_finds_speech_between_pauses(noise, gain):
    clip = speech_between(1.0, 3.0, 5.0, noise)
    active = detect_speech(AudioClip(clip.samples * np.float32(gain), 16_000))
    assert len(active) == 250
    assert not active[:40].any() and not active[170:].any()
    assert active[52:140].mean() > 0.9


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_silence_has_no_speech(level):
    samples = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * np.float32(level)
    assert not detect_speech(AudioClip(samples, 16_000)).any()


def test_gain_does_not_matter():
    clip = speech_between(0.5, 2.5, 3.0, 1e-3)
    louder = AudioClip(clip.samples * np.float32(2.0), 16_000)
    np.testing.assert_array_equal(detect_speech(clip), detect_speech(louder))


@pytest.mark.parametrize("n_samples", [0, 1, 319, 320, 321])
def test_short_clips(n_samples):
    assert len(detect_speech(AudioClip(np.zeros(n_samples, np.float32), 16_000))) == -(-n_samples // 320)


def test_sound_counts_near_a_voice_only():
    active = np.ones(200, bool)
    active[95:105] = False
    probability = np.zeros(200)
    probability[60:80], probability[80:90] = 0.9, 0.3  # goes on until it falls below 0.15
    found = voiced_speech(active, probability)
    assert np.flatnonzero(found).tolist() == [*range(40, 95)]
    assert not voiced_speech(active, np.full(200, 0.3)).any()


def test_levels_do_not_depend_on_pieces(monkeypatch):
    clip = speech_between(0.5, 2.5, 3.01, 1e-3)
    whole = frame_level_db(clip)
    monkeypatch.setattr(vad, "PIECE_SAMPLES", 1_000)
    np.testing.assert_allclose(frame_level_db(clip), whole, atol=1e-9)
