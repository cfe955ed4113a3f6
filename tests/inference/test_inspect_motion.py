"""The default face beside the waveform: what is drawn, how long it is, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference import inspect_motion as command
from inference.inspect_motion import InspectMotionJob, inspect_motion, main, parse_arguments, spoken_clip
from inference.motion_picture import FACE_PX, LANES_PX, MotionPictures, SpokenClip
from modules.commons.progress import silent
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from modules.video.reader import VideoReader
from tests.support.tiny_run import write_wav

JAW = 24


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


def made_up_motion(seconds: float = 2.0) -> MotionSequence:
    """Shut in the first half, open in the second, speech there only."""
    rows = round(50 * seconds)
    is_open = (np.arange(rows) >= rows // 2).astype(np.float32)
    expression = np.zeros((rows, 52), np.float32)
    expression[:, JAW] = 0.6 * is_open
    return MotionSequence(expression, is_open, 50.0, "v", opening=0.15 * is_open)


@pytest.fixture
def speech(tmp_path):
    samples = 0.5 * np.sin(np.arange(32_000) / 20) * (np.arange(32_000) > 16_000)
    return write_wav(tmp_path / "a.wav", AudioClip(samples.astype(np.float32), 16_000))


def test_the_mouth_opens_and_the_lanes_show_sound_speech_and_opening(face_model, speech):
    motion = made_up_motion()
    times_s = np.array([0.25, 1.75])
    clip = SpokenClip(load_audio_16k(speech), motion, motion.expression[[10, 90]], times_s)
    pictures = MotionPictures(clip, face_model)
    shut, wide = pictures.picture(0), pictures.picture(1)
    assert shut.shape == (FACE_PX, FACE_PX + LANES_PX, 3) == (*pictures.size_wh[::-1], 3)
    change = np.abs(shut[:, :FACE_PX].astype(int) - wide[:, :FACE_PX]).sum(axis=2)
    assert change[FACE_PX * 5 // 8 :].sum() > 10 * change[: FACE_PX // 2].sum(), "the mouth moves"
    lanes = wide[:, FACE_PX:]
    wave, lips = lanes[40:130].astype(int), lanes[180:275].astype(int)
    blue = (wave[..., 2] > 200).sum(axis=0)
    now = LANES_PX // 2
    assert blue[now - 100 : now].mean() > 20 and blue[: now - 160].max() <= 3, "loud about now, silent before 1 s"
    orange = (lips[..., 0] > 200) & (lips[..., 2] < 150)
    heights = np.array([np.flatnonzero(column).min() if column.any() else 99 for column in orange.T])
    assert heights[now - 80] < 40 < heights[now - 200], "the curve is high where the lips are open"


def test_motion_without_an_opening_is_refused(face_model):
    motion = replace(made_up_motion(), opening=None)
    clip = SpokenClip(AudioClip(np.zeros(10, np.float32), 16_000), motion, motion.expression, np.zeros(1))
    with pytest.raises(ValueError, match="lip opening"):
        MotionPictures(clip, face_model)


@pytest.fixture
def predicting(monkeypatch):
    monkeypatch.setattr(command, "speech_motion", lambda job, clip, version: made_up_motion())


def test_a_video_with_its_sound(predicting, speech, tmp_path):
    out = tmp_path / "new" / "m.mp4"
    assert main([str(speech), "--out", str(out), "--fps", "5"]) == 0
    with VideoReader(out) as reader:
        frames = list(reader.frames())
        assert (reader.info.width, reader.info.height) == (FACE_PX + LANES_PX, FACE_PX) and reader.info.has_audio
    assert len(frames) == 10 and [path.name for path in out.parent.iterdir()] == ["m.mp4"]
    assert load_audio_16k(out).duration_s == pytest.approx(2.0, abs=0.15)


def test_a_part_is_shown_at_its_own_times(predicting, speech, tmp_path, face_model):
    job = InspectMotionJob(speech, tmp_path / "m.mp4", fps=10.0, start_s=0.5, end_s=1.5)
    clip = spoken_clip(job, load_audio_16k(speech), face_model)
    np.testing.assert_allclose(clip.times_s, 0.5 + np.arange(10) / 10)
    assert clip.expression[0, JAW] == 0 and clip.expression[-1, JAW] > 0.5
    assert inspect_motion(replace(job, end_s=0.7), silent) == 2
    with VideoReader(job.out) as reader:
        assert not reader.info.has_audio, "sound that begins elsewhere would be out of time"


def test_flags(speech):
    job = parse_arguments([str(speech)])
    assert job.out.as_posix() == "out/inspect_motion/a.mp4" and job.controls.blink_mode == "period"
    job = parse_arguments(
        [str(speech), "--silence", "keep", "--blink_mode", "none", "--mouth_amp", "0.5", "--seed", "3"]
    )
    assert (job.controls.silence, job.controls.blink_mode, job.mouth_amp, job.seed) == ("keep", "none", 0.5, 3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["none.wav"], "none.wav: there is no such sound file"),
        (["SPEECH", "--fps", "0"], "--fps 0"),
        (["SPEECH", "--start", "-1"], "--start -1"),
        (["SPEECH", "--start", "2", "--end", "1"], "--end 1 must lie after"),
        (["SPEECH", "--start", "9"], "lasts 2.00 s"),
        (["SPEECH", "--out", "m.avi"], "no supported container"),
        (["SPEECH", "--out", "SPEECH"], "also an input"),
        (["SPEECH", "--mouth_amp", "9"], "--mouth_amp 9.0"),
        (["SPEECH", "--a2m_ckpt", "nowhere"], "nowhere: there is no such checkpoint"),
        (["SPEECH", "--blink_mode", "source"], "--blink_mode"),
    ],
)
def test_bad_input_is_one_sentence(predicting, speech, tmp_path, monkeypatch, caplog, flags, words):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(speech) if flag == "SPEECH" else flag for flag in flags]) == 1
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert words in message and "\n" not in message and sorted(tmp_path.rglob("*")) == before
