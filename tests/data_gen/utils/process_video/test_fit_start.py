"""Closed-form poses, the choice of frames, and what a landmark table gives the fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.process_video.fit_config import INNER_LIP_GAPS, FitConfig
from data_gen.utils.process_video.fit_residuals import LandmarkBasis
from data_gen.utils.process_video.fit_start import perspective_pose, spread_frames, view_of, weak_perspective_pose
from modules.face_model.projection import project, rotation_from_euler
from modules.structures.cameras import CameraIntrinsics
from tests.data_gen.utils.process_video.fit_cases import bump_model, made_clip

MODEL = bump_model()


def posed_points(x, y, z, across, up):
    euler, translation = torch.tensor([[x, y, z]]), torch.tensor([[across, up, 3.0]])
    camera = CameraIntrinsics.for_frame(1280, 720)
    points, depth = project(MODEL.mean[None], euler, translation, camera)
    return euler, translation, camera, points, float(depth.mean())


def turn(pose, euler):
    relative = rotation_from_euler(pose[:, :3]).mT @ rotation_from_euler(euler)
    return float(torch.arccos(((relative.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1)))


@settings(max_examples=30)
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(-3.0, 3.0), st.floats(-1, 1), st.floats(-1, 1))
def test_closed_form_poses_are_near_the_truth(x, y, z, across, up):
    euler, translation, camera, points, depth = posed_points(x, y, z, across, up)
    weak = weak_perspective_pose(MODEL.mean, points, torch.ones(1, 478), camera)
    pose = perspective_pose(MODEL.mean, points, torch.ones(1, 478), camera)
    assert turn(weak, euler) < 0.3
    assert turn(pose, euler) < 0.03
    assert float((pose[:, 3:] - translation).abs().max()) < 0.02 * depth


def test_points_on_a_line_have_no_pose():
    line = torch.linspace(0, 100, 478)[None, :, None].expand(1, 478, 2).contiguous()
    camera = CameraIntrinsics.for_frame(640, 360)
    for points in (line, torch.full((1, 478, 2), 7.0)):
        assert torch.isnan(weak_perspective_pose(MODEL.mean, points, torch.ones(1, 478), camera)).all()
        assert torch.isnan(perspective_pose(MODEL.mean, points, torch.ones(1, 478), camera)).all()


def test_spread_frames_find_the_odd_pose():
    params = torch.zeros(1000, 10)
    params[777, 1] = 0.8
    chosen = spread_frames(params, 20)
    assert 777 in chosen and len(chosen) <= 20
    assert torch.equal(chosen, chosen.sort().values)
    assert torch.equal(spread_frames(params[:5], 20), torch.arange(5))


def view(landmarks, visible=None, shot_starts=None):
    basis = LandmarkBasis.of(MODEL.landmark_rows(), INNER_LIP_GAPS, torch.float32)
    return view_of(landmarks, visible, basis, MODEL.expression_prior(), FitConfig(), shot_starts)


def test_only_frames_with_enough_finite_points_are_used():
    landmarks = made_clip(MODEL, 8).landmarks
    points, valid, visible = landmarks.points.copy(), np.ones(8, bool), np.ones((8, 478), np.float32)
    valid[1] = False
    points[2, 20:] = np.nan
    points[3, :, 0] = np.inf
    visible[4, 25:] = 0
    points[5, 100] = np.nan
    points[6, 7] = 1e30
    found = view(replace(landmarks, points=points, valid=valid), visible)
    assert found.frames.tolist() == [0, 5, 6, 7]
    seen = found.rows(slice(0, 4))
    assert seen.points.isfinite().all() and float(seen.points.abs().max()) < 1e6
    assert seen.weights[1, 100] == 0 and seen.weights[2, 7] == 0 and (seen.weights[0] > 0).all()


def test_cuts_and_shots_part_the_frames():
    landmarks = made_clip(MODEL, 12, noise_px=0.1).landmarks
    points = landmarks.points.copy()
    points[8:] += 200.0
    steps = np.diff(view(replace(landmarks, points=points), shot_starts=np.array([0, 3])).index.numpy())
    assert np.flatnonzero(steps != 1).tolist() == [2, 7]


def test_hidden_scores_are_no_expectation():
    landmarks = made_clip(MODEL, 3).landmarks
    scores = landmarks.blendshapes.copy()
    scores[1] = np.nan
    scores[2] = 50.0
    expected = view(replace(landmarks, blendshapes=scores)).expected
    assert (expected[1] == 0).all() and float(expected[2].max()) == 1.0


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="weights must be"):
        view(made_clip(MODEL, 3).landmarks, np.ones((3, 468), np.float32))
