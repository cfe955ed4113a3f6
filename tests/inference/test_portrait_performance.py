"""What a portrait does: a speech's mouth on its clip's face, poses of the clip or of another head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference import portrait_performance
from inference.driving import MOUTH_ROWS
from inference.jobs import ClassicJob
from inference.portrait_performance import POSE_MARGIN, Performance, clip_motion, followed, perform
from modules.commons.progress import silent
from modules.commons.workspace import VideoWorkspace
from modules.face_model.model import ARKIT_NAMES
from modules.radnerfs.portrait_motion import HeadPoses
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from tests.support.portrait_clips import write_own_clip

JAW = ARKIT_NAMES.index("jawOpen")
BLINKS = [ARKIT_NAMES.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
SPACE = VideoWorkspace("Ann", Path("nowhere"))
SPEECH = AudioClip(np.zeros(16_000, np.float32), 16_000)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_own_clip(tmp_path_factory.mktemp("ann"), 11, 16)


@pytest.fixture
def job(tmp_path, monkeypatch, clip):
    """A job whose speech opens the jaw by 0.4 all along."""
    for name in ("a.wav", "drive.mp4"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "portrait").mkdir()
    spoken = np.zeros((50, clip.expression.shape[1]), np.float32)
    spoken[:, JAW] = 0.4
    motion = MotionSequence(
        expression=spoken, is_speech=np.ones(50, np.float32), rate_hz=50, face_model_version=clip.face_model_version,
        opening=np.full(50, 0.1, np.float32),
    )  # fmt: skip
    monkeypatch.setattr(portrait_performance, "speech_motion", lambda *_: motion)

    def make(**keys) -> ClassicJob:
        given = {"drv_aud": tmp_path / "a.wav", "out_name": tmp_path / "o.mp4", "head_ckpt": tmp_path / "portrait"}
        return ClassicJob.from_mapping({**given, **keys})

    return make


def test_the_mouth_is_the_speechs_and_the_rest_the_clips(job, clip):
    done = perform(job(), clip, SPACE, SPEECH, silent)
    there_and_back = [*range(11), *range(9, -1, -1), *range(1, 5)]
    assert done.rows.tolist() == there_and_back and done.poses is None and len(done) == 25
    rest = clip_motion(clip, done.rows).rest
    np.testing.assert_allclose(done.expression[:, JAW], rest[JAW] + 0.4, atol=1e-6)
    others = np.setdiff1d(np.arange(clip.expression.shape[1]), MOUTH_ROWS)
    np.testing.assert_array_equal(done.expression[:, others], clip.expression[done.rows][:, others])


def test_the_persons_own_way_of_speaking(job, clip, monkeypatch, caplog):
    assert perform(job(adapt="on"), clip, SPACE, SPEECH, silent).expression[0, JAW] > 0.3
    assert "Ann speaks as anybody would: its prepared tables are not there" in caplog.text
    louder = []

    def own(options, source, speech, general):
        louder.append((source, options.controls.adapt))
        return replace(general, expression=2 * general.expression), "on: it helps"

    monkeypatch.setattr(portrait_performance, "prepared_clip", lambda space: space.video_id)
    monkeypatch.setattr(portrait_performance, "own_motion", own)
    shown = perform(job(), clip, SPACE, SPEECH, silent)
    assert shown.expression[0, JAW] > perform(job(adapt="off"), clip, SPACE, SPEECH, silent).expression[0, JAW]
    assert louder == [("Ann", "auto")]


def test_eyes_by_the_clock(job, clip):
    held = perform(job(blink_mode="none"), clip, SPACE, SPEECH, silent)
    assert np.ptp(held.expression[:, BLINKS], axis=0).max() == 0
    assert perform(job(drv_pose="3-5"), clip, SPACE, SPEECH, silent).rows.tolist()[:4] == [3, 4, 3, 4]


def test_another_videos_head_is_followed(job, clip, monkeypatch, tmp_path):
    class Seen:
        times_s = np.arange(30) / 25

        class coeffs:
            euler = np.zeros((30, 3), np.float32)
            translation = np.tile(np.array([[3.0, 2.0, -5.0]], np.float32), (30, 1))

    Seen.coeffs.euler[10, 1] = 0.03
    asked = []
    monkeypatch.setattr(portrait_performance, "open_source", lambda path, progress: asked.append(path) or Seen)
    done = perform(job(drv_pose=str(tmp_path / "drive.mp4")), clip, SPACE, SPEECH, silent)
    assert asked == [tmp_path / "drive.mp4"] and done.poses is not None
    usual = np.median(clip.euler, axis=0)
    np.testing.assert_allclose(done.poses.euler[0], usual, atol=1e-6)
    np.testing.assert_allclose(done.poses.euler[10], usual + np.array([0, 0.03, 0]), atol=1e-6)
    np.testing.assert_allclose(done.poses.translation, np.tile(np.median(clip.translation, axis=0), (25, 1)), atol=1e-5)


def test_heads_do_not_turn_far_beyond_the_clip():
    rng = np.random.default_rng(0)
    own = HeadPoses(*(rng.normal(0, 0.1, (40, 3)).astype(np.float32) for _ in range(2)))
    wild = HeadPoses(*(rng.normal(5, 2.0, (60, 3)).astype(np.float32) for _ in range(2)))
    tame = followed(wild, own)
    for kept, mine in ((tame.euler, own.euler), (tame.translation, own.translation)):
        assert (kept <= mine.max(axis=0) + POSE_MARGIN + 1e-6).all() and (kept >= mine.min(axis=0) - POSE_MARGIN).all()
    same = followed(own, own)
    np.testing.assert_allclose(same.euler, own.euler, atol=1e-6)
    shifted = followed(HeadPoses(own.euler + 0.3, own.translation - 2), own)
    np.testing.assert_allclose(shifted.translation, own.translation, atol=1e-5)


def test_a_performance_has_one_length():
    with pytest.raises(ValueError, match=r"a performance of \[2, 3\] frames"):
        Performance(np.zeros((2, 4), np.float32), np.zeros(3, np.int64))
