"""Exported facial motion: the files, what is in them from a video, a speech or a result, and what is refused."""

from __future__ import annotations

import csv
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference import motion_export
from inference.blinks import EYE_ROWS
from inference.driving import MOUTH_ROWS
from inference.face_choice import FaceChoice
from inference.genefacepp_infer_arbitrary import GeneFace2InferArbitrary, main, parse_arguments
from inference.jobs import ArbitraryJob
from inference.motion_export import (
    MotionJob,
    check_one_face,
    face_of_motion,
    live_link_lines,
    source_face_motion,
    spoken_motion,
    write_motion,
)
from inference.prepared import open_source, open_video
from modules.commons.errors import ConfigError, OutputError
from modules.commons.progress import silent
from modules.face_model.model import ARKIT_NAMES
from modules.structures.arkit import LIVE_LINK_HEADER, head_angles
from modules.structures.face_motion import FaceMotion
from modules.structures.motion import MotionSequence
from tests.support.edited_clips import WOMAN, people_beside, small_frames, write_frames
from tests.support.tiny_run import FRAMES, cut, own_folders, tiny_run, write_wav

COUNT = 14
BLACK = (6, 7)
JAW = ARKIT_NAMES.index("jawOpen")


def blackened(frame):
    planes = [np.full_like(plane, value) for plane, value in zip(frame.planes, (16, 128, 128), strict=True)]
    return replace(frame, planes=tuple(planes))


def mirrored(frame):
    return replace(frame, planes=tuple(np.ascontiguousarray(plane[:, ::-1]) for plane in frame.planes))


def rows_of(path):
    """The CSV through a reader of its own: (time codes, counts, ``{column: values}``)."""
    with path.open(newline="", encoding="ascii") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(LIVE_LINK_HEADER) and {len(row) for row in rows} == {63}
    values = np.array([[float(text) for text in row[2:]] for row in rows[1:]])
    return [row[0] for row in rows[1:]], [row[1] for row in rows[1:]], dict(zip(rows[0][2:], values.T, strict=True))


def seconds_of(text, rate):
    hours, minutes, seconds, frames = text.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + float(frames) / float(rate)


@pytest.fixture(scope="module")
def here(tmp_path_factory, demo_dir):
    root = tmp_path_factory.mktemp("motion")
    info, frames = small_frames(WOMAN, 10, 10 + COUNT)
    shown = [blackened(frame) if number in BLACK else frame for number, frame in enumerate(frames)]
    write_frames(root / "clip.mp4", info, shown)
    write_frames(root / "mirrored.mp4", info, map(mirrored, shown))
    write_wav(root / "a.wav", cut(load_audio_16k(demo_dir / "obama_speech.wav"), 0.9, 2.2))
    with own_folders(root):
        yield root


@pytest.fixture(scope="module")
def exported(here):
    """Both files of the clip, made by the command."""
    paths = here / "new" / "own.csv", here / "new" / "own.npz"
    flags = ["--src_video", here / "clip.mp4", "--export_arkit", paths[0], "--export_npz", paths[1]]
    assert main([str(flag) for flag in flags]) == 0
    assert {path.name for path in paths[0].parent.iterdir()} == {"own.csv", "own.npz"}
    return paths


def test_a_video_gives_a_row_per_frame(exported, here):
    codes, counts, columns = rows_of(exported[0])
    motion = FaceMotion.load(exported[1])
    source = open_source(here / "clip.mp4", silent)
    assert len(codes) == len(motion) == len(source) == COUNT and set(counts) == {"61"}
    assert motion.times_s == pytest.approx(source.times_s) and motion.rate == source.info.frame_rate
    assert [seconds_of(code, motion.rate) for code in codes] == pytest.approx(source.times_s, abs=1e-4)
    assert np.array_equal(motion.valid, source.coeffs.valid)
    seen = motion.valid
    assert motion.expression[seen] == pytest.approx(np.clip(source.coeffs.expression[seen], 0, 1))
    assert motion.euler[seen] == pytest.approx(source.coeffs.euler[seen])
    assert (motion.camera, motion.face_model_version) == (source.coeffs.camera, source.face_model.version)
    assert columns["JawOpen"] == pytest.approx(motion.expression[:, JAW], abs=1e-9)
    head = np.stack([columns[f"Head{name}"] for name in ("Yaw", "Pitch", "Roll")], axis=1)
    assert head == pytest.approx(head_angles(motion.euler), abs=1e-9)


