"""Pictures of solids: coverage that can be worked out, and exact placing."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from data_gen.utils.evaluate_occlusion import solids
from data_gen.utils.evaluate_occlusion.sprites import paint_sprite, place_sprite, turned
from modules.face_model.mesh_renderer import vertex_normals

SOLIDS = {
    "cup": solids.cup(), "microphone": solids.microphone(), "stem": solids.stem_microphone(), "phone": solids.phone(),
    "straw": solids.straw(), "sandwich": solids.sandwich(),
}  # fmt: skip


def area_px(sprite) -> float:
    return float(sprite.rgba[..., 3].sum())


def centroid(layer: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(layer.shape[:2]) + 0.5
    alpha = layer[..., 3]
    return np.array([(columns * alpha).sum(), (rows * alpha).sum()]) / alpha.sum()


def test_a_phones_coverage_is_its_area():
    scale = 60
    # a rectangle with round corners: width x height less what the corners lack
    expected = (0.72 * 1.5 - (4 - math.pi) * 0.09**2) * scale**2
    assert area_px(paint_sprite(solids.phone(), scale)) == pytest.approx(expected, rel=0.01)


def test_a_microphones_ball_is_round_from_everywhere():
    for euler in ((0.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
        sprite = paint_sprite(solids.microphone(), 80, euler_rad=euler)
        ball = sprite.rgba[: round(sprite.origin_px[1]), :, 3]  # above the middle only the ball shows
        assert ball.sum() == pytest.approx(math.pi * 0.26 * 0.27 / 2 * 80**2, rel=0.02)


def test_a_straw_is_as_wide_as_it_should_be():
    sprite = paint_sprite(solids.straw(0.05), 120)
    middle = sprite.rgba[sprite.rgba.shape[0] // 2, :, 3]
    assert middle.sum() == pytest.approx(0.05 * 120, abs=0.4)


@pytest.mark.parametrize("name", SOLIDS)
def test_colour_is_times_coverage(name):
    rgba = paint_sprite(SOLIDS[name], 40).rgba
    assert rgba.min() >= 0 and rgba.max() <= 1
    assert (rgba[..., :3] <= rgba[..., 3:] + 1e-5).all()
    rim = np.concatenate([rgba[0].ravel(), rgba[-1].ravel(), rgba[:, 0].ravel(), rgba[:, -1].ravel()])
    assert not rim.any(), "nothing is cut off"


@pytest.mark.parametrize("name", ["microphone", "straw", "phone", "sandwich"])
def test_surfaces_turn_outwards(name):
    solid = SOLIDS[name]
    normals = vertex_normals(solid.vertices, solid.triangles)
    middle = (solid.vertices.max(axis=0) + solid.vertices.min(axis=0)) / 2
    outwards = np.einsum("vi,vi->v", normals, solid.vertices - middle)
    assert np.median(outwards) > 0


def test_turns_are_rotations_in_their_order():
    x, y = turned((0.4, 0, 0)), turned((0, 0.7, 0))
    assert np.allclose(turned((0.4, 0.7, 0)), y @ x)
    assert np.allclose(x @ x.T, np.eye(3)) and np.linalg.det(x) == pytest.approx(1)
    assert np.allclose(turned((0, 0, math.pi / 2)) @ [1, 0, 0], [0, 1, 0])


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.25, -0.5), (3.4, 7.7)])
def test_placing_moves_by_fractions_of_a_pixel(shift):
    sprite = paint_sprite(solids.phone(), 30)
    bounds = (5, 10, 105, 110)
    here = centroid(place_sprite(sprite, (50.0, 60.0), 30, 0.0, bounds))
    there = centroid(place_sprite(sprite, (50.0 + shift[0], 60.0 + shift[1]), 30, 0.0, bounds))
    assert np.allclose(here + bounds[:2], (50, 60), atol=0.05), "its origin is its middle"
    assert np.allclose(there - here, shift, atol=0.02)


def test_placing_turns_clockwise_and_scales():
    sprite = paint_sprite(solids.microphone(), 30)
    upright = centroid(place_sprite(sprite, (80.0, 80.0), 30, 0.0, (0, 0, 160, 160))) - 80
    turned_right = centroid(place_sprite(sprite, (80.0, 80.0), 30, math.pi / 2, (0, 0, 160, 160))) - 80
    assert upright[1] > 10, "the grip hangs down"
    assert np.allclose(turned_right, [-upright[1], upright[0]], atol=0.3), "down goes left when turned clockwise"
    doubled = place_sprite(sprite, (80.0, 80.0), 60, 0.0, (0, 0, 160, 220))
    assert doubled[..., 3].sum() == pytest.approx(4 * area_px(sprite), rel=0.01)


def test_a_cup_is_brighter_towards_the_lamp():
    def brightness(light: tuple[float, float, float]) -> float:
        rgba = paint_sprite(solids.cup(), 40, light=light).rgba
        grey = cv2.blur(rgba[..., :3].mean(axis=2), (3, 3))
        half = grey.shape[1] // 2
        return float(grey[:, :half].sum() - grey[:, half:].sum())

    assert brightness((-1.0, 0.0, 0.5)) > brightness((1.0, 0.0, 0.5))
