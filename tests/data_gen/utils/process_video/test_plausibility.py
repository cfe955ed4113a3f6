"""Measures of plausibility: exact on made-up faces, and a real face against blank walls and noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.mp_feature_extractors.face_landmarker import build_landmarker, region_of_landmarks
from data_gen.utils.process_video.appearance import mean_face
from data_gen.utils.process_video.plausibility import (
    face_extent_px,
    face_plausibility,
    look_disagreement,
    mirror_disagreement,
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


def test_a_mirrored_face_agrees_with_itself(model, face):
    counterpart = model.landmark_mirror.numpy()
    points = face[:, :2] * 80 + [200, 150]
    mirrored = points[counterpart] * [-1, 1] + [640, 0]
    assert mirror_disagreement(points, mirrored, 640, counterpart) < 1e-6
    assert mirror_disagreement(points, mirrored + np.array([0, 8]), 640, counterpart) == pytest.approx(
        8 / face_extent_px(points)
    )


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