def test_frames_without_a_face_hold_the_last_one(exported):
    motion = FaceMotion.load(exported[1])
    assert np.flatnonzero(~motion.valid).tolist() == list(BLACK)
    for row in BLACK:
        for name in ("expression", "euler", "translation"):
            assert np.array_equal(getattr(motion, name)[row], getattr(motion, name)[BLACK[0] - 1]), name
    assert not np.array_equal(motion.expression[BLACK[0] - 1], motion.expression[BLACK[1] + 1])


@pytest.mark.slow
def test_a_mirrored_video_gives_mirrored_motion(here, exported):
    """Left and right are the subject's: a mirror swaps them and turns yaw and roll round."""
    own = source_face_motion(open_source(here / "clip.mp4", silent))
    other = source_face_motion(open_source(here / "mirrored.mp4", silent))
    yaw, pitch, roll = (head_angles(own.euler) - head_angles(other.euler) * [-1, 1, -1]).T
    assert max(np.abs(yaw).mean(), np.abs(pitch).mean(), np.abs(roll).mean()) < np.radians(2)
    assert np.abs(head_angles(own.euler)[:, 0]).mean() > np.radians(4), "her head is turned, so signs show"
    swapped = [ARKIT_NAMES.index(_other_side(name)) for name in ARKIT_NAMES]
    same = np.abs(own.expression - other.expression).mean()
    assert np.abs(own.expression - other.expression[:, swapped]).mean() < same


def _other_side(name):
    for one, two in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(one):
            return name.removesuffix(one) + two
    return name


@pytest.fixture(scope="module")
def two(here):
    """Both demo people in one picture."""
    return people_beside(here / "two.mp4", 12)


def test_several_faces_are_refused(here, two, caplog):
    clip, out = two, here / "two.csv"
    arguments = ["--src_video", str(clip), "--export_arkit", str(out), "--face", "all"]
    assert main(arguments) == 1 and not out.exists()
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["error: exported motion is that of one face, but 2 are meant (0, 1); choose one with --face"]
    with pytest.raises(ConfigError, match="none is meant"):
        check_one_face(())


def test_who_speaks_is_one_face(two, monkeypatch):
    """Of the faces that are looked among, only those count that speak at all."""
    video = open_video(two, silent)
    choice = FaceChoice("speaking")
    for turns, number in (([0] * 12, 0), ([-1, 1] * 6, 1), ([0, 1] * 6, None)):
        monkeypatch.setattr(motion_export, "speaking_in", lambda *_, turns=turns: SimpleNamespace(face=np.array(turns)))
        if number is not None:
            assert face_of_motion(choice, video) == number
            continue
        with pytest.raises(ConfigError, match=r"2 are meant \(0, 1\)"):
            face_of_motion(choice, video)
    assert face_of_motion(None, video) == 0 and face_of_motion(FaceChoice("number", number=1), video) == 1


@pytest.fixture(scope="module")
def spoken(here):
    """Speech alone, by the real encoder."""
    paths = here / "spoken.csv", here / "spoken.npz"
    flags = ["--drv_aud", here / "a.wav", "--export_arkit", paths[0], "--export_npz", paths[1]]
    assert main([str(flag) for flag in flags]) == 0
    return paths


