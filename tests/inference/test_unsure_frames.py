"""Where only hands were looked for, something near the lower face leaves a frame alone."""

from dataclasses import replace

import numpy as np

from inference.unsure_frames import REACH, unsure_frames
from modules.structures.crops import CropMetadata, CropRegion, transform_points
from modules.structures.landmarks import JAW_LINE, face_height_px
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from tests.support.synthetic_head import SyntheticSpeaker

COUNT, SIZE = 100, 128
TIMES_S = np.arange(COUNT) / 25


def face_with(masks: dict[int, np.ndarray], evidence: OcclusionEvidence):
    """(table, landmarks, crops) of a speaker in the middle of a small frame."""
    speaker = SyntheticSpeaker(5, size_hw=(120, 160), face_px=60)
    landmarks = speaker.landmarks(speaker.coeffs(COUNT))
    crops = CropMetadata((CropRegion(80.0, 60.0, 110.0),), (120, 160), 256)
    table = OcclusionTable.nothing(COUNT, SIZE, evidence)
    rows = np.array(sorted(masks), np.int64)
    stacked = np.stack([masks[row] for row in rows.tolist()]) if masks else table.masks
    return replace(table, rows=rows, masks=stacked), landmarks, crops


def square(landmarks, crops, row, below):
    """A mask whose upper edge lies ``below`` face heights under the chin."""
    points = transform_points(crops.region(row).crop_from_frame(SIZE), landmarks.points[row].astype(float))
    top = points[list(JAW_LINE), 1].max() + below * face_height_px(points[None])[0]
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[max(round(float(top)), 0) :, 30:98] = 255
    return mask


def test_something_at_or_near_the_jaw_is_doubtful_and_so_are_the_frames_beside_it():
    _, landmarks, crops = face_with({}, OcclusionEvidence.HANDS)
    for below, doubtful in ((-0.3, True), (0.05, True), (0.25, False)):
        table, *_ = face_with({50: square(landmarks, crops, 50, below)}, OcclusionEvidence.HANDS)
        expected = np.zeros(COUNT, bool)
        expected[50 - REACH : 51 + REACH] = doubtful
        np.testing.assert_array_equal(unsure_frames(table, landmarks, crops, TIMES_S), expected, err_msg=str(below))


def test_frames_whose_clean_face_is_known_are_not_doubtful():
    _, landmarks, crops = face_with({}, OcclusionEvidence.APPEARANCE)
    mask = square(landmarks, crops, 20, -0.3)
    for evidence in (OcclusionEvidence.APPEARANCE, OcclusionEvidence.NERF, OcclusionEvidence.NONE):
        table, *_ = face_with({20: mask}, evidence)
        assert not unsure_frames(table, landmarks, crops, TIMES_S).any()


def test_a_frame_without_a_face_is_not_looked_at():
    _, landmarks, crops = face_with({}, OcclusionEvidence.HANDS)
    table, *_ = face_with({20: np.full((SIZE, SIZE), 255, np.uint8)}, OcclusionEvidence.HANDS)
    lost = replace(landmarks, valid=np.zeros(COUNT, bool))
    assert not unsure_frames(table, lost, crops, TIMES_S).any()


def test_a_flash_between_doubtful_frames_or_before_a_cut_is_doubtful_too():
    _, landmarks, crops = face_with({}, OcclusionEvidence.HANDS)
    masks = {row: square(landmarks, crops, row, -0.3) for row in (30, 60)}
    table, *_ = face_with(masks, OcclusionEvidence.HANDS)
    plain = unsure_frames(table, landmarks, crops, TIMES_S)
    assert plain[30 : 61 + REACH].all()
    assert not plain[: 30 - REACH].any(), "the clip's start is no cut"
    assert not plain[61 + REACH :].any(), "1.3 s to its end"
    slow = unsure_frames(table, landmarks, crops, TIMES_S * 3)
    assert np.flatnonzero(slow).tolist() == [*range(24, 37), *range(54, 67)]
    cut = unsure_frames(table, landmarks, crops, TIMES_S * 3, np.array([0, 69]))
    np.testing.assert_array_equal(np.flatnonzero(cut & ~slow), [67, 68])
