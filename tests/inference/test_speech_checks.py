"""Rates, layouts and languages, with an encoder that hears only loudness."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_audio.vad import detect_speech, frame_level_db
from inference import speech_checks
from inference.speech_checks import LAYOUTS, language_agreement, noisy_features, rate_differences, write_converted
from modules.audio2motion.config import Audio2MotionConfig
from modules.audio2motion.model import Audio2Motion
from modules.structures.audio import AudioClip, AudioFeatures, PreparedSpeech
from tasks.audio2motion.dataset_utils import prepare
from tests.data_gen.process_audio.test_resample_audio_to_16k import write_wav

UNITS = ("jawOpen", "mouthPucker")


def babble(seconds: float = 3.0) -> AudioClip:
    """A hum whose loudness swings four times a second, with a pause."""
    time_s = np.arange(round(16_000 * seconds)) / 16_000
    swing = (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time_s)) * ((time_s < 1.5) | (time_s > 2.2))
    tone = np.sin(2 * np.pi * 180 * time_s) + 0.5 * np.sin(2 * np.pi * 900 * time_s)
    return AudioClip((0.2 * swing * tone).astype(np.float32), 16_000)


class LoudnessEncoder:
    """Two columns: loudness, and loudness of 0.5 s ago."""

    def extract(self, clip: AudioClip) -> AudioFeatures:
        level = (np.maximum(frame_level_db(clip), -60.0) + 60.0) / 60.0
        return AudioFeatures(np.stack([level, np.roll(level, 25)], axis=1).astype(np.float32), 50.0, "e")


def model_of(weights: list[float]) -> Audio2Motion:
    """A linear member whose jaw follows the features with ``weights``."""
    config = Audio2MotionConfig(
        n_blocks=1, block_width=2, bottleneck=2, units=UNITS, convolutional=0, recurrent=0, linear_reach=0
    )
    model = Audio2Motion(config, torch.arange(2), 52).eval()
    model.projection.matrix.copy_(torch.eye(2)[None])
    assert model.linear is not None and model.linear.filter.bias is not None
    model.linear.filter.weight.data.zero_()
    model.linear.filter.bias.data.zero_()
    model.linear.filter.weight.data[0, :, 0] = torch.tensor(weights)
    model.opening_effect[0] = 1.0
    return model


@pytest.fixture(autouse=True)
def energy_is_speech(monkeypatch):
    """A hum is no voice: here whatever is loud counts as speech."""

    def prepared(clip: AudioClip) -> PreparedSpeech:
        return PreparedSpeech(clip, detect_speech(clip), 50.0, -23.0, 0.0)

    monkeypatch.setattr(speech_checks, "prepare_speech", prepared)
    monkeypatch.setattr(speech_checks, "load_speech", lambda path: prepared(load_audio_16k(path)))


@pytest.mark.parametrize(("rate_hz", "layout"), LAYOUTS)
def test_copies_hold_the_same_sound(tmp_path, rate_hz, layout):
    clip = babble()
    path = tmp_path / "copy.wav"
    write_converted(clip, path, rate_hz, layout)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.rate == rate_hz and stream.channels == len(av.AudioLayout(layout).channels)
    back = load_audio_16k(path)
    count = min(len(back.samples), len(clip.samples))
    assert abs(back.duration_s - clip.duration_s) < 0.01
    assert np.corrcoef(back.samples[:count], clip.samples[:count])[0, 1] > 0.99


def test_rates_hardly_move_the_lips(tmp_path):
    speech = write_wav(tmp_path / "english.wav", babble().samples[None], 16_000)
    found = rate_differences(speech, model_of([1.0, 0.0]), LoudnessEncoder(), tmp_path)  # type: ignore[arg-type]
    assert set(found) == {f"{rate} Hz {layout}" for rate, layout in LAYOUTS}
    assert all(rms < 0.02 and rms <= most for rms, most in found.values())


def test_what_loudness_explains_is_no_agreement(tmp_path):
    """Both follow loudness; in what is left they do the opposite of each other."""
    speech = write_wav(tmp_path / "french.wav", babble().samples[None], 16_000)
    together, left = language_agreement(
        speech,
        model_of([1.0, 0.2]),
        model_of([1.0, -0.2]),
        LoudnessEncoder(),  # type: ignore[arg-type]
    )
    assert together > 0.5 and left < -0.5


def test_noise_is_the_same_each_time_and_rows_fit_the_clip(tmp_path):
    from modules.commons.workspace import FACE_MODEL_FILE
    from modules.face_model.model import FaceModel
    from tests.support.talking_clips import talking_clip

    clip = prepare(talking_clip(FaceModel.load(FACE_MODEL_FILE), 0))
    path = write_wav(tmp_path / "clip0.wav", babble().samples[None], 16_000)
    features = noisy_features({"clip0": path}, LoudnessEncoder(), 10.0)  # type: ignore[arg-type]
    noisy = features([clip], 0)
    assert noisy.shape == (len(clip), 2)
    np.testing.assert_array_equal(noisy, features([clip], 0))
    clean = LoudnessEncoder().extract(load_audio_16k(path)).values[3 : 3 + len(clip)]
    assert noisy[:, 0].min() > clean[:, 0].min()
