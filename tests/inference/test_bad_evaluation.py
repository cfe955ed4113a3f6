"""Evaluating what cannot be evaluated ends with one clear sentence, exit status 1 and nothing half-written."""

import os
from dataclasses import replace

import numpy as np
import pytest

from inference import make_trials
from inference.genefacepp_infer_arbitrary import main as infer
from inference.jobs import EvaluationJob
from modules.commons import workspace
from modules.commons.errors import ConfigError
from modules.structures.audio import AudioClip
from modules.video.alpha import AlphaWriter
from modules.video.reader import VideoReader
from modules.video.writer import EncodeConfig, VideoWriter
from tasks import evaluate
from tests.support.spoken_clip import with_sound
from tests.support.synthetic_video import ClipSpec, make_clip, write_tone
from tests.support.tiny_run import own_folders, remux, scaled, tiny_run, write_wav

SIZE_WH, COUNT = (320, 180), 12
"""Of the clip that is tried with wrong results."""
LOSSLESS = EncodeConfig(lossless=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def small(tmp_path_factory, run):
    """A folder with a clip of ``COUNT`` frames and speech; prepared data go there too."""
    root = tmp_path_factory.mktemp("small")
    scaled(run.clip, root / "clip.mp4", SIZE_WH, COUNT)
    write_tone(root / "speech.wav", 1.0, rate_hz=16000)
    return root


@pytest.fixture
def out(tmp_path):
    return tmp_path / "report"


def sentence(main, caplog, out, *arguments):
    """Run a command that must fail; return what it says after checking what every failure owes."""
    before = {p for p in out.parent.rglob("*")}
    caplog.clear()
    assert main([str(a) for a in arguments]) == 1
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 1 and "\n" not in errors[0].strip() and len(errors[0]) < 500, errors
    assert {p for p in out.parent.rglob("*")} == before, "something half-written stayed"
    return errors[0]


def refused(caplog, out, *arguments):
    return sentence(make_trials.main, caplog, out, "--out", out, *arguments)


# ---- the video and its person ----


def test_no_sound_to_drive_by(run, caplog, out):
    with own_folders(run.root):
        said = refused(caplog, out, "--src_video", run.clip, "--mode", "audio", "--head_ckpt", run.identity)
    assert "clip.mp4 has no sound" in said and "--mode audio" in said


def test_sound_without_speech_cannot_drive(small, caplog, out, tmp_path):
    hush = write_wav(tmp_path / "hush.wav", AudioClip(np.zeros(16000, np.float32), 16000))
    clip = with_sound(small / "clip.mp4", tmp_path / "hush.mp4", hush)
    with own_folders(small):
        said = refused(caplog, out, "--src_video", clip, "--mode", "audio")
    assert "hush.mp4" in said and "no speech" in said


def test_fewer_frames_than_can_be_split(run, caplog, out, tmp_path):
    clip = scaled(run.clip, tmp_path / "ten.mp4", SIZE_WH, 10)
    with own_folders(tmp_path.parent / f"{tmp_path.name}_data"):
        said = refused(caplog, out, "--src_video", clip)
    assert "ten.mp4 has 10 frames" in said and "11" in said


def test_another_persons_checkpoint(run, caplog, out):
    stranger = workspace.IDENTITIES / "demo"
    with own_folders(run.root):
        said = refused(caplog, out, "--src_video", run.clip, "--head_ckpt", stranger)
    assert "another video" in said and "clip.mp4" in said and str(stranger) in said


def test_a_checkpoint_of_no_person(run, caplog, out, tmp_path):
    with own_folders(run.root):
        said = refused(caplog, out, "--src_video", run.clip, "--head_ckpt", workspace.AUDIO2MOTION_DIR)
        assert "audio2motion" in said
        broken = tmp_path / "person"
        broken.mkdir()
        (broken / "checkpoint.json").write_text("{")
        assert "person" in refused(caplog, out, "--src_video", run.clip, "--head_ckpt", broken)


def test_a_video_without_a_face(caplog, out, demo_dir, tmp_path):
    with own_folders(tmp_path.parent / f"{tmp_path.name}_data"):
        assert "no_face.mp4" in refused(caplog, out, "--src_video", demo_dir / "no_face.mp4")


# ---- finished results ----


def test_results_of_another_length(small, caplog, out, tmp_path):
    clip, speech = small / "clip.mp4", small / "speech.wav"
    short = remux(clip, tmp_path / "short.mp4", 0, 3)
    longer = tmp_path / "long.mp4"
    with VideoReader(clip) as reader, VideoWriter(longer, reader.info, quality=LOSSLESS) as writer:
        frames = list(reader.frames())
        step = frames[1].pts - frames[0].pts
        for frame in (*frames, replace(frames[-1], pts=frames[-1].pts + step, index=COUNT)):
            writer.write(frame)
    with own_folders(small):
        for result, ends in ((short, "short.mp4 ends after 3 frames"), (longer, f"clip.mp4 ends after {COUNT} frames")):
            said = refused(caplog, out, "--src_video", clip, "--result", result, "--drv_aud", speech)
            assert "differ in length" in said and ends in said


def test_a_result_of_another_size(small, run, caplog, out, tmp_path):
    other = scaled(run.clip, tmp_path / "other.mp4", (160, 90), COUNT)
    with own_folders(small):
        said = refused(
            caplog, out, "--src_video", small / "clip.mp4", "--result", other, "--drv_aud", small / "speech.wav"
        )
    assert "other.mp4 is 160x90" in said and "320x180" in said


def test_a_result_without_sound_needs_speech_beside_it(small, caplog, out):
    with own_folders(small):
        said = refused(caplog, out, "--src_video", small / "clip.mp4", "--result", small / "clip.mp4")
    assert "clip.mp4" in said and "sound" in said


def test_masks_of_another_result(small, caplog, out, tmp_path):
    clip = small / "clip.mp4"
    with VideoReader(clip) as reader:
        frames, info = list(reader.frames()), reader.info
    for name, count, (width, height) in (("few.mkv", 5, SIZE_WH), ("narrow.mkv", COUNT, (160, 180))):
        with AlphaWriter(tmp_path / name, replace(info, width=width, height=height)) as masks:
            for frame in frames[:count]:
                luma, *chroma = frame.planes
                cut = (luma[:height, :width], *(plane[: height // 2, : width // 2] for plane in chroma))
                masks.write(replace(frame, planes=cut), None, None)
    job = ["--src_video", clip, "--result", clip, "--drv_aud", small / "speech.wav"]
    with own_folders(small):
        assert "few.mkv has 5 frames" in refused(caplog, out, *job, "--masks", tmp_path / "few.mkv")
        assert "narrow.mkv is 160x180" in refused(caplog, out, *job, "--masks", tmp_path / "narrow.mkv")
        assert "speech.wav" in refused(caplog, out, *job, "--masks", small / "speech.wav")


# ---- flags and files, found out before any work ----


def test_masks_alone_mean_nothing(small, caplog, out):
    said = refused(caplog, out, "--src_video", small / "clip.mp4", "--masks", small / "clip.mp4")
    assert "--masks" in said and "--result" in said


@pytest.mark.parametrize(
    "flag", ["--src_video", "--drv_aud", "--result", "--masks", "--config", "--head_ckpt", "--a2m_ckpt"]
)
def test_files_that_are_not_there(small, caplog, out, flag, tmp_path):
    given = {"--src_video": small / "clip.mp4"}
    if flag == "--masks":
        given["--result"] = small / "clip.mp4"
    given[flag] = tmp_path / "nothing.here"
    said = refused(caplog, out, *(word for pair in given.items() for word in pair))
    assert "nothing.here" in said and "there is no such" in said


def test_a_report_needs_a_folder_that_can_be_written(small, run, caplog, tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    clip = small / "clip.mp4"
    said = refused(caplog, taken, "--src_video", clip)
    assert "taken: is a file" in said and taken.read_text() == "mine"
    below = refused(caplog, taken, "--src_video", clip, "--out", taken / "report")
    assert str(taken) in below
    job = ["--src_video", run.clip, "--drv_aud", run.speech, "--out_name", tmp_path / "o.mp4"]
    assert "taken: is a file" in sentence(infer, caplog, taken, *job, "--report", taken)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot write" in refused(caplog, tmp_path / "closed", "--src_video", clip)


def test_flags_that_are_not_understood(small, caplog, out):
    clip = small / "clip.mp4"
    assert "--wrong" in refused(caplog, out, "--src_video", clip, "--wrong")
    assert "--mode" in refused(caplog, out, "--src_video", clip, "--mode", "silent")
    assert "--lle_percent" in refused(caplog, out, "--src_video", clip, "--lle_percent", "7")
    assert "--src_video" in refused(caplog, out)
    with pytest.raises(ConfigError, match="--masks"):
        EvaluationJob(clip, out, masks=clip)


# ---- measuring ----


def test_a_folder_without_trials(caplog, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (empty, tmp_path / "none"):
        said = sentence(evaluate.main, caplog, empty, "--out", folder)
        assert "holds no trial" in said and "scripts/evaluate.sh" in said


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "trial/0"}', '{"schema": "trial/1"}'])
def test_a_trial_that_cannot_be_read(caplog, tmp_path, text):
    trial = tmp_path / "trials" / "last"
    trial.mkdir(parents=True)
    (trial / "trial.json").write_text(text)
    said = sentence(evaluate.main, caplog, tmp_path / "trials", "--out", tmp_path)
    assert str(trial) in said and "make it again" in said


@pytest.mark.parametrize("hparams", ["draws=0", "drawz=3", "draws=many"])
def test_a_configuration_that_makes_no_sense(caplog, tmp_path, hparams):
    said = sentence(evaluate.main, caplog, tmp_path / "x", "--out", tmp_path, "--hparams", hparams)
    assert "draw" in said
    assert "none.yaml" in sentence(
        evaluate.main, caplog, tmp_path / "x", "--out", tmp_path, "--config", tmp_path / "none.yaml"
    )


def test_a_synthetic_clip_is_no_face(caplog, out, tmp_path):
    clip = make_clip(tmp_path / "pattern.mp4", ClipSpec(n_frames=12)).path
    with own_folders(tmp_path.parent / f"{tmp_path.name}_data"):
        assert "pattern.mp4" in refused(caplog, out, "--src_video", clip)
