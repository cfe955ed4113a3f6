"""Casting pixels onto the head: against single vertices, per-pixel loops and the crop's camera."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.face_model.mesh_renderer import interpolate
from modules.face_model.model import LABEL_MEMBRANE
from modules.face_model.projection import rotation_from_euler
from modules.radnerfs.surface import (
    FacePose,
    in_whole_steps,
    project_mesh,
    region_bounds,
    region_weight,
    silhouettes,
    surface_hits,
    view_directions,
    view_quality,
)
from modules.structures.cameras import CAMERA_DISTANCE, crop_camera_matrix
from modules.structures.crops import CropRegion
from tests.support.synthetic_head import SyntheticSpeaker


@pytest.fixture(scope="module")
def speaker():
    return SyntheticSpeaker(1, size_hw=(240, 320), face_px=130.0)


@pytest.fixture(scope="module")
def pose(speaker):
    coeffs = speaker.coeffs(3)
    euler = np.array([0.1, -0.25, 0.08], np.float32)
    return FacePose(coeffs.identity, coeffs.expression[1], euler, coeffs.translation[1])


@pytest.fixture(scope="module")
def hits(speaker, pose):
    return surface_hits(speaker.model, pose, speaker.camera.matrix(), (0, 0, 320, 240), "lower_face")


def with_jaw(speaker, pose, opening):
    expression = np.zeros_like(pose.expression)
    expression[speaker.model.unit("jawOpen")] = opening
    return FacePose(pose.identity, expression, pose.euler, pose.translation)


def test_pixels_at_a_vertex_see_its_canonical_place(speaker, pose, hits):
    mesh = project_mesh(speaker.model, pose, speaker.camera.matrix())
    canonical = speaker.model.canonical_vertices.numpy()
    labels = speaker.model.labels.numpy()
    seen = 0
    for vertex in range(0, len(canonical), 7):
        x, y = mesh.pixels[vertex]
        if labels[vertex] == LABEL_MEMBRANE or not (1 < x < 319 and 1 < y < 239):
            continue
        row, column = int(y), int(x)
        if hits.mask[row, column] and abs(hits.fragments.depth[row, column] - mesh.depth[vertex]) < 0.01:
            # a pixel is about 0.012 dm wide, and the centre is at most 0.7 px away
            assert np.linalg.norm(hits.canonical[row, column] - canonical[vertex]) < 0.06
            seen += 1
    assert seen > 60


def test_view_quality_falls_along_slopes_and_at_silhouettes(speaker, pose, hits):
    mesh = project_mesh(speaker.model, pose, speaker.camera.matrix())
    quality = view_quality(speaker.model, mesh, hits, edge_px=1.0)
    assert quality[~hits.mask].max() == 0 and quality.min() >= 0 and 0.9 < quality.max() <= 1
    rim = hits.mask & ~np.roll(hits.mask, 1, axis=1)
    assert rim.sum() > 50 and quality[rim].max() <= 0.25  # a silhouette's own pixels are one pixel from its other side
    nose, ear = (np.argmin(np.abs(mesh.pixels - mesh.pixels[v]).sum(axis=1)) for v in ends_of_face(speaker))
    at = [tuple(np.floor(mesh.pixels[v][::-1]).astype(int)) for v in (nose, ear)]
    assert quality[at[0]] > 0.6 > quality[at[1]]


def ends_of_face(speaker):
    """The vertex that points most to the front, and the one on the visible side's ear."""
    canonical = speaker.model.canonical_vertices.numpy()
    return int(np.argmax(canonical[:, 2])), int(np.argmin(canonical[:, 0]))


def test_silhouettes_are_steps_in_depth():
    depth = np.full((5, 6), np.inf, np.float32)
    depth[:, 1:] = 5.0 + 0.02 * np.arange(5, dtype=np.float32)
    depth[2:, 4:] -= 1.0
    edges = silhouettes(depth)
    wanted = np.zeros((5, 6), bool)
    wanted[:, :2] = True
    wanted[2:, 3:5] = True
    wanted[1:3, 4:] = True
    np.testing.assert_array_equal(edges, wanted)


def test_view_directions_match_a_loop(speaker, pose):
    matrix, bounds = speaker.camera.matrix(), (100, 90, 112, 99)
    directions = view_directions(pose.euler, matrix, bounds)
    rotation = rotation_from_euler(torch.tensor(pose.euler, dtype=torch.float64)).numpy()
    for row in range(9):
        for column in range(12):
            x, y, z = np.linalg.inv(matrix) @ np.array([100 + column + 0.5, 90 + row + 0.5, 1.0])
            in_head = rotation @ np.array([x, -y, -z])  # X' = X·R, so X = R·X' for the column X'
            np.testing.assert_allclose(directions[row, column], in_head / np.linalg.norm(in_head), atol=1e-6)


