"""Pose conversions against GeneFace++'s own outputs, and their inverses."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.commons.workspace import ROOT
from modules.structures.cameras import (
    CAMERA_DISTANCE,
    CameraIntrinsics,
    camera_pose,
    dataset_translation,
    euler_from_rotation,
    fitted_translation,
    head_pose,
    ngp_pose,
    pose6,
    rotation_matrices,
    smooth_camera_path,
)

FIXTURE = ROOT.parent / "shared" / "fixtures" / "geneface" / "face3d_pose.npz"
angles = st.floats(-1.4, 1.4)
numbers = st.floats(-5, 5)


@pytest.fixture(scope="module")
def golden():
    if not Path(FIXTURE).is_file():
        pytest.skip(f"golden fixtures are not here: {FIXTURE}")
    with np.load(FIXTURE) as data:
        return dict(data)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)


def test_golden_rotation_and_camera_pose(golden):
    assert_close(rotation_matrices(golden["euler"]), golden["rotation"])
    assert_close(camera_pose(golden["euler"], golden["trans"]), golden["c2w"])


def test_golden_translations_of_datasets(golden):
    assert_close(dataset_translation(golden["trans"]), golden["trans_ds"])
    assert_close(fitted_translation(golden["trans_ds"]), golden["trans"])
    assert dataset_translation(golden["trans"]).dtype == np.float32


def test_golden_ngp_pose_and_pose6(golden):
    assert_close(ngp_pose(golden["c2w"]), golden["ngp_pose"])
    assert_close(pose6(golden["ngp_pose"]), golden["pose6"])


def test_golden_smooth_path(golden):
    assert_close(smooth_camera_path(golden["c2w"], 7), golden["smooth_c2w_k7"])


def test_golden_intrinsics(golden):
    camera = CameraIntrinsics.geneface(int(golden["rays_H"]))
    assert_close([camera.fx, camera.fy, camera.cx, camera.cy], golden["intrinsics16"])


@given(angles, angles, angles, numbers, numbers, numbers)
def test_rotation_is_the_product_of_axis_rotations_and_inverts(a, b, c, x, y, z):
    euler, translation = np.array([a, b, c]), np.array([x, y, z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotation = rotation_matrices(euler)
    np.testing.assert_allclose(rotation, (rz @ ry @ rx).T, atol=1e-12)
    np.testing.assert_allclose(euler_from_rotation(rotation), euler, atol=1e-9)
    back_euler, back_translation = head_pose(camera_pose(euler, translation))
    np.testing.assert_allclose(back_euler, euler, atol=1e-9)
    np.testing.assert_allclose(back_translation, translation, atol=1e-9)


@given(angles, angles, angles, numbers, numbers, numbers)
def test_camera_pose_sees_points_where_the_projection_puts_them(a, b, c, x, y, z):
    """A head point seen by the moved camera lands on the pixel of the moved head."""
    euler, translation = np.array([a, b, c]), np.array([x, y, z])
    camera = CameraIntrinsics.for_frame(640, 360)
    point = np.array([0.3, -0.4, 0.7])
    moved = point @ rotation_matrices(euler) + translation
    depth = CAMERA_DISTANCE - moved[2]
    expected = [camera.cx + camera.fx * moved[0] / depth, camera.cy - camera.fy * moved[1] / depth]
    world = np.array([point[1], point[2], point[0]]) * (4.0 / CAMERA_DISTANCE)
    pose = ngp_pose(camera_pose(euler, translation))
    seen = camera.matrix() @ (pose[:3, :3].T @ (world - pose[:3, 3]))
    np.testing.assert_allclose(seen[:2] / seen[2], expected, atol=1e-6)


def test_smoothing_keeps_a_still_camera_and_a_single_frame():
    pose = camera_pose(np.array([[0.1, -0.2, 0.3]]), np.array([[0.0, 0.1, 1.0]]))
    np.testing.assert_allclose(smooth_camera_path(pose), pose, atol=1e-12)
    still = np.repeat(pose, 9, axis=0)
    np.testing.assert_allclose(smooth_camera_path(still), still, atol=1e-12)
