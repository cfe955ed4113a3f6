"""Bad input ends with one clear sentence, a non-zero exit, nothing half-written and the inputs untouched."""

import hashlib
import os
import shutil
import wave

import numpy as np
import pytest

from inference.genefacepp_infer_arbitrary import GeneFace2InferArbitrary, main
from inference.jobs import ArbitraryJob
from modules.commons import workspace
from modules.commons.errors import ConfigError, GeneFaceError
from tests.support.synthetic_video import ClipSpec, make_clip


def write_wav(path, seconds=1.0, rate=16000):
    samples = (0.1 * np.sin(np.arange(int(seconds * rate)) * 0.1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


@pytest.fixture
def wav(tmp_path):
    return write_wav(tmp_path / "speech.wav")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fails(caplog, out, *arguments):
    """Run the command; return its one error sentence after checking what every failure owes."""
    before = {p for p in out.parent.iterdir()}
    caplog.clear()
    assert main([str(a) for a in arguments]) != 0
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 1 and "\n" not in errors[0].strip(), errors
    assert {p for p in out.parent.iterdir()} == before, "something half-written stayed"
    return errors[0]


def arguments(video, audio, out, *more):
    return ["--src_video", video, "--drv_aud", audio, "--out_name", out, *more]


def test_missing_files(tmp_path, wav, caplog, demo_dir):
    out = tmp_path / "out.mp4"
    assert "nothing.mp4" in fails(caplog, out, *arguments(tmp_path / "nothing.mp4", wav, out))
    video = demo_dir / "single_face.mp4"
    assert "none.wav" in fails(caplog, out, *arguments(video, tmp_path / "none.wav", out))


def test_not_a_video_and_no_frames(tmp_path, wav, caplog):
    out = tmp_path / "out.mp4"
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    assert "text.mp4" in fails(caplog, out, *arguments(text, wav, out))
    assert "speech.wav" in fails(caplog, out, *arguments(wav, wav, out))
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    assert "empty" in fails(caplog, out, *arguments(empty, wav, out))


def test_truncated_video(tmp_path, wav, caplog, demo_dir):
    cut = tmp_path / "cut.mp4"
    data = (demo_dir / "single_face.mp4").read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    out = tmp_path / "out.mp4"
    assert "cut" in fails(caplog, out, *arguments(cut, wav, out))


@pytest.fixture
def own_data(tmp_path_factory, monkeypatch):
    """Prepared data of these tests goes to a folder of their own."""
    root = tmp_path_factory.mktemp("data")
    defaults = workspace.VideoWorkspace.__init__.__defaults__
    monkeypatch.setattr(workspace.VideoWorkspace.__init__, "__defaults__", (root, 0))
    yield root
    assert defaults


def test_no_face(tmp_path, wav, caplog, demo_dir, own_data):
    out = tmp_path / "out.mp4"
    message = fails(caplog, out, *arguments(demo_dir / "no_face.mp4", wav, out))
    assert "face" in message


def test_hands_are_no_face(tmp_path, wav, caplog, shared_clips, own_data):
    out = tmp_path / "out.mp4"
    message = fails(caplog, out, *arguments(shared_clips / "coffee_no_face_1280x720_30fps.mp4", wav, out))
    assert "face" in message


def test_bad_sound(tmp_path, caplog, demo_dir):
    out = tmp_path / "out.mp4"
    video = demo_dir / "single_face.mp4"
    silent_video = make_clip(tmp_path / "mute.mp4", ClipSpec(tone_hz=None)).path
    assert "mute.mp4" in fails(caplog, out, *arguments(video, silent_video, out))
    short = write_wav(tmp_path / "short.wav", seconds=0.1)
    assert "short.wav" in fails(caplog, out, *arguments(video, short, out))
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    assert "empty" in fails(caplog, out, *arguments(video, empty, out))
    text = tmp_path / "text.wav"
    text.write_text("no sound here")
    assert "text.wav" in fails(caplog, out, *arguments(video, text, out))


def test_output_cannot_be_an_input_or_a_folder(tmp_path, wav, caplog, demo_dir):
    video = tmp_path / "own.mp4"
    shutil.copy(demo_dir / "single_face.mp4", video)
    before = digest(video)
    assert "own.mp4" in fails(caplog, video, *arguments(video, wav, video))
    assert "speech.wav" in fails(caplog, wav, *arguments(video, wav, wav))
    folder = tmp_path / "folder.mp4"
    folder.mkdir()
    assert "folder" in fails(caplog, tmp_path / "x", *arguments(video, wav, folder))
    assert digest(video) == before


def test_unwritable_output(tmp_path, wav, caplog, demo_dir, monkeypatch):
    target = tmp_path / "closed"
    target.mkdir()
    if os.geteuid() == 0:  # root may write anywhere: ask the question instead of making the folder read-only
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    else:
        target.chmod(0o500)
    assert "closed" in fails(caplog, target, *arguments(demo_dir / "single_face.mp4", wav, target / "out.mp4"))


def test_unknown_flag_key_and_config(tmp_path, wav, caplog, demo_dir):
    out = tmp_path / "out.mp4"
    video = demo_dir / "single_face.mp4"
    assert "--wrong" in fails(caplog, out, *arguments(video, wav, out, "--wrong"))
    with pytest.raises(ConfigError, match="wrong"):
        ArbitraryJob.from_mapping({"src_video": video, "audio": wav, "out_name": out, "wrong": 1})
    with pytest.raises(ConfigError, match="drv_aud"):
        GeneFace2InferArbitrary().infer_once_arbitrary({"src_video": video, "out_name": out})
    assert "none.yaml" in fails(caplog, out, *arguments(video, wav, out, "--config", tmp_path / "none.yaml"))
    assert "--lle_percent" in fails(caplog, out, *arguments(video, wav, out, "--lle_percent", "7"))


def test_corrupt_checkpoint(tmp_path, wav, caplog, demo_dir, own_data):
    broken = tmp_path / "person"
    broken.mkdir()
    (broken / "checkpoint.json").write_text("{")
    out = tmp_path / "out.mp4"
    message = fails(caplog, out, *arguments(demo_dir / "single_face.mp4", wav, out, "--head_ckpt", broken))
    assert "person" in message
    missing = fails(caplog, out, *arguments(demo_dir / "single_face.mp4", wav, out, "--head_ckpt", tmp_path / "none"))
    assert "none" in missing


def test_errors_are_project_errors():
    assert issubclass(ConfigError, GeneFaceError)
