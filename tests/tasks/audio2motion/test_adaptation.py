"""Learning a person: what is there is found, what helps is kept, and a sound that is not theirs is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modules.audio2motion.motion_space import columns_of
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.audio import AudioClip
from modules.structures.evaluation import SpeechTrack
from modules.structures.speech_motion import SpeechMotionClip
from tasks.audio2motion.adaptation import (
    AdaptationConfig,
    PersonFitter,
    PersonSample,
    adapt,
    fit_always,
    measure_agreement,
    measure_held_out,
)
from tasks.audio2motion.adaptation_scores import score_halves

UNITS = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthPucker", "mouthFunnel")
WIDTH = 24
RATE_HZ = 50.0


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


@pytest.fixture(scope="module")
def columns(face_model):
    return columns_of(face_model.expression_names, UNITS)


def smooth(rng: np.random.Generator, rows: int, count: int) -> np.ndarray:
    steps = rng.standard_normal((rows + 10, count))
    return np.stack([np.convolve(column, np.ones(11) / 11**0.5, mode="valid") for column in steps.T], axis=1)[:rows]


def spoken(
    face_model, columns, *, seconds: float = 12.0, scale=None, habit: float = 0.0, seed: int = 0
) -> PersonSample:
    """A general model that is right but for each unit's size, a constant, and a habit that features tell."""
    rng = np.random.default_rng(seed)
    rows = round(seconds * RATE_HZ)
    drive, hidden, noise = smooth(rng, rows, len(UNITS)), smooth(rng, rows, 1), smooth(rng, rows, len(UNITS))
    general = np.zeros((rows, face_model.n_expression), np.float32)
    general[:, columns] = 0.1 * drive
    scale = np.ones(len(UNITS)) if scale is None else np.asarray(scale)
    expression = np.full((rows, face_model.n_expression), 0.2, np.float32)
    expression[:, columns] += 0.1 * drive * scale + habit * 0.1 * hidden + 0.02 * noise
    mixing = np.random.default_rng(99).standard_normal((len(UNITS) + 1, WIDTH))
    opening = expression[:, columns[0]] - 0.3 * expression[:, columns[3]]
    return PersonSample(
        general=general,
        features=(np.concatenate([drive, hidden], axis=1) @ mixing).astype(np.float32),
        gate=np.ones(rows, np.float32),
        is_speech=np.ones(rows, bool),
        expression=expression,
        opening=opening.astype(np.float32),
        valid=np.ones(rows, bool),
        rate_hz=RATE_HZ,
        extractor="e",
    )


def test_sizes_and_asymmetry_are_found(face_model, columns):
    config = AdaptationConfig(penalty=1e6, scale_prior=0.1)  # no filter: the sizes must do it
    sample = spoken(face_model, columns, scale=[0.5, 0.3, 0.9, 0.5, 0.5])
    person, rest = PersonFitter(face_model, columns, config).fit(sample, np.ones(len(sample), bool))
    np.testing.assert_allclose(person.scale[1:3], [0.3, 0.9], atol=0.2)
    assert person.scale[2] - person.scale[1] > 0.3
    own = person(sample.general, person.reducer(sample.features))[:, columns]
    truth = (sample.expression - rest)[:, columns]
    assert np.abs(own - truth).mean() < 0.4 * np.abs(sample.general[:, columns] - truth).mean()
    spread = (own @ person.opening_effect).std() / (truth @ person.opening_effect).std()
    assert spread == pytest.approx(0.95, abs=0.06)


def test_what_helps_is_kept_and_measured_on_rows_left_out(face_model, columns):
    found = adapt(spoken(face_model, columns, scale=np.full(5, 0.5), habit=0.5), face_model, columns)
    assert found.person is not None and found.held_out is not None
    assert found.held_out.adapted < 0.5 * min(found.held_out.general, found.held_out.mean_lips)
    assert "left out" in found.reason and found.person.face_model_version == face_model.version


def test_habits_come_from_the_features(face_model, columns):
    sample = spoken(face_model, columns, habit=1.0)
    with_filter = measure_held_out(PersonFitter(face_model, columns), sample)
    without = measure_held_out(PersonFitter(face_model, columns, AdaptationConfig(penalty=1e6)), sample)
    assert with_filter.adapted < 0.7 * without.adapted


