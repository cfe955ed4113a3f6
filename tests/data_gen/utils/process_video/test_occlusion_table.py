"""Occlusion of a whole clip, stretch by stretch: on drawn frames exactly, on real ones closely what one pass gives."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data_gen.runs.stages import HANDS_MARGIN, HANDS_STRETCH
from data_gen.utils.mp_feature_extractors.hand_landmarker import HandResult
from data_gen.utils.process_video.hand_tracker import HOLD, LOOK_BACK
from data_gen.utils.process_video.occlusion_detector import OcclusionDetector
from data_gen.utils.process_video.occlusion_table import join_occlusion, occlusion_table
from data_gen.utils.process_video.part_store import PartStore
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropMetadata, CropRegion, transform_points
from modules.structures.landmarks import JAW_LINE
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from tests.data_gen.utils.process_video.moving_face import box_at, bright_boxes, make_frame
from tests.data_gen.utils.process_video.test_hand_outline import open_hand
from tests.data_gen.utils.process_video.test_occlusion_detector import HAND_FACE, fake_landmarks
from tests.support.real_frames import DEMO_CLIP, read_frames

COUNT, STRETCH, SIZE = 150, 40, 256
FACE = BoundingBox(90, 60, 150, 120)
CROP = CropMetadata((CropRegion(120, 90, 128),), (180, 240), SIZE)


class DrawnHands(OcclusionDetector):
    """Sees a hand in every bright square; finds new ones in one frame of four, as real palms are found."""

    def find_hands(self, rgb, face=None, *, turn=None):
        return [self._hand(box) for box in bright_boxes(rgb)] if turn is None or turn % 4 == 1 else []

    def follow_hand(self, rgb, points, face):
        center = points.mean(axis=0)
        near = [box for box in bright_boxes(rgb) if np.linalg.norm(center - box.center) < 30]
        return self._hand(near[0]) if near else None

    @staticmethod
    def _hand(box):
        x, y = box.center
        points = open_hand((x, box.y1), size=box.height / 2).astype(np.float32)
        return HandResult(points, 0.99, CropRegion(x, y, box.width))


def hands_at(row):
    """One hand that stays over two borders, one that shows briefly before a border, one from a border on."""
    shown = 22 <= row < 95 or 114 <= row < 119 or row >= 120
    return [box_at(100 + (row % 30), 110, 40)] if shown else []


@pytest.fixture(scope="module")
def frames():
    return [make_frame(row, hands_at(row)) for row in range(COUNT)]


@pytest.fixture(scope="module")
def drawn_hands():
    return DrawnHands()


@pytest.fixture(scope="module")
def landmarks():
    valid = np.ones(COUNT, bool)
    valid[60:64] = False
    return fake_landmarks(COUNT, FACE, valid)


@pytest.fixture(scope="module")
def whole(frames, landmarks, drawn_hands):
    return occlusion_table(frames, landmarks, CROP, drawn_hands, SIZE)


def in_stretches(frames, landmarks, detector, folder, margin=HANDS_MARGIN):
    parts = PartStore(folder / "parts", "test")
    for start in range(0, COUNT, STRETCH):
        stop = min(start + STRETCH, COUNT)
        seen = frames[max(start - margin, 0) : min(stop + margin, COUNT)]
        parts.save(start, occlusion_table(seen, landmarks, CROP, detector, SIZE, (start, stop)))
    join_occlusion(parts, folder / "hands.npz", SIZE)
    return OcclusionTable.load(folder / "hands.npz")


def assert_same(made, expected):
    for name in OcclusionTable.__slots__:
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name), err_msg=name)


def test_a_table_says_when_a_hand_is_there(whole):
    covered = np.flatnonzero(whole.coverage > 0)
    np.testing.assert_array_equal(covered, whole.rows[whole.coverage[whole.rows] > 0])
    expected = [row for row in range(COUNT) if hands_at(row) and not 60 <= row < 64]
    fading = {row + k for row in (22, 95, 114, 119) for k in range(-HOLD - 1, HOLD + 1)}
    assert set(expected) - set(covered.tolist()) <= fading
    assert set(covered.tolist()) - set(expected) <= fading
    assert whole.masks.shape == (len(whole.rows), SIZE, SIZE)


def test_the_points_of_every_hand_are_kept_in_the_frames_pixels(whole):
    seen = [row for row in range(COUNT) if len(whole.hands_in(row))]
    assert set(whole.rows.tolist()) <= set(seen) and len(seen) == len(whole.hand_rows), "one hand a frame"
    for row in (30, 70, 115, 130):
        (hand,), (box,) = whole.hands_in(row), hands_at(row)
        wanted = open_hand((box.center[0], box.y1), size=box.height / 2)
        assert np.abs(hand - wanted).max() < 1.5


def test_hidden_points_and_coverage_are_those_of_the_mask(whole, landmarks):
    crop_from_frame = CROP.crop_from_frame(0)
    points = transform_points(crop_from_frame, landmarks.points[0])
    columns, rows = np.floor(points).astype(int).T
    jaw = points[list(JAW_LINE)].astype(np.float32)
    grid = range(1, SIZE, 4)
    centres = [(c, r) for r in grid for c in grid if cv2.pointPolygonTest(jaw, (c + 0.5, r + 0.5), False) > 0]
    for place, row in enumerate(whole.rows.tolist()):
        mask = whole.masks[place] > 127
        np.testing.assert_array_equal(whole.hidden[row], mask[rows, columns])
        assert whole.coverage[row] == pytest.approx(np.mean([mask[r, c] for c, r in centres]), abs=0.06)
    assert whole.hidden[whole.rows].any()
    assert not np.delete(whole.hidden, whole.rows, axis=0).any()


def test_stretches_join_to_what_one_pass_gives(frames, landmarks, drawn_hands, whole, tmp_path):
    assert_same(in_stretches(frames, landmarks, drawn_hands, tmp_path), whole)


def test_without_a_margin_they_would_not(frames, landmarks, drawn_hands, whole, tmp_path):
    made = in_stretches(frames, landmarks, drawn_hands, tmp_path, margin=0)
    assert not np.array_equal(made.coverage, whole.coverage)


def test_the_margin_holds_all_that_can_matter_and_keeps_the_order_of_scales():
    assert HANDS_MARGIN > LOOK_BACK + HOLD
    scales = len(OcclusionDetector().config.scan_scales)
    assert HANDS_STRETCH % scales == HANDS_MARGIN % scales == 0


def test_a_table_of_some_rows_counts_from_the_first(frames, landmarks, drawn_hands, whole):
    part = occlusion_table(frames, landmarks, CROP, drawn_hands, SIZE, (80, 120))
    assert len(part) == 40
    np.testing.assert_array_equal(part.coverage, whole.coverage[80:120])
    np.testing.assert_array_equal(part.rows, whole.rows[(whole.rows >= 80) & (whole.rows < 120)] - 80)


def test_frames_past_the_landmarks_are_not_looked_at(frames, landmarks, drawn_hands):
    longer = [*frames[-8:], make_frame(COUNT, hands_at(COUNT))]
    assert len(occlusion_table(longer, landmarks, CROP, drawn_hands, SIZE)) == COUNT


def test_nothing_found_is_a_table_of_nothing(tmp_path, landmarks, drawn_hands):
    empty = [make_frame(row, []) for row in range(COUNT)]
    made = in_stretches(empty, landmarks, drawn_hands, tmp_path)
    looked = np.where(landmarks.valid, OcclusionEvidence.HANDS, OcclusionEvidence.NONE).astype(np.uint8)
    assert_same(made, replace(OcclusionTable.nothing(COUNT, SIZE), evidence=looked))
    assert made.mask(3, 128) is None


@pytest.mark.slow
def test_real_hands_are_the_same_in_stretches_but_for_what_long_memory_adds(demo_dir):
    """A hand followed from long before lies a fraction of a pixel elsewhere; what is covered stays the same."""
    first, count = 40, 120
    box = HAND_FACE
    landmarks = fake_landmarks(count, box)
    metadata = CropMetadata((CropRegion(*box.center, 380),), (360, 640), 256)
    detector = OcclusionDetector()
    frames = list(read_frames(demo_dir / DEMO_CLIP, first, count))
    whole = occlusion_table(frames, landmarks, metadata, detector, 256)
    late = [frame for frame in frames if frame.index >= 88 - HANDS_MARGIN]
    part = occlusion_table(late, landmarks, metadata, detector, 256, (88, 98))
    assert (whole.coverage[88:98] > 0.05).all()
    np.testing.assert_allclose(part.coverage, whole.coverage[88:98], atol=0.03)
    for row in range(10):
        one, other = part.mask(row, 256), whole.mask(88 + row, 256)
        assert one is not None and other is not None
        assert (one & other).sum() / (one | other).sum() > 0.95
