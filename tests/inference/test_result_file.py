"""A whole job whose file is more than an encode: copied parts, a mark, a comparison, and the record of it all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from typing import cast

import cv2
import numpy as np
import pytest

from inference.extras import check_extras, plan_extras
from inference.file_options import DEFAULT_MARK, FileOptions
from inference.genefacepp_infer_arbitrary import GeneFace2InferArbitrary, parse_arguments
from inference.jobs import ArbitraryJob
from inference.prepared import PreparedVideo
from modules.commons.errors import ConfigError, OutputError
from modules.commons.workspace import VideoWorkspace
from modules.structures.faces import FaceTable
from modules.structures.frame_index import FrameIndex
from modules.structures.timeline import Timeline
from modules.video.reader import VideoReader
from modules.video.writer import SYNTHESISED
from tests.support.synthetic_video import ClipSpec, make_clip
from tests.support.tiny_run import all_frames, own_folders, tiny_run

START_S = 0.6
"""The edit begins here; what lies before it keeps its packets."""


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """The folder of a job with everything; its result and the masks of its edit."""
    folder = tmp_path_factory.mktemp("file")
    job = run.job(
        out_name=folder / "out.mp4", head_ckpt=run.identity, start=START_S, smart_copy=True, watermark=DEFAULT_MARK,
        compare=folder / "side.mp4", save_masks=folder / "masks.mkv",
    )  # fmt: skip
    with own_folders(run.root):
        GeneFace2InferArbitrary().infer_once_arbitrary(job)
    return folder


@pytest.mark.slow
def test_untouched_parts_are_copied_and_the_rest_is_marked(run, made):
    source, result = all_frames(run.clip), all_frames(made / "out.mp4")
    masks = all_frames(made / "masks.mkv")
    summary = json.loads((made / "out.mp4.json").read_text())
    copied = summary["frames_copied"]
    assert copied >= 8 and copied <= START_S * 30
    assert [frame.time_s for frame in result] == [frame.time_s for frame in source]
    for before, after in zip(source[:copied], result[:copied], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(before.planes, after.planes, strict=True))
    for before, after, mask in zip(source, result, masks, strict=True):
        lower_left = np.abs(before.planes[0].astype(int) - after.planes[0])[-40:, :160]  # the face is on the right
        if (mask.planes[0] > 250).any():
            assert lower_left.max() > 100
        elif not mask.planes[0].any():
            assert lower_left.max() < 20
    assert any((mask.planes[0] > 250).any() for mask in masks)


@pytest.mark.slow
def test_the_comparison_shows_both_at_the_same_times(run, made):
    source, result, pairs = all_frames(run.clip), all_frames(made / "out.mp4"), all_frames(made / "side.mp4")
    assert [pair.time_s for pair in pairs] == [frame.time_s for frame in source]
    for before, after, pair in zip(source, result, pairs, strict=True):
        luma, width = pair.planes[0].astype(int), before.size_hw[1]
        assert np.abs(luma[:, :width] - before.planes[0]).mean() < 2
        assert np.abs(luma[:, width:] - after.planes[0]).mean() < 2
    with VideoReader(made / "side.mp4") as reader:
        assert reader.info.has_audio and reader.info.width == 2 * source[0].size_hw[1]
    strip = cv2.imread(str(made / "side_mouth.png"))
    assert strip is not None and strip.shape[1] > strip.shape[0] > 60


@pytest.mark.slow
def test_the_record_names_result_and_spans_and_leaves_nothing_behind(run, made):
    data = json.loads((made / "out.mp4.provenance.json").read_text())
    assert data["statement"] == SYNTHESISED and data["watermark"] == DEFAULT_MARK
    assert data["output"]["sha256"] == hashlib.sha256((made / "out.mp4").read_bytes()).hexdigest()
    video, speech = data["inputs"]
    assert video["sha256"] == hashlib.sha256(run.clip.read_bytes()).hexdigest() and speech["name"] == run.speech.name
    (face,) = data["edited"]
    times = [float(frame.time_s) for frame in all_frames(run.clip)]
    assert face["spans"] and all(abs(span["from_s"] - times[span["first"]]) < 1e-5 for span in face["spans"])
    assert face["spans"][0]["from_s"] >= times[0] + START_S - 1e-5
    assert {model["role"] for model in data["models"]} == {"audio to motion", "person of face 0"}
    assert all(model["sha256"] for model in data["models"])
    assert json.loads((made / "out.mp4.json").read_text())["provenance"] == "out.mp4.provenance.json"
    names = {"out.mp4", "out.mp4.json", "out.mp4.provenance.json", "side.mp4", "side_mouth.png", "masks.mkv"}
    assert {path.name for path in made.iterdir()} == names


@pytest.fixture
def given(tmp_path):
    for name in ("in.mp4", "a.wav"):
        (tmp_path / name).write_bytes(b"x")
    return {"src_video": tmp_path / "in.mp4", "audio": tmp_path / "a.wav", "out_name": tmp_path / "out.mp4"}


def test_flags_and_keys_mean_the_same(given, tmp_path):
    flags = ["--src_video", given["src_video"], "--drv_aud", given["audio"], "--out_name", given["out_name"]]
    flags += ["--codec", "hevc", "--smart_copy", "--watermark", "--compare", tmp_path / "side.mkv", "--crf", "20"]
    job = parse_arguments([str(flag) for flag in flags])
    wanted = FileOptions("hevc", "software", True, DEFAULT_MARK, tmp_path / "side.mkv")
    assert isinstance(job, ArbitraryJob) and job.file == wanted and job.file.strip == tmp_path / "side_mouth.png"
    keys = {"codec": "hevc", "smart_copy": True, "watermark": DEFAULT_MARK, "compare": str(tmp_path / "side.mkv")}
    assert ArbitraryJob.from_mapping({**given, **keys, "crf": 20}) == job
    quality = job.file.quality(job.crf, job.lossless, "frames")
    assert (quality.codec, quality.crf, quality.encoder) == ("hevc", 20, "software")
    assert ArbitraryJob.from_mapping(given).file == FileOptions()


@pytest.mark.parametrize(
    ("keys", "kind", "words"),
    [
        ({"codec": "h266"}, ConfigError, "--codec 'h266': choose one of auto, h264"),
        ({"encoder": "gpu"}, ConfigError, "--encoder 'gpu': choose one of software, hardware"),
        ({"smart_copy": True, "encoder": "hardware", "codec": "h264"}, ConfigError, "needs --encoder software"),
        ({"watermark": "  "}, ConfigError, "one line of text"),
        ({"compare": "out.mp4"}, OutputError, "--compare names another output"),
        ({"compare": "in.mp4"}, OutputError, "choose another --compare"),
        ({"compare": "side.avi"}, OutputError, r"let the name end in \.mp4"),
        ({"watermark": "x", "report": "rep"}, ConfigError, "--report would measure the mark"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(given, tmp_path, keys, kind, words):
    paths = {name: tmp_path / keys[name] for name in ("compare", "report") if name in keys}
    with pytest.raises(kind, match=words):
        ArbitraryJob.from_mapping({**given, **keys, **paths})


def test_what_is_copied_is_said(given, tmp_path, caplog):
    """Frames shown again, back and forth, are no copies; what carries the mark is none either."""
    clip = make_clip(
        tmp_path / "in.mp4", ClipSpec(96, 64, 40, options={"qp": "20", "x264-params": "keyint=10:scenecut=0"})
    )
    pts = np.array([*clip.pts, 40 * 512, 41 * 512], np.int64)
    rows = np.array([*range(40), 38, 37])
    timeline = Timeline(
        rows, pts, pts / 12800, np.ones(42, bool), 40, 42 * 512, Fraction(1, 12800), Fraction(0),
        (Fraction(0), Fraction(42, 25)),
    )  # fmt: skip
    faces = FaceTable((64, 96), np.arange(40) / 25, np.array([0]), ())
    with VideoReader(clip.path) as reader:
        video = PreparedVideo(clip.path, "", VideoWorkspace("x"), reader.info, cast(FrameIndex, None), faces)
    edited = np.zeros(42, bool)
    edited[3:18] = True
    job = ArbitraryJob.from_mapping({**given, "smart_copy": True})
    with caplog.at_level("INFO"):
        copies = plan_extras(job, video, timeline, edited).copies
    assert copies is not None and [(run.first, run.stop) for run in copies.runs] == [(20, 40)]
    assert "20 of 42 frames keep the source's packets" in caplog.text
    edited[25:] = True
    assert plan_extras(job, video, timeline, edited).copied_frames == 0
    assert "so every frame is encoded" in caplog.text
    marked = plan_extras(replace(job, file=replace(job.file, watermark="x")), video, timeline, edited)
    assert marked.mark is not None and marked.mark.shown[3:].all()  # seven frames between are a short pause
    assert marked.put(next(VideoReader(clip.path).frames(3))).planes[0].max() > 0
    assert plan_extras(ArbitraryJob.from_mapping(given), video, timeline, edited).copies is None


def test_a_file_that_cannot_be_is_refused_before_any_work(run, tmp_path):
    def job(**keys):
        return ArbitraryJob.from_mapping(run.job(**{"out_name": tmp_path / "out.mp4", **keys}))

    check_extras(job(smart_copy=True, watermark="a"))
    for keys, words in (
        ({"codec": "prores"}, r"a \.mp4 file does not hold prores"),
        ({"codec": "hevc", "smart_copy": True}, "would be made by libx265"),
    ):
        with pytest.raises(OutputError, match=words):
            check_extras(job(**keys))
    with pytest.raises(ConfigError, match="the font has no"):
        check_extras(job(watermark="合成"))
    check_extras(job(codec="prores", preview=3))  # a preview is a picture