def test_speech_alone_moves_the_mouth_only(spoken):
    codes, _, columns = rows_of(spoken[0])
    motion = FaceMotion.load(spoken[1])
    assert len(motion) == 78 and motion.rate == 60 and motion.valid.all() and motion.camera is None
    assert motion.times_s == pytest.approx(np.arange(78) / 60) and codes[61] == "00:00:01:01.000"
    others = np.setdiff1d(np.arange(52), MOUTH_ROWS)
    assert not motion.expression[:, others].any() and not motion.euler.any() and not motion.translation.any()
    assert not any(values.any() for name, values in columns.items() if name.startswith(("Head", "LeftEye", "Brow")))
    assert columns["JawOpen"].max() > 0.1 and columns["JawOpen"].min() < 0.05


@pytest.fixture
def predicting(monkeypatch):
    """Motion made up in place of the network's; gives the jobs it was made for."""
    asked = []

    def use(opening):
        expression = np.zeros((len(opening), 52), np.float32)
        expression[:, JAW] = opening
        made = MotionSequence(expression, np.ones(len(opening), np.float32), 50.0, "v", opening.astype(np.float32))
        monkeypatch.setattr(motion_export, "speech_motion", lambda job, *_: asked.append(job) or made)
        return asked

    return use


@pytest.mark.parametrize("fps", [24.0, 29.97, 60.0])
def test_speech_alone_keeps_closures(here, predicting, fps):
    """Lips that shut for 60 ms are shut in some row, whatever the rate and the phase."""
    for bottom in np.linspace(30.0, 32.0, 7):
        predicting(np.clip(np.abs(np.arange(60) - bottom) - 0.5, 0, 1))
        jaw = spoken_motion(MotionJob(here / "o.csv", None, drv_aud=here / "a.wav", fps=fps)).expression[:, JAW]
        assert jaw.min() < 0.05 and len(jaw) == np.ceil(1.2 * fps)


def test_units_below_rest_are_clipped(here, predicting):
    """A unit cannot be less than nothing: where a mouth does less than at rest, a neutral face does nothing."""
    predicting(np.linspace(-0.5, 1.5, 50))
    jaw = spoken_motion(MotionJob(here / "o.csv", None, drv_aud=here / "a.wav")).expression[:, JAW]
    assert jaw.min() == 0 and jaw.max() == 1 and (np.diff(jaw) >= 0).all()


def test_options_of_speech_reach_the_prediction(here, predicting):
    asked = predicting(np.zeros(20))
    flags = ["--mouth_amp", "1.5", "--temperature", "0.5", "--seed", "7", "--export_npz", str(here / "options.npz")]
    assert main(["--drv_aud", str(here / "a.wav"), *flags]) == 0
    assert [(job.mouth_amp, job.temperature, job.seed, job.a2m_ckpt) for job in asked] == [(1.5, 0.5, 7, None)]


def test_speech_alone_may_blink_and_says_what_silence_does(here, predicting):
    """Without an actor there are no eyes to keep: they stay open unless they are to blink."""
    asked = predicting(np.zeros(200))
    out = here / "blinking.npz"
    flags = ["--blink_mode", "period", "--silence", "keep", "--export_npz", str(out)]
    assert main(["--drv_aud", str(here / "a.wav"), *flags]) == 0
    assert asked[0].controls.silence == "keep"
    lids = FaceMotion.load(out).expression[:, EYE_ROWS]
    assert lids.max() == pytest.approx(1.0, abs=0.05) and (lids[: 60 * 2] == 0).all()
    assert main(["--drv_aud", str(here / "a.wav"), "--adapt", "on", "--export_npz", str(out)]) == 1, "nobody to learn"


