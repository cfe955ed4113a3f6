"""From a prepared face and its video's sound to motion as this person speaks, or the reason why not."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from inference import adapting, driving
from inference.adapting import learn_person, own_motion, person_sample
from inference.audio_to_motion import HeardSpeech
from inference.controls import MotionControls
from inference.driving import MOUTH_ROWS
from modules.commons.errors import AudioReadError
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from modules.video.rgb_video import rgb_video_info
from tests.support.made_up_source import made_up_source

SECONDS = 12
JAW = 24


class Listener:
    """A general model that hears what the mouth of ``source`` does, ``late_s`` before it, twice as wide."""

    columns = MOUTH_ROWS

    def __init__(self, source, *, late_s: float = 0.0, deaf: bool = False) -> None:
        rows = np.arange(SECONDS * 50)
        at_s = (rows + 0.5) / 50 + late_s
        own = source.coeffs.expression - source.coeffs.expression.min(axis=0)
        units = np.stack([np.interp(at_s, source.times_s, column) for column in own.T], axis=1)
        deviation = np.zeros_like(units)
        deviation[:, MOUTH_ROWS] = 2.0 * units[:, MOUTH_ROWS]
        rng = np.random.default_rng(0)
        features = deviation @ rng.standard_normal((deviation.shape[1], 30)) + 0.01 * rng.standard_normal(
            (len(rows), 30)
        )
        if deaf:
            deviation = deviation[rng.permutation(len(rows))]
        effect = np.zeros(deviation.shape[1], np.float32)
        effect[JAW] = 0.3
        gate = np.ones(len(rows), np.float32)
        self._heard = HeardSpeech(
            deviation.astype(np.float32), features.astype(np.float32), gate > 0, gate, 50.0, "e", effect
        )

    def hear(self, clip: AudioClip) -> HeardSpeech:
        return self._heard


@pytest.fixture
def source(tmp_path, monkeypatch):
    info = replace(rgb_video_info(tmp_path / "clip.mp4", 96, 96, Fraction(25)), has_audio=True)
    made = made_up_source(info, SECONDS * 25)
    rng = np.random.default_rng(3)
    drive = np.convolve(rng.standard_normal(len(made) + 4), np.ones(5) / 5**0.5, mode="valid")
    expression = np.zeros_like(made.coeffs.expression)
    expression[:, JAW] = np.clip(0.25 + 0.12 * drive, 0, 1)
    sound = AudioClip(np.zeros(SECONDS * 16_000, np.float32), 16_000)
    monkeypatch.setattr(adapting, "own_speech", lambda video: sound)
    moved = replace(made, coeffs=replace(made.coeffs, expression=expression))
    # what was tracked opens as the jaw does
    monkeypatch.setattr("inference.driving.lip_opening", lambda points: expression[:, JAW])
    return moved


def test_a_person_is_learnt_from_their_own_sound(source):
    found = learn_person(source, Listener(source), "auto")
    assert found.person is not None and found.held_out is not None
    assert found.held_out.adapted < 0.5 * found.held_out.general


def test_a_late_mouth_is_put_right_first(source):
    late = learn_person(source, Listener(source, late_s=0.2), "auto")
    assert late.person is not None and late.held_out is not None
    together = person_sample(source, Listener(source, late_s=0.2).hear(AudioClip(np.zeros(0, np.float32), 16_000)))
    assert len(together) == SECONDS * 50 and together.rest is not None


def test_a_dubbed_video_teaches_nothing_unless_it_must(source):
    found = learn_person(source, Listener(source, deaf=True), "auto")
    assert found.person is None and "does not match its mouth" in found.reason
    forced = learn_person(source, Listener(source, deaf=True), "on")
    assert forced.person is not None and forced.reason.startswith("the clip's own sound does not match")


def test_videos_without_usable_sound_say_so(source, monkeypatch):
    silent = replace(source, info=replace(source.info, has_audio=False))
    assert learn_person(silent, Listener(source), "auto").reason == "the video has no sound of its own"
    quiet = Listener(source)
    quiet._heard = replace(quiet._heard, is_speech=np.zeros(SECONDS * 50, bool))
    assert "no speech" in learn_person(source, quiet, "on").reason

    def broken(video):
        raise AudioReadError("clip.mp4: no sound")

    monkeypatch.setattr(adapting, "own_speech", broken)
    assert "cannot be used (clip.mp4: no sound)" in learn_person(source, Listener(source), "auto").reason


def test_official_checkpoints_are_used_as_they_are(source, monkeypatch):
    general = MotionSequence(np.zeros((3, 52), np.float32), np.ones(3, np.float32), 25.0, "v")
    made = []

    def official(options, checkpoint, speech):
        made.append(checkpoint.name)
        return general

    monkeypatch.setattr(driving, "_official_motion", official)
    job = SimpleNamespace(controls=MotionControls(), a2m_ckpt=Path("model_ckpt_steps_400000.ckpt"))
    speech = AudioClip(np.zeros(960, np.float32), 16_000)
    assert driving.speech_motion(job, speech, "v") is general and made == ["model_ckpt_steps_400000.ckpt"]
    assert own_motion(job, source, speech, general) == (
        general, "off: an official checkpoint of GeneFace++ is used as it is"
    )  # fmt: skip


def test_what_a_job_gets(source, monkeypatch, caplog):
    general = MotionSequence(np.zeros((3, 52), np.float32), np.ones(3, np.float32), 50.0, "v")
    own = replace(general, expression=np.ones((3, 52), np.float32))
    speech = AudioClip(np.zeros(960, np.float32), 16_000)
    asked = []

    def said(predictor, options, clip, person):
        asked.append(person)
        return own

    monkeypatch.setattr(adapting, "spoken", said)
    monkeypatch.setattr(adapting, "speech_predictor", lambda options, version: Listener(source))
    job = SimpleNamespace(controls=MotionControls(adapt="off"), a2m_ckpt=None)
    assert own_motion(job, source, speech, general) == (general, "off: --adapt off") and not asked
    job.controls = MotionControls()
    motion, note = own_motion(job, source, speech, general)
    assert motion is own and note.startswith("on: on seconds left out") and asked[0] is not None
    job.controls = MotionControls(adapt="on")
    with caplog.at_level(logging.WARNING):
        silent = replace(source, info=replace(source.info, has_audio=False))
        assert own_motion(job, silent, speech, general)[0] is general
    assert "no sound of its own" in caplog.text, "what was asked for and cannot be had is warned of"
