"""Drawing a fit: views, wires, colours, dots and axes, against what can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.fit_overlay import (
    AXES,
    GREEN,
    HIDDEN,
    OUTSIDE,
    RED,
    YELLOW,
    View,
    draw_axes,
    draw_contour,
    draw_dots,
    draw_offsets,
    draw_wires,
    error_colours,
    visible_wires,
    wires_of,
)

SQUARE = np.array([[0, 1, 2], [0, 2, 3]])


def black(width=64, height=48):
    return np.zeros((height, width, 3), np.uint8)


def centroid(image):
    weight = image.astype(float).sum(axis=2)
    rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]] + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def blob(center, width=160, height=120, sigma=4.0):
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    value = 250 * np.exp(-((columns - center[0]) ** 2 + (rows - center[1]) ** 2) / (2 * sigma**2))
    return np.repeat(value.round().astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.77, 1.0, 1.6, 3.3])
def test_what_a_view_shows_lies_where_its_points_lie(scale):
    spot = np.array([70.3, 55.8])
    view = View.around(np.array([66.0, 50.5]), scale, 192, 144)
    shown = view.sample(blob(spot)).astype(int)
    assert shown.shape == (144, 192, 3)
    assert np.abs(centroid(np.where(shown > 30, shown - 30, 0)) - view.points(spot)).max() < 0.05


def test_a_view_of_the_whole_frame_is_the_frame():
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    np.testing.assert_array_equal(View(0.0, 0.0, 1.0, 64, 48).sample(frame), frame)
    np.testing.assert_array_equal(
        View.around(np.array([32.0, 24.0]), 1.0, 64, 48).points(np.array([[5.0, 6.0]])), [[5.0, 6.0]]
    )


@pytest.mark.parametrize("center", [(-500.0, 10.0), (10.0, 900.0)])
def test_outside_the_frame_a_view_is_dark(center):
    shown = View.around(np.array(center), 2.0, 20, 10).sample(np.full((48, 64, 3), 255, np.uint8))
    assert (shown == OUTSIDE).all()
    shown = View.around(np.array([0.0, 24.0]), 1.0, 20, 10).sample(np.full((48, 64, 3), 255, np.uint8))
    assert (shown[:, :8] == OUTSIDE).all() and (shown[:, 12:] == 255).all()


def test_colours_go_from_green_over_yellow_to_red():
    colours = error_colours(np.array([0.0, 1.0, 2.5, 4.0, 90.0, np.nan])).tolist()
    assert [tuple(colour) for colour in colours] == [GREEN, GREEN, YELLOW, RED, RED, HIDDEN]
    between = error_colours(np.array([1.75]))[0]
    np.testing.assert_allclose(between, (np.array(GREEN) + YELLOW) / 2, atol=0.51)


def test_a_square_has_four_wires_and_a_lone_triangle_three():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [3, 0, 0]])
    wires = wires_of(corners, SQUARE, np.ones(2, bool))
    assert wires.edges.tolist() == [[0, 1], [0, 3], [1, 2], [2, 3]], "not the diagonal 0-2"
    assert [sorted(set(owners)) for owners in wires.owners.tolist()] == [[0], [1], [0], [1]]
    assert len(wires_of(corners, np.array([[1, 4, 2]]), np.ones(1, bool)).edges) == 3
    assert wires_of(corners, SQUARE, np.array([True, False])).edges.tolist() == [[0, 1], [1, 2]]


def test_a_slanted_strip_keeps_its_cross_bars():
    """An edge that is the longest of one triangle only is no diagonal."""
    corners = np.array([[0.0, 0, 0], [4, 0, 0], [2, 1, 0], [4.2, 3, 0]])
    wires = wires_of(corners, np.array([[0, 1, 2], [1, 3, 2]]), np.ones(2, bool))
    assert [1, 2] in wires.edges.tolist()


def grid(count, depth, size=1.0):
    """A square of ``count`` x ``count`` vertices that faces the camera, ``depth`` dm away: vertices and triangles."""
    steps = np.linspace(-size, size, count)
    x, y = np.meshgrid(steps, steps)
    vertices = np.stack([x.ravel(), y.ravel(), np.full(count * count, 10.0 - depth)], axis=1)
    corner = np.arange(count * count).reshape(count, count)
    a, b, c, d = (part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]))
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def pictured(vertices):
    depth = 10.0 - vertices[:, 2]
    return np.stack([100 + 300 * vertices[:, 0] / depth, 100 - 300 * vertices[:, 1] / depth], axis=1), depth


def test_what_lies_behind_or_faces_away_is_not_drawn():
    near, triangles = grid(9, 5.0)
    far, _ = grid(9, 6.0, size=0.6)
    vertices = np.concatenate([near, far])
    both = np.concatenate([triangles, triangles + len(near)])
    wires = wires_of(vertices, both, np.ones(len(both), bool))
    edges, facing = visible_wires(wires, vertices, *pictured(vertices))
    assert edges.max() < len(near), "the smaller square is behind the larger one"
    assert len(edges) == 2 * 8 * 9 and facing.min() > 0.9
    away = wires_of(near, triangles[:, ::-1], np.ones(len(triangles), bool))
    assert not len(visible_wires(away, near, *pictured(near))[0])


def test_a_ball_shows_its_front():
    angles = np.linspace(0, np.pi, 13), np.linspace(0, 2 * np.pi, 25)[:-1]
    polar, around = (a.ravel() for a in np.meshgrid(*angles, indexing="ij"))
    ball = np.stack([np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], axis=1)
    row, column = (a.ravel() for a in np.meshgrid(np.arange(12), np.arange(24), indexing="ij"))
    a, b = row * 24 + column, row * 24 + (column + 1) % 24
    triangles = np.concatenate([np.stack([a, b, b + 24], 1), np.stack([a, b + 24, a + 24], 1)])
    edges, facing = visible_wires(wires_of(ball, triangles, np.ones(len(triangles), bool)), ball, *pictured(ball))
    assert len(edges) > 100 and ball[edges].mean(axis=1)[:, 2].min() > -0.3
    middle = ball[edges].mean(axis=1)[:, 2]
    assert np.corrcoef(middle, facing)[0, 1] > 0.95


def test_points_at_the_camera_draw_no_wires():
    near, triangles = grid(3, 5.0)
    near[4, 2] = 11.0
    edges, _ = visible_wires(wires_of(near, triangles, np.ones(8, bool)), near, *pictured(near))
    assert not len(edges)


def test_wires_are_as_bright_as_they_face_the_camera():
    points = np.array([[10.5, 10.5], [50.5, 10.5], [10.5, 30.5], [50.5, 30.5]])
    canvas = black()
    draw_wires(canvas, points, np.array([[0, 1], [2, 3]]), np.array([1.0, 0.0]), opacity=0.5, colour=(200, 200, 200))
    assert 85 <= canvas[10, 30].min() <= canvas[10, 30].max() <= 100, "OpenCV's smooth lines reach nine tenths"
    assert 0 < canvas[30, 30, 0] <= 40 and canvas[20].max() == 0


def test_a_fine_mesh_is_drawn_more_faintly():
    tones = []
    for count in (2, 31):
        points = np.stack([np.linspace(10.5, 40.5, count), np.full(count, 10.5)], axis=1)
        edges = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
        canvas = black()
        draw_wires(canvas, points, edges, np.ones(count - 1), opacity=1.0, colour=(200, 200, 200))
        tones.append(int(canvas[10, 25, 0]))
    assert tones[0] > 170 and 0.25 < tones[1] / tones[0] < 0.4


@pytest.mark.parametrize("radius", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("place", [(20.0, 15.0), (20.3, 15.8)])
def test_a_dot_is_round_and_where_it_should_be(radius, place):
    canvas = black()
    draw_dots(canvas, np.array([place]), np.array([[255, 255, 255]], np.uint8), np.array([False]), radius=radius)
    assert np.abs(centroid(canvas) - place).max() < 0.06
    assert canvas[..., 0].sum() / 255 == pytest.approx(np.pi * radius**2, rel=0.12)


def test_a_hidden_point_is_a_ring():
    canvas = np.full((40, 40, 3), 90, np.uint8)
    draw_dots(canvas, np.array([[20.5, 20.5]]), np.array([[255, 0, 0]], np.uint8), np.array([True]), radius=4.0)
    assert canvas[20, 20].tolist() == [90, 90, 90] and canvas[20, 24].tolist() == [255, 0, 0]


def test_a_dot_has_a_dark_rim():
    canvas = np.full((40, 40, 3), 200, np.uint8)
    draw_dots(canvas, np.array([[20.5, 20.5]]), np.array([[0, 255, 0]], np.uint8), np.array([False]), radius=3.0)
    assert canvas[20, 20].tolist() == [0, 255, 0] and canvas[20, 24].max() < 160 and canvas[20, 27].min() == 200


def test_offsets_are_magnified():
    canvas = black()
    start, stop = np.array([[10.5, 20.5]]), np.array([[14.5, 20.5]])
    draw_offsets(canvas, start, stop, np.array([[255, 255, 255]], np.uint8), magnified=5.0)
    columns = np.flatnonzero(canvas[20].max(axis=1))
    assert abs(columns[0] - 10) <= 1 and abs(columns[-1] - 30) <= 1


def test_axes_have_their_colours_and_arrows():
    canvas = black()
    draw_axes(canvas, np.array([[20.5, 30.5], [50.5, 30.5], [20.5, 8.5], [19.0, 32.0]]), thickness=2)
    for place, colour in (((30, 40), AXES[0]), ((15, 20), AXES[1])):
        assert canvas[place].tolist() == list(colour)
    assert np.flatnonzero(canvas[:, 46].max(axis=1)).size > 5, "the head of the arrow is wider than its shaft"
    untouched = black()
    draw_axes(untouched, np.full((4, 2), np.nan))
    assert not untouched.any()


SHAPES = st.lists(
    st.tuples(*[st.floats(-1e7, 1e7) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 63.9])] * 2),
    min_size=2,
    max_size=6,
)


@settings(max_examples=60)
@given(SHAPES, st.floats(0.5, 5.0), st.booleans())
def test_nothing_breaks_wherever_the_points_are(points, radius, hollow):
    canvas, places = black(), np.array(points, float)
    count = len(places)
    draw_dots(canvas, places, np.full((count, 3), 255, np.uint8), np.full(count, hollow), radius=radius)
    draw_wires(canvas, places, np.array([[0, 1]]), np.ones(1), opacity=0.5)
    draw_contour(canvas, places, opacity=0.5)
    draw_offsets(canvas, places, places[::-1], np.full((count, 3), 255, np.uint8), magnified=5.0)
    assert canvas.shape == (48, 64, 3)


@pytest.mark.parametrize("shift", [(-80.0, 0.0), (0.0, 90.0)])
def test_what_is_outside_leaves_the_canvas_alone(shift):
    canvas, places = black(), np.array([[5.0, 5.0], [20.0, 9.0], [9.0, 20.0]]) + shift
    draw_dots(canvas, places, np.full((3, 3), 255, np.uint8), np.zeros(3, bool), radius=3.0)
    draw_wires(canvas, places, np.array([[0, 1], [1, 2]]), np.ones(2), opacity=1.0)
    draw_contour(canvas, places, opacity=1.0)
    assert not canvas.any()