def test_a_result_gives_the_motion_that_was_rendered(tmp_path_factory, here):
    """The new mouth where frames are edited, the actor's own upper face and head everywhere, a row per output frame."""
    run = tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")
    clip = write_frames(here / "result_src.mp4", *small_frames(WOMAN, FRAMES[0], FRAMES[0] + COUNT))
    short = write_wav(here / "short.wav", cut(load_audio_16k(here / "a.wav"), 0.0, 0.3))
    job = {
        "src_video": clip, "audio": short, "out_name": here / "result.mp4", "head_ckpt": run.identity, "fade_s": 0.0,
        "export_arkit": here / "result.csv", "export_npz": here / "result.npz",
    }  # fmt: skip
    GeneFace2InferArbitrary().infer_once_arbitrary(job)
    motion, own = FaceMotion.load(here / "result.npz"), source_face_motion(open_source(clip, silent))
    assert len(rows_of(here / "result.csv")[0]) == len(motion) == COUNT
    upper = np.setdiff1d(np.arange(52), MOUTH_ROWS)
    assert motion.expression[:, upper] == pytest.approx(own.expression[:, upper], abs=1e-6)
    assert np.array_equal(motion.euler, own.euler) and np.array_equal(motion.translation, own.translation)
    spoken = motion.times_s < 0.3
    change = np.abs(motion.expression - own.expression)[:, MOUTH_ROWS].max(axis=1)
    assert (change[spoken] > 0.02).all() and change[~spoken] == pytest.approx(0, abs=1e-6)


def made_up(times_s, rate):
    count, rng = len(times_s), np.random.default_rng(0)
    return FaceMotion(
        times_s=np.asarray(times_s, np.float64),
        names=ARKIT_NAMES,
        expression=rng.uniform(0, 1, (count, 52)).astype(np.float32),
        euler=rng.uniform(-1, 1, (count, 3)).astype(np.float32),
        translation=np.zeros((count, 3), np.float32),
        valid=np.ones(count, bool),
        rate=Fraction(rate),
        face_model_version="v",
    )


@pytest.mark.parametrize(
    "times_s, rate",
    [
        (np.arange(200) / 60, 60),
        (np.arange(200) * 1001 / 30000, Fraction(30000, 1001)),
        (np.cumsum([0, 0.02, 0.05, 0.011, 0.4, 1.7]), Fraction(25)),
    ],
)
def test_the_file_says_what_the_motion_is(tmp_path, times_s, rate):
    motion = made_up(times_s, rate)
    assert write_motion(motion, tmp_path / "m.csv", None) == tmp_path / "m.csv"
    codes, _, columns = rows_of(tmp_path / "m.csv")
    assert [seconds_of(code, rate) for code in codes] == pytest.approx(times_s, abs=1e-4)
    assert np.stack(list(columns.values()), axis=1) == pytest.approx(motion.live_link_values(), abs=1e-9)


def test_zeros_have_no_sign():
    motion = replace(made_up([0.0], 60), euler=np.zeros((1, 3), np.float32))
    assert "-0.0000000000" not in list(live_link_lines(motion))[1]


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    """The second file cannot be written: the first does not appear either, and an older one stays as it was."""
    (tmp_path / "m.csv").write_text("older")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FaceMotion, "save", full)
    with pytest.raises(OutputError, match=r"m\.npz: cannot be written \(No space left on device\)"):
        write_motion(made_up([0.0, 0.1], 60), tmp_path / "m.csv", tmp_path / "m.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"] and (tmp_path / "m.csv").read_text() == "older"