def test_what_does_not_help_enough_is_left_out(face_model, columns):
    strict = AdaptationConfig(least_gain=5.0)
    found = adapt(spoken(face_model, columns), face_model, columns, strict)
    assert found.person is None and found.held_out is not None
    assert found.reason.startswith("adapting does not help: on seconds left out")
    forced = fit_always(spoken(face_model, columns), face_model, columns, strict)
    assert forced.person is not None


def test_too_little_speech_is_said(face_model, columns):
    sample = spoken(face_model, columns, seconds=4.0)
    brief = replace(sample, is_speech=np.arange(len(sample)) < 60)
    found = adapt(brief, face_model, columns)
    assert found.person is None and "only 1.2 s of speech" in found.reason
    silent = replace(sample, is_speech=np.zeros(len(sample), bool))
    assert fit_always(silent, face_model, columns).person is None
    with pytest.raises(ValueError, match="speech and a face"):
        PersonFitter(face_model, columns).fit(silent, np.ones(len(sample), bool))


def test_rows_without_a_face_teach_nothing(face_model, columns):
    sample = spoken(face_model, columns, scale=np.full(5, 0.5))
    hidden = np.arange(len(sample)) % 100 < 20
    broken = replace(sample, valid=~hidden, expression=np.where(hidden[:, None], np.float32(np.nan), sample.expression))
    person, rest = PersonFitter(face_model, columns).fit(broken, np.ones(len(sample), bool))
    assert np.isfinite(rest).all() and np.isfinite(person.taps).all()
    assert person.scale.mean() == pytest.approx(0.5, abs=0.1)


def track(sample: PersonSample, opening: np.ndarray) -> SpeechTrack:
    nothing = AudioClip(np.zeros(320 * len(sample), np.float32), 16_000)
    level = np.zeros(len(sample), np.float32)
    return SpeechTrack(opening.astype(np.float32), level, sample.is_speech, RATE_HZ, nothing)


def test_the_lag_of_a_late_mouth_is_found(face_model, columns):
    sample = spoken(face_model, columns)
    late = replace(sample, opening=np.roll(sample.opening, 6))
    late_s, doubt = measure_agreement(late, track(sample, sample.opening), np.random.default_rng(0))
    assert doubt == "" and late_s == pytest.approx(0.12, abs=0.03)


def test_another_sound_is_not_that_of_the_mouth(face_model, columns):
    sample, other = spoken(face_model, columns), spoken(face_model, columns, seed=5)
    late_s, doubt = measure_agreement(sample, track(sample, other.opening), np.random.default_rng(0))
    assert late_s == 0.0 and doubt.startswith(
        "the clip's own sound does not match its mouth: at best they agree at r 0"
    )
    blind = replace(sample, valid=np.zeros(len(sample), bool))
    assert "cannot be compared" in measure_agreement(blind, track(sample, other.opening), np.random.default_rng(0))[1]


def test_halves_of_a_corpus_clip(face_model, columns):
    sample = spoken(face_model, columns, seconds=16.0, scale=np.full(5, 0.5), habit=0.5)
    clip = SpeechMotionClip(
        name="clip", speaker="s", features=sample.features[None].astype(np.float16), expression=sample.expression,
        identity=np.zeros(face_model.n_identity, np.float32), opening=sample.opening, width=sample.opening,
        valid=sample.valid, is_speech=sample.is_speech, rate_hz=RATE_HZ, extractor="e",
        face_model_version=face_model.version,
    )  # fmt: skip
    scores = score_halves(clip, sample.general, face_model, columns)
    assert scores.used and scores.auto_lmd == scores.adapted_lmd < scores.general_lmd - 3
    assert scores.adapted_spread == pytest.approx(1.0, abs=0.2) and scores.adapted_r > 0.8
    deaf = score_halves(clip, np.roll(sample.general, 200, axis=0), face_model, columns)
    assert not deaf.used and deaf.auto_lmd == deaf.general_lmd


def test_rows_that_disagree_are_refused(face_model, columns):
    sample = spoken(face_model, columns, seconds=2.0)
    with pytest.raises(ValueError, match="disagree"):
        replace(sample, gate=sample.gate[:-1])
