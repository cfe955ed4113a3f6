"""Jobs: what they accept, under which names, and the sentences they refuse with."""

from pathlib import Path

import pytest

from inference.drv_pose import parse_drv_pose
from inference.face_choice import FaceChoice, SpeechFiles
from inference.jobs import (
    FAST_END_THRESHOLD,
    ArbitraryJob,
    ClassicJob,
    check_container,
    check_folder,
    check_output,
    resolve_head_ckpt,
)
from inference.timeline import TimeOptions
from modules.commons.errors import CheckpointError, ConfigError, OutputError


@pytest.fixture
def files(tmp_path):
    """Names of things that exist; jobs look no further."""
    for name in ("in.mp4", "a.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "person").mkdir()
    return {"src_video": tmp_path / "in.mp4", "audio": tmp_path / "a.wav", "out_name": tmp_path / "out.mp4"}


@pytest.fixture
def classic(files):
    return {"drv_aud": files["audio"], "out_name": files["out_name"], "head_ckpt": files["audio"].parent / "person"}


def test_keys_may_be_texts_and_audio_is_drv_aud(files):
    job = ArbitraryJob.from_mapping({key: str(value) for key, value in files.items()})
    assert job.drv_aud == SpeechFiles(files["audio"]) and job.summary_path.name == "out.mp4.json"
    assert job == ArbitraryJob(files["src_video"], SpeechFiles(files["audio"]), files["out_name"])
    assert ArbitraryJob.from_mapping({**files, "head_ckpt": "", "config": None}) == job


def test_faces_and_times_are_given_as_on_the_command_line(files, tmp_path):
    """Of the newer options: which face, what each says, when, and how long the result is."""
    (tmp_path / "b.wav").write_bytes(b"x")
    both = {0: files["audio"], 2: str(tmp_path / "b.wav")}
    rest = {key: value for key, value in files.items() if key != "audio"}
    options = {"face": "All", "start": 1, "end": 2.5, "audio_offset": -0.5, "fade_s": 0, "keep_audio": True}
    job = ArbitraryJob.from_mapping({**rest, "drv_aud": both, **options})
    assert job.drv_aud == SpeechFiles(None, ((0, files["audio"]), (2, tmp_path / "b.wav")))
    assert job.face == FaceChoice("all") and job.fade_s == 0 and job.keep_audio
    assert job.times == TimeOptions(1, 2.5, -0.5, "source")
    job = ArbitraryJob.from_mapping({**files, "face_at": "10,20,1.5", "length": "shortest"})
    assert job.face == FaceChoice("point", point=(10, 20), time_s=1.5) and job.times.length == "trim"
    assert ArbitraryJob.from_mapping({**files, "face": 1}).face == FaceChoice("number", number=1)
    default = ArbitraryJob.from_mapping(files)
    assert default.face is None and default.times == TimeOptions() and not default.keep_audio


def test_a_restorer_needs_the_mode_that_knows_what_was_rendered(files):
    job = ArbitraryJob.from_mapping({**files, "blend_mode": "delta", "restore": "model.pt"})
    assert job.restore == Path("model.pt") and ArbitraryJob.from_mapping(files).restore is None
    with pytest.raises(ConfigError, match="--restore works with --blend_mode delta only, not with alpha"):
        ArbitraryJob.from_mapping({**files, "blend_mode": "alpha", "restore": "model.pt"})


def test_genefaces_own_keys_are_understood(files, classic):
    person = classic["head_ckpt"]
    extra = {"torso_ckpt": person, "fast": True, "blink_mode": "none", "low_memory_usage": True, "drv_pose": "nearest"}
    job = ArbitraryJob.from_mapping({**files, **extra})
    assert job.head_ckpt == person and job.raymarching_end_threshold == FAST_END_THRESHOLD
    job = ClassicJob.from_mapping({**classic, **extra, "drv_pose": "3-9", "head_ckpt": None})
    assert job.head_ckpt == person and job.drv_pose == "3-9"


def test_the_torso_checkpoint_wins():
    assert resolve_head_ckpt(Path("head"), Path("torso")) == Path("torso")
    assert resolve_head_ckpt(Path("head"), None) == Path("head") and resolve_head_ckpt(None, None) is None


@pytest.mark.parametrize("kind", [ArbitraryJob, ClassicJob])
def test_unknown_and_missing_keys(files, classic, kind):
    given = files if kind is ArbitraryJob else classic
    with pytest.raises(ConfigError, match=r"unknown job key 'moth_amp'; known keys: .*mouth_amp"):
        kind.from_mapping({**given, "moth_amp": 1})
    with pytest.raises(ConfigError, match="lacks 'out_name'"):
        kind.from_mapping({key: value for key, value in given.items() if key != "out_name"})


def test_a_classic_job_needs_a_person(classic, tmp_path):
    with pytest.raises(ConfigError, match="--head_ckpt or --torso_ckpt"):
        ClassicJob.from_mapping({**classic, "head_ckpt": ""})
    with pytest.raises(CheckpointError, match="nobody: there is no such checkpoint"):
        ClassicJob.from_mapping({**classic, "head_ckpt": tmp_path / "nobody"})


@pytest.mark.parametrize(
    "change",
    [
        {"lle_percent": 1.1},
        {"mouth_amp": -0.1},
        {"temperature": 9.0},
        {"raymarching_end_threshold": 1.5},
        {"raymarching_end_threshold": float("nan")},
        {"crf": 52},
        {"fade_s": -1},
        {"fade_s": float("nan")},
        {"fade_s": 11.0},
        {"preview": -1},
    ],
)
def test_values_out_of_range_name_their_flag(files, change):
    (name,) = change
    with pytest.raises(ConfigError, match=f"^--{name} "):
        ArbitraryJob.from_mapping({**files, **change})


@pytest.mark.parametrize(
    ("text", "meaning"), [("nearest", (0, None)), ("static", (0, 1)), ("0-100", (0, 100)), ("7-8", (7, 8))]
)
def test_drv_pose(text, meaning):
    assert parse_drv_pose(text) == meaning


@pytest.mark.parametrize("text", ["", "5", "-3", "5-", "9-9", "9-3", "a-b", "1-2-3", "1.0-2", "²-9", "period"])
def test_drv_pose_that_means_nothing(text, classic):
    with pytest.raises(ConfigError, match=r"use nearest .* static .* A-B .* a video"):
        parse_drv_pose(text)
    if text:
        with pytest.raises(ConfigError, match="--drv_pose"):
            ClassicJob.from_mapping({**classic, "drv_pose": text})


@pytest.mark.parametrize("name", ["out.avi", "out", "out.mp4.txt"])
def test_containers_that_cannot_be_written_are_refused_before_any_work(files, classic, name, tmp_path):
    for kind, given in ((ArbitraryJob, files), (ClassicJob, classic)):
        with pytest.raises(OutputError, match="no supported container"):
            kind.from_mapping({**given, "out_name": tmp_path / name})
    with pytest.raises(OutputError, match="no supported container"):
        ArbitraryJob.from_mapping({**files, "save_masks": tmp_path / name})
    check_container(Path("OUT.MP4"))


def test_a_preview_may_be_named_as_a_picture(files, tmp_path):
    job = ArbitraryJob.from_mapping({**files, "out_name": tmp_path / "frame.png", "preview": 0})
    assert job.preview_path == tmp_path / "frame.png"


def test_outputs_that_would_destroy_something(files, tmp_path):
    with pytest.raises(OutputError, match="name the same file"):
        ArbitraryJob.from_mapping({**files, "save_masks": files["out_name"]})
    link = tmp_path / "link.mp4"
    link.hardlink_to(files["src_video"])
    for output in (files["src_video"], link, files["audio"]):
        with pytest.raises(OutputError, match="is also an input"):
            check_output(output, (files["src_video"], files["audio"]))
    with pytest.raises(OutputError, match="cannot write"):
        check_output(files["audio"] / "below" / "out.mp4", (files["src_video"],))


def test_a_reports_folder_that_holds_somebodys_own_trials(files, tmp_path):
    """What lies in ``trials`` is deleted once it has been measured."""
    report = tmp_path / "report"
    for name in ("last", "folds.part", ".DS_Store"):
        (report / "trials" / name).mkdir(parents=True)
    assert ArbitraryJob.from_mapping({**files, "report": report}).report == report
    (report / "trials" / "my study").mkdir()
    for make in (lambda: ArbitraryJob.from_mapping({**files, "report": report}), lambda: check_folder(report)):
        with pytest.raises(OutputError, match="would be emptied, but holds my study"):
            make()
    with pytest.raises(OutputError, match=f"cannot write to {files['audio']}; choose another folder"):
        check_folder(files["audio"] / "below")
