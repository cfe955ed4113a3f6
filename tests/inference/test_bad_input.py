"""Bad input ends with one clear sentence, a non-zero exit, nothing half-written and the inputs untouched."""

import hashlib
import os
import shutil
import subprocess
import wave

import imageio_ffmpeg
import numpy as np
import pytest

from inference.genefacepp_infer_arbitrary import GeneFace2InferArbitrary, main
from inference.jobs import ArbitraryJob
from modules.commons import workspace
from modules.commons.errors import ConfigError, GeneFaceError
from tests.support.edited_clips import MAN, small_frames, write_frames
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
    """The first two seconds; the whole clip is tracked in ``test_real_footage``."""
    source, clip, out = shared_clips / "coffee_no_face_1280x720_30fps.mp4", tmp_path / "hands.mp4", tmp_path / "out.mp4"
    beginning = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", source, "-t", "2", "-c", "copy", clip]
    subprocess.run([str(part) for part in beginning], check=True)
    message = fails(caplog, out, *arguments(clip, wav, out))
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


NEW_FLAGS = [
    (["--face", "nobody"], "--face nobody: use largest, left"),
    (["--face", "-1"], "--face"),
    (["--face", "0", "--face_at", "1,2"], "--face 0 and --face_at 1,2 both choose a face"),
    (["--face_at", "a,b"], "--face_at a,b: use X,Y or X,Y,T"),
    (["--face_at", "1"], "--face_at 1: use X,Y or X,Y,T"),
    (["--face_at", "1,2,-3"], "--face_at 1,2,-3: use X,Y or X,Y,T"),
    (["--start", "-1"], "--start -1: seconds count from the video's first frame"),
    (["--start", "5", "--end", "3"], "--end 3 must lie after --start 5"),
    (["--end", "0"], "--end 0 must lie after --start 0"),
    (["--start", "nan"], "--start nan: give a number of seconds"),
    (["--start", "soon"], "--start"),
    (["--audio_offset", "inf"], "--audio_offset inf: give a number of seconds"),
    (["--length", "pingpong", "--end", "1"], "--length pingpong changes the end of the video, but --end 1"),
    (["--length", "trim", "--end", "1"], "--length trim changes the end of the video"),
    (["--length", "twice"], "--length"),
    (["--fade_s", "-1"], "--fade_s -1.0: must lie between 0.0 and 10.0"),
    (["--fade_s", "nan"], "--fade_s nan"),
    (["--keep_audio", "yes"], "yes"),
    (["--report", "report", "--start", "1"], "--report needs speech that begins with the video"),
    (["--report", "report", "--length", "hold"], "--report compares frame by frame; leave out --length hold"),
]


@pytest.mark.parametrize(("flags", "words"), NEW_FLAGS, ids=lambda v: "_".join(v) if isinstance(v, list) else "")
def test_flags_that_make_no_sense_are_refused_before_any_work(tmp_path, wav, caplog, demo_dir, flags, words):
    flags = [tmp_path / "report" if flag == "report" else flag for flag in flags]
    message = fails(
        caplog, tmp_path / "o.mp4", *arguments(demo_dir / "single_face.mp4", wav, tmp_path / "o.mp4", *flags)
    )
    assert words in message


def test_speech_of_faces_that_does_not_go_together(tmp_path, wav, caplog, demo_dir):
    out, other = tmp_path / "out.mp4", write_wav(tmp_path / "other.wav")
    given = ["--src_video", demo_dir / "single_face.mp4", "--out_name", out]

    def refused(*sounds):
        return fails(caplog, out, *given, *(word for sound in sounds for word in ("--drv_aud", sound)))

    assert "--drv_aud gives face 0 two sounds" in refused(f"0={wav}", f"0={other}")
    assert "say which face gets which" in refused(wav, other)
    assert "is for all faces and" in refused(wav, f"1={other}")
    assert "a file is missing after '='" in refused("0=")
    assert "none.wav: there is no such sound file; check --drv_aud of face 1" in refused(f"1={tmp_path / 'none.wav'}")
    assert "the job lacks 'drv_aud'" in refused()


def test_a_face_or_a_time_that_the_video_does_not_have(tmp_path, wav, caplog, demo_dir, own_data):
    """Found out once the video has been looked at, before anybody is trained."""
    out, video = tmp_path / "out.mp4", write_frames(tmp_path / "man.mp4", *small_frames(MAN, 0, 12))
    for flags, words in (
        (["--face", "7"], "--face 7: the video has 1 face, its number is 0; look with --list_faces"),
        (["--face_at", "1,1"], "no face is within a face's size of that point (face 0 is at"),
        (["--audio_offset", "50"], "--audio_offset 50: the speech would begin at 50.00 s"),
        (["--start", "50"], "--start 50 lies beyond the video, which lasts 0.40 s"),
        (["--end", "50"], "--end 50 lies beyond the video"),
    ):
        assert words in fails(caplog, out, *arguments(video, wav, out, *flags))
    assert words.startswith("--end") and not list((own_data / "binary").rglob("trainval_dataset.npz"))
    assert "--drv_aud 3=" in fails(caplog, out, "--src_video", video, "--drv_aud", f"3={wav}", "--out_name", out)


def test_lists_of_faces_that_cannot_be_drawn(tmp_path, caplog, demo_dir, own_data):
    video, out = demo_dir / "no_face.mp4", tmp_path / "faces.png"
    folder = tmp_path / "folder"
    folder.mkdir()
    message = fails(caplog, out, "--src_video", video, "--list_faces", folder)
    assert f"{folder}: the output is a folder; name a file such as {folder / 'faces.png'}" in message
    assert "no face" in fails(caplog, out, "--src_video", video, "--list_faces", out)
    assert "none.mp4" in fails(caplog, out, "--src_video", tmp_path / "none.mp4", "--list_faces", out)
    assert "--face nobody" in fails(caplog, out, "--src_video", video, "--list_faces", out, "--face", "nobody")


def test_a_transparent_video(tmp_path, wav, caplog, own_data):
    """FFmpeg writes a clip whose left half can be seen through."""
    clip, out = tmp_path / "clear.mov", tmp_path / "out.mp4"
    drawing = "color=red:size=64x48:rate=25:duration=0.4,format=rgba,geq=r='X*4':g='Y*4':b=128:a='if(lt(X,32),80,255)'"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-loglevel",
        "error",
        "-f",
        "lavfi",
        "-i",
        drawing,
        "-c:v",
        "qtrle",
        clip,
    ]
    subprocess.run([str(part) for part in command], check=True)
    message = fails(caplog, out, *arguments(clip, wav, out))
    assert "clear.mov" in message and ("alpha" in message or "transparent" in message)


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
