"""The voice detector against its makers' own run of it."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.utils.process_audio import speech_detector
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_audio.speech_detector import SpeechDetector
from modules.commons.errors import ModelFileError
from modules.commons.workspace import SPEECH_DETECTOR_FILE
from modules.structures.audio import AudioClip
from tests.data_gen.process_audio.speech_detector_golden import GOLDEN_FILE
from tests.data_gen.process_audio.whisper_golden import waveform


@pytest.fixture(scope="module")
def detector():
    return SpeechDetector(SPEECH_DETECTOR_FILE)


def test_equals_its_makers_run(detector):
    with np.load(GOLDEN_FILE) as data:
        expected = data["probability"]
    found = detector.probability(AudioClip(waveform(), 16_000))
    np.testing.assert_allclose(found[: len(expected)], expected, atol=0.02)  # half-precision weights
    assert expected.max() - expected.min() > 0.3  # the comparison is of something


def test_long_sound_goes_in_pieces(detector, monkeypatch):
    clip = AudioClip(waveform()[:70_001], 16_000)
    whole = detector.probability(clip)
    monkeypatch.setattr(speech_detector, "_WINDOWS_PER_PIECE", 10)
    np.testing.assert_allclose(detector.probability(clip), whole, atol=1e-5)


@pytest.mark.parametrize("n_samples", [0, 1, 511, 512, 513])
def test_short_sound(detector, n_samples):
    found = detector.probability(AudioClip(np.zeros(n_samples, np.float32), 16_000))
    assert len(found) == -(-n_samples // 512) and (found < 0.1).all()


def test_voices_are_found_and_music_is_not(detector, shared_clips):
    speech = detector.probability(load_audio_16k(shared_clips / "speech" / "korean.wav"))
    assert (speech > 0.5).mean() > 0.6
    tune = detector.probability(made_up_music(8.0))
    assert (tune < 0.3).mean() > 0.95


def made_up_music(seconds: float) -> AudioClip:
    """A melody of plucked tones with seven harmonics."""
    samples, length = np.zeros(round(seconds * 16_000) + 12_000), 12_000
    time_s = np.arange(length) / 16_000
    for index, hz in enumerate(np.tile([262, 330, 392, 523, 440, 349], 20)[: round(seconds * 2)]):
        tone = sum(np.sin(2 * np.pi * hz * k * time_s) / k for k in range(1, 8)) * np.exp(-time_s / 0.375)
        samples[index * 8_000 : index * 8_000 + length] += 0.1 * tone
    return AudioClip(samples[: round(seconds * 16_000)].astype(np.float32), 16_000)


def test_bad_weights_and_rates(tmp_path, detector):
    with pytest.raises(ModelFileError, match="missing"):
        SpeechDetector(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\0\0\0\0\0\0\0not safetensors")
    with pytest.raises(ModelFileError, match="not the speech detector"):
        SpeechDetector(broken)
    with pytest.raises(ValueError, match="16 kHz"):
        detector.probability(AudioClip(np.zeros(100, np.float32), 8_000))
