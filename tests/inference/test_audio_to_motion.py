"""Sound in, deviations from rest out: silence, size, variety, refusals."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.audio_to_motion import AudioToMotion, sample_motion
from modules.audio2motion.config import Audio2MotionConfig
from modules.audio2motion.model import Audio2Motion
from modules.commons.checkpoint import save_checkpoint
from modules.commons.errors import CheckpointError
from modules.commons.workspace import AUDIO2MOTION_DIR, FACE_MODEL_FILE, ROOT, WHISPER_FILE
from modules.face_model.model import MOUTH_UNITS, FaceModel
from modules.postnet.person_motion import FeatureReducer, PersonMotion
from modules.structures.audio import AudioClip
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tests.data_gen.process_audio.whisper_golden import waveform

SPEECH_FILE = ROOT.parent / "shared" / "clips" / "speech" / "english_8s.wav"
pytestmark = pytest.mark.skipif(not WHISPER_FILE.is_file(), reason="speech encoder not fetched: scripts/setup.sh")


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


@pytest.fixture(scope="module")
def predictor(face_model):
    return AudioToMotion(AUDIO2MOTION_DIR, WHISPER_FILE, face_model.version)


def with_pause(start_s: float, stop_s: float) -> AudioClip:
    samples = waveform()[: 5 * 16_000].copy()
    samples[round(start_s * 16_000) : round(stop_s * 16_000)] = 0.0
    return AudioClip(samples, 16_000)


@pytest.fixture(scope="module")
def paused(predictor):
    """Speech with a pause from 2 to 4 s, and its motion."""
    clip = with_pause(2.0, 4.0)
    return clip, predictor.predict(clip)


def test_the_shipped_model_fits_the_shipped_face_model(predictor, face_model):
    motion = predictor.predict(AudioClip(waveform()[:48_000], 16_000))
    assert motion.expression.shape == (150, 52) and motion.rate_hz == 50.0
    assert motion.face_model_version == face_model.version
    assert np.isfinite(motion.expression).all() and np.abs(motion.expression).max() < 2.0
    others = [i for i, name in enumerate(face_model.expression_names) if name not in MOUTH_UNITS]
    assert (motion.expression[:, others] == 0).all()
    assert motion.expression.std(axis=0).max() > 0.01


def test_silence_within_speech_shuts_the_lips(paused):
    motion = paused[1]
    still = slice(round(2.25 * 50), round(3.75 * 50))
    assert (motion.expression[still] == 0).all() and (motion.is_speech[still] == 0).all()
    assert np.abs(motion.expression[: round(1.9 * 50)]).max() > 0.01
    fade = motion.expression[round(1.9 * 50) : round(2.25 * 50)]
    assert np.abs(np.diff(fade, axis=0)).max() < 0.25


@pytest.mark.parametrize("level", [0.0, 1e-5])
def test_silent_sound_is_rest_with_a_warning(predictor, caplog, level):
    samples = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * np.float32(level)
    with caplog.at_level(logging.WARNING):
        motion = predictor.predict(AudioClip(samples, 16_000))
    assert "silent" in caplog.text
    assert len(motion) == 100 and (motion.expression == 0).all() and (motion.is_speech == 0).all()
    assert (sample_motion(motion, np.arange(50) / 25.0) == 0).all()


def test_mouth_amp_scales_and_temperature_varies(predictor):
    clip = AudioClip(waveform()[:32_000], 16_000)
    plain = predictor.predict(clip).expression
    np.testing.assert_allclose(predictor.predict(clip, mouth_amp=0.5).expression, 0.5 * plain, atol=1e-6)
    np.testing.assert_array_equal(predictor.predict(clip).expression, plain)
    one = predictor.predict(clip, temperature=1.0, generator=torch.Generator().manual_seed(1)).expression
    same = predictor.predict(clip, temperature=1.0, generator=torch.Generator().manual_seed(1)).expression
    np.testing.assert_array_equal(one, same)
    with pytest.raises(ValueError, match="generator"):
        predictor.predict(clip, temperature=1.0)
    with pytest.raises(ValueError, match="negative"):
        predictor.predict(clip, mouth_amp=-1.0)


def test_what_silence_does(predictor, paused):
    """Kept, the model's own answer to a pause stays; otherwise the mouth rests there. In speech nothing differs."""
    clip, rest = paused
    kept = predictor.predict(clip, silence="keep")
    np.testing.assert_array_equal(kept.is_speech, rest.is_speech)
    pause = slice(round(2.25 * 50), round(3.75 * 50))
    assert (rest.expression[pause] == 0).all() and np.abs(kept.expression[pause]).max() > 1e-3
    spoken = rest.is_speech == 1
    np.testing.assert_array_equal(kept.expression[spoken], rest.expression[spoken])
    nothing = AudioClip(np.zeros(16_000, np.float32), 16_000)
    assert (predictor.predict(nothing, silence="keep").expression == 0).all(), "no speech, no motion"


