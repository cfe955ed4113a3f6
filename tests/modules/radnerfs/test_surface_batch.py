"""The batched surface path in plain torch against the numpy and OpenCV code that renders single frames."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.face_model.mesh_renderer import rasterize
from modules.radnerfs import antialias, patch_renderer
from modules.radnerfs.backends import torch_stencils, torch_surface
from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from modules.radnerfs.patch_graphs import upload
from modules.radnerfs.patch_renderer import PatchRenderer
from modules.radnerfs.person import PersonField
from modules.radnerfs.surface import (
    FacePose,
    edge_radius_px,
    project_mesh,
    region_bounds,
    soft_alpha,
    surface_hits,
    view_quality,
)
from modules.radnerfs.surface_batch import FaceFrames, RegionOutline, Views
from modules.radnerfs.surface_tensors import SIZE_RADIUS, SIZE_REACH
from tests.support.synthetic_head import SyntheticSpeaker

GRID = GridConfig(n_levels=3, desired_resolution=64, log2_table_size=10, grid_type="hash")
CONFIG = RADNeRFConfig(
    position_grid=GRID, ambient_grid=GRID, ambient_dim=2, hidden_dim_ambient=16, hidden_dim_sigma=16,
    hidden_dim_color=16, geo_feat_dim=8, cond_out_dim=8, sh_degree=2, individual_embedding_num=1,
    individual_embedding_dim=0, render=RenderConfig(sampler="surface", n_samples=1),
)  # fmt: skip
SIZE_HW, SIZE_WH = (240, 320), (320, 240)


@pytest.fixture(scope="module")
def speaker():
    return SyntheticSpeaker(1, size_hw=SIZE_HW, face_px=130.0)


@pytest.fixture(scope="module")
def person(speaker):
    torch.manual_seed(0)
    field = PersonField(CONFIG, speaker.model.n_identity, 2)
    field.box_center.copy_(torch.tensor([0.0, -0.3, 0.3]))
    field.box_scale.fill_(0.9)
    field.trust.copy_(torch.randint(0, 256, field.trust.shape))
    field.best_view.copy_(torch.randint(100, 256, field.trust.shape))
    return field


@pytest.fixture(scope="module")
def frames(speaker):
    coeffs = speaker.coeffs(3)
    euler = np.array([[0.1, -0.25, 0.08], [0, 0.5, 0], [-0.2, 0, 0.3]], np.float32)
    cameras = np.tile(speaker.camera.matrix(), (3, 1, 1))
    cameras[2] = np.array([[0.9, -0.3, 40], [0.3, 0.9, -50], [0, 0, 1]]) @ cameras[2]  # a crop's camera turns
    expression = coeffs.expression.copy()
    expression[:, speaker.model.unit("jawOpen")] = [0.0, 0.4, 0.9]
    return FaceFrames(coeffs.identity, expression, euler, coeffs.translation, cameras, SIZE_WH, coeffs.expression)


def pose_of(frames, row, shown=False) -> FacePose:
    expression = frames.shown if shown else frames.expression
    return FacePose(frames.identity, expression[row], frames.euler[row], frames.translation[row])


def test_windows_are_those_of_single_frames(speaker, frames):
    weights = speaker.model.region_weights["lower_face"].numpy()
    windows = RegionOutline(speaker.model, frames.identity, "lower_face").windows(frames, Views.of(frames))
    for row in range(len(frames)):
        margin = round(3 * edge_radius_px(frames.cameras[row], frames.translation[row])) + 2
        single = [
            region_bounds(
                project_mesh(speaker.model, pose_of(frames, row, shown), frames.cameras[row]).pixels, weights,
                frames.size_wh, margin,
            )
            for shown in (False, True)
        ]  # fmt: skip
        low, high = np.min(single, axis=0)[:2], np.max(single, axis=0)[2:]
        assert windows.box(row) == (*low, *high)


@settings(max_examples=25)
@given(x=st.floats(-3, 3), y=st.floats(-3, 3), z=st.floats(-5, 15), yaw=st.floats(-3, 3))
def test_windows_at_the_edge_of_the_picture_and_beyond(speaker, frames, x, y, z, yaw):
    one = FaceFrames(
        frames.identity, frames.expression[:1], np.array([[0, yaw, 0]], np.float32),
        np.array([[x, y, z]], np.float32), frames.cameras[:1], frames.size_wh,
    )  # fmt: skip
    if abs(10 - z) < 1.5:  # the head is around the camera
        return
    windows = RegionOutline(speaker.model, one.identity, "mouth").windows(one, Views.of(one))
    pixels = project_mesh(speaker.model, pose_of(one, 0), one.cameras[0]).pixels
    margin = round(float(3 * one.edge_px[0])) + 2
    wanted = region_bounds(pixels, speaker.model.region_weights["mouth"].numpy(), one.size_wh, margin)
    assert (windows.box(0) if len(windows.filled) else None) == wanted
    width, height = windows.bounds[0, 2:] - windows.bounds[0, :2]
    assert (windows.mouth >= 0).all() and windows.mouth[0, 2] <= width and windows.mouth[0, 3] <= height


def test_casting_matches_single_frames(speaker, person, frames):
    renderer = PatchRenderer(person, speaker.model)
    alone = FaceFrames(
        frames.identity, frames.expression, frames.euler, frames.translation, frames.cameras, frames.size_wh
    )
    windows = RegionOutline(speaker.model, frames.identity, "lower_face").windows(alone, Views.of(alone))
    surface, quality = renderer.cast(alone, windows, "lower_face")
    for row in range(len(frames)):
        bounds, pose, matrix = windows.box(row), pose_of(frames, row), frames.cameras[row]
        hits = surface_hits(speaker.model, pose, matrix, bounds, "lower_face")
        part = row, slice(bounds[3] - bounds[1]), slice(bounds[2] - bounds[0])
        same = surface.seen[part].numpy() == hits.mask
        assert same.mean() > 0.999
        both = hits.mask & surface.seen[part].numpy()
        far = np.abs(surface.canonical[part].numpy() - hits.canonical).max(axis=-1)[both] > 1e-3
        assert far.mean() < 0.002  # at a contour a ray may pass on the other side
        assert (np.abs(surface.weight[part].numpy() - hits.weight)[both] > 1e-3).mean() < 0.002
        mesh = project_mesh(speaker.model, pose, matrix)
        single = view_quality(speaker.model, mesh, hits, float(frames.edge_px[row]))
        assert (np.abs(quality[part].numpy() - single) > 2e-3).mean() < 0.01
        assert both.mean() > 0.3
        assert not surface.seen[row, part[1].stop :].any() and not surface.seen[row, :, part[2].stop :].any()


def test_rasterising_is_the_numpy_rasterisers(speaker, frames):
    mesh = project_mesh(speaker.model, pose_of(frames, 0), frames.cameras[0])
    triangles = speaker.model.triangles
    fragments = rasterize(mesh.pixels, mesh.depth, triangles.numpy(), (0, 0, *SIZE_WH), cull_back_faces=True)
    screen = torch.from_numpy(np.column_stack([mesh.pixels, 1 / mesh.depth])).float()[None]
    keys = torch_surface.rasterize(screen, triangles.int(), *SIZE_HW)[0]
    found = torch.where(keys == torch_surface.EMPTY, -1, keys & 0xFFFFFFFF).numpy()
    assert (found != fragments.triangle_id).mean() < 2e-4 and fragments.covered.mean() > 0.1


@pytest.fixture(scope="module")
def padded():
    """Values ``[3, 50, 70]`` and the windows they fill."""
    sizes = torch.tensor([[70, 50, 0, 0, 1, 4], [33, 50, 0, 0, 4, 16], [9, 5, 0, 0, 3, 90]], dtype=torch.int32)
    values = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(1))
    return values, sizes


def cut(values, sizes):
    return [v[:height, :width].numpy() for v, (width, height) in zip(values, sizes[:, :2].tolist(), strict=True)]


def test_stencils_are_opencvs(padded):
    values, sizes = padded
    values = values**6
    grown = torch_stencils.dilate(values, sizes)
    soft = torch_stencils.soften(grown, sizes)
    for one, wide, blurred, radius in zip(
        cut(values, sizes), cut(grown, sizes), cut(soft, sizes), sizes[:, SIZE_RADIUS].tolist(), strict=True
    ):
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        np.testing.assert_array_equal(wide, cv2.dilate(one, disc))
        np.testing.assert_allclose(blurred, cv2.GaussianBlur(wide, (0, 0), radius / 2), atol=2e-6)


@pytest.mark.parametrize("column", [SIZE_REACH, SIZE_RADIUS])
def test_distances_are_exact_within_reach(padded, column):
    values, sizes = padded
    marks = values > 0.98
    marks[2, :5, :9] = False  # nothing to be met there
    distances = torch_stencils.bounded_distance(marks, sizes, column)
    reach = (sizes[:, column] * (2 if column == SIZE_RADIUS else 1)).tolist()
    for marked, found, limit in zip(cut(marks, sizes), cut(distances, sizes), reach, strict=True):
        exact = cv2.distanceTransform((~marked).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        near = exact <= limit
        np.testing.assert_allclose(found[near], exact[near], atol=1e-4)
        assert (found[~near] > limit).all()


def test_the_alphas_end_is_soft_alphas(padded):
    values, sizes = padded
    reliable = torch.where(values > 0.1, 1.0, 0.0)
    weight = torch.rand(values.shape, generator=torch.Generator().manual_seed(2))
    soft = torch_stencils.soften(torch_stencils.dilate(weight, sizes), sizes)
    distance = torch_stencils.bounded_distance(reliable <= 0.05, sizes, SIZE_RADIUS)
    alpha = torch_stencils.fade(soft, distance, reliable, sizes, 0.05)
    for found, one, known, radius in zip(
        cut(alpha, sizes), cut(weight, sizes), cut(reliable, sizes), sizes[:, SIZE_RADIUS].tolist(), strict=True
    ):
        np.testing.assert_allclose(found, soft_alpha(one, known > 0.05, radius), atol=1e-5)


def test_what_is_known_is_the_persons(speaker, person, frames):
    renderer = PatchRenderer(person, speaker.model)
    windows = RegionOutline(speaker.model, frames.identity, "lower_face").windows(frames, Views.of(frames))
    surface, quality = renderer.cast(frames, windows, "lower_face")
    face = renderer._face(frames.identity, "lower_face")[1]
    far = torch.full_like(surface.mouth, 1e4)
    edge = torch.ones(len(frames))
    known = torch_stencils.known(surface, far, edge, face, 4)
    best = torch.maximum(torch.where(surface.seen, surface.cosine.clamp(0, 1), 0.0), surface.mouth)
    wanted = person.known(surface.canonical.numpy(), best.numpy())
    np.testing.assert_allclose(known[surface.seen].numpy(), wanted[surface.seen.numpy()], atol=1e-4)
    assert not known[~surface.seen].any() and quality.max() <= 1


def test_sharpening_is_the_single_windows(padded):
    values, sizes = padded
    image = torch.rand(*values.shape, 3, generator=torch.Generator().manual_seed(3))
    inside, share = values > 0.2, values * 0.5
    lifted = torch_stencils.sharpen(image, inside, share, sizes, antialias.SHARPEN_SIGMA_PX)
    for one, there, part, found in zip(
        cut(image, sizes), cut(inside, sizes), cut(share, sizes), cut(lifted, sizes), strict=True
    ):
        np.testing.assert_allclose(found, antialias.sharpened(one, there, part), atol=2e-5)


def test_arrays_arrive_as_they_were():
    arrays = {
        "odd": np.arange(3, dtype=np.uint8),
        "wide": np.linspace(0, 1, 10).reshape(2, 5),
        "whole": np.array([[-1, 2], [3, -4]], np.int32),
        "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    tensors = upload(arrays, torch.device("cpu"))
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape
        np.testing.assert_array_equal(tensors[name].numpy(), array)


def test_batches_that_would_not_fit_are_split(monkeypatch, speaker, person, frames):
    renderer = PatchRenderer(person, speaker.model)
    conditions = torch.zeros(3, 5, 204)
    (whole,) = renderer.batches(frames, conditions, "lower_face")
    monkeypatch.setattr(patch_renderer, "MOST_PIXELS", 2 * whole.shape.height * whole.shape.width)
    parts = renderer.batches(frames, conditions, "lower_face")
    assert [part.rows.tolist() for part in parts] == [[0, 1], [2]]
    away = replace(frames, translation=frames.translation + np.array([60, 0, 0], np.float32))
    assert renderer.batches(away, conditions, "lower_face") == []


def test_several_samples_per_ray_are_the_persons(speaker, frames):
    """A person with a shell of three samples: batch and single frame agree."""
    torch.manual_seed(1)
    field = PersonField(
        replace(CONFIG, render=RenderConfig(sampler="surface", n_samples=3)), speaker.model.n_identity, 2
    )
    with torch.no_grad():
        field.radnerf.position_embedder.embeddings.uniform_(-2, 2)
        field.box_center.copy_(torch.tensor([0.0, -0.3, 0.3]))
    field.trust.fill_(255)
    windows = torch.randn(3, 5, 204)
    patches = PatchRenderer(field, speaker.model).render(frames, windows, "mouth")
    with torch.no_grad():
        condition = field.encode(windows)
    for row, patch in enumerate(patches):
        hits = surface_hits(speaker.model, pose_of(frames, row), frames.cameras[row], patch.bounds, "mouth")
        wanted = patch.alpha.numpy() > 0
        arguments = field, speaker.model, pose_of(frames, row), frames.cameras[row], hits, wanted, condition[row]
        single = antialias.render_window(*arguments)
        difference = np.abs(patch.rgb.numpy() - single)[wanted & hits.mask]
        assert (difference > 1e-3).mean() < 0.01 and difference.mean() < 1e-4 and wanted.sum() > 300
