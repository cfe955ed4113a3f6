import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_video.face_geometry import (
    distance_in_faces,
    is_face_shaped,
    landmark_box,
    landmark_boxes,
    moved_like_a_head,
    steadied,
    yaw_rad,
)
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion
from tests.data_gen.utils.process_video.moving_face import face_template


def test_shape_test_knows_a_face_from_a_jumble():
    face = face_template() * 100
    assert is_face_shaped(face)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    assert is_face_shaped(face @ turn.T), "roll does not matter"
    upside_down = face.copy()
    upside_down[[0, 17]], upside_down[[33, 133, 362, 263]] = face[33], face[0]
    assert not is_face_shaped(upside_down)
    assert not is_face_shaped(face * 0)
    assert not is_face_shaped(face * np.nan)


def test_heads_do_not_leap():
    box = BoundingBox(0, 0, 80, 100)
    assert moved_like_a_head(box, box.shifted(20, 20))
    assert not moved_like_a_head(box, box.shifted(80, 0))
    assert not moved_like_a_head(box, box.scaled(2))
    assert distance_in_faces(box, box.shifted(50, 20)) == pytest.approx(0.5)


def test_boxes_of_many_faces_are_the_boxes_of_each():
    faces = np.stack([face_template() * size + shift for size, shift in ((50, 3), (80, 20))])
    for row, points in zip(landmark_boxes(faces), faces, strict=True):
        np.testing.assert_array_equal(row, landmark_box(points).as_array())
    assert np.isnan(landmark_boxes(np.full((1, 478, 2), np.nan))).all()


@pytest.mark.parametrize("degrees", [-80, -30, 0, 45, 70])
def test_yaw_is_the_turn_of_the_line_between_the_sides(degrees):
    angle = np.radians(degrees)
    points, depth = np.zeros((478, 2)), np.zeros(478)
    points[454, 0], depth[454] = 100 * np.cos(angle), 100 * np.sin(angle)
    assert yaw_rad(points, depth) == pytest.approx(angle)


def test_the_square_is_frozen_under_jitter_to_the_last_bit():
    start = CropRegion(100.3, 100.7, 200.1, 0.2)
    random = np.random.default_rng(0)
    region = start
    for _ in range(200):
        x, y = random.uniform(-2.5, 2.5, 2)
        wanted = CropRegion(
            start.center_x + x, start.center_y + y, start.side * 1.03, 0.2 + random.uniform(-0.03, 0.03)
        )
        region = steadied(region, wanted)
    assert region == start


def test_quick_motion_is_followed_at_once_and_slow_motion_closely():
    region = steadied(CropRegion(100, 100, 200), CropRegion(140, 100, 200))
    assert (region.center_x, region.center_y, region.angle_rad) == (140, 100, 0)
    assert region.side == pytest.approx(200)
    assert steadied(region, CropRegion(140, 100, 300)).side == pytest.approx(300)
    for step in range(100):  # half a percent of the side per frame
        wanted = CropRegion(140 + step, 100, 200)
        region = steadied(region, wanted)
        assert abs(region.center_x - wanted.center_x) <= 0.025 * 200


def test_the_short_way_round_is_taken():
    turned = steadied(CropRegion(0, 0, 100, 3.1), CropRegion(0, 0, 100, -3.1))
    assert abs(np.remainder(turned.angle_rad - 3.1, 2 * np.pi)) < 0.1


@given(
    path=st.lists(
        st.tuples(st.floats(-300, 300), st.floats(-300, 300), st.floats(40, 400), st.floats(-3.1, 3.1)),
        min_size=1,
        max_size=12,
    ),
    reach=st.sampled_from([0.01, 0.1, 1.0]),
)
def test_the_square_is_never_far_behind_and_never_overshoots(path, reach):
    region = CropRegion(0, 0, 200, 0)
    for x, y, side, angle in path:
        wanted = CropRegion(reach * x, reach * y, 200 + reach * (side - 200), reach * angle)
        after = steadied(region, wanted)
        before_off, off = _offset(region, wanted), _offset(after, wanted)
        assert (off <= before_off + 1e-6).all(), "nearer, or as near"
        assert (off <= np.array([0.025 * region.side, 0.04, 0.04]) + 1e-6).all(), "never far behind"
        assert (_offset(region, after) <= before_off + 1e-6).all(), "no further than what it follows"
        region = after


def _offset(one, other):
    """(centre distance px, log side, turn) between two squares."""
    turn = abs(math.remainder(other.angle_rad - one.angle_rad, 2 * math.pi))
    distance = np.hypot(other.center_x - one.center_x, other.center_y - one.center_y)
    return np.array([distance, abs(np.log(other.side / one.side)), turn])
