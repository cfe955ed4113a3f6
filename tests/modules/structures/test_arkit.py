"""Live Link Face's columns, angles and time codes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from modules.face_model.head_painter import HeadLook, HeadPainter
from modules.face_model.model import ARKIT_NAMES, FaceModel
from modules.structures.arkit import (
    LIVE_LINK_ANGLES,
    LIVE_LINK_HEADER,
    LIVE_LINK_UNITS,
    eye_angles,
    head_angles,
    time_code,
    unit_name,
)
from modules.structures.cameras import CameraIntrinsics, rotation_matrices
from tests.support.synthetic_head import FACE_MODEL

# The first line of a take of the app.
HEADER = (
    "Timecode,BlendShapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,"
    "EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,EyeSquintRight,"
    "EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,"
    "MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,MouthStretchLeft,"
    "MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,MouthShrugUpper,MouthPressLeft,MouthPressRight,"
    "MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,"
    "BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,"
    "TongueOut,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)
angle = st.floats(-1.3, 1.3)


def test_columns():
    assert ",".join(LIVE_LINK_HEADER) == HEADER
    assert len(LIVE_LINK_UNITS) + len(LIVE_LINK_ANGLES) == 61
    assert sorted(map(unit_name, LIVE_LINK_UNITS)) == sorted(ARKIT_NAMES)


@pytest.mark.parametrize("axis, column, sign", [(0, 1, 1.0), (1, 0, -1.0), (2, 2, -1.0)])
@pytest.mark.parametrize("size", [-0.4, 0.1, 1.2])
def test_a_turn_about_one_axis(axis, column, sign, size):
    """Down is positive; ours towards the image's right and counter-clockwise are negative ones."""
    euler = np.zeros((1, 3), np.float32)
    euler[0, axis] = size
    expected = np.zeros(3)
    expected[column] = sign * size
    assert head_angles(euler)[0] == pytest.approx(expected, abs=1e-6)


@given(st.tuples(angle, angle, angle))
def test_angles_put_together_are_the_rotation(euler):
    """Yaw is outermost, then pitch, then roll, about axes x to the subject's left, y up, z out of the face."""
    yaw, pitch, roll = head_angles(np.array([euler]))[0]
    again = Rotation.from_euler("YXZ", [-yaw, pitch, -roll]).as_matrix()
    assert again == pytest.approx(rotation_matrices(np.array(euler)).T, abs=1e-9)


@given(st.tuples(angle, angle, angle))
def test_where_the_nose_points_says_yaw_and_pitch(euler):
    rows = rotation_matrices(np.array(euler))
    nose = np.array([0.0, 0.0, 1.0]) @ rows  # x to the image's right, y up, z to the camera
    yaw, pitch, _ = head_angles(np.array([euler]))[0]
    assert np.sin(pitch) == pytest.approx(-nose[1], abs=1e-9)
    if np.hypot(nose[0], nose[2]) > 1e-3:
        assert np.array([-np.sin(yaw), np.cos(yaw)]) * np.hypot(nose[0], nose[2]) == pytest.approx(nose[[0, 2]])


def test_painted_heads():
    """What a viewer sees: which cheek shows, whether the nose sinks, and which eye is lower."""
    model = FaceModel.load(FACE_MODEL)
    painter = HeadPainter(model, np.zeros(model.n_identity, np.float32), HeadLook())
    camera = CameraIntrinsics.for_frame(160, 160)
    on_left = (model.mean[model.triangles].mean(dim=1)[:, 0] > 0).numpy()  # the subject's left
    nose, left_eye, right_eye = (int(model.landmark_triangles[point, 0]) for point in (1, 263, 33))

    def seen(euler):
        head = painter.paint(
            np.zeros(model.n_expression, np.float32), np.array(euler), np.array([0.0, 0.0, 6.0]), camera
        )
        shown = on_left[head.fragments.triangle_id[head.fragments.covered]]
        eyes = head.vertices_px[left_eye] - head.vertices_px[right_eye]
        return float(shown.mean()), float(head.vertices_px[nose, 1]), float(eyes[0]), float(eyes[1])

    straight = seen([0.0, 0.0, 0.0])
    assert straight[0] == pytest.approx(0.5, abs=0.02) and straight[2] > 0, "the subject's left is the image's right"
    for euler in ([0.0, 0.4, 0.0], [0.0, -0.4, 0.0], [0.3, 0.0, 0.0], [-0.3, 0.0, 0.0], [0, 0, 0.3], [0, 0, -0.3]):
        yaw, pitch, roll = head_angles(np.array([euler]))[0]
        left_share, nose_y, _, lower_left_eye = seen(euler)
        if yaw:
            assert np.sign(yaw) == np.sign(left_share - 0.5), "turned to the right, the left cheek shows"
        if pitch:
            assert np.sign(pitch) == np.sign(nose_y - straight[1]), "turned down, the nose sinks"
        if roll:
            assert np.sign(roll) == np.sign(lower_left_eye), "leaning to the left, the left eye is lower"


