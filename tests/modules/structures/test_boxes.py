import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.structures.boxes import BoundingBox, FaceDetection

coordinates = st.floats(-1e4, 1e4)
sizes = st.floats(0.1, 1e4)


@st.composite
def boxes(draw):
    x0, y0 = draw(coordinates), draw(coordinates)
    return BoundingBox(x0, y0, x0 + draw(sizes), y0 + draw(sizes))


@pytest.mark.parametrize(
    "corners", [(0, 0, 0, 1), (1, 0, 0, 1), (0, 2, 1, 1), (float("nan"), 0, 1, 1), (0, 0, 1, float("nan"))]
)
def test_empty_inverted_and_nan_boxes_are_refused(corners):
    with pytest.raises(ValueError, match="empty or inverted"):
        BoundingBox(*corners)


def test_iou_by_hand():
    box = BoundingBox(0, 0, 2, 2)
    assert box.iou(BoundingBox(1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert box.iou(box) == 1.0
    assert box.iou(BoundingBox(2, 0, 4, 2)) == 0.0, "half-open boxes that touch share nothing"


@given(boxes(), boxes())
def test_iou_is_symmetric_and_bounded(first, second):
    assert 0.0 <= first.iou(second) <= 1.0 + 1e-9
    assert first.iou(second) == pytest.approx(second.iou(first))


@given(boxes(), st.floats(0.5, 4), coordinates, coordinates)
def test_scaled_keeps_the_centre_and_shifted_the_size(box, factor, x, y):
    grown = box.scaled(factor)
    assert grown.center == pytest.approx(box.center, abs=1e-6)
    assert grown.width == pytest.approx(box.width * factor, rel=1e-6, abs=1e-6)
    moved = box.shifted(x, y)
    assert moved.center == pytest.approx((box.center[0] + x, box.center[1] + y), abs=1e-6)


def test_pixel_bounds_cover_every_touched_pixel_inside_the_frame():
    assert BoundingBox(0.5, 1.2, 2.0, 2.1).pixel_bounds(10, 10) == (0, 1, 2, 3)
    assert BoundingBox(-5, -5, 3, 3).pixel_bounds(10, 2) == (0, 0, 3, 2)
    assert BoundingBox(10, 0, 12, 2).pixel_bounds(10, 10) is None


def test_detection_checks_score_and_keypoints_and_moves_as_one():
    box = BoundingBox(0, 0, 2, 2)
    with pytest.raises(ValueError, match="score"):
        FaceDetection(box, 1.5, np.zeros((5, 2), dtype=np.float32))
    with pytest.raises(ValueError, match="keypoints"):
        FaceDetection(box, 0.5, np.zeros((5, 3), dtype=np.float32))
    moved = FaceDetection(box, 0.5, np.ones((5, 2), dtype=np.float32)).shifted(3, 4)
    assert moved.box == BoundingBox(3, 4, 5, 6)
    np.testing.assert_array_equal(moved.keypoints, np.tile([4, 5], (5, 1)))
    assert moved.keypoints.dtype == np.float32