def test_the_ray_of_a_pixel_meets_its_own_surface_point(speaker, pose, hits):
    """Camera centre + t · direction, in head space, passes the interpolated mesh point."""
    mesh = project_mesh(speaker.model, pose, speaker.camera.matrix())
    rotation = rotation_from_euler(torch.tensor(pose.euler)).numpy()
    camera = (np.array([0, 0, CAMERA_DISTANCE]) - pose.translation) @ rotation.T
    corners = speaker.model.triangles.numpy()[hits.fragments.triangle_id[hits.mask]]
    points = np.einsum("nk,nkc->nc", hits.fragments.barycentric[hits.mask], mesh.head[corners])
    along = (points - camera) / np.linalg.norm(points - camera, axis=1, keepdims=True)
    np.testing.assert_allclose(along, hits.direction[hits.mask], atol=2e-4)


def test_a_crop_sees_what_the_frame_sees(speaker, pose, hits):
    """Every other pixel of a twice enlarged, unrotated crop shares its centre's neighbourhood with a frame pixel."""
    crop_from_frame = CropRegion(160.0, 120.0, 128.0).crop_from_frame(256)
    matrix = crop_camera_matrix(speaker.camera, crop_from_frame)
    crop = surface_hits(speaker.model, pose, matrix, (0, 0, 256, 256), "lower_face")
    averaged = crop.canonical.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    frame = hits.canonical[56:184, 96:224]
    smooth = hits.mask[56:184, 96:224] & crop.mask.reshape(128, 2, 128, 2).all(axis=(1, 3))
    error = np.linalg.norm(averaged - frame, axis=-1)[smooth]
    assert np.median(error) < 1e-3 and smooth.sum() > 2000


def test_weights_are_the_regions_and_vanish_off_the_head(speaker, hits):
    assert hits.weight[~hits.mask].max() == 0 and hits.weight.max() > 0.99
    np.testing.assert_allclose(region_weight(speaker.model, hits, "lower_face"), hits.weight, atol=1e-6)
    mouth = region_weight(speaker.model, hits, "mouth")
    assert 0 < (mouth > 0).sum() < (hits.weight > 0).sum()


def test_the_mouths_inside_is_fixed_to_the_skull(speaker, pose):
    """A pixel between the lips keeps its canonical place while the jaw opens; on the stretching membrane it moves."""
    window = (0, 0, 320, 240)
    cast = [
        surface_hits(speaker.model, with_jaw(speaker, pose, opening), speaker.camera.matrix(), window, "mouth")
        for opening in (0.5, 0.8)
    ]
    membrane = (speaker.model.labels == LABEL_MEMBRANE).numpy().astype(np.float32)[:, None]
    inside = [interpolate(h.fragments, speaker.model.triangles.numpy(), membrane)[..., 0] for h in cast]
    both = (inside[0] > 0.5) & (inside[1] > 0.5)
    assert both.sum() > 20
    np.testing.assert_allclose(cast[0].canonical[both], cast[1].canonical[both], atol=1e-5)


def test_the_mouths_inside_lies_where_no_skin_is(speaker, pose):
    shown = surface_hits(
        speaker.model, with_jaw(speaker, pose, 0.7), speaker.camera.matrix(), (0, 0, 320, 240), "lower_face"
    )
    membrane = (speaker.model.labels == LABEL_MEMBRANE).numpy().astype(np.float32)
    corners = speaker.model.triangles.numpy()[shown.fragments.triangle_id[shown.mask]]
    amount = np.einsum("nk,nk->n", shown.fragments.barycentric[shown.mask], membrane[corners])
    teeth, skin = shown.canonical[shown.mask][amount > 0.5], shown.canonical[shown.mask][amount < 0.01]
    nearest = np.min(np.linalg.norm(teeth[:, None] - skin[None], axis=-1), axis=1)
    assert nearest.min() > 0.03


@pytest.mark.parametrize("seed", range(4))
def test_windows_grow_to_whole_steps_inside_the_image(seed):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        size = rng.integers(10, 90, 2)
        low = rng.integers(0, size - 1)
        high = rng.integers(low + 1, size + 1)
        x0, y0, x1, y1 = in_whole_steps((*low.tolist(), *high.tolist()), tuple(size.tolist()), 24)
        for first, last, start, stop, length in zip((x0, y0), (x1, y1), low, high, size, strict=True):
            assert 0 <= first <= start < stop <= last <= length
            needed = -(-(stop - start) // 24) * 24
            assert last - first == (needed if needed <= length else stop - start)


def test_region_bounds():
    pixels = np.array([[10.2, 20.9], [30.0, 25.0], [500.0, 500.0], [np.nan, 1.0]])
    weights = np.array([1.0, 0.5, 0.0, 1.0])
    assert region_bounds(pixels, weights, (100, 100), margin_px=2) == (8, 18, 32, 27)
    assert region_bounds(pixels, weights, (20, 100), margin_px=0) == (10, 20, 20, 25)
    assert region_bounds(pixels, weights, (5, 5)) is None
    assert region_bounds(pixels, np.zeros(4), (100, 100)) is None
