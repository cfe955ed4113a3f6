"""Looking at a fit: one real run over a few frames, what is refused, and what is left when it fails."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from inference import inspect_fit as command
from inference.fit_measures import FitErrors, FittedFace, measure_fit
from inference.fit_pages import FitPages, steadied
from inference.inspect_fit import OUTPUTS, InspectJob, frames_between, inspect_fit, main, parse_arguments, prepare
from modules.commons.errors import ConfigError, OutputError, VideoReadError
from modules.commons.progress import silent
from modules.commons.workspace import DEMO_DIR, ROOT
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.writer import EncodeConfig, VideoWriter
from tests.support.made_up_source import made_up_source
from tests.support.synthetic_video import ClipSpec, make_clip, read_audio

COUNT = 12
CARPHONE = DEMO_DIR / "carphone_pristine.mp4"


@pytest.fixture(scope="module")
def clip(tmp_path_factory, demo_dir) -> Path:
    """The first frames of a real clip with a small face."""
    path = tmp_path_factory.mktemp("inspect") / "car.mp4"
    with (
        VideoReader(CARPHONE) as reader,
        VideoWriter(path, reader.info, quality=EncodeConfig(lossless=True), comment="") as writer,
    ):
        for frame in islice(reader.frames(), COUNT):
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def data_root(clip) -> Path:
    return clip.parent / "data"


@pytest.fixture(scope="module")
def results(clip, data_root) -> Path:
    out = clip.parent / "results"
    assert main([str(clip), "--out", str(out), "--data_root", str(data_root)]) == 0
    return out


def test_three_files_and_no_more(results, clip):
    assert sorted(path.name for path in results.iterdir()) == sorted(OUTPUTS)
    assert sorted(path.name for path in clip.parent.iterdir()) == ["car.mp4", "data", "results"]


def test_the_overlay_has_the_sources_frames_and_times(results, clip):
    with VideoReader(clip) as before, VideoReader(results / "overlay.mp4") as after:
        pairs = list(zip(before.frames(), after.frames(), strict=True))
        info = before.info
    assert len(pairs) == COUNT
    for source, page in pairs:
        assert abs(float(source.time_s - page.time_s)) < 1e-4
        assert page.size_hw[0] % 2 == 0 and page.size_hw[1] >= info.width + 480
    page, source = rgb_from_planes(pairs[3][1]).astype(int), rgb_from_planes(pairs[3][0]).astype(int)
    top = (764 - info.height) // 2
    corner = page[top + info.height - 20 : top + info.height, :20]
    assert np.abs(corner - source[-20:, :20]).mean() < 6, "away from the face the frame is itself"


def test_the_figures_are_told_as_they_were_measured(results, clip, data_root):
    told = json.loads((results / "fit.json").read_text())
    assert told["frames"] == told["frames_with_fit"] == COUNT and told["shots"] == 1
    assert 0.2 < told["residual_percent"]["face"]["mean"] < 3.0
    assert 0.2 < told["residual_percent"]["lips"]["mean"] < 4.0
    assert 50 < told["face_height_px"] < 75 and told["focal_px"] > 100
    source, _ = prepare(InspectJob(clip, clip.parent / "again", data_root=data_root), silent)
    assert told["face_model"] == source.face_model.version
    errors = measure_fit(
        FittedFace(source.face_model, source.coeffs), source.landmarks, source.coeffs.valid, source.occlusion.hidden
    )
    assert told["residual_percent"]["face"]["mean"] == pytest.approx(errors.face.mean(), rel=1e-3)


def test_the_plot_is_a_picture(results):
    picture = cv2.imread(str(results / "coefficients.png"))
    assert picture is not None and picture.shape[1] == 1600


def test_a_part_is_shown_and_counted_alone(results, clip, data_root, tmp_path):
    flags = ["--start", "0.2", "--end", "0.3", "--size", "100", "--data_root", str(data_root)]
    assert main([str(clip), "--out", str(tmp_path / "part"), *flags]) == 0
    told = json.loads((tmp_path / "part" / "fit.json").read_text())
    with VideoReader(clip) as reader:
        times = [float(frame.time_s) for frame in reader.frames()]
    wanted = [time - times[0] for time in times if 0.2 <= round(time - times[0], 6) < 0.3]
    assert told["frames"] == len(wanted) and told["first_frame"] == sum(time - times[0] < 0.2 - 1e-6 for time in times)
    with VideoReader(tmp_path / "part" / "overlay.mp4") as reader:
        assert sum(1 for _ in reader.frames()) == len(wanted) and reader.info.width == 100 + 4 + 480


def test_a_failure_leaves_the_folder_as_it_was(results, clip, data_root, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(results, out)
    (out / "mine.txt").write_text("kept")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def interrupted(self, frame):
        if frame.index == 5:
            raise KeyboardInterrupt
        return original(self, frame)

    original = FitPages.page
    monkeypatch.setattr(FitPages, "page", interrupted)
    monkeypatch.setattr(command, "plot_fit", lambda curves: np.zeros((4, 4, 3), np.uint8))
    flags = ["--data_root", str(data_root)]
    assert main([str(clip), "--out", str(out), *flags]) == 130
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main([str(clip), "--out", str(tmp_path / "a" / "b"), *flags]) == 130
    assert not (tmp_path / "a").exists(), "folders that it made are gone too"


def test_a_disk_that_fails_is_told_in_one_sentence(results, clip, data_root, tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "plot_fit", full)
    assert main([str(clip), "--out", str(tmp_path / "out"), "--data_root", str(data_root)]) == 1
    assert (
        caplog.messages[-1]
        == f"error: {tmp_path / 'out'}: cannot be written (No space left on device); choose another --out"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--face", "1"], "car.mp4: there is no face 1: the video shows 1, numbered from 0"),
        (["--face", "-1"], "--face -1: faces are numbered from 0"),
        (["--start", "50"], "no frame is shown between --start and --end"),
        (["--start", "-1"], "--start -1: give seconds"),
        (["--start", "2", "--end", "1"], "--end 1 must lie after --start 2"),
        (["--end", "nan"], "--end nan: give seconds"),
        (["--size", "10"], "--size 10: nothing can be seen on less than 64 px"),
        (["--hparams", "fit"], "--hparams: 'fit' has no '='; write key=value"),
        (["--hparams", "fit.no_such=1"], "no_such"),
        (["--no_such_flag"], "--no_such_flag; --help lists every flag"),
    ],
)
def test_what_is_refused(results, clip, data_root, tmp_path, caplog, flags, words):
    assert main([str(clip), "--out", str(tmp_path / "out"), "--data_root", str(data_root), *flags]) == 1
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert words in message and len(message.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_outputs_that_cannot_be_are_refused_before_any_work(clip, tmp_path):
    with pytest.raises(VideoReadError, match="there is no such video file"):
        InspectJob(tmp_path / "none.mp4", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file; name a folder with --out"):
        InspectJob(clip, tmp_path / "file")
    with pytest.raises(OutputError, match="cannot write to"):
        InspectJob(clip, tmp_path / "file" / "below")
    source = tmp_path / "overlay.mp4"
    shutil.copy(clip, source)
    with pytest.raises(OutputError, match="the output is also an input; choose another --out"):
        InspectJob(source, tmp_path)


def test_defaults(clip):
    job = parse_arguments([str(clip), "--hparams", "fit.max_residual=0.1,hands.enabled=false"])
    assert job.out == Path("out/inspect_fit/car") and job.size == 1280 and job.face == 0 and job.data_root is None
    assert job.overrides == {"fit.max_residual": "0.1", "hands.enabled": "false"}


def test_the_script_runs_it_and_prints_its_usage(clip):
    script = ROOT / "scripts" / "inspect_fit.sh"
    environment = {"PATH": os.environ["PATH"], "PYTHON": "echo"}
    told = subprocess.run(
        ["bash", script, clip, "--face", "1"], capture_output=True, text=True, env=environment, check=True
    )
    assert told.stdout.split() == [str(ROOT / "inference" / "inspect_fit.py"), str(clip), "--face", "1"]
    bare = subprocess.run(["bash", script], capture_output=True, text=True, env=environment, check=False)
    assert bare.returncode == 2 and bare.stderr.startswith("Usage: bash scripts/inspect_fit.sh VIDEO [--out DIR]")
    assert "set -euo" not in bare.stderr


# ---- pages of a made-up source ----


def pages_of(source):
    fitted = FittedFace(source.face_model, source.coeffs)
    errors = measure_fit(fitted, source.landmarks, source.coeffs.valid, source.occlusion.hidden)
    return FitPages(source, fitted, errors, 1280, (0, 6))


@pytest.mark.parametrize("rotation", [0, 90, 180])
def test_turned_videos_are_shown_upright(tmp_path, rotation):
    path = make_clip(tmp_path / "turned.mp4", ClipSpec(128, 96, 6, rotation_deg=rotation)).path
    with VideoReader(path) as reader:
        frames = list(reader.frames())
        info = reader.info
    assert (info.width, info.height) == ((96, 128) if rotation == 90 else (128, 96))
    pages = pages_of(made_up_source(info, 6, [False, True, True, True, True, True]))
    page = rgb_from_planes(pages.page(frames[0])).astype(int)
    top = (764 - info.height) // 2
    shown, upright = page[top : top + info.height, : info.width], rgb_from_planes(frames[0]).astype(int)
    assert np.abs(shown - upright)[50:].mean() < 12 and pages.size == page.shape[1::-1]


def test_frames_without_a_fit_and_whole_shots_without_one(tmp_path):
    path = make_clip(tmp_path / "plain.mp4", ClipSpec(160, 120, 6)).path
    with VideoReader(path) as reader:
        frames = list(reader.frames())
        source = made_up_source(reader.info, 6, [False, False, False, True, False, True], (0, 3))
    pages = pages_of(source)
    painted = [pages.page(frame) for frame in frames]
    assert {page.size_hw for page in painted} == {pages.size[::-1]}
    assert [float(page.time_s) for page in painted] == [float(frame.time_s) for frame in frames]
    assert pages._why_not(1) == "no fit in this frame: not seen"
    items = dict(pages._items(1))
    assert items["yaw"].strip() == "–°" and items["error: face"].strip() == "– %"
    fitted = dict(pages._items(3))
    assert {len(value) for value in (items["yaw"], fitted["yaw"])} == {7}, "nothing dances"
    assert float(fitted["error: face"].rstrip(" %")) < 0.2


def test_enlarged_views_follow_calmly_and_lose_nothing():
    points, far = np.stack([np.arange(9.0), np.full(9, 5.0)], axis=1), np.array([99.0, 99.0])
    np.testing.assert_allclose(steadied(points, 0, far), points)
    np.testing.assert_allclose(steadied(points, 2, far)[2:7], points[2:7])
    points[4] = np.nan
    np.testing.assert_allclose(steadied(points, 0, far)[4], [4.0, 5.0])
    jump = np.zeros((9, 2))
    jump[4:] = 10
    assert np.abs(np.diff(steadied(jump, 2, far)[:, 0])).max() == pytest.approx(2.0)
    held = steadied(jump, 2, np.array([1.5, -3.0]))
    assert np.abs(held - jump)[:, 0].max() == pytest.approx(1.5) and (held[:, 1] == jump[:, 1]).all()
    assert steadied(np.array([[np.nan, np.nan], [1.0, 2.0]]), 3, far).tolist() == [[1.0, 2.0]] * 2


def test_times_mean_frames(tmp_path):
    path = make_clip(tmp_path / "plain.mp4", ClipSpec(160, 120, 3)).path
    with VideoReader(path) as reader:
        source = replace(made_up_source(reader.info, 10), times_s=np.arange(10) / 10)

    def between(start, end):
        return frames_between(source, InspectJob(path, tmp_path / "out", start_s=start, end_s=end))

    assert between(None, None) == (0, 10) and between(0.3, 0.6) == (3, 6) and between(0.25, 9.0) == (3, 10)
    with pytest.raises(ConfigError, match=r"no frame is shown.*the last one is shown at 0.90 s"):
        between(0.95, None)


def test_the_sound_comes_along(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "tone.mp4", ClipSpec(160, 120, 6, tone_hz=440.0)).path
    with VideoReader(path) as reader:
        source = made_up_source(reader.info, 6)
    index = command.FrameIndex(
        np.array([int(i * 512) for i in range(6)], np.int64), reader.info.time_base, np.array([0])
    )
    monkeypatch.setattr(command, "prepare", lambda job, progress: (source, index))
    monkeypatch.setattr(command, "plot_fit", lambda curves: np.zeros((4, 4, 3), np.uint8))
    told = inspect_fit(InspectJob(path, tmp_path / "out"), silent)
    assert told["frames"] == 6
    assert np.abs(read_audio(tmp_path / "out" / "overlay.mp4")[0]).max() > 0.05
    later = InspectJob(path, tmp_path / "later", start_s=0.08)
    inspect_fit(later, silent)
    with VideoReader(tmp_path / "later" / "overlay.mp4") as reader:
        assert not reader.info.has_audio


def test_errors_of_nothing():
    assert np.isnan(FitErrors.empty(3).center).all() and FitErrors.empty(3).face.shape == (3,)
