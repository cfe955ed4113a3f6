"""Measures of plausibility: exact on made-up faces, and a real face against blank walls and noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from data_gen.utils.mp_feature_extractors.face_landmarker import build_landmarker, region_of_landmarks
from data_gen.utils.process_video.appearance import mean_face
from data_gen.utils.process_video.plausibility import (
    CHEEKS,
    PUPILS,
    affine_residual,
    eye_contrast,
    face_extent_px,
    face_plausibility,
    look_disagreement,
    mirror_disagreement,
    shape_jitter,
)
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.crops import CropRegion
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame


@pytest.fixture(scope="module")
def model():
    return FaceModel.load(FACE_MODEL_FILE)


@pytest.fixture(scope="module")
def face(model):
    return mean_face(model)


@given(angles=st.tuples(*[st.floats(-60, 60)] * 3), scale=st.floats(1, 400))
def test_any_view_of_the_mean_face_fits_exactly(face, angles, scale):
    points = (face @ Rotation.from_euler("xyz", angles, degrees=True).as_matrix().T)[:, :2] * scale + [300, 200]
    assert affine_residual(points, face) < 1e-9


def test_residual_is_the_rms_of_what_no_camera_explains(face):
    rng = np.random.default_rng(0)
    points = face[:, :2] * 100
    noise = rng.normal(scale=2.0, size=points.shape)
    expected = 2.0 * np.sqrt(2) / face_extent_px(points)
    assert affine_residual(points + noise, face) == pytest.approx(expected, rel=0.1)
    assert affine_residual(points[rng.permutation(478)], face) > 0.15


def test_a_mirrored_face_agrees_with_itself(model, face):
    counterpart = model.landmark_mirror.numpy()
    points = face[:, :2] * 80 + [200, 150]
    mirrored = points[counterpart] * [-1, 1] + [640, 0]
    assert mirror_disagreement(points, mirrored, 640, counterpart) < 1e-6
    assert mirror_disagreement(points, mirrored + np.array([0, 8]), 640, counterpart) == pytest.approx(
        8 / face_extent_px(points)
    )


def test_jitter_does_not_see_motion(face):
    points = face[:, :2] * 90
    moved = points @ np.array([[1.1, 0.2], [-0.1, 0.95]]) + [40, -7]
    assert shape_jitter(points, moved) < 1e-9
    shaken = moved + np.random.default_rng(0).normal(scale=1.0, size=moved.shape)
    assert shape_jitter(points, shaken) > 0.005
    assert look_disagreement(points, points + np.array([3, 4])) == pytest.approx(5 / face_extent_px(points))


def test_pupils_darker_than_cheeks(face):
    points = face[:, :2] * 60 + [100, 100]
    luma = np.full((200, 200), 150.0)
    assert eye_contrast(luma, points) == 0.0
    for x, y in points[list(PUPILS)]:
        luma[int(y) - 6 : int(y) + 7, int(x) - 6 : int(x) + 7] = 50
    assert eye_contrast(luma, points) == pytest.approx(0.5)
    assert eye_contrast(200 - luma, points) < 0
    assert eye_contrast(luma, points + 1000) == 0.0
    assert len(set(CHEEKS) & set(PUPILS)) == 0


@given(st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_plausibility_is_a_probability_that_falls_with_disagreement(presence, small, more):
    near, far = sorted((small, more))
    for name in ("settling", "mirror", "shifted"):
        first, second = face_plausibility(presence, **{name: near}), face_plausibility(presence, **{name: far})
        assert 0 <= second <= first <= 1
    assert face_plausibility(presence) <= face_plausibility(min(1.0, presence + 0.1))


def looked_at(landmarker, rgb, region, counterpart):
    """Plausibility of what the network sees in a region, from all measures."""
    first = landmarker.detect(rgb, region)
    square = region_of_landmarks(first.points)
    seen = landmarker.detect(rgb, square)
    width = rgb.shape[1]
    turned = CropRegion(width - square.center_x, square.center_y, square.side, -square.angle_rad)
    mirrored = landmarker.detect(np.ascontiguousarray(rgb[:, ::-1]), turned)
    return face_plausibility(
        seen.score,
        settling=look_disagreement(seen.points, first.points),
        mirror=mirror_disagreement(seen.points, mirrored.points, width, counterpart),
    )


def test_a_real_face_is_believed_and_its_surroundings_are_not(demo_dir, model):
    landmarker, counterpart = build_landmarker(), model.landmark_mirror.numpy()
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    assert looked_at(landmarker, rgb, CropRegion(430, 200, 260), counterpart) > 0.9
    for x, y, side in ((120, 120, 160), (150, 250, 200), (80, 80, 90), (240, 300, 100)):
        assert looked_at(landmarker, rgb, CropRegion(x, y, side), counterpart) < 0.5
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    assert looked_at(landmarker, noise, CropRegion(100, 100, 150), counterpart) < 0.1
    assert looked_at(landmarker, np.full((200, 200, 3), 220, np.uint8), CropRegion(100, 100, 150), counterpart) < 0.5
