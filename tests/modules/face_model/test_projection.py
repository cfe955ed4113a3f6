"""Projection: hand-computed values, rotation properties, derivatives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.face_model.projection import project, rotation_from_euler, to_camera
from modules.structures.cameras import CameraIntrinsics

CAMERA = CameraIntrinsics(1000.0, 800.0, 320.0, 240.0, 640, 480)
ANGLE = st.floats(-math.pi, math.pi)


def one(values):
    return torch.tensor([values], dtype=torch.float64)


def naive_rotation(x, y, z):
    """Rz·Ry·Rx as three plain matrices, transposed."""
    rx = torch.tensor([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]], dtype=torch.float64)
    ry = torch.tensor([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]], dtype=torch.float64)
    rz = torch.tensor([[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]], dtype=torch.float64)
    return (rz @ ry @ rx).T


@given(ANGLE, ANGLE, ANGLE)
@settings(max_examples=40, deadline=None)
def test_rotation_is_the_transposed_product(x, y, z):
    rotation = rotation_from_euler(torch.tensor([x, y, z], dtype=torch.float64))
    torch.testing.assert_close(rotation, naive_rotation(x, y, z))
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert torch.linalg.det(rotation) == pytest.approx(1.0)


def test_rotation_keeps_batch_shape():
    assert rotation_from_euler(torch.zeros(4, 5, 3)).shape == (4, 5, 3, 3)


def test_projection_without_rotation_by_hand():
    # x' = 1 + 0.5, y' = 2 - 1, z' = 3 + 2 → depth 5 → u = 320 + 1000·1.5/5, v = 240 - 800·1/5
    pixels, depth = project(one([[1.0, 2.0, 3.0]]), one([0.0, 0.0, 0.0]), one([0.5, -1.0, 2.0]), CAMERA)
    assert depth.tolist() == [[5.0]]
    torch.testing.assert_close(pixels, one([[620.0, 80.0]]))


@pytest.mark.parametrize(
    ("euler", "moved"),
    [
        # a quarter turn about x: y → z; the face (z) looks down (-y)
        ([math.pi / 2, 0, 0], {"y": (0, 0, 1), "z": (0, -1, 0)}),
        # about y: the face looks towards the image's right (+x)
        ([0, math.pi / 2, 0], {"z": (1, 0, 0), "x": (0, 0, -1)}),
        # about z: x → y, a counter-clockwise roll as seen by the camera
        ([0, 0, math.pi / 2], {"x": (0, 1, 0), "y": (-1, 0, 0)}),
    ],
)
def test_quarter_turns(euler, moved):
    axes = {"x": [1.0, 0, 0], "y": [0, 1.0, 0], "z": [0, 0, 1.0]}
    for axis, expected in moved.items():
        got = to_camera(one([axes[axis]]), one([float(v) for v in euler]), one([0.0, 0.0, 0.0]))[0, 0]
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_order_of_rotations_is_x_then_y_then_z():
    # z axis: quarter turn about x sends it to -y, about y leaves it, about z sends -y to x
    got = to_camera(one([[0.0, 0.0, 1.0]]), one([math.pi / 2] * 3), one([0.0, 0.0, 0.0]))[0, 0]
    torch.testing.assert_close(got, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), atol=1e-12, rtol=0)


def test_one_shape_many_poses():
    points = torch.randn(1, 7, 3, dtype=torch.float64)
    euler, translation = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    pixels, depth = project(points, euler, translation, CAMERA)
    assert pixels.shape == (4, 7, 2) and depth.shape == (4, 7)
    each = [project(points, euler[i : i + 1], translation[i : i + 1], CAMERA)[0] for i in range(4)]
    torch.testing.assert_close(pixels, torch.cat(each))


def test_gradients_match_finite_differences():
    inputs = (
        torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(2, 3, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda p, e, t: project(p, e, t, CAMERA), inputs)
