"""Judging frames by the trained head: which stretches, cached by what they depend on, and taken up after a kill."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_gen.runs.judged_clip import JudgedClip
from data_gen.utils.process_video.crop_utils import save_crop_metadata
from inference import seen_occluders
from inference.seen_occluders import judged_by_head, seen_from
from modules.commons.progress import silent
from modules.commons.workspace import VideoWorkspace
from modules.structures.frame_index import FrameIndex
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from modules.video.rgb_video import rgb_video_info
from tests.support.made_up_source import made_up_source

COUNT, STRETCH = 20, 8


@pytest.fixture
def source(tmp_path):
    """A face whose tables lie on disk; clean frames say that nothing is in front, hands that row 9 is covered."""
    workspace = VideoWorkspace("clip", tmp_path / "data")
    workspace.processed.mkdir(parents=True)
    made = made_up_source(rgb_video_info(tmp_path / "none.mp4", 160, 120, Fraction(25)), COUNT)
    nothing = OcclusionTable.nothing(COUNT, 256, OcclusionEvidence.APPEARANCE)
    made = replace(made, workspace=workspace, occlusion=nothing, unsure=np.ones(COUNT, bool))
    FrameIndex(np.arange(COUNT), Fraction(1, 25), np.zeros(1, np.int64)).save(workspace.frame_index)
    made.landmarks.save(workspace.landmarks)
    made.coeffs.save(workspace.coeffs)
    made.coeffs.save(workspace.first_coeffs)
    save_crop_metadata(made.crops, workspace.crop_metadata)
    made.occlusion.save(workspace.occlusion)
    workspace.appearance.write_bytes(b"clean face")
    hands = OcclusionTable.nothing(COUNT, 4, OcclusionEvidence.HANDS)
    covered = np.full((1, 4, 4), 255, np.uint8)
    replace(hands, rows=np.array([9]), masks=covered).save(workspace.hands)
    return made


@pytest.fixture
def person(tmp_path):
    folder = tmp_path / "person"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def judged(monkeypatch):
    """First rows of the stretches that were judged; what they find is a mask in their first row."""
    asked = []

    def judge(self, stretch, face, kind):
        assert face == "head" and kind is OcclusionEvidence.NERF
        asked.append(stretch.first)
        nothing = OcclusionTable.nothing(stretch.stop - stretch.first, 256, kind)
        coverage = nothing.coverage.copy()
        coverage[0] = 0.5
        return replace(nothing, coverage=coverage, rows=np.array([0]), masks=np.full((1, 256, 256), 255, np.uint8))

    monkeypatch.setattr(JudgedClip, "judged", judge)
    monkeypatch.setattr(seen_occluders, "STRETCH", STRETCH)
    monkeypatch.setattr(seen_occluders, "expected_by_head", lambda *_: "head")
    return asked


def wanting(*rows):
    wanted = np.zeros(COUNT, bool)
    wanted[list(rows)] = True
    return wanted


def test_stretches_that_are_edited_are_judged_and_the_others_kept(source, person, judged):
    made = judged_by_head(source, person, wanting(9, 19), "cpu", silent)
    assert judged == [8, 16] and made.occlusion.rows.tolist() == [8, 16]
    kinds = made.occlusion.evidence
    assert (kinds[:8] == OcclusionEvidence.APPEARANCE).all() and (kinds[8:] == OcclusionEvidence.NERF).all()
    assert made.evidence.coverage[8] == 0.5 and made.unsure is not None and not made.unsure.any()


def test_nothing_to_edit_is_nothing_to_judge(source, person, judged):
    assert judged_by_head(source, person, wanting(), "cpu", silent) is source and not judged


def test_a_finished_table_is_used_again_and_another_person_makes_another(source, person, judged):
    for _ in range(2):
        judged_by_head(source, person, wanting(0), "cpu", silent)
    assert judged == [0]
    (person / "model.safetensors").write_bytes(b"other weights")
    judged_by_head(source, person, wanting(0), "cpu", silent)
    assert judged == [0, 0]
    (table,) = source.workspace.processed.glob("occlusion_nerf-*.npz")  # those of other heads would fill the disk
    assert table.is_file()
    assert not list(source.workspace.processed.glob("*.parts"))


def test_a_killed_run_goes_on_with_the_first_stretch_that_is_missing(source, person, judged):
    def killed(what, done, total):
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged_by_head(source, person, np.ones(COUNT, bool), "cpu", killed)
    assert judged == [0, 8]
    made = judged_by_head(source, person, np.ones(COUNT, bool), "cpu", silent)
    assert judged == [0, 8, 16] and made.occlusion.rows.tolist() == [0, 8, 16]


def test_the_user_may_ask_for_hands_alone_or_for_nothing(source):
    hands, off = seen_from("hands", source), seen_from("off", source)
    assert hands.occlusion.rows.tolist() == [9] and hands.unsure is None
    assert len(off.occlusion.rows) == 0 and len(off.occlusion) == COUNT and off.unsure is None
    assert seen_from("auto", source) is source and seen_from("appearance", source) is source


def test_where_the_video_lies_does_not_matter(source, person, judged):
    judged_by_head(source, person, wanting(0), "cpu", silent)
    judged_by_head(replace(source, video=Path("elsewhere.mp4")), person, wanting(0), "cpu", silent)
    assert judged == [0]


def test_other_parts_of_the_clip_are_added_to_what_was_judged(source, person, judged):
    judged_by_head(source, person, wanting(0), "cpu", silent)
    made = judged_by_head(source, person, wanting(9), "cpu", silent)
    assert judged == [0, 8] and made.occlusion.rows.tolist() == [0, 8]
    judged_by_head(source, person, wanting(3, 12, 19), "cpu", silent)
    assert judged == [0, 8, 16]
    made = judged_by_head(source, person, wanting(5), "cpu", silent)
    assert judged == [0, 8, 16] and (made.occlusion.evidence == OcclusionEvidence.NERF).all()
    assert len(list(source.workspace.processed.glob("occlusion_nerf-*.npz"))) == 1


def test_a_stretch_copied_before_a_kill_is_judged_when_it_is_asked_for(source, person, judged):
    def killed(what, done, total):
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged_by_head(source, person, wanting(9, 19), "cpu", killed)
    made = judged_by_head(source, person, np.ones(COUNT, bool), "cpu", silent)
    assert judged == [8, 0, 8, 16] and (made.occlusion.evidence == OcclusionEvidence.NERF).all()


def test_what_nobody_can_judge_is_not_asked_again(source, person, judged):
    source.coeffs.valid[:STRETCH] = False
    judged_by_head(source, person, wanting(0, 9), "cpu", silent)
    judged_by_head(source, person, wanting(0, 9), "cpu", silent)
    assert judged == [8]


def test_a_clip_without_clean_frames_keeps_what_it_has_and_says_so(source, person, judged, caplog):
    source.workspace.appearance.unlink()
    assert judged_by_head(source, person, wanting(0), "cpu", silent) is source and not judged
    assert "face 0: its head does not judge what is in front, because" in caplog.text
    assert "appearance.npz is not there" in caplog.text
