"""Preparing sound: one level, no offset, no broken values; where there is speech; and a sentence on what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.utils.process_audio.augment import add_noise
from data_gen.utils.process_audio.front_end import load_speech, prepare_speech
from data_gen.utils.process_audio.loudness import loudness_lufs
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_audio.speech_detector import SpeechDetector
from modules.commons.workspace import SPEECH_DETECTOR_FILE
from modules.structures.audio import AudioClip
from tests.data_gen.process_audio.test_speech_detector import made_up_music
from tests.data_gen.process_audio.whisper_golden import waveform


@pytest.fixture(scope="module")
def detector():
    return SpeechDetector(SPEECH_DETECTOR_FILE)


class EverythingIsAVoice:
    """Stands for the detector where only levels matter."""

    def probability(self, clip: AudioClip) -> np.ndarray:
        return np.ones(-(-len(clip.samples) // 512), np.float32)


@pytest.fixture(scope="module")
def voice() -> AudioClip:
    return AudioClip(waveform()[:64_000], 16_000)


def test_preparing_twice_changes_nothing(voice):
    once = prepare_speech(voice, EverythingIsAVoice())
    twice = prepare_speech(once.clip, EverythingIsAVoice())
    assert twice.clip is once.clip
    np.testing.assert_array_equal(twice.is_speech, once.is_speech)
    assert loudness_lufs(once.clip) == pytest.approx(-23.0, abs=0.06)
    assert once.warnings == () and once.speech_share > 0.5 and len(once.is_speech) == 200


@pytest.mark.parametrize("gain", [1.0, 0.05, 3.0])
@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_level_and_offset_do_not_matter(voice, gain, offset):
    plain = prepare_speech(voice, EverythingIsAVoice())
    other = AudioClip((voice.samples * np.float32(gain) + np.float32(offset)).astype(np.float32), 16_000)
    found = prepare_speech(other, EverythingIsAVoice())
    np.testing.assert_allclose(found.clip.samples, plain.clip.samples, atol=2e-3)
    np.testing.assert_array_equal(found.is_speech, plain.is_speech)
    assert found.warnings == ()


def test_broken_values_are_silence_with_a_sentence(voice):
    samples = voice.samples.copy()
    samples[1000:1010], samples[5000] = np.nan, np.inf
    found = prepare_speech(AudioClip(samples, 16_000), EverythingIsAVoice())
    assert np.isfinite(found.clip.samples).all()
    assert any("11 of 64000 samples are no numbers" in sentence for sentence in found.warnings)
    assert np.isnan(samples[1000])  # the caller's array is left alone


def test_clipping_is_said(voice):
    clipped = np.clip(voice.samples * 8, -0.7, 0.7)  # at whatever level the recording was saved
    found = prepare_speech(AudioClip(clipped, 16_000), EverythingIsAVoice())
    assert found.clipped_share > 0.02
    assert any("clipped" in sentence for sentence in found.warnings)
    assert prepare_speech(voice, EverythingIsAVoice()).clipped_share < 1e-3


@pytest.mark.parametrize("n_samples", [0, 1, 1600, 16_000])
def test_silence_is_said_and_left_as_it_is(n_samples, detector):
    clip = AudioClip(np.zeros(n_samples, np.float32), 16_000)
    found = prepare_speech(clip, detector)
    assert found.clip is clip and not found.is_speech.any() and len(found.is_speech) == -(-n_samples // 320)
    assert len(found.warnings) == 1 and "silent" in found.warnings[0]


@pytest.mark.parametrize("kind", ["music", "noise", "hum"])
def test_sound_without_a_voice_is_no_speech(kind, detector):
    clip = made_up_music(4.0)
    if kind == "noise":
        clip = add_noise(AudioClip(np.full(64_000, 1e-3, np.float32), 16_000), -30.0, np.random.default_rng(0))
    elif kind == "hum":
        clip = AudioClip((0.1 * np.sin(2 * np.pi * 100 * np.arange(64_000) / 16_000)).astype(np.float32), 16_000)
    found = prepare_speech(clip, detector)
    assert found.speech_share < 0.1
    assert any("no speech was found" in s or "music or noise without a voice" in s for s in found.warnings)


def test_real_speech_beside_music(detector, shared_clips):
    speech = load_audio_16k(shared_clips / "speech" / "german.wav")
    alone = load_speech(shared_clips / "speech" / "german.wav", detector)
    assert alone.warnings == () and alone.speech_share > 0.7
    tune = made_up_music(12.0)
    level = 10 ** ((loudness_lufs(speech) - loudness_lufs(tune)) / 20)
    joined = np.concatenate([tune.samples * np.float32(level), speech.samples])
    both = prepare_speech(AudioClip(joined, 16_000), detector)
    assert both.is_speech[: 11 * 50].mean() < 0.05
    agreement = both.is_speech[12 * 50 :] == alone.is_speech[: len(both.is_speech) - 12 * 50]
    assert agreement.mean() > 0.97
    assert any("without a voice" in sentence for sentence in both.warnings)


def test_noise_is_said(detector, shared_clips):
    speech = load_audio_16k(shared_clips / "speech" / "english_8s.wav")
    noisy = prepare_speech(add_noise(speech, 0.0, np.random.default_rng(0)), detector)
    assert any("above what else is heard" in sentence for sentence in noisy.warnings)
    assert noisy.speech_share > 0.8
    quieter = prepare_speech(add_noise(speech, 15.0, np.random.default_rng(0)), detector)
    assert quieter.warnings == ()


def test_very_quiet_recordings_are_said(voice):
    hushed = AudioClip(voice.samples * np.float32(10 ** (-42 / 20)), 16_000)
    found = prepare_speech(hushed, EverythingIsAVoice())
    assert any("very quiet" in sentence for sentence in found.warnings)


def test_other_rates_are_refused():
    with pytest.raises(ValueError, match="16000 Hz"):
        prepare_speech(AudioClip(np.zeros(100, np.float32), 8_000))