def test_the_command_line(here):
    clip, speech = str(here / "clip.mp4"), str(here / "a.wav")
    job = parse_arguments(["--src_video", clip, "--export_npz", "m.npz", "--face", "left", "--device", "cpu"])
    assert isinstance(job, MotionJob) and job.face is not None and job.face.rule == "left" and job.drv_aud is None
    job = parse_arguments(["--drv_aud", speech, "--export_arkit", "m.csv", "--export_fps", "23.976", "--seed", "3"])
    assert isinstance(job, MotionJob) and (job.fps, job.seed, job.src_video) == (23.976, 3, None)
    job = parse_arguments(
        ["--src_video", clip, "--drv_aud", speech, "--out_name", str(here / "o.mp4"), "--export_arkit", "m.csv"]
    )
    assert isinstance(job, ArbitraryJob) and job.exports_motion


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--export_arkit o.csv", "--export_arkit needs --src_video for the actor's own motion or --drv_aud for that"),
        ("--export_npz o.npz --src_video clip.mp4 --drv_aud a.wav", "goes with a result; name it with --out_name"),
        ("--export_arkit o.txt --src_video clip.mp4", "let the name end in .csv"),
        ("--export_npz o.csv --drv_aud a.wav", "let the name end in .npz"),
        ("--export_arkit folder.csv --drv_aud a.wav", "folder.csv: the output is a folder; name a file such as"),
        ("--export_arkit a.wav/o.csv --drv_aud a.wav", "cannot write to"),
        ("--export_arkit clip.mp4 --src_video clip.mp4", "the output is also an input; choose another --export_arkit"),
        ("--export_arkit o.csv --src_video none.mp4", "none.mp4: there is no such video file; check --src_video"),
        ("--export_arkit o.csv --drv_aud none.wav", "none.wav: there is no such sound file; check --drv_aud"),
        ("--export_arkit o.csv --drv_aud 0=a.wav", "without --src_video there are no faces to number"),
        ("--export_arkit o.csv --drv_aud a.wav --export_fps 0.5", "--export_fps 0.5: must lie between 1 and 1000"),
        ("--export_arkit o.csv --drv_aud a.wav --export_fps nan", "--export_fps nan: must lie between"),
        ("--export_arkit o.csv --drv_aud a.wav --mouth_amp 9", "--mouth_amp 9.0: must lie between"),
        ("--export_arkit o.csv --drv_aud a.wav --a2m_ckpt nowhere", "nowhere: there is no such checkpoint"),
        ("--export_arkit o.csv --drv_aud a.wav --face left", "--face says nothing about speech alone"),
        ("--export_arkit o.csv --src_video clip.mp4 --preview 3", "--preview says nothing about a video's motion"),
        ("--export_arkit o.csv --src_video clip.mp4 --seed 1", "--seed says nothing about a video's motion"),
        ("--export_arkit o.csv --src_video clip.mp4 --export_fps 30", "--export_fps says nothing about a video's"),
        ("--export_arkit o.csv --src_video clip.mp4 --list_faces f.png", "--list_faces only shows the faces"),
        (
            "--export_arkit o.csv --src_video clip.mp4 --drv_aud a.wav --out_name o.mp4 --preview 1",
            "--preview writes one picture and no motion",
        ),
        (
            "--export_arkit o.csv --src_video clip.mp4 --drv_aud a.wav --out_name o.mp4 --export_fps 30",
            "--export_fps is for --export_arkit or --export_npz with --drv_aud alone",
        ),
        ("--drv_aud a.wav --export_fps 30", "--export_fps is for --export_arkit or --export_npz"),
        ("--drv_aud a.wav --out_name o.mp4", "--src_video is missing"),
        ("--list_faces f.png", "--src_video is missing"),
        ("--export_arkit o.csv --drv_aud clip.mp4", "no audio stream"),
    ],
)
def test_what_is_refused(here, caplog, monkeypatch, flags, words):
    """One clear sentence, exit 1, and nothing is written."""
    monkeypatch.chdir(here)
    (here / "folder.csv").mkdir(exist_ok=True)
    before = set(here.iterdir())
    assert main(flags.split()) == 1
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1 and "\n" not in errors[0] and words in errors[0], errors
    assert set(here.iterdir()) == before


def test_a_model_without_arkits_units_is_refused(here, exported):
    source = open_source(here / "clip.mp4", silent)
    other = replace(source, face_model=replace(source.face_model, expression_names=("a", "b")))
    with pytest.raises(ConfigError, match="has no ARKit units"):
        source_face_motion(other)


def test_a_job_needs_one_of_the_two(here):
    with pytest.raises(ConfigError, match="give one of them"):
        MotionJob(here / "o.csv", None)
    with pytest.raises(ConfigError, match="give one of them"):
        MotionJob(here / "o.csv", None, src_video=here / "clip.mp4", drv_aud=here / "a.wav")


def test_it_is_written_where_no_folder_is_yet(tmp_path):
    out = tmp_path / "deep" / "er" / "o.npz"
    assert write_motion(made_up([0.0, 0.1], 60), None, out) == out
    assert len(FaceMotion.load(out)) == 2
