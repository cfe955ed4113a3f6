"""The classic command on a person of forty frames: size, rate, length, sound, poses, frames that stay as they are."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.driving import plan_speech, speech_motion
from inference.genefacepp_infer import GeneFace2Infer, PortraitPainter, main, parse_arguments
from inference.jobs import FAST_END_THRESHOLD, ClassicJob
from inference.person_clip import CropStore, open_person_clip, portrait_frame, pose_rows
from modules.commons.errors import GeneFaceError
from modules.commons.progress import silent
from modules.video.reader import VideoReader
from tests.support.synthetic_video import read_audio
from tests.support.tiny_run import all_frames, cut, tiny_run, write_wav

SPEECH_S = 0.5
FRAMES = 13  # 0.5 s at 25 fps, rounded up


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def speech(run, tmp_path_factory):
    return write_wav(tmp_path_factory.mktemp("speech") / "a.wav", cut(load_audio_16k(run.speech), 0.2, 0.2 + SPEECH_S))


@pytest.fixture(scope="module")
def result(run, speech, tmp_path_factory):
    """A finished result: frames 4, 5, 6 and 7 back and forth."""
    out = tmp_path_factory.mktemp("classic") / "new" / "out.mp4"
    job = {"head_ckpt": run.identity, "audio": speech, "out_name": out, "drv_pose": "4-8", "debug": True}
    assert GeneFace2Infer().infer_once(job) == out
    return out


def test_a_square_video_at_25_fps_with_the_speech(result, speech):
    frames = all_frames(result)
    assert [frame.time_s for frame in frames] == [Fraction(i, 25) for i in range(FRAMES)]
    with VideoReader(result) as reader:
        assert (reader.info.width, reader.info.height, reader.info.frame_rate) == (512, 512, 25)
    heard, rate, start_s = read_audio(result)
    spoken = load_audio_16k(speech).samples
    assert rate == 16000 and abs(start_s) < 0.001 and len(heard) >= len(spoken)
    assert np.corrcoef(heard[: len(spoken)], spoken)[0, 1] > 0.98


def test_the_chosen_frames_are_played_back_and_forth(result, run, tmp_path):
    source = open_person_clip(run.identity)
    painter = make_painter(run, source, run.speech, tmp_path)
    store = CropStore.fill(source, painter.crops, np.arange(4, 8), tmp_path, silent)
    crops = {row: portrait_frame(0, store.crop(row)).planes[0].astype(float) for row in range(4, 8)}
    shown = [frame.planes[0].astype(float) for frame in all_frames(result)]
    nearest = [min(crops, key=lambda row: np.abs(crops[row][:150] - luma[:150]).mean()) for luma in shown]
    assert nearest == [4, 5, 6, 7, 6, 5, 4, 5, 6, 7, 6, 5, 4]


def test_debug_strips_and_nothing_half_written(result):
    assert sorted(p.name for p in result.parent.iterdir()) == ["out.mp4", "out_debug"]
    assert [p.name for p in (result.parent / "out_debug").iterdir()] == ["000000.png"]


def make_painter(run, source, speech, tmp_path, change=None, drv_pose="nearest"):
    job = ClassicJob(speech, tmp_path / "o.mp4", run.identity, drv_pose)
    rows = pose_rows(drv_pose, source.times_s, 20)
    motion = speech_motion(job, load_audio_16k(speech), source.face_model.version)
    source = source if change is None else change(source)
    return PortraitPainter(job, source, rows, plan_speech(source, motion, rows, np.arange(20) / 25))


def test_frames_without_a_valid_fit_show_their_crop(run, tmp_path):
    def lose_face(source):
        valid = source.coeffs.valid.copy()
        valid[:3] = False
        return replace(source, coeffs=replace(source.coeffs, valid=valid))

    painter = make_painter(run, open_person_clip(run.identity), run.speech, tmp_path, lose_face)
    blank = np.full((512, 512, 3), 100, np.uint8)
    for index in range(3):
        frame = portrait_frame(index, blank)
        assert painter.paint(frame) == (frame, None, None)
    after, patch, _ = painter.paint(portrait_frame(12, blank))
    assert patch is not None and patch.alpha.max() > 0.9
    assert not np.array_equal(after.planes[0], portrait_frame(12, blank).planes[0])


def test_hands_stay_in_front(run, tmp_path):
    source = open_person_clip(run.identity)
    row = int(source.occlusion.rows[-1])
    visible = replace(source.occlusion, mouth=np.zeros_like(source.occlusion.mouth))
    sure = replace(source, occlusion=visible, unsure=None)  # else such frames pass through
    painter = make_painter(run, sure, run.speech, tmp_path, drv_pose=f"{row}-{row + 1}")
    frame = portrait_frame(0, np.full((512, 512, 3), 100, np.uint8))
    after, patch, occlusion = painter.paint(frame)
    assert occlusion is not None and occlusion.values.shape == (512, 512) and occlusion.values.max() > 0.9
    assert patch is not None
    hand = occlusion.values == 1
    np.testing.assert_array_equal(after.planes[0][hand], frame.planes[0][hand])


def test_edited_pixels_are_the_mouths(result, run):
    """Against a still head: with ``static`` only the lower half changes."""
    still = result.parent.parent / "still.mp4"
    speech = result.parent.parent / "short.wav"
    write_wav(speech, cut(load_audio_16k(run.speech), 0.2, 0.45))
    flags = ["--torso_ckpt", run.identity, "--drv_aud", speech, "--out_name", still, "--drv_pose", "static", "--fast"]
    assert main([str(flag) for flag in flags]) == 0
    luma = np.stack([frame.planes[0] for frame in all_frames(still)]).astype(int)
    moved = np.ptp(luma, axis=0) > 12
    rows = np.flatnonzero(moved.any(axis=1))
    assert len(rows) and rows.min() > 150, "the mouth moves, brows and eyes do not"


def test_flags_become_a_job(run, speech, tmp_path):
    flags = ["--head_ckpt", run.identity, "--drv_aud", speech, "--out_name", tmp_path / "o.mp4"]
    job = parse_arguments([str(f) for f in flags])
    assert job == ClassicJob(speech, tmp_path / "o.mp4", run.identity)
    assert parse_arguments([*map(str, flags), "--fast"]).raymarching_end_threshold == FAST_END_THRESHOLD


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--drv_pose", "9-3"], "--drv_pose '9-3'"),
        (["--drv_pose", "0-999"], "the person's clip has 40 frames"),
        (["--drv_pose", __file__], "only a portrait, which is rendered as a whole, follows another video's head"),
        (["--raymarching_end_threshold", "2"], "--raymarching_end_threshold 2.0"),
        (["--out_name", "o.avi"], "no supported container"),
        (["--head_ckpt", "nobody"], "nobody: there is no such checkpoint"),
        (["--nothing"], "--nothing"),
        (["--blink_mode", "often"], "--blink_mode"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(run, speech, tmp_path, caplog, flags, words):
    given = ["--head_ckpt", run.identity, "--drv_aud", speech, "--out_name", tmp_path / "o.mp4", *flags]
    assert main([str(flag) for flag in given]) == 1
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert words in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_no_person_is_said(speech, tmp_path, caplog):
    assert main(["--drv_aud", str(speech), "--out_name", str(tmp_path / "o.mp4")]) == 1
    assert "--head_ckpt or --torso_ckpt" in caplog.records[-1].getMessage()
    with pytest.raises(GeneFaceError, match="head_ckpt"):
        GeneFace2Infer().infer_once({"drv_aud": speech, "out_name": tmp_path / "o.mp4"})
