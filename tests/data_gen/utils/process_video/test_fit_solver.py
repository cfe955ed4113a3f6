"""The fit's derivatives against autograd, its linear solvers against dense ones."""

from dataclasses import replace
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.process_video.fit_config import INNER_LIP_GAPS
from data_gen.utils.process_video.fit_linear import (
    NormalEquations,
    bending,
    bending_bound,
    eliminate_expression,
    second_difference,
    smooth_columns,
    solve_arrow,
    solve_smooth,
)
from data_gen.utils.process_video.fit_residuals import (
    LandmarkBasis,
    Observations,
    corrected_rows,
    linearize,
    residual_weights,
    residuals,
)
from modules.face_model.fitting import OutlineSlide
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.landmarks import FACE_OVAL
from tests.data_gen.utils.process_video.fit_cases import bump_model, made_clip

DOUBLE = torch.float64


@pytest.fixture(scope="module")
def setting():
    """Two frames with a random state, in double precision."""
    model = bump_model()
    case = made_clip(model, 2)
    basis = LandmarkBasis.of(model.landmark_rows(), INNER_LIP_GAPS, DOUBLE)
    params = torch.cat([case.euler, case.translation, case.expression], dim=1).double()
    points = torch.from_numpy(case.landmarks.points).double()
    seen = Observations(
        points,
        torch.rand(2, 478, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)),
        torch.tensor([80.0, 90.0], dtype=DOUBLE),
        params[:, 6:],
        torch.arange(2),
    )
    return basis, case.camera, case.identity.double(), params + 0.01, seen


def dense_jacobians(setting):
    basis, camera, identity, params, seen = setting

    def error(frame_params, person, log_focal):
        factor = log_focal.exp()
        tz = CAMERA_DISTANCE - (CAMERA_DISTANCE - frame_params[:, 5:6]) * factor
        frames = torch.cat([frame_params[:, :5], tz, frame_params[:, 6:]], dim=1)
        scaled = cast(CameraIntrinsics, Scaled(camera, factor))
        return residuals(basis, basis.posed(basis.neutral(person), frames), seen, scaled)

    at = params, identity, torch.zeros((), dtype=DOUBLE)
    of_params, of_identity, of_focal = torch.autograd.functional.jacobian(error, at, vectorize=True)
    own = torch.stack([of_params[t, :, :, t] for t in range(len(params))])
    shared = torch.cat([of_identity, of_focal[..., None]], dim=-1)
    return error(*at).flatten(1), own.flatten(1, 2), shared.flatten(1, 2)


class Scaled:
    """A camera whose focal length autograd can follow."""

    def __init__(self, camera: CameraIntrinsics, factor: torch.Tensor) -> None:
        self.fx, self.fy, self.cx, self.cy = camera.fx * factor, camera.fy * factor, camera.cx, camera.cy


def test_normal_equations_equal_dense_jacobians(setting):
    basis, camera, identity, params, seen = setting
    error, of_params, of_shared = dense_jacobians(setting)
    weights = residual_weights(basis, seen.weights, 4.0)
    posed = basis.posed(basis.neutral(identity), params)
    springs = linearize(
        basis, params, posed, error.unflatten(1, (-1, 2)), weights, seen.px_per_dm, camera, with_focal=True
    )
    own = NormalEquations.of(basis, springs, with_identity=True)
    spread = weights[..., None].expand(-1, -1, 2).flatten(1)[..., None]
    pairs = (
        (own.descent, -(of_params.mT @ (spread * error[..., None]))[..., 0]),
        (own.core_descent, -(of_shared.mT @ (spread * error[..., None])).sum(dim=0)[:, 0]),
        (own.blocks, of_params.mT @ (spread * of_params)),
        (own.border, of_params.mT @ (spread * of_shared)),
        (own.core, (of_shared.mT @ (spread * of_shared)).sum(dim=0)),
    )
    for actual, expected in pairs:
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    without = linearize(basis, params, posed, error.unflatten(1, (-1, 2)), weights, seen.px_per_dm, camera)
    known = NormalEquations.of(basis, without, with_identity=True)
    torch.testing.assert_close(known.border, own.border[..., :-1])
    torch.testing.assert_close(known.core, own.core[:-1, :-1])


@settings(max_examples=20)
@given(st.integers(1, 7), st.integers(0, 99))
def test_smooth_solve_equals_dense(frames, seed):
    generator = torch.Generator().manual_seed(seed)
    count = 4
    root = torch.randn(frames, count, count, generator=generator, dtype=DOUBLE)
    blocks, descent = root @ root.mT + torch.eye(count), torch.randn(frames, count, generator=generator).double()
    smoothness = torch.rand(count, generator=generator, dtype=DOUBLE)
    joined = torch.rand(max(frames - 2, 0), generator=generator) < 0.7
    step = solve_smooth(blocks, descent, smoothness, joined)
    dense = torch.block_diag(*blocks)
    for start in range(frames - 2):
        for p in range(count):
            row = torch.zeros(frames * count, dtype=DOUBLE)
            row[[(start + k) * count + p for k in range(3)]] = torch.tensor([1.0, -2.0, 1.0], dtype=DOUBLE)
            dense += joined[start] * smoothness[p] * row[:, None] * row
    torch.testing.assert_close(step.flatten(), torch.linalg.solve(dense, descent.flatten()), rtol=1e-6, atol=1e-6)


