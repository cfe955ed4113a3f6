"""Which landmarks face the camera."""

import numpy as np
import torch

from data_gen.utils.process_video.fit_visibility import facing, outward_normals
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.fitting import LandmarkRows, OutlineSlide
from modules.face_model.model import FaceModel
from modules.structures.landmarks import FACE_OVAL, IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE


def rows_of(mean, usable=None):
    nothing = torch.zeros(len(mean), 3, 1)
    return LandmarkRows(mean, nothing, nothing, OutlineSlide.none(), usable)


def test_normals_of_a_round_front_point_away_from_its_axis():
    generator = np.random.default_rng(0)
    angle, up = generator.uniform(-1.2, 1.2, 468), generator.uniform(-1, 1, 468)
    mean = torch.from_numpy(np.stack([np.sin(angle), up, np.cos(angle)], axis=1)).float()
    normals = outward_normals(rows_of(mean))
    skin = np.array([i for i in range(468) if i not in FACE_OVAL])
    skin = skin[(np.abs(up[skin]) < 0.8) & (np.abs(angle[skin]) < 1.0)]
    outward = torch.from_numpy(np.stack([np.sin(angle), 0 * up, np.cos(angle)], axis=1)).float()
    assert float((normals[skin] * outward[skin]).sum(dim=1).median()) > 0.97
    assert (normals[list(FACE_OVAL)] == 0).all()


def test_the_far_eye_of_a_profile_counts_less():
    normals = outward_normals(FaceModel.load(FACE_MODEL_FILE).landmark_rows())
    params = torch.zeros(3, 6)
    params[:, 1] = torch.tensor([0.0, 1.4, -1.4])  # a positive angle turns towards the image's right
    weights = facing(normals, params, 0.1)
    left, right = weights[:, list(IMAGE_LEFT_EYE)].mean(dim=1), weights[:, list(IMAGE_RIGHT_EYE)].mean(dim=1)
    assert float(left[0]) > 0.9 and float(right[0]) > 0.9
    assert float(right[1]) < 0.4 < 0.6 < float(left[1])
    assert float(left[2]) < 0.4 < 0.6 < float(right[2])
    assert float(weights.min()) >= 0.1 - 1e-6 and (weights[:, list(FACE_OVAL)] == 1).all()


def test_points_that_the_model_lacks_have_no_normal():
    mean = torch.randn(468, 3, generator=torch.Generator().manual_seed(0))
    usable = torch.ones(468, dtype=torch.bool)
    usable[:400] = False
    normals = outward_normals(rows_of(mean, usable))
    assert (normals[:400] == 0).all() and normals.isfinite().all()
    assert (outward_normals(rows_of(torch.zeros(468, 3), usable & False)) == 0).all()


def test_normals_are_those_of_the_mesh():
    model = FaceModel.load(FACE_MODEL_FILE)
    a, b, c = (model.mean[model.triangles[:, i]] for i in range(3))
    faces = torch.linalg.cross(b - a, c - a).repeat_interleave(3, dim=0)
    of_vertices = torch.zeros_like(model.mean).index_add_(0, model.triangles.flatten(), faces)
    wanted = (of_vertices[model.landmark_triangles] * model.landmark_weights[..., None]).sum(dim=1)
    wanted = wanted / wanted.norm(dim=1, keepdim=True)
    normals = outward_normals(model.landmark_rows())
    cosine = (wanted * normals).sum(dim=1)[(normals != 0).any(dim=1)]
    assert float(cosine.median()) > 0.95 and float(cosine.quantile(0.1)) > 0.6
