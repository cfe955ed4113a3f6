import numpy as np
import pytest

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


def test_the_square_ignores_jitter_and_follows_motion():
    jittered = steadied(CropRegion(100, 100, 200), CropRegion(101, 100, 202))
    assert jittered.center_x == pytest.approx(100.1, abs=0.02)
    moved = steadied(jittered, CropRegion(140, 100, 200))
    assert moved.center_x == pytest.approx(140, abs=0.01)
    turned = steadied(CropRegion(0, 0, 100, 3.1), CropRegion(0, 0, 100, -3.1))
    assert abs(np.remainder(turned.angle_rad - 3.1, 2 * np.pi)) < 0.1, "the short way round"
