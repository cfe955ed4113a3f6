"""What adaptation is worth: a clip's first half teaches (and decides), its second half scores.

Lip error is the mean distance of the 40 lip points (LMD), as a change against the person's mean lips of the first half:
-100 % is no error, 0 % is lips that never move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.audio2motion.motion_space import speech_envelope
from modules.face_model.model import FaceModel
from modules.structures.audio import AudioClip
from modules.structures.evaluation import SpeechTrack
from modules.structures.speech_motion import SpeechMotionClip
from tasks.audio2motion.adaptation import (
    AdaptationConfig,
    PersonFitter,
    PersonSample,
    adapt,
    measure_agreement,
)

_SAMPLE_RATE_HZ = 16_000


@dataclass(frozen=True, slots=True)
class HalfScore:
    """Scores of one clip's second half.

    Attributes:
        name: the clip.
        general_lmd, adapted_lmd: change of the lip error against the mean lips, %.
        general_r, adapted_r: correlation of the lip opening. general_spread, adapted_spread: over the true spread.
        used: whether ``--adapt auto`` adapts by what the first half shows. reason: why, or why not.
    """

    name: str
    general_lmd: float
    adapted_lmd: float
    general_r: float
    adapted_r: float
    general_spread: float
    adapted_spread: float
    used: bool
    reason: str

    @property
    def auto_lmd(self) -> float:
        """What ``--adapt auto`` reaches, %."""
        return self.adapted_lmd if self.used else self.general_lmd


def sample_of(clip: SpeechMotionClip, deviation: NDArray[np.float32]) -> PersonSample:
    """A corpus clip with the general model's deviation ``[T, E]`` (of a model that never saw the speaker)."""
    return PersonSample(
        general=deviation,
        features=clip.features[0].astype(np.float32),
        gate=speech_envelope(clip.is_speech, clip.rate_hz),
        is_speech=clip.is_speech,
        expression=clip.expression,
        opening=clip.opening,
        valid=clip.valid,
        rate_hz=clip.rate_hz,
        extractor=clip.extractor,
    )


def score_halves(
    clip: SpeechMotionClip,
    deviation: NDArray[np.float32],
    face_model: FaceModel,
    columns: NDArray[np.int64],
    config: AdaptationConfig | None = None,
) -> HalfScore:
    """Score one clip.

    Args:
        clip: of the corpus, sound and mouth in sync.
        deviation: ``[T, E]`` by a model that never saw the speaker, in natural size, before any gate.
        face_model: the coefficients' own.
        columns: int64 ``[U]`` of the units that are predicted.
        config: see ``AdaptationConfig``.
    """
    sample, half = sample_of(clip, deviation), len(clip) // 2
    learning = sample.part(slice(0, half))
    fitter = PersonFitter(face_model, columns, config)
    speech = _track(learning, fitter.opening_effect, columns)
    _, doubt = measure_agreement(learning, speech, np.random.default_rng(0), config)
    judged = adapt(learning, face_model, columns, config)
    person, rest = fitter.fit(learning, np.ones(half, bool))
    gate = sample.gate[:, None]
    seen = np.flatnonzero(sample.valid[half:]) + half
    truth = sample.expression - rest
    mean = truth[:half][learning.valid].mean(axis=0, keepdims=True)
    still = float(fitter.lip_error_mm(mean, truth[seen]).mean())
    predictions = (gate * sample.general, gate * person(sample.general, person.reducer(sample.features)))
    figures = [_figures(fitter, prediction[seen], truth[seen], still, columns) for prediction in predictions]
    (general_lmd, general_r, general_spread), (adapted_lmd, adapted_r, adapted_spread) = figures
    return HalfScore(
        clip.name, general_lmd, adapted_lmd, general_r, adapted_r, general_spread, adapted_spread,
        used=judged.person is not None and not doubt, reason=doubt or judged.reason,
    )  # fmt: skip


def _figures(
    fitter: PersonFitter, predicted: NDArray, truth: NDArray, still: float, columns: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Change of the lip error, %; correlation and spread of the lip opening."""
    error = float(fitter.lip_error_mm(predicted, truth).mean())
    one, other = (values[:, columns] @ fitter.opening_effect for values in (predicted, truth))
    r = float(np.corrcoef(one, other)[0, 1]) if min(one.std(), other.std()) > 1e-9 else 0.0
    return 100 * (error / max(still, 1e-9) - 1), r, float(one.std() / max(other.std(), 1e-9))


def _track(sample: PersonSample, opening_effect: NDArray[np.float32], columns: NDArray[np.int64]) -> SpeechTrack:
    opening = sample.gate * (sample.general[:, columns] @ opening_effect)
    samples = round(len(sample) * _SAMPLE_RATE_HZ / sample.rate_hz)
    nothing = AudioClip(np.zeros(samples, np.float32), _SAMPLE_RATE_HZ)
    level = np.zeros(len(sample), np.float32)
    return SpeechTrack(opening.astype(np.float32), level, sample.is_speech, sample.rate_hz, nothing)
