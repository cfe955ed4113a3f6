"""Learn from the very video that is edited how its person speaks, and put that on predicted motion.

Reads: a prepared face and its video's own sound. Writes: nothing; a clip of 20 s takes some seconds on one core.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.av_corpus.rows import resample_rows
from inference.audio_to_motion import HeardSpeech
from inference.controls import AdaptMode
from inference.driving import source_motion, speech_predictor, spoken
from inference.evaluation.motion import own_speech
from inference.jobs import SpeechOptions
from inference.prepared import PreparedSource
from modules.audio2motion.official import is_official_motion
from modules.commons.errors import AudioReadError
from modules.structures.audio import AudioClip
from modules.structures.evaluation import SpeechTrack
from modules.structures.motion import MotionSequence
from tasks.audio2motion.adaptation import Adaptation, PersonSample, adapt, fit_always, measure_agreement

logger = logging.getLogger(__name__)

MAX_SECONDS = 120.0
"""Of a longer video only the beginning is learnt from: more tells nothing new."""


class Predictor(Protocol):
    """What learning needs of ``AudioToMotion``."""

    @property
    def columns(self) -> NDArray[np.int64]: ...
    def hear(self, clip: AudioClip) -> HeardSpeech: ...


def own_motion(
    options: SpeechOptions, source: PreparedSource, speech: AudioClip, general: MotionSequence
) -> tuple[MotionSequence, str]:
    """Motion for a speech in the way the person of ``source`` speaks, where that can be learnt.

    Args:
        options: of the job.
        source: the face that is edited.
        speech: what it is to say.
        general: the motion predicted for anybody.

    Returns:
        The motion, and what was learnt or why nothing was, in one sentence.
    """
    if options.controls.adapt == "off":
        return general, "off: --adapt off"
    if options.a2m_ckpt is not None and is_official_motion(options.a2m_ckpt):
        return general, "off: an official checkpoint of GeneFace++ is used as it is"
    predictor = speech_predictor(options, source.face_model.version)
    found = learn_person(source, predictor, options.controls.adapt)
    if found.person is None:
        level = logging.WARNING if options.controls.adapt == "on" else logging.INFO
        logger.log(level, "face %d speaks as anybody would: %s", source.face, found.reason)
        return general, f"off: {found.reason}"
    logger.info("face %d speaks as it does in the video: %s", source.face, found.reason)
    return spoken(predictor, options, speech, found.person), f"on: {found.reason}"


def learn_person(source: PreparedSource, predictor: Predictor, mode: AdaptMode) -> Adaptation:
    """How the person of a face speaks, by the video's own sound.

    Args:
        source: the face.
        predictor: the general model.
        mode: 'auto' keeps what helps on seconds left out, of a sound that goes with the mouth; 'on' whatever can be
            learnt.
    """
    if not source.info.has_audio:
        return Adaptation(None, "the video has no sound of its own")
    try:
        sound = own_speech(source.video)
    except AudioReadError as error:
        return Adaptation(None, f"the video's own sound cannot be used ({error})")
    length = min(MAX_SECONDS, float(source.times_s[-1]) + 1.0)
    sound = AudioClip(sound.samples[: round(length * sound.sample_rate_hz)], sound.sample_rate_hz)
    heard = predictor.hear(sound)
    if len(source) < 2 or not heard.is_speech.any():
        return Adaptation(None, "there is no speech in the video's own sound")
    sample = person_sample(source, heard)
    speech = SpeechTrack(
        heard.opening, np.zeros(len(sample), np.float32), heard.is_speech, heard.rate_hz, sound
    )  # fmt: skip
    late_s, doubt = measure_agreement(sample, speech, np.random.default_rng(0))
    if doubt and mode == "auto":
        return Adaptation(None, doubt)
    sample = person_sample(source, heard, mouth_late_s=late_s)
    found = (adapt if mode == "auto" else fit_always)(sample, source.face_model, predictor.columns)
    return replace(found, reason=f"{doubt}; {found.reason}") if doubt else found


def person_sample(source: PreparedSource, heard: HeardSpeech, mouth_late_s: float = 0.0) -> PersonSample:
    """Mouth and sound of a clip, row by row of the sound.

    Args:
        source: the face.
        heard: the clip's sound, from its first frame on.
        mouth_late_s: how much later the mouth is than its sound; taken out.
    """
    tracked = source_motion(source, np.arange(len(source)), source.times_s)
    at_s = (np.arange(len(heard.gate), dtype=np.float64) + 0.5) / heard.rate_hz + mouth_late_s
    usable = tracked.usable & np.isfinite(tracked.opening)
    expression, valid = resample_rows(tracked.expression, source.times_s, usable, at_s)
    opening, _ = resample_rows(tracked.opening, source.times_s, usable, at_s)
    return PersonSample(
        general=heard.deviation,
        features=heard.features,
        gate=heard.gate,
        is_speech=heard.is_speech,
        expression=expression,
        opening=opening,
        valid=valid,
        rate_hz=heard.rate_hz,
        extractor=heard.extractor,
        rest=tracked.rest,
    )
