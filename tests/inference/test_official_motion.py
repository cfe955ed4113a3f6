"""An official network drives the embedded face, with extractors and BFM made up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.official_motion import OfficialMotion
from modules.audio2motion.official import is_official_motion, load_official
from modules.audio2motion.speech_vae import SpeechVAEConfig, build_speech_vae
from modules.audio2motion.vae import FlowVAEConfig
from modules.commons.errors import AudioReadError, CheckpointError
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.audio import AudioClip, AudioFeatures
from tests.support.small_bfm import small_bfm

TINY = SpeechVAEConfig(
    n_audio=8, n_condition=6, vae=FlowVAEConfig(hidden=8, latent=4, encoder_layers=1, decoder_layers=1, flow_hidden=8)
)


class MadeUpExtractor:
    """Rows of loudness at 50 Hz in ``width`` copies of different sizes, like a network that needs no weights."""

    rate_hz, first_s = 50.0, 0.01

    def __init__(self, name: str, width: int, scale: float) -> None:
        self.name, self.width, self._scale = name, width, scale

    def extract(self, clip: AudioClip) -> AudioFeatures:
        count = len(clip.samples) // 320
        loud = np.sqrt((clip.samples[: 320 * count].reshape(count, 320) ** 2).mean(axis=1))
        values = self._scale * loud[:, None] * np.linspace(0.5, 1.5, self.width)
        return AudioFeatures(values.astype(np.float32), self.rate_hz, self.name, self.first_s)

    def extract_windows(self, clip: AudioClip):
        yield 0, self.extract(clip).values


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


@pytest.fixture
def network(tmp_path):
    torch.manual_seed(0)
    model = build_speech_vae(TINY)
    torch.save({"state_dict": {"model": model.state_dict()}}, tmp_path / "model_ckpt_steps_4.ckpt")
    return load_official(tmp_path)


AUDIO, PITCH = MadeUpExtractor("made-up", 8, 30.0), MadeUpExtractor("f0", 1, 3000.0)


def test_motion_is_deviation_from_rest_and_still_in_silence(network, face_model, demo_dir):
    speaker = OfficialMotion(network, AUDIO, PITCH, face_model, small_bfm())
    speech = load_audio_16k(demo_dir / "obama_speech.wav").samples[:48_000]
    clip = AudioClip(np.concatenate([speech, np.zeros(32_000, np.float32)]), 16_000)
    motion = speaker.predict(clip)
    assert motion.rate_hz == 25.0 and motion.expression.shape[1] == face_model.n_expression
    assert abs(motion.duration_s - clip.duration_s) < 0.1 and motion.face_model_version == face_model.version
    assert np.abs(motion.expression).max() > 1e-3 and (motion.expression[-25:] == 0).all()
    half = speaker.predict(clip, mouth_amp=0.5)
    np.testing.assert_allclose(half.expression, 0.5 * motion.expression, atol=1e-6)
    drawn = [speaker.predict(clip, temperature=1.0, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0].expression, drawn[1].expression)
    assert np.abs(drawn[0].expression - drawn[2].expression).max() > 1e-4


def test_wrong_extractors_and_short_sound(network, face_model):
    with pytest.raises(CheckpointError, match="rows of 8 values, but narrow makes 5"):
        OfficialMotion(network, MadeUpExtractor("narrow", 5, 1.0), PITCH, face_model, small_bfm())
    with pytest.raises(CheckpointError, match="no pitch"):
        OfficialMotion(network, AUDIO, None, face_model, small_bfm())
    speaker = OfficialMotion(network, AUDIO, PITCH, face_model, small_bfm())
    with pytest.raises(AudioReadError, match="too short"):
        speaker.predict(AudioClip(np.full(100, 0.1, np.float32), 16000))


def test_official_paths_are_known_by_their_files(network, tmp_path):
    assert is_official_motion(tmp_path) and is_official_motion(network.source)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "model.safetensors").write_bytes(b"")
    assert not is_official_motion(tmp_path / "ours") and not is_official_motion(tmp_path / "none")
