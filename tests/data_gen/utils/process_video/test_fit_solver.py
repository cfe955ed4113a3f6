"""The fit's derivatives against autograd, its linear solvers against dense ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.process_video.fit_3dmm_landmark import INNER_LIP_GAPS
from data_gen.utils.process_video.fit_linear import (
    NormalEquations,
    bending,
    pose_normal,
    second_difference,
    solve_arrow,
    solve_smooth,
)
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


def test_normal_equations_equal_dense_jacobians(setting):
    basis, camera, identity, params, seen = setting
    error, of_params, of_identity = dense_jacobians(setting)
    weights = residual_weights(basis, seen, 4.0)
    springs = linearize(
        basis, basis.neutral(identity), params, error.unflatten(1, (-1, 2)), weights, seen.px_per_dm, camera
    )
    own = NormalEquations.of(basis, springs, with_identity=True)
    spread = weights[..., None].expand(-1, -1, 2).flatten(1)[..., None]
    pairs = (
        (own.descent, -(of_params.mT @ (spread * error[..., None]))[..., 0]),
        (own.core_descent, -(of_identity.mT @ (spread * error[..., None])).sum(dim=0)[:, 0]),
        (own.blocks, of_params.mT @ (spread * of_params)),
        (own.border, of_params.mT @ (spread * of_identity)),
        (own.core, (of_identity.mT @ (spread * of_identity)).sum(dim=0)),
    )
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    blocks, descent = pose_normal(springs)
    torch.testing.assert_close(blocks, own.blocks[:, :6, :6])
    torch.testing.assert_close(descent, own.descent[:, :6])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 7), st.integers(0, 99))
def test_smooth_solve_equals_dense(frames, seed):
    generator = torch.Generator().manual_seed(seed)
    count = 4
    root = torch.randn(frames, count, count, generator=generator, dtype=DOUBLE)
    normal = frames_only(root @ root.mT + torch.eye(count), torch.randn(frames, count, generator=generator).double())
    smoothness = torch.rand(count, generator=generator, dtype=DOUBLE)
    joined = torch.rand(max(frames - 2, 0), generator=generator) < 0.7
    held = torch.rand(frames, count, generator=generator) < 0.2
    given_step = torch.randn(frames, count, generator=generator, dtype=DOUBLE) * held
    _, step = solve_smooth(normal, smoothness, joined, held, given_step)

    dense = torch.block_diag(*normal.blocks)
    for start in range(frames - 2):
        for p in range(count):
            row = torch.zeros(frames * count, dtype=DOUBLE)
            row[[(start + k) * count + p for k in range(3)]] = torch.tensor([1.0, -2.0, 1.0], dtype=DOUBLE)
            dense += joined[start] * smoothness[p] * row[:, None] * row
    expected = around_held(dense, normal.descent.flatten(), ~held.flatten(), given_step.flatten())
    torch.testing.assert_close(step.flatten(), expected, rtol=1e-6, atol=1e-6)


def frames_only(blocks, descent):
    nothing = torch.zeros(0, dtype=DOUBLE)
    return NormalEquations(blocks, descent, torch.zeros(*descent.shape, 0), nothing.reshape(0, 0), nothing)


def around_held(matrix, right, free, given_step):
    """Dense solution in which the coefficients that are not free take their given step."""
    step = given_step.clone()
    if free.any():
        step[free] = torch.linalg.solve(matrix[free][:, free], (right - matrix @ given_step)[free])
    return step


def test_arrow_solve_equals_dense():
    generator = torch.Generator().manual_seed(0)
    frames, count, width = 3, 4, 5
    rows = torch.randn(frames, 12, count, generator=generator, dtype=DOUBLE)
    shared = torch.randn(frames, 12, width, generator=generator, dtype=DOUBLE)
    target = torch.randn(frames, 12, 1, generator=generator, dtype=DOUBLE)
    normal = NormalEquations(
        rows.mT @ rows,
        (rows.mT @ target)[..., 0],
        rows.mT @ shared,
        (shared.mT @ shared).sum(0),
        (shared.mT @ target).sum(0)[:, 0],
    )
    held = torch.zeros(frames, count, dtype=torch.bool)
    held[1, 2] = held[2, 0] = True
    given_step = 0.3 * held.double()
    step_identity, step_params = solve_arrow(normal, held, given_step)
    columns = torch.cat([torch.block_diag(*rows), shared.flatten(0, 1)], dim=1)
    free = torch.cat([~held.flatten(), torch.ones(width, dtype=torch.bool)])
    fixed = torch.cat([given_step.flatten(), torch.zeros(width, dtype=DOUBLE)])
    expected = around_held(columns.T @ columns, columns.T @ target.flatten(), free, fixed)
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


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
def test_bending_is_half_the_gradient_of_the_smoothness(frames):
    params = torch.randn(frames, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0), requires_grad=True)
    smoothness = torch.tensor([0.5, 2.0], dtype=DOUBLE)
    joined = torch.arange(frames - 2 if frames > 2 else 0) % 3 != 1
    cost = (smoothness * second_difference(params, joined).square()).sum() + 0 * params.sum()
    (gradient,) = torch.autograd.grad(cost, params)
    torch.testing.assert_close(bending(params.detach(), smoothness, joined), gradient / 2)
