"""The truth of a sequence in crop space, and masks judged against it."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.utils.evaluate_occlusion.judging import (
    JUDGED_SIZE,
    FoundMasks,
    judge,
    judge_clean,
    mask_at,
    protected_at,
    table_of,
)
from data_gen.utils.evaluate_occlusion.truth import SequenceTruth
from modules.commons.errors import ConfigError
from modules.metrics.occlusion import within
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from modules.structures.protected_area import PROTECTED_MARGIN
from tests.data_gen.utils.evaluate_occlusion.made_up import (
    CENTER,
    FACE_PX,
    SIDE,
    face_points,
    grey_frames,
    whole_frame_crop,
)

BAR = (slice(100, 116), slice(60, 140))
"""Rows and columns that the thing covers: a bar over the lower face."""


def truth_of(rows: list[int], n_frames: int = 6) -> SequenceTruth:
    masks = np.zeros((n_frames, SIDE, SIDE), np.uint8)
    for row in rows:
        masks[row][BAR] = 255
    return SequenceTruth(masks, np.array([0, 0, SIDE, SIDE]), face_points(n_frames), False, "bar")


def table_like(truth: SequenceTruth, rows: list[int]) -> OcclusionTable:
    metadata, nothing = whole_frame_crop(), OcclusionTable.nothing(len(truth), 256, OcclusionEvidence.HANDS)
    masks = [np.round(truth.in_crop(row, metadata, 256) * 255).astype(np.uint8) for row in rows]
    return OcclusionTable(
        nothing.coverage, nothing.hidden, np.array(rows, np.int64), np.stack(masks), nothing.mouth, nothing.evidence
    )


def test_masks_keep_their_area_and_place_in_the_crop():
    truth = truth_of([2])
    soft = truth.in_crop(2, whole_frame_crop(), 384)
    assert soft.sum() == pytest.approx(16 * 80 * 4, rel=0.02)
    rows, columns = np.nonzero(soft > 0.5)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (200, 232, 120, 280)
    assert not truth.in_crop(0, whole_frame_crop(), 384).any()


def test_reduced_masks_keep_their_area():
    truth = truth_of([2])
    far = CropMetadata((CropRegion(SIDE / 2, SIDE / 2, 4 * SIDE),), (SIDE, SIDE), 256)
    assert truth.in_crop(2, far, 256).sum() == pytest.approx(16 * 80 / 9, rel=0.05)


def test_the_lower_face_is_the_half_disc_of_the_jaw():
    lower = truth_of([]).lower_face(0, whole_frame_crop(), SIDE)
    assert lower.sum() == pytest.approx(np.pi * (FACE_PX / 2) ** 2 / 2, rel=0.05)
    assert not lower[: int(CENTER[1]) - 1].any()
    judged = truth_of([]).judged(0, whole_frame_crop(), SIDE)
    assert np.array_equal(judged, within(lower, 0.04 * FACE_PX)) and judged.sum() > lower.sum()


def test_what_lies_beyond_the_frame_is_not_judged():
    high = CropMetadata((CropRegion(SIDE / 2, SIDE - 40, SIDE),), (SIDE, SIDE), 256)  # shows 56 px below the frame
    judged = truth_of([]).judged(0, high, SIDE)
    assert judged.any() and not judged[SIDE - 56 + 1 :].any()
    moved = SequenceTruth(
        np.zeros((1, 1, 1), np.uint8), np.array([0, 0, 1, 1]), face_points(1) + np.array([0, 60], np.float32), False, ""
    )
    cut = moved.judged(0, high, SIDE)
    assert cut[: SIDE - 57].any() and not cut[SIDE - 56 + 1 :].any()


def test_the_true_masks_are_judged_nearly_perfect():
    """Only what storing at 256 px loses may be missing."""
    truth = truth_of([2, 3, 4])
    scores = judge(grey_frames(6), truth, FoundMasks(whole_frame_crop(), table_like(truth, [2, 3, 4])))
    assert scores.iou > 0.97 and scores.outline_f > 0.99 and scores.found_after == 0
    assert scores.false_share == 0 and scores.edited < 0.01
    assert scores.flicker == pytest.approx(1, abs=0.05)


def test_nothing_found_and_found_late_are_told_apart():
    truth = truth_of([2, 3, 4])
    nothing = judge(grey_frames(6), truth, FoundMasks(whole_frame_crop(), OcclusionTable.nothing(6, 256)))
    assert nothing.iou == 0 and nothing.found_after == 3 and nothing.edited > 0.95
    late = judge(grey_frames(6), truth, FoundMasks(whole_frame_crop(), table_like(truth, [3, 4])))
    assert late.found_after == 1 and 0.6 < late.iou < 0.7


def test_false_masks_on_a_clean_clip_are_shares_of_the_lower_face():
    truth = truth_of([1])
    points = face_points(6)
    landmarks = Landmarks2D(
        points, np.zeros(points.shape[:2], np.float32), np.ones(6, bool), np.zeros((6, 52), np.float32)
    )
    scores = judge_clean(table_like(truth, [1]), landmarks, whole_frame_crop())
    lower = truth.lower_face(1, whole_frame_crop(), JUDGED_SIZE)
    share = float((mask_at(table_like(truth, [1]), 1) >= 0.5)[lower].mean())
    assert scores.worst_share == pytest.approx(share) and share > 0.2
    assert scores.false_share == pytest.approx(share / 6) and scores.frames_hit == pytest.approx(1 / 6)
    none = judge_clean(OcclusionTable.nothing(6, 256), landmarks, whole_frame_crop())
    assert none.worst_share == 0


def test_an_edit_keeps_away_from_what_was_found():
    table = table_like(truth_of([2]), [2])
    kept = protected_at(FoundMasks(whole_frame_crop(), table), 2)
    grown = np.flatnonzero(kept.max(axis=1) > 0.5), np.flatnonzero(mask_at(table, 2).max(axis=1) > 0.5)
    margin_px = PROTECTED_MARGIN * JUDGED_SIZE
    assert grown[1][0] - grown[0][0] == pytest.approx(margin_px, abs=1.5)
    assert grown[0][-1] - grown[1][-1] == pytest.approx(margin_px, abs=1.5)
    assert not protected_at(FoundMasks(whole_frame_crop(), table), 5).any()


def test_an_edit_leaves_alone_what_hands_sweep_over():
    truth, nothing = truth_of([2, 3, 4]), OcclusionTable.nothing(6, 256)
    hands = table_like(truth_of([3]), [3])
    scores = judge(grey_frames(6), truth, FoundMasks(whole_frame_crop(), nothing, hands))
    assert scores.iou == 0 and scores.edited < 0.01, "frames 2 and 4 are beside the one with the hand"
    far = judge(grey_frames(6), truth, FoundMasks(whole_frame_crop(), nothing, table_like(truth_of([4]), [4])))
    assert far.edited == pytest.approx(1 / 3, abs=0.02)


def test_the_newest_table_of_a_kind_is_taken(tmp_path):
    assert table_of(tmp_path, "nerf") is None
    for name in ("hands.npz", "occlusion.npz", "occlusion_nerf-1.npz"):
        (tmp_path / name).touch()
    assert table_of(tmp_path, "hands") == tmp_path / "hands.npz"
    assert table_of(tmp_path, "nerf") == tmp_path / "occlusion_nerf-1.npz"


def test_truth_survives_the_disk_and_other_files_are_refused(tmp_path):
    truth = truth_of([2])
    truth.save(tmp_path / "one.truth.npz")
    again = SequenceTruth.load(tmp_path / "one.truth.npz")
    assert np.array_equal(again.masks, truth.masks) and again.kind == "bar" and not again.thin
    assert np.array_equal(again.points, truth.points)
    np.savez(tmp_path / "other.npz", schema=np.array("other/1"))
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(ConfigError, match=name):
            SequenceTruth.load(tmp_path / name)
    with pytest.raises(ValueError, match="disagree"):
        SequenceTruth(truth.masks, np.array([0, 0, 5, 5]), truth.points, False, "bar")