def units(**values):
    row = np.zeros((1, 52))
    for name, value in values.items():
        row[0, LIVE_LINK_UNITS.index(name)] = value
    return row


@pytest.mark.parametrize(
    "looks, measured",
    [
        ({"EyeLookOutLeft": 0.600, "EyeLookInRight": 0.691}, (-0.42, 0, -0.36, 0)),
        ({"EyeLookUpLeft": 0.318, "EyeLookUpRight": 0.314}, (0, -0.14, 0, -0.14)),
        ({"EyeLookDownLeft": 0.489, "EyeLookDownRight": 0.489}, (0, 0.30, 0, 0.30)),
    ],
)
def test_eyes_of_recorded_takes(looks, measured):
    """Units and angles that the app wrote side by side; it also knows where this person's eyes rest (0.07 rad)."""
    angles = eye_angles(units(**looks))[0]
    assert angles[[0, 1, 3, 4]] == pytest.approx(measured, abs=0.075)
    assert angles[[2, 5]].tolist() == [0, 0]


def test_eyes_that_look_the_same_way_have_the_same_yaw():
    right = eye_angles(units(EyeLookInLeft=0.5, EyeLookOutRight=0.5))[0]
    assert right[0] == right[3] > 0, "to the subject's right, as a head's yaw"
    assert eye_angles(units())[0].tolist() == [0] * 6


@pytest.mark.parametrize(
    "time_s, rate, text",
    [
        (0, 60, "00:00:00:00.000"),
        (1 / 60, 60, "00:00:00:01.000"),
        (59 / 60, 60, "00:00:00:59.000"),
        (1, 60, "00:00:01:00.000"),
        (3725.5, 60, "01:02:05:30.000"),
        (0.04, 25, "00:00:00:01.000"),
        (1 - 1e-9, 60, "00:00:01:00.000"),
        (1 - 1e-9, 25, "00:00:01:00.000"),
        (29 * 1001 / 30000, Fraction(30000, 1001), "00:00:00:29.000"),
        (30 * 1001 / 30000, Fraction(30000, 1001), "00:00:01:00.030"),
        (24 * 1001 / 24000, Fraction(24000, 1001), "00:00:01:00.024"),
        (0.021, 60, "00:00:00:01.260"),
    ],
)
def test_time_codes(time_s, rate, text):
    assert time_code(time_s, Fraction(rate)) == text


def seconds_of(text, rate):
    hours, minutes, seconds, frames = text.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + int(seconds) + float(frames) / float(rate)


@given(
    st.floats(0, 90_000), st.sampled_from([Fraction(60), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(120)])
)
def test_a_time_code_gives_the_time_back(time_s, rate):
    text = time_code(time_s, rate)
    assert seconds_of(text, rate) == pytest.approx(time_s, abs=0.51e-3 / float(rate) + 1e-9)
    assert float(text.split(":")[3]) < rate


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60)])
def test_time_codes_of_a_long_take_neither_drift_nor_meet(rate):
    codes = [time_code(row / float(rate), rate) for row in range(20_000)]
    assert len({code[:-4] for code in codes}) == len(codes), "not even without the fraction of a frame"
    assert codes == sorted(codes)
    assert seconds_of(codes[-1], rate) == pytest.approx(19_999 / float(rate), abs=1e-4)


@pytest.mark.parametrize("time_s, rate", [(-0.1, 60), (1.0, 0)])
def test_no_time_code(time_s, rate):
    with pytest.raises(ValueError, match="no time code"):
        time_code(time_s, Fraction(rate))
