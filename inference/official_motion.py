"""Speech → motion by an official GeneFace++ network, on the embedded face.

Reads: a GeneFace++ checkpoint, BFM2009 (both brought by the user), the feature extractors that it hears with.
Writes: nothing.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_audio.features import FeatureExtractor, resampled
from data_gen.utils.process_audio.front_end import prepare_speech
from modules.audio2motion.motion_space import rest_expression, speech_envelope
from modules.audio2motion.official import OFFICIAL_MOTION_RATE_HZ, OfficialAudio2Motion
from modules.audio2motion.retarget import retarget_matrix
from modules.commons.errors import AudioReadError, CheckpointError
from modules.face_model.bfm import BfmModel
from modules.face_model.model import FaceModel
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from tasks.audio2motion.losses import opening_effect

logger = logging.getLogger(__name__)

FEATURE_RATE_HZ = 2 * OFFICIAL_MOTION_RATE_HZ


def official_features(
    clip: AudioClip, audio: FeatureExtractor, pitch: FeatureExtractor | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Feature rows ``[N, C]`` of a sound at 50 Hz and, where it is asked for, f0 ``[N]``.

    Raises:
        AudioReadError: the sound is shorter than a row of features.
    """
    rows = audio.extract(clip).values
    if len(rows) == 0:
        raise AudioReadError(f"{clip.duration_s:.3f} s of sound are too short for {audio.name}; give more")
    if pitch is None:
        return rows, None
    return rows, resampled(pitch.extract(clip), len(rows), FEATURE_RATE_HZ, nearest=True)[:, 0]


class OfficialMotion:
    """Predicts deviations from rest as ``AudioToMotion`` does, at 25 Hz.

    Args:
        network: of ``load_official``.
        audio: makes the feature rows that the network hears. pitch: makes f0, where it hears pitch.
        face_model: whose coefficients are wanted.
        bfm: whose coefficients the network speaks.

    Raises:
        CheckpointError: the network hears other features than ``audio`` makes, or pitch that nobody makes.
    """

    def __init__(
        self,
        network: OfficialAudio2Motion,
        audio: FeatureExtractor,
        pitch: FeatureExtractor | None,
        face_model: FaceModel,
        bfm: BfmModel,
    ) -> None:
        if network.n_audio != audio.width or (network.hears_pitch and pitch is None):
            heard = "pitch and " if network.hears_pitch else ""
            raise CheckpointError(
                f"{network.source} hears {heard}rows of {network.n_audio} values, but {audio.name} makes {audio.width}"
                f"{'' if pitch else ' and no pitch'}; name the extractors that it was trained with"
            )
        self._network, self._audio = network, audio
        self._pitch = pitch if network.hears_pitch else None
        self._matrix = retarget_matrix(face_model, bfm)
        self._opening = opening_effect(face_model).numpy()
        self._version = face_model.version

    def predict(
        self,
        clip: AudioClip,
        *,
        temperature: float = 0.0,
        mouth_amp: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MotionSequence:
        """Motion as deviations from the mouth at rest; see ``AudioToMotion.predict``.

        Rest is what the network says where it holds the lips most nearly shut: its absolute coefficients belong to the
        people it was trained on.

        Raises:
            AudioReadError: the sound is shorter than a row of features.
        """
        speech = prepare_speech(clip)
        for sentence in speech.warnings:
            logger.warning("driving sound: %s", sentence)
        rows, f0_hz = official_features(speech.clip, self._audio, self._pitch)
        bfm = self._network.predict(rows, f0_hz, temperature=temperature, generator=generator)
        units = bfm @ self._matrix
        deviation = units - rest_expression(units, units @ self._opening)
        gate = speech_envelope(_at_motion_rate(speech.is_speech, len(units)), OFFICIAL_MOTION_RATE_HZ)
        expression = (mouth_amp * gate[:, None] * deviation).astype(np.float32)
        return MotionSequence(
            expression=expression,
            is_speech=gate,
            rate_hz=OFFICIAL_MOTION_RATE_HZ,
            face_model_version=self._version,
            opening=(expression @ self._opening).astype(np.float32),
        )


def _at_motion_rate(is_speech: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """``count`` flags at half the rate: speech where either of two rows is; the last goes on."""
    padded = np.pad(is_speech, (0, max(0, 2 * count - len(is_speech))), mode="edge")[: 2 * count]
    return padded[0::2] | padded[1::2]
