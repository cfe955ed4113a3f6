"""The outline's slide, and painted heads in the mirror."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_gen.utils.build_face_model.linear_views import linearize_paintings
from data_gen.utils.build_face_model.outline import TURNS_DEG, measure_outline
from data_gen.utils.build_face_model.views import view_heads
from data_gen.utils.mp_feature_extractors.face_landmarker import TASK_FILE, FaceLandmarker
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.face_model.fitting import OutlineSlide
from modules.face_model.model import FaceModel
from modules.structures.landmarks import FACE_OVAL, inter_ocular_px
from tests.data_gen.utils.build_face_model.face_cases import clip, painting
from tests.support.synthetic_head import FACE_MODEL


@pytest.fixture(scope="module")
def model():
    return replace(FaceModel.load(FACE_MODEL), outline_slide=OutlineSlide.none())


@pytest.fixture(scope="module")
def sliding(model):
    """Cheeks slide along the face's depth, 1.5 mm per 15° of yaw."""
    turns = torch.tensor(np.radians([-60.0, 0.0, 60.0]), dtype=torch.float32)
    move = torch.zeros(3, len(FACE_OVAL), 3)
    for k in (234, 93, 132):
        move[0, FACE_OVAL.index(k), 2], move[2, FACE_OVAL.index(int(model.landmark_mirror[k])), 2] = 0.06, 0.06
        move[2, FACE_OVAL.index(k), 2], move[0, FACE_OVAL.index(int(model.landmark_mirror[k])), 2] = -0.06, -0.06
    return replace(model, outline_slide=OutlineSlide(turns, move))


def oval_error(model, views):
    residual = linearize_paintings(model, views).residual[:, list(FACE_OVAL)]
    return float(np.linalg.norm(residual, axis=2).mean())


def test_a_slide_is_measured(model, sliding):
    yaws = np.radians(np.repeat(TURNS_DEG, 4))
    views = [painting(sliding, float(yaw) * (1 if seed % 2 else -1), seed) for seed, yaw in enumerate(yaws)]
    arrays = measure_outline(model, views, [])
    np.testing.assert_allclose(arrays["outline_yaw"], np.radians(15.0 * np.arange(-4, 5)), atol=1e-6)
    slide = arrays["outline_slide"]
    assert slide.shape == (9, 36, 3) and not slide[4].any()
    twin = [FACE_OVAL.index(int(model.landmark_mirror[k])) for k in FACE_OVAL]
    np.testing.assert_allclose(slide[::-1, twin] * [-1, 1, 1], slide, atol=1e-6)
    found = replace(model, outline_slide=OutlineSlide(*(torch.from_numpy(v) for v in arrays.values())))
    fresh = [painting(sliding, float(yaw), 100 + seed) for seed, yaw in enumerate(np.radians([-50, -20, 25, 40, 55]))]
    assert oval_error(found, fresh) < 0.5 * oval_error(model, fresh)


def test_points_that_stay_do_not_slide(model):
    views = [painting(model, float(yaw), seed) for seed, yaw in enumerate(np.radians(np.repeat(TURNS_DEG, 2)))]
    assert np.abs(measure_outline(model, views, [])["outline_slide"]).max() < 1e-3


def test_a_mirrored_view_is_the_view_of_the_mirrored_head(model):
    view = painting(model, 0.5, 7)
    mirrored = view.mirrored(model)
    assert mirrored.euler[1] == -view.euler[1]
    corners, weights = model.landmark_triangles.numpy(), model.landmark_weights.numpy()
    seen = mirrored.pixels((mirrored.shape[corners] * weights[..., None]).sum(axis=1))
    off = np.linalg.norm(seen - mirrored.points, axis=1) / inter_ocular_px(mirrored.points)
    assert np.median(off) < 0.005 and off.max() < 0.06  # the anchors themselves are symmetric to that


@pytest.mark.skipif(not (MEDIAPIPE_DIR / TASK_FILE).exists(), reason=f"{TASK_FILE} is not there: run scripts/setup.sh")
def test_painted_heads_are_found_at_the_yaw_asked_for(model):
    yaws = np.radians([0.0, 50.0])
    views = view_heads(model, FaceLandmarker(blendshapes=False), yaws, np.random.default_rng(5))
    np.testing.assert_allclose([v.euler[1] for v in views], yaws, atol=1e-6)
    residual = linearize_paintings(model, views).residual[:, :468]
    assert np.linalg.norm(residual, axis=2).mean() < 0.05  # dm


def test_real_heads_slide_too(model, sliding):
    clips = [clip(sliding, seed, frames=8) for seed in range(6)]
    found = measure_outline(model, [painting(model, 0.0, 1)], clips)["outline_slide"]
    column = FACE_OVAL.index(234)
    assert found[2, column, 2] > 0.01 > -0.01 > found[6, column, 2]  # at -30° forwards, at 30° back
