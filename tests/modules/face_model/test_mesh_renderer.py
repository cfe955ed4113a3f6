"""Rasteriser against a naive loop, coverage rules, interpolation, speed."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.face_model.mesh_renderer import draw_points, draw_wireframe, interpolate, rasterize


def naive_rasterize(vertices_px, depth, triangles, bounds):
    """Every pixel against every triangle, one after the other."""
    x0, y0, x1, y1 = bounds
    ids = np.full((y1 - y0, x1 - x0), -1)
    weights = np.zeros((y1 - y0, x1 - x0, 3))
    for row in range(y0, y1):
        for column in range(x0, x1):
            nearest = np.inf
            for index, corners in enumerate(triangles):
                a, b, c = vertices_px[corners]
                matrix = np.array([[a[0], b[0], c[0]], [a[1], b[1], c[1]], [1, 1, 1]])
                if abs(np.linalg.det(matrix)) < 1e-12:
                    continue
                screen = np.linalg.solve(matrix, [column + 0.5, row + 0.5, 1])
                if (screen < 0).any():
                    continue
                share = screen / depth[corners]
                if 1 / share.sum() < nearest:
                    nearest = 1 / share.sum()
                    ids[row - y0, column - x0], weights[row - y0, column - x0] = index, share / share.sum()
    return ids, weights


def grid(columns, rows, scale=1.0, offset=(0.0, 0.0)):
    """Vertices and triangles of a regular grid."""
    y, x = np.mgrid[0 : rows + 1, 0 : columns + 1]
    vertices = np.stack([x.ravel(), y.ravel()], axis=1) * scale + offset
    quads = np.array([r * (columns + 1) + c for r in range(rows) for c in range(columns)])
    a, b, c, d = quads, quads + 1, quads + columns + 1, quads + columns + 2
    return vertices, np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_matches_naive_loop(seed):
    generator = np.random.default_rng(seed)
    vertices = generator.uniform(-4, 20, (12, 2))
    depth = generator.uniform(1, 3, 12)
    # no two with the same three corners: which of those is nearer is a matter of rounding
    triangles = np.unique(np.sort([generator.choice(12, 3, replace=False) for _ in range(9)], axis=1), axis=0)
    bounds = (2, 1, 15, 13)
    got = rasterize(vertices, depth, triangles, bounds)
    ids, weights = naive_rasterize(vertices, depth, triangles, bounds)
    np.testing.assert_array_equal(got.triangle_id, ids)
    np.testing.assert_allclose(got.barycentric, weights, atol=1e-5)


def test_perturbed_depth_is_noticed():
    vertices, triangles = np.array([[0, 0], [9, 0], [0, 9], [9, 9.0]]), np.array([[0, 1, 2], [1, 3, 2], [0, 1, 3]])
    flat = rasterize(vertices, np.array([2.0, 2, 2, 2]), triangles, (0, 0, 9, 9))
    bent = rasterize(vertices, np.array([2.0, 2, 2, 1]), triangles, (0, 0, 9, 9))
    assert (flat.triangle_id != bent.triangle_id).any()


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.5, 0.5), (0.25, 0.5), (0.13, 0.77)])
def test_neighbours_share_each_pixel_exactly_once(offset):
    # with offset 0.5 every vertex and many edges lie on pixel centres
    vertices, triangles = grid(6, 5, 3.0, offset)
    depth = np.ones(len(vertices))
    count = sum(rasterize(vertices, depth, t[None], (0, 0, 24, 20)).covered.astype(int) for t in triangles)
    assert count.max() == 1
    assert count.sum() == 18 * 15
    together = rasterize(vertices, depth, triangles, (0, 0, 24, 20))
    assert together.covered.sum() == 18 * 15


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_bent_sheet_has_no_holes(seed):
    generator = np.random.default_rng(seed)
    vertices, triangles = grid(8, 8, 4.0)
    inner = ((vertices > 0) & (vertices < 32)).all(axis=1)
    vertices[inner] += generator.uniform(-1.2, 1.2, (inner.sum(), 2))
    fragments = rasterize(vertices, generator.uniform(1, 2, len(vertices)), triangles, (0, 0, 32, 32))
    assert fragments.covered.all()


def test_nearer_triangle_wins_and_ties_go_to_the_first():
    vertices = np.array([[0, 0], [8, 0], [0, 8]] * 3, dtype=float)
    depth = np.array([2.0] * 3 + [1.0] * 3 + [1.0] * 3)
    fragments = rasterize(vertices, depth, np.arange(9).reshape(3, 3), (0, 0, 8, 8))
    assert set(np.unique(fragments.triangle_id)) == {-1, 1}
    np.testing.assert_allclose(fragments.depth[fragments.covered], 1.0, rtol=1e-6)


def test_depth_and_barycentric_are_perspective_correct():
    # a floor that runs from depth 1 to depth 4: half-way on the screen lies at depth 1.6
    vertices = np.array([[0, 0], [100, 0], [0, 1000.0]])
    fragments = rasterize(vertices, np.array([1.0, 4.0, 1.0]), np.array([[0, 1, 2]]), (49, 0, 50, 1))
    # screen share of the far corner: 0.495
    expected = 1 / (0.505 + 0.495 / 4)
    assert fragments.depth[0, 0] == pytest.approx(expected, rel=1e-4)
    assert fragments.barycentric[0, 0, 1] == pytest.approx(0.495 / 4 * expected, rel=1e-4)


def test_back_faces_can_be_culled():
    vertices, depth = np.array([[0, 0], [8, 0], [0, 8.0]]), np.ones(3)
    front, back = np.array([[0, 2, 1]]), np.array([[0, 1, 2]])  # y down: counter-clockwise seen with y up
    assert rasterize(vertices, depth, front, (0, 0, 8, 8), cull_back_faces=True).covered.any()
    assert not rasterize(vertices, depth, back, (0, 0, 8, 8), cull_back_faces=True).covered.any()
    assert rasterize(vertices, depth, back, (0, 0, 8, 8)).covered.any()


@pytest.mark.parametrize("broken", ["nan", "inf", "behind"])
def test_undrawable_vertices_drop_their_triangles_only(broken):
    vertices, triangles = grid(2, 1, 4.0)
    depth = np.ones(len(vertices))
    if broken == "behind":
        depth[0] = -1.0
    else:
        vertices[0] = float(broken)
    fragments = rasterize(vertices, depth, triangles, (0, 0, 8, 4))
    kept = {i for i, corners in enumerate(triangles) if 0 not in corners}
    assert set(np.unique(fragments.triangle_id[fragments.covered])) == kept


def test_nothing_to_see():
    vertices = np.array([[100, 100], [120, 100], [100, 120.0]])
    fragments = rasterize(vertices, np.ones(3), np.array([[0, 1, 2]]), (0, 0, 5, 4))
    assert fragments.triangle_id.shape == (4, 5) and not fragments.covered.any()
    assert np.isinf(fragments.depth).all() and fragments.triangle_id.dtype == np.int32
    empty = rasterize(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3), dtype=int), (0, 0, 5, 4))
    assert not empty.covered.any()


@pytest.mark.parametrize("bounds", [(0, 0, 0, 5), (3, 0, 2, 5)])
def test_empty_window_is_an_error(bounds):
    with pytest.raises(ValueError, match="window"):
        rasterize(np.zeros((3, 2)), np.ones(3), np.array([[0, 1, 2]]), bounds)


def test_window_offset_only_shifts():
    generator = np.random.default_rng(3)
    vertices, triangles = grid(5, 5, 6.0)
    depth = generator.uniform(1, 2, len(vertices))
    whole = rasterize(vertices, depth, triangles, (-3, -2, 40, 36))
    part = rasterize(vertices, depth, triangles, (5, 7, 21, 30))
    np.testing.assert_array_equal(part.triangle_id, whole.triangle_id[9:32, 8:24])


def test_interpolation_reproduces_linear_attributes():
    vertices, triangles = grid(4, 3, 5.0, (0.3, 0.4))
    fragments = rasterize(vertices, np.full(len(vertices), 2.0), triangles, (0, 0, 24, 20))
    out = interpolate(fragments, triangles, vertices, fill=-7.0)
    rows, columns = np.nonzero(fragments.covered)
    np.testing.assert_allclose(out[rows, columns], np.stack([columns + 0.5, rows + 0.5], axis=1), atol=1e-4)
    assert (out[~fragments.covered] == -7.0).all() and out.dtype == np.float32


def test_drawing_leaves_the_picture_alone_and_marks_the_place():
    picture = np.zeros((20, 30, 3), dtype=np.uint8)
    dots = draw_points(picture, np.array([[10.5, 5.5], [np.nan, 1.0]]), (255, 0, 0), radius_px=1.0)
    wires = draw_wireframe(picture, np.array([[2, 2], [25, 2], [2, 15.0]]), np.array([[0, 1, 2]]), scale=2, opacity=1.0)
    assert not picture.any()
    assert dots[5, 10, 0] == 255 and dots[..., 0].sum() == pytest.approx(dots[2:9, 7:14, 0].sum())
    assert wires.shape == (40, 60, 3) and wires[..., 1].any()


def test_head_size_meshes_are_fast():
    vertices, triangles = grid(60, 60, 7.0, (40, 40))
    depth = 10 + np.sin(vertices[:, 0] / 50)
    durations = []
    for _ in range(5):
        start = time.perf_counter()
        rasterize(vertices, depth, triangles, (0, 0, 512, 512))
        durations.append(time.perf_counter() - start)
    # 25 ms on one quiet core; ten times that only when something is badly wrong
    assert min(durations) < 0.25
