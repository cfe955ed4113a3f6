import math

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.hand_landmarker import (
    HandLandmarker,
    PalmDetection,
    region_of_hand,
    region_of_palm,
    same_hand,
)
from modules.structures.boxes import BoundingBox
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame

FACE = BoundingBox(330, 90, 545, 355)


@pytest.fixture(scope="module")
def landmarker():
    return HandLandmarker(min_palm=0.3)


def upright_hand():
    """A hand pointing up: wrist below, fingers above."""
    points = np.zeros((21, 2), dtype=np.float32)
    points[0] = (0, 100)
    for finger, x in enumerate((-40, -20, 0, 15, 30)):
        for joint in range(4):
            points[1 + 4 * finger + joint] = (x, 20 - 25 * joint)
    return points


def test_the_palm_region_looks_along_the_fingers():
    keypoints = np.zeros((7, 2), dtype=np.float32)
    keypoints[0], keypoints[2] = (50, 80), (50, 20)
    up = region_of_palm(PalmDetection(BoundingBox(30, 20, 70, 80), keypoints, 0.9))
    assert up.angle_rad == pytest.approx(0)
    assert (up.center_x, up.center_y) == pytest.approx((50, 20)), "half a palm towards the fingers"
    assert up.side == pytest.approx(2.6 * 60)
    keypoints[0], keypoints[2] = (20, 50), (80, 50)
    right = region_of_palm(PalmDetection(BoundingBox(20, 30, 80, 70), keypoints, 0.9))
    assert right.angle_rad == pytest.approx(math.pi / 2)
    assert (right.center_x, right.center_y) == pytest.approx((70, 50))


@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5])
def test_the_hand_region_turns_with_the_hand(angle):
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    base, turned = region_of_hand(upright_hand()), region_of_hand(upright_hand() @ turn.T)
    assert math.remainder(turned.angle_rad - base.angle_rad - angle, 2 * math.pi) == pytest.approx(0, abs=1e-5)
    assert turned.side == pytest.approx(base.side, rel=1e-5)


def test_same_hand_by_distance():
    hand = upright_hand()
    assert same_hand(hand, hand + 10)
    assert not same_hand(hand, hand + 80)


def test_finds_the_hand_of_the_demo_clip(landmarker, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 114))
    hands = landmarker.detect(rgb, FACE.scaled(3.0))
    assert len(hands) == 1
    assert hands[0].score > 0.9
    tips = hands[0].points[[8, 12, 16, 20]]
    inside = (tips >= (FACE.x0, FACE.y0)).all() and (tips <= (FACE.x1, FACE.y1)).all()
    assert inside, "the finger tips lie on the face"
    again = landmarker.landmarks(rgb, region_of_hand(hands[0].points))
    assert again is not None
    assert same_hand(again.points, hands[0].points)


def test_a_bare_face_shows_no_hand(landmarker, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 312))
    assert landmarker.detect(rgb, FACE.scaled(3.0)) == []
    assert landmarker.detect(rgb) == []
