"""The command that measures masks: what it takes, what it refuses, judging prepared clips, and a whole slow run."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_gen.runs.evaluate_occlusion import (
    EvaluateOcclusionOptions,
    clean_rows,
    judged_rows,
    main,
    parse_arguments,
    stages_up_to,
    write_report,
)
from data_gen.utils.evaluate_occlusion.building import BuiltSequence
from data_gen.utils.evaluate_occlusion.catalogue import CATALOGUE, PAINTED, REAL
from data_gen.utils.evaluate_occlusion.report import OcclusionReport
from data_gen.utils.evaluate_occlusion.truth import SequenceTruth
from data_gen.utils.process_video.crop_utils import save_crop_metadata
from modules.commons.errors import ConfigError, OutputError, VideoReadError
from modules.commons.workspace import VideoWorkspace
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from modules.video.rgb_video import rgb_video_info
from modules.video.writer import VideoWriter
from tests.data_gen.utils.evaluate_occlusion.made_up import SIDE, face_points, grey_frames, whole_frame_crop


def test_without_clips_painted_heads_are_measured(tmp_path):
    options = parse_arguments(["--set", str(tmp_path / "set"), "--out", str(tmp_path / "out")])
    assert options.specs == list(PAINTED)
    assert options.command.startswith("bash scripts/evaluate_occlusion.sh --set")


def test_flags_choose(tmp_path):
    options = parse_arguments(
        ["--clips", str(tmp_path), "--sequences", "anchor_cup", "--evidence", "hands", "--seed", "7", "--workers", "3",
         "--hparams", "detect.extractor=torch"]
    )  # fmt: skip
    (spec,) = options.specs
    assert spec.name == "anchor_cup" and spec.seed == 7 + next(s.seed for s in REAL if s.name == "anchor_cup")
    assert options.evidence == ("hands",) and options.workers == 3
    assert options.config().detect.extractor == "torch" and options.config().device == "cpu"
    assert parse_arguments(["--clips", str(tmp_path)]).specs == list(CATALOGUE)


def test_wrong_values_are_refused_in_one_sentence(tmp_path, caplog):
    with pytest.raises(ConfigError, match="there is no such sequence"):
        parse_arguments(["--sequences", "nothing"])
    with pytest.raises(ConfigError, match="name their folder with --clips"):
        parse_arguments(["--sequences", "anchor_cup"])
    with pytest.raises(ConfigError, match="has no '='"):
        parse_arguments(["--hparams", "detect.extractor"])
    with pytest.raises(ConfigError, match="--workers 0"):
        parse_arguments(["--workers", "0"])
    with pytest.raises(VideoReadError, match=r"none\.mp4: there is no such file"):
        parse_arguments(["--clean", str(tmp_path / "none.mp4")])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        parse_arguments(["--out", str(tmp_path / "file")])
    assert main(["--sequences", "nothing"]) == 1
    assert "there is no such sequence" in caplog.text


def test_stages_end_with_the_one_that_is_asked_for():
    names = [stage.name for stage in stages_up_to("occlusion")]
    assert names[0] == "shots" and names[-1] == "occlusion" and "hands" in names and "fit" not in names


@pytest.fixture
def prepared(tmp_path) -> tuple[BuiltSequence, VideoWorkspace]:
    """A sequence of six frames with a bar over the face in three of them, and tables: hands miss it, appearance not."""
    sequence = BuiltSequence(PAINTED[1], tmp_path / "one.mp4", tmp_path / "one.truth.npz")
    frames = grey_frames(6)
    with VideoWriter(sequence.video, rgb_video_info(tmp_path / "none", SIDE, SIDE, Fraction(25)), comment="") as writer:
        for frame in frames:
            writer.write(frame)
    masks = np.zeros((6, SIDE, SIDE), np.uint8)
    masks[2:5, 100:116, 60:140] = 255
    truth = SequenceTruth(masks, np.array([0, 0, SIDE, SIDE]), face_points(6), False, "cup")
    truth.save(sequence.truth)
    workspace = VideoWorkspace("one", tmp_path / "data")
    workspace.processed.mkdir(parents=True)
    save_crop_metadata(whole_frame_crop(), workspace.crop_metadata)
    points = face_points(6)
    Landmarks2D(points, np.zeros(points.shape[:2], np.float32), np.ones(6, bool), np.zeros((6, 52), np.float32)).save(
        workspace.landmarks
    )
    nothing = OcclusionTable.nothing(6, 256, OcclusionEvidence.HANDS)
    nothing.save(workspace.hands)
    found = np.stack([truth.in_crop(row, whole_frame_crop(), 256) for row in (2, 3, 4)])
    OcclusionTable(
        nothing.coverage, nothing.hidden, np.array([2, 3, 4]), np.round(found * 255).astype(np.uint8), nothing.mouth,
        np.full(6, OcclusionEvidence.APPEARANCE, np.uint8),
    ).save(workspace.occlusion)  # fmt: skip
    return sequence, workspace


def test_every_kind_of_evidence_that_is_there_gets_a_row(prepared, tmp_path):
    sequence, workspace = prepared
    hands, appearance = judged_rows(sequence, workspace, ("hands", "appearance", "nerf"))
    assert (hands.evidence, appearance.evidence) == ("hands", "appearance")
    assert hands.scores.iou == 0 and appearance.scores.iou > 0.97 and appearance.painted
    rows = clean_rows(Path("one.mp4"), workspace, ("hands", "appearance"))
    assert [row.scores.worst_share > 0 for row in rows] == [False, True]
    write_report(OcclusionReport({}, (hands, appearance), tuple(rows)), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "occlusion.json").read_text())["sequences"][1]["scores"]["iou"] > 0.97
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["occlusion.json", "occlusion.md"]


@pytest.mark.slow
def test_a_painted_microphone_is_seen_by_the_real_stages(tmp_path):
    folders = ["--set", str(tmp_path / "set"), "--out", str(tmp_path / "out")]
    assert main([*folders, "--sequences", "painted_microphone"]) == 0
    rows = json.loads((tmp_path / "out" / "occlusion.json").read_text())["sequences"]
    hands, appearance = (row["scores"] for row in rows)
    assert hands["iou"] < 0.3, "a microphone is no hand"
    assert appearance["iou"] > 0.75 and appearance["found_after"] <= 2 and appearance["false_share"] < 0.005


def test_options_are_checked_without_a_command_line(tmp_path):
    options = EvaluateOcclusionOptions(tmp_path, tmp_path)
    assert options.workers == 1 and options.specs == list(PAINTED)
