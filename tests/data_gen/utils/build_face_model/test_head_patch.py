"""Cutting the head out of the body: strips, resampling, edge loops, flood fill."""

import numpy as np
import pytest

from data_gen.utils.build_face_model.head_patch import _QuadTopology, _split_quads, _zip_strip, arc_fraction, resampler


def tube(rings, around):
    """Quads of an open tube: vertex = ring · around + position."""
    return np.array(
        [
            [r * around + k, r * around + (k + 1) % around, (r + 1) * around + (k + 1) % around, (r + 1) * around + k]
            for r in range(rings - 1)
            for k in range(around)
        ]
    )


def test_edge_loops_run_around_a_tube():
    topology = _QuadTopology(tube(4, 7))
    assert topology.edge_loop(7, 8) == list(range(7, 14))
    assert topology.edge_loop(14, 20) == [14, 20, 19, 18, 17, 16, 15]


def test_an_edge_loop_that_stops_is_an_error():
    with pytest.raises(ValueError, match="not the hm08 mesh"):
        _QuadTopology(tube(4, 7)).edge_loop(0, 7)  # along the tube, to its open end


def test_a_ring_parts_the_faces():
    topology = _QuadTopology(tube(5, 6))
    ring = topology.edge_loop(12, 13)
    assert topology.faces_behind(ring, 0).tolist() == [True] * 12 + [False] * 12
    assert topology.faces_behind(ring, 29).tolist() == [False] * 12 + [True] * 12


def test_arc_fraction_and_resampler():
    line = np.array([[0, 0], [1, 0], [1, 3.0]])
    at = arc_fraction(line)
    assert at.tolist() == [0.0, 0.25, 1.0]
    matrix = resampler(at, np.array([0.0, 0.125, 0.25, 0.625, 1.0]))
    np.testing.assert_allclose(matrix @ line, [[0, 0], [0.5, 0], [1, 0], [1, 1.5], [1, 3]])


@pytest.mark.parametrize(("above", "below"), [(5, 5), (7, 4), (3, 9), (2, 6)])
def test_strips_tile_between_polylines(above, below):
    at_above, at_below = np.linspace(0, 1, above), np.linspace(0, 1, below)
    height = lambda t: 0.5 * np.sin(np.pi * t)  # noqa: E731 - both lines share their ends
    points = {i: (t, height(t)) for i, t in enumerate(at_above)}
    ids_below = np.arange(100, 100 + below)
    ids_below[[0, -1]] = 0, above - 1
    points |= {int(i): (t, -height(t)) for i, t in zip(ids_below, at_below, strict=True) if i >= 100}
    strip = _zip_strip(np.arange(above), ids_below, at_above, at_below)
    assert len(strip) == above + below - 4  # a polygon of n corners takes n - 2 triangles
    total = 0.0
    for corners in strip.tolist():
        (x0, y0), (x1, y1), (x2, y2) = (points[i] for i in corners)
        area = 0.5 * ((x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0))
        assert area > 0  # all face the same way
        total += area
    outline = [points[i] for i in range(above)][::-1] + [points[int(i)] for i in ids_below[1:-1]]
    x, y = np.array(outline).T
    assert total == pytest.approx(0.5 * abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()))


def test_quads_are_cut_along_the_shorter_diagonal_and_triangles_kept():
    vertices = np.array([[0, 0, 0], [3, 0, 0], [4, 1, 0], [1, 1.0, 0], [0, 5, 0]])
    got = {tuple(sorted(t)) for t in _split_quads(np.array([[0, 1, 2, 3], [3, 2, 4, 4]]), vertices).tolist()}
    assert got == {(0, 1, 3), (1, 2, 3), (2, 3, 4)}