def person_of(predictor, face_model, **changes):
    """Somebody who opens the mouth half as far as others and adds nothing of their own."""
    count, columns = 1152, predictor.columns
    nobody = PersonMotion(
        columns=columns,
        general_mean=np.zeros(len(columns), np.float32),
        own_mean=np.zeros(len(columns), np.float32),
        scale=np.full(len(columns), 0.5, np.float32),
        reducer=FeatureReducer(
            np.zeros(count, np.float32), np.ones(count, np.float32), np.eye(count, 4, dtype=np.float32)
        ),
        taps=np.zeros((3, 4, len(columns)), np.float32),
        bias=np.zeros(len(columns), np.float32),
        step=2,
        gain=1.0,
        opening_effect=np.zeros(len(columns), np.float32),
        opening_floor=-1e3,
        face_model_version=face_model.version,
        extractor="whisper-tiny.en/blocks-2-3-4",
    )
    return replace(nobody, **changes)


def test_a_person_is_put_on_the_motion_of_the_same_speech(predictor, face_model, paused):
    clip, plain = paused
    twice = predictor.predict(clip, person=person_of(predictor, face_model), mouth_amp=2.0).expression
    np.testing.assert_allclose(twice, plain.expression, atol=1e-5)
    with pytest.raises(ValueError, match="cannot be put on"):
        predictor.predict(clip, person=person_of(predictor, face_model, extractor="mel"))


def test_hearing_gives_what_prediction_is_made_of(predictor, paused):
    clip, motion = paused
    heard = predictor.hear(clip)
    np.testing.assert_allclose(heard.gate[:, None] * heard.deviation, motion.expression, atol=1e-5)
    np.testing.assert_allclose(heard.opening, motion.opening, atol=1e-5)
    assert heard.features.shape == (250, 1152) and heard.is_speech.dtype == bool


def save_model(folder: Path, *, version: str = "v", extractor: str = "whisper-tiny.en/blocks-2-3-4") -> Path:
    config = AudioToMotionTaskConfig(model=Audio2MotionConfig(units=("jawOpen",), convolutional=1, recurrent=0))
    model = Audio2Motion(config.model, torch.tensor([3]), 52)
    extra = {"extractor": extractor, "n_expression": 52}
    save_checkpoint(folder, {"model": model.state_dict()}, config, 1, extra, face_model_version=version)
    return folder


def test_other_models_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="face model v"):
        AudioToMotion(save_model(tmp_path / "a"), WHISPER_FILE, "w")
    with pytest.raises(CheckpointError, match="'mel'"):
        AudioToMotion(save_model(tmp_path / "b", extractor="mel"), WHISPER_FILE, "v")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        AudioToMotion(tmp_path / "none", WHISPER_FILE, "v")
    broken = save_model(tmp_path / "c")
    (broken / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        AudioToMotion(broken, WHISPER_FILE, "v")


@pytest.mark.skipif(not SPEECH_FILE.is_file(), reason="shared/clips is not here")
def test_real_speech_moves_the_lips_as_people_do(predictor):
    """Opening follows loudness, lips shut now and then, and the range is that of a talking mouth (dm)."""
    clip = load_audio_16k(SPEECH_FILE)
    motion = predictor.predict(clip)
    assert motion.opening is not None
    low, high = np.percentile(motion.opening, [5, 95])
    assert low < 0.03 and 0.06 < high < 0.3
    assert motion.opening.min() > -0.05
    loudness = np.sqrt((clip.samples[: len(motion) * 320].reshape(len(motion), 320) ** 2).mean(axis=1))
    smooth = np.convolve(np.log(loudness + 1e-3), np.ones(5) / 5, mode="same")
    assert np.corrcoef(smooth, motion.opening)[0, 1] > 0.15


@pytest.mark.skipif(not SPEECH_FILE.is_file(), reason="shared/clips is not here")
def test_level_and_place_hardly_matter(predictor):
    """The same words four times as loud, or later in the recording, move the lips alike."""
    clip = load_audio_16k(SPEECH_FILE)
    plain = predictor.predict(clip).opening
    quiet = predictor.predict(AudioClip(clip.samples * np.float32(0.25), 16_000)).opening
    late = predictor.predict(AudioClip(np.concatenate([np.zeros(9 * 16_000, np.float32), clip.samples]), 16_000))
    assert np.corrcoef(plain, quiet)[0, 1] > 0.95
    assert np.corrcoef(plain[10:], late.opening[460 : 450 + len(plain)])[0, 1] > 0.93
