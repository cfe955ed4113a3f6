"""The fit's derivatives against autograd, its linear solvers against dense ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.process_video import fit_solver
from data_gen.utils.process_video.fit_3dmm_landmark import INNER_LIP_GAPS
from data_gen.utils.process_video.fit_residuals import (
    LandmarkBasis,
    Observations,
    linearize,
    residual_weights,
    residuals,
    weak_perspective_pose,
)
from modules.face_model.projection import project, rotation_from_euler
from modules.structures.cameras import CameraIntrinsics
from tests.data_gen.utils.process_video.fit_cases import bump_model, made_clip

DOUBLE = torch.float64


@pytest.fixture(scope="module")
def model():
    return bump_model()


@pytest.fixture(scope="module")
def setting(model):
    """Two frames with a random state, in double precision."""
    case = made_clip(model, 2)
    basis = LandmarkBasis.of(model, INNER_LIP_GAPS, DOUBLE)
    params = torch.cat([case.euler, case.translation, case.expression], dim=1).double()
    points = torch.from_numpy(case.landmarks.points).double()
    seen = Observations(
        points,
        torch.rand(2, 478, dtype=DOUBLE),
        torch.tensor([80.0, 90.0], dtype=DOUBLE),
        params[:, 6:],
        torch.arange(2),
    )
    return basis, case.camera, case.identity.double(), params + 0.01, seen


def dense_jacobians(setting):
    basis, camera, identity, params, seen = setting

    def error(frame_params, person):
        return residuals(basis, basis.neutral(person), frame_params, seen, camera)

    of_params, of_identity = torch.autograd.functional.jacobian(error, (params, identity))
    own = torch.stack([of_params[t, :, :, t] for t in range(len(params))])
    return error(params, identity).flatten(1), own.flatten(1, 2), of_identity.flatten(1, 2)


def test_gradient_equals_autograd_and_curvature_nearly(setting):
    basis, camera, identity, params, seen = setting
    error, of_params, of_identity = dense_jacobians(setting)
    weights = residual_weights(basis, seen, 4.0)
    springs = linearize(
        basis, basis.neutral(identity), params, error.unflatten(1, (-1, 2)), weights, seen.px_per_dm, camera
    )
    blocks, descent = fit_solver._frame_normal(basis, springs)
    border = fit_solver._identity_border(basis, springs)
    spread = weights[..., None].expand(-1, -1, 2).flatten(1)[..., None]
    torch.testing.assert_close(descent, -(of_params.mT @ (spread * error[..., None]))[..., 0], rtol=1e-9, atol=1e-9)
    # A gap row takes its upper point's view for both ends: a few per mille of the curvature, none of the gradient.
    for own, expected in (
        (blocks, of_params.mT @ (spread * of_params)),
        (border, of_params.mT @ (spread * of_identity)),
    ):
        assert (own - expected).abs().max() < 0.01 * expected.abs().max()
    without = torch.cat([weights[:, :478], torch.zeros_like(weights[:, 478:])], dim=1)
    springs = linearize(
        basis, basis.neutral(identity), params, error.unflatten(1, (-1, 2)), without, seen.px_per_dm, camera
    )
    spread = without[..., None].expand(-1, -1, 2).flatten(1)[..., None]
    torch.testing.assert_close(
        fit_solver._frame_normal(basis, springs)[0], of_params.mT @ (spread * of_params), rtol=1e-9, atol=1e-9
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(0, 99))
def test_banded_solve_equals_dense(frames, seed):
    generator = torch.Generator().manual_seed(seed)
    count = 4
    root = torch.randn(frames, count, count, generator=generator, dtype=DOUBLE)
    blocks = root @ root.mT + torch.eye(count)
    descent = torch.randn(frames, count, generator=generator, dtype=DOUBLE)
    smoothness = torch.rand(count, generator=generator, dtype=DOUBLE)
    joined = torch.rand(max(frames - 2, 0), generator=generator) < 0.7
    frozen = torch.rand(frames, count, generator=generator) < 0.2
    step = fit_solver._solve_banded(blocks, descent, smoothness, joined, frozen)

    dense = torch.block_diag(*blocks)
    for start in range(frames - 2):
        for p in range(count):
            row = torch.zeros(frames * count, dtype=DOUBLE)
            row[[(start + k) * count + p for k in range(3)]] = torch.tensor([1.0, -2.0, 1.0], dtype=DOUBLE)
            dense += joined[start] * smoothness[p] * row[:, None] * row
    free = ~frozen.flatten()
    expected = torch.zeros(frames * count, dtype=DOUBLE)
    if free.any():
        expected[free] = torch.linalg.solve(dense[free][:, free], descent.flatten()[free])
    torch.testing.assert_close(step.flatten(), expected, rtol=1e-6, atol=1e-6)


def test_arrow_solve_equals_dense():
    generator = torch.Generator().manual_seed(0)
    frames, count, width = 3, 4, 5
    rows = torch.randn(frames, 12, count, generator=generator, dtype=DOUBLE)
    shared = torch.randn(frames, 12, width, generator=generator, dtype=DOUBLE)
    target = torch.randn(frames, 12, 1, generator=generator, dtype=DOUBLE)
    identity = torch.randn(width, generator=generator, dtype=DOUBLE)
    normal = fit_solver._Normal(
        rows.mT @ rows,
        (rows.mT @ target)[..., 0],
        rows.mT @ shared,
        (shared.mT @ shared).sum(0),
        (shared.mT @ target).sum(0)[:, 0],
    )
    frozen = torch.zeros(frames, count, dtype=torch.bool)
    frozen[1, 2] = True
    step_identity, step_params = fit_solver._solve_arrow(normal, identity, 2.0, frozen)
    columns = torch.cat([torch.block_diag(*rows), shared.flatten(0, 1)], dim=1)
    matrix = columns.T @ columns
    matrix[-width:, -width:] += 2.0 * torch.eye(width, dtype=DOUBLE)
    right = columns.T @ target.flatten()
    right[-width:] -= 2.0 * identity
    free = torch.ones(len(right), dtype=torch.bool)
    free[count + 2] = False
    expected = torch.zeros_like(right)
    expected[free] = torch.linalg.solve(matrix[free][:, free], right[free])
    torch.testing.assert_close(torch.cat([step_params.flatten(), step_identity]), expected)


@settings(max_examples=30, deadline=None)
@given(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9), st.floats(-3.0, 3.0), st.floats(-1, 1), st.floats(-1, 1))
def test_closed_form_pose_is_near_the_truth(x, y, z, across, up):
    model = bump_model()
    euler, translation = torch.tensor([[x, y, z]]), torch.tensor([[across, up, -10.0]])
    camera = CameraIntrinsics.for_frame(1280, 720)
    points, depth = project(model.mean[None], euler, translation, camera)
    pose = weak_perspective_pose(model.mean, points, torch.ones(1, 478), camera)
    relative = rotation_from_euler(pose[:, :3]).mT @ rotation_from_euler(euler)
    angle = torch.arccos(((relative.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1))
    assert float(angle) < 0.12
    assert abs(float(pose[0, 5] - translation[0, 2])) < 0.05 * float(depth.mean())


def test_points_on_a_line_have_no_pose(model):
    line = torch.linspace(0, 100, 478)[None, :, None].expand(1, 478, 2).contiguous()
    camera = CameraIntrinsics.for_frame(640, 360)
    for points in (line, torch.full((1, 478, 2), 7.0)):
        assert torch.isnan(weak_perspective_pose(model.mean, points, torch.ones(1, 478), camera)).all()


def test_second_difference_adjoint():
    generator = np.random.default_rng(0)
    a, b = torch.from_numpy(generator.normal(size=(7, 2))), torch.from_numpy(generator.normal(size=(5, 2)))
    joined = torch.ones(5, dtype=torch.bool)
    forward = (fit_solver._second_difference(a, joined) * b).sum()
    torch.testing.assert_close(forward, (a * fit_solver._second_difference_adjoint(b, 7)).sum())