def test_equations_without_a_solution_give_no_step_and_no_error():
    step = solve_smooth(-torch.eye(3).expand(4, 3, 3), torch.ones(4, 3), torch.ones(3), torch.ones(2, dtype=torch.bool))
    assert (step == 0).all()
    blocks = torch.eye(8).expand(3, 8, 8).clone()
    blocks[1] *= -1
    blocks[2, 7, 7] = torch.nan
    poses = eliminate_expression(frames_only(blocks, torch.ones(3, 8)))
    assert poses.sound.tolist() == [True, False, False]
    assert all(bool(v.isfinite().all()) for v in (poses.blocks, poses.descent, poses.response, poses.precision))


def frames_only(blocks, descent):
    nothing = blocks.new_zeros(0)
    return NormalEquations(blocks, descent, blocks.new_zeros(*descent.shape, 0), nothing.reshape(0, 0), nothing)


def test_eliminated_expression_equals_dense():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 20, 10, generator=generator, dtype=DOUBLE)
    normal = frames_only(rows.mT @ rows, torch.randn(3, 10, generator=generator, dtype=DOUBLE))
    poses = eliminate_expression(normal)
    pose_step = torch.linalg.solve(poses.blocks, poses.descent)
    step = torch.cat([pose_step, poses.expression_step(pose_step)], dim=1)
    torch.testing.assert_close(step, torch.linalg.solve(normal.blocks, normal.descent))
    inverse = torch.linalg.inv(normal.blocks[:, 6:, 6:]).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(poses.precision, 1 / inverse)


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
    step_shared, step_params = solve_arrow(normal)
    columns = torch.cat([torch.block_diag(*rows), shared.flatten(0, 1)], dim=1)
    expected = torch.linalg.lstsq(columns, target.flatten()[:, None]).solution[:, 0]
    torch.testing.assert_close(torch.cat([step_params.flatten(), step_shared]), expected)


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
def test_bending_is_half_the_gradient_of_the_smoothness(frames):
    params = torch.randn(frames, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0), requires_grad=True)
    smoothness = torch.tensor([0.5, 2.0], dtype=DOUBLE)
    joined = torch.arange(frames - 2 if frames > 2 else 0) % 3 != 1
    cost = (smoothness * second_difference(params, joined).square()).sum() + 0 * params.sum()
    (gradient,) = torch.autograd.grad(cost, params)
    torch.testing.assert_close(bending(params.detach(), smoothness, joined), gradient / 2)


def dense_bending(stiffness):
    """Curvature ``[T, T]`` of second differences of ``stiffness`` ``[T - 2]``."""
    frames = len(stiffness) + 2
    rows = torch.zeros(len(stiffness), frames, dtype=DOUBLE)
    for start in range(len(stiffness)):
        rows[start, start : start + 3] = torch.tensor([1.0, -2.0, 1.0], dtype=DOUBLE)
    return rows.T @ (stiffness[:, None] * rows)


@given(st.integers(3, 9), st.integers(0, 99))
def test_bound_lies_above_the_bending_and_smoothing_equals_dense(frames, seed):
    generator = torch.Generator().manual_seed(seed)
    stiffness = torch.rand(frames - 2, 3, generator=generator, dtype=DOUBLE).square() * 9
    values = torch.randn(frames, 3, generator=generator, dtype=DOUBLE)
    bound, smooth = bending_bound(stiffness, frames), smooth_columns(values, stiffness)
    for unit in range(3):
        dense = dense_bending(stiffness[:, unit])
        assert float(torch.linalg.eigvalsh(torch.diag(bound[:, unit]) - dense).min()) > -1e-9
        expected = torch.linalg.solve(torch.eye(frames) + dense, values[:, unit])
        torch.testing.assert_close(smooth[:, unit], expected)


def test_few_frames_are_not_smoothed():
    values = torch.randn(2, 3)
    assert torch.equal(smooth_columns(values, torch.zeros(0, 3)), values)
    assert (bending_bound(torch.zeros(0, 3), 2) == 0).all()


def test_the_outline_slides_with_yaw():
    move = torch.zeros(3, 36, 3)
    move[0, :, 2], move[2, 5] = -0.3, torch.tensor([0.1, 0.2, 0.4])
    slide = OutlineSlide(torch.tensor([-0.5, 0.0, 0.8]), move)
    at = slide.at(torch.tensor([-2.0, -0.25, 0.0, 0.4, 3.0]))
    torch.testing.assert_close(at[:2, 0, 2], torch.tensor([-0.3, -0.15]))
    torch.testing.assert_close(at[3, 5], torch.tensor([0.05, 0.1, 0.2]))
    torch.testing.assert_close(at[4, 5], torch.tensor([0.1, 0.2, 0.4]))
    assert (at[2] == 0).all() and (OutlineSlide.none().at(torch.zeros(2)) == 0).all()

    rows = replace(bump_model().landmark_rows(), slide=slide)
    still = LandmarkBasis.of(replace(rows, slide=OutlineSlide.none()), INNER_LIP_GAPS, torch.float32)
    sliding = LandmarkBasis.of(rows, INNER_LIP_GAPS, torch.float32)
    params = torch.zeros(1, 58)
    params[0, 1] = 0.8
    moved = sliding.deformed(sliding.mean, params) - still.deformed(still.mean, params)
    torch.testing.assert_close(moved[0, FACE_OVAL[5]], torch.tensor([0.1, 0.2, 0.4]))
    assert torch.count_nonzero(moved) == 3


def test_a_correction_adds_identity_to_the_units():
    rows = bump_model().landmark_rows()
    correction = torch.zeros(80, 52)
    correction[3, 7] = 0.5
    changed = corrected_rows(rows, correction).expression - rows.expression
    torch.testing.assert_close(changed[..., 7], 0.5 * rows.identity[..., 3], atol=1e-6, rtol=0)
    assert (changed[..., :7] == 0).all()
