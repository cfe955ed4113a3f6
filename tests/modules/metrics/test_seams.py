"""Seams: analytic pictures, naive twins, and a real face where each known fault moves its own figure alone."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest

from modules.metrics.seams import (
    RING_PX,
    alpha_area_ratio,
    colour_difference,
    edge_band,
    exactness,
    gradient_ratio,
    ring,
    soft_band,
)
from modules.structures.frames import PlaneLayout
from modules.video.colour import chroma_alpha
from tests.modules.metrics.seam_cases import (
    blurred,
    brightened,
    ellipse,
    face_frames,
    figures,
    flickering,
    repaint,
    shaken,
    tinted,
)

YUV420 = PlaneLayout("yuv420p", (1, 1), "left", full_range=False, matrix="bt709")


def step_alpha(height=40, width=60, column=30):
    alpha = np.zeros((height, width), np.float32)
    alpha[:, column:] = 1
    return alpha


def disc_alpha(size=64, radius=18.0, feather=10.0):
    y, x = np.mgrid[:size, :size] + 0.5
    return np.clip((radius - np.hypot(x - size / 2, y - size / 2)) / feather + 0.5, 0, 1).astype(np.float32)


def texture(size_hw, seed=0):
    noise = np.random.default_rng(seed).uniform(0, 255, (*size_hw, 3)).astype(np.float32)
    return np.clip(3 * (cv2.GaussianBlur(noise, (0, 0), 1.5) - 128) + 128, 20, 235).astype(np.uint8)


def grey(luma):
    return np.repeat(np.rint(luma).astype(np.uint8)[..., None], 3, axis=2)


def made_planes(size_hw, layout=YUV420, seed=0):
    generator = np.random.default_rng(seed)
    chroma = chroma_alpha(np.zeros(size_hw, np.float32), layout).shape
    return tuple(generator.integers(1, 255, size, dtype=np.uint8) for size in (size_hw, chroma, chroma))


# The band.


def test_a_hard_edge_has_a_ring_of_eight_pixels_to_either_side():
    alpha = step_alpha()
    expected = np.zeros_like(alpha, bool)
    expected[:, 30 - RING_PX : 30 + RING_PX] = True
    assert np.array_equal(ring(alpha), expected) and not soft_band(alpha).any()
    assert np.array_equal(edge_band(alpha), expected)


def test_a_wide_feather_is_taken_whole():
    alpha = np.tile(np.linspace(0, 1, 81, dtype=np.float32), (5, 1))
    band = edge_band(alpha)
    assert np.array_equal(band[0], (alpha[0] > 0.02) & (alpha[0] < 0.98))
    assert np.array_equal(edge_band(alpha, low=0.25, high=0.75)[0], (alpha[0] > 0.25) & (alpha[0] < 0.75))


@pytest.mark.parametrize("feather", [1.0, 10.0])
def test_the_ring_is_where_a_loop_over_all_pairs_finds_it(feather):
    alpha = disc_alpha(size=40, radius=9.0, feather=feather)
    inside = alpha >= 0.5
    expected = np.zeros_like(inside)
    for here in np.ndindex(inside.shape):
        others = np.argwhere(inside != inside[here])
        expected[here] = np.sqrt(((others - here) ** 2).sum(axis=1)).min() <= RING_PX + 0.5
    assert np.array_equal(ring(alpha), expected) and 0.1 < expected.mean() < 0.9


def test_a_fading_edit_keeps_its_band():
    full = disc_alpha()
    for strength in (0.8, 0.3, 0.05):
        assert np.array_equal(ring(full * np.float32(strength)), ring(full))
        assert np.mean(soft_band(full * np.float32(strength)) != soft_band(full)) < 0.002
    assert not edge_band(full * np.float32(0.02)).any()


def test_a_hand_in_front_has_an_edge_too():
    alpha = np.ones((60, 80), np.float32)
    alpha[20:40, 30:50] = 0
    assert edge_band(alpha)[30, 30 - RING_PX : 30 + RING_PX].all() and not edge_band(alpha)[:, :20].any()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (7, 5)])
def test_without_an_edge_nothing_is_measured(value, size_hw):
    alpha, picture = np.full(size_hw, value, np.float32), texture(size_hw)
    band = edge_band(alpha)
    assert band.shape == size_hw and not band.any()
    assert math.isnan(gradient_ratio(picture, picture, alpha, band))
    assert math.isnan(colour_difference(picture, picture, band))
    whole = np.ones(size_hw, bool)
    assert math.isnan(gradient_ratio(picture, picture, alpha, whole))  # no direction to look along


# The gradient across the edge.


def test_a_ramp_twice_as_steep_counts_twice():
    alpha = step_alpha()
    ramp = np.tile(np.arange(60.0), (40, 1))
    band = edge_band(alpha)
    assert gradient_ratio(grey(2 * ramp + 40), grey(ramp + 40), alpha, band) == pytest.approx(2, rel=1e-4)
    assert gradient_ratio(grey(100 - ramp), grey(ramp + 40), alpha, band) == pytest.approx(1, rel=1e-4)


def test_only_the_component_across_the_edge_counts():
    alpha = step_alpha()
    across = np.tile(np.arange(60.0), (40, 1))
    along = np.tile(np.arange(40.0)[:, None], (1, 60))
    band = edge_band(alpha)
    assert gradient_ratio(grey(across + 3 * along + 20), grey(across + 20), alpha, band) == pytest.approx(1, rel=1e-4)
    assert gradient_ratio(grey(3 * along + 20), grey(across + 20), alpha, band) == pytest.approx(0, abs=1e-4)
    flat = grey(np.full((40, 60), 90.0))
    assert math.isnan(gradient_ratio(grey(across), flat, alpha, band))


def test_every_pixel_of_the_band_counts_alike():
    alpha = step_alpha()
    column = np.arange(60)
    slopes = np.where(np.abs(column - 29.5) > 4, 3.0, 1.0)  # steep far from the edge, where the alpha is nearly flat
    steep = grey(np.tile(20 + np.cumsum(slopes), (40, 1)))
    expected = np.mean([(slopes[c] + slopes[c + 1]) / 2 for c in range(30 - RING_PX, 30 + RING_PX)])
    assert gradient_ratio(steep, grey(np.tile(20.0 + column, (40, 1))), alpha, edge_band(alpha)) == pytest.approx(
        expected, rel=1e-4
    )


def test_around_a_disc_a_cone_has_all_its_gradient_across():
    alpha = disc_alpha(feather=0.1)
    y, x = np.mgrid[:64, :64] + 0.5
    radius, angle = np.hypot(x - 32, y - 32), np.arctan2(y - 32, x - 32)
    cone, fan = grey(40 + 3 * radius), grey(128 + 30 * np.sin(4 * angle))
    rows, columns = np.nonzero(edge_band(alpha))
    truth = {}
    for name, picture in (("cone", cone), ("fan", fan)):
        luma, total = picture[..., 0].astype(float), 0.0
        for r, c in zip(rows, columns, strict=True):
            slope_x, slope_y = (luma[r, c + 1] - luma[r, c - 1]) / 2, (luma[r + 1, c] - luma[r - 1, c]) / 2
            total += abs(slope_x * np.cos(angle[r, c]) + slope_y * np.sin(angle[r, c]))
        truth[name] = total / len(rows)
    ratio = gradient_ratio(fan, cone, alpha, edge_band(alpha))
    assert ratio == pytest.approx(truth["fan"] / truth["cone"], abs=0.005)
    assert ratio < 0.15  # the fan varies around the disc only


def test_equal_pictures_give_exactly_one_and_no_difference():
    alpha, picture = disc_alpha(), texture((64, 64))
    band = edge_band(alpha)
    assert gradient_ratio(picture, picture.copy(), alpha, band) == 1.0
    assert colour_difference(picture, picture.copy(), band) == 0.0


def test_what_lies_outside_the_band_is_not_looked_at():
    alpha, picture = disc_alpha(), texture((64, 64))
    band = edge_band(alpha)
    near = cv2.dilate(band.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    other = np.where(near[..., None], picture, 255 - picture)
    assert gradient_ratio(other, picture, alpha, band) == 1.0
    assert colour_difference(other, picture, band) == 0.0


# Colour, area and exactness.


def test_the_colour_difference_of_greys_is_that_of_their_lightness():
    def lightness(code):
        linear = ((code / 255 + 0.055) / 1.055) ** 2.4
        return 116 * np.cbrt(linear) - 16

    band = edge_band(step_alpha())
    a, b = (np.full((40, 60, 3), code, np.uint8) for code in (90, 190))
    assert colour_difference(b, a, band) == pytest.approx(lightness(190) - lightness(90), rel=0.01)
    half = b.copy()
    half[:, 30:] = 90
    assert colour_difference(half, a, band) == pytest.approx((lightness(190) - lightness(90)) / 2, rel=0.01)


def test_the_area_counts_pixels_above_two_per_cent():
    alpha = np.float32([[0, 0.01, 0.02, 0.03], [0.5, 0.98, 1, 0]])
    assert alpha_area_ratio(alpha, 8.0) == 0.5
    assert alpha_area_ratio(np.zeros_like(alpha), 8.0) == 0
    assert math.isnan(alpha_area_ratio(alpha, 0.0)) and math.isnan(alpha_area_ratio(alpha, math.nan))


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 9), (16, 11), (12, 20)])
@pytest.mark.parametrize("layout", [YUV420, PlaneLayout("yuv444p", (0, 0), "left", full_range=True, matrix="bt601")])
def test_exactness_is_what_a_loop_over_all_samples_counts(size_hw, layout):
    generator = np.random.default_rng(3)
    source, result = made_planes(size_hw, layout), made_planes(size_hw, layout)
    for plane in result:
        changed = generator.random(plane.shape) < 0.3
        plane[changed] = generator.integers(0, 256, int(changed.sum()), dtype=np.uint8)
    alpha = np.where(np.arange(size_hw[1]) * 2 < size_hw[1], generator.random(size_hw), 0).astype(np.float32)
    chroma = chroma_alpha(alpha, layout)
    differences = [
        abs(int(result[p][place]) - int(source[p][place]))
        for p, own in enumerate((alpha, chroma, chroma))
        for place in np.ndindex(own.shape)
        if own[place] == 0
    ]
    found = exactness(result, source, alpha, layout)
    assert found.samples == len(differences) and found.largest == max(differences, default=0)
    if differences:
        assert found.changed_share == pytest.approx(np.mean(np.array(differences) > 0))
    else:
        assert math.isnan(found.changed_share)


def test_one_sample_off_by_one_is_found_in_any_plane():
    alpha = step_alpha(12, 20, 15)
    for plane, place in ((0, (3, 14)), (1, (5, 6)), (2, (0, 0))):
        source = made_planes(alpha.shape)
        result = tuple(p.copy() for p in source)
        result[plane][place] -= 1  # a wrapped uint8 difference would read 255
        found = exactness(result, source, alpha, YUV420)
        assert found.largest == 1 and found.changed_share == pytest.approx(1 / found.samples)


def test_chroma_the_alpha_reaches_is_free_to_change():
    alpha = np.zeros((8, 8), np.float32)
    alpha[4, 4] = 1e-6  # the least trace of an edit
    source = made_planes(alpha.shape)
    result = tuple(p.copy() for p in source)
    result[0][4, 4] ^= 8
    result[1][2, 2] ^= 8
    assert exactness(result, source, alpha, YUV420).changed_share == 0
    result[1][1, 1] ^= 8
    assert exactness(result, source, alpha, YUV420).largest == 8


@pytest.mark.parametrize(("value", "samples"), [(0.0, 63 + 2 * 20), (1.0, 0)])
def test_exactness_with_nothing_or_everything_edited(value, samples):
    source = made_planes((7, 9))
    found = exactness(source, source, np.full((7, 9), value, np.float32), YUV420)
    assert found.samples == samples and found.largest == 0
    assert found.changed_share == 0 if samples else math.isnan(found.changed_share)


def test_sizes_that_disagree_are_refused():
    alpha, picture = disc_alpha(), texture((64, 64))
    band = edge_band(alpha)
    with pytest.raises(ValueError, match="source"):
        gradient_ratio(picture, picture[:-1], alpha, band)
    with pytest.raises(ValueError, match="result"):
        colour_difference(picture[:-1], picture, band)
    with pytest.raises(ValueError, match="expected"):
        exactness(made_planes((8, 8)), made_planes((8, 8)), alpha, YUV420)


# A real face with one fault at a time.


@pytest.fixture(scope="module")
def frames(demo_dir):
    return face_frames(demo_dir)


@pytest.fixture(scope="module")
def soft(frames):
    return ellipse(frames[0].size_hw)


@pytest.fixture(scope="module")
def hard(frames):
    return ellipse(frames[0].size_hw, feather_px=0)


def rising(values):
    return all(a < b for a, b in pairwise(values))


def test_the_source_against_itself(frames, soft):
    found = figures(frames, frames, soft)
    assert (found.gradient, found.colour, found.flicker, found.changed, found.largest) == (1, 0, 1, 0, 0)


def test_a_blur_lowers_the_gradient_only(frames, soft):
    found = [figures(repaint(frames, soft, blurred(sigma)), frames, soft) for sigma in (0.7, 1.4, 2.8)]
    assert rising([1 - f.gradient for f in found]) and found[0].gradient < 0.97 and found[-1].gradient < 0.82
    assert all(f.colour < 0.6 and 0.8 < f.flicker < 1 and f.largest == 0 for f in found)  # it evens out noise


def test_a_hard_step_of_brightness_raises_the_gradient(frames, hard):
    found = [figures(repaint(frames, hard, brightened(codes)), frames, hard) for codes in (4, 8, 16)]
    assert rising([1, *(f.gradient for f in found)]) and found[-1].gradient > 1.4
    assert rising([0, *(f.colour for f in found)])  # it is a colour difference as well
    # The step stands still on a face that moves, which is a slight flicker; it leaves the rest alone.
    assert all(f.flicker < 1.25 and f.largest == 0 for f in found)


def test_a_hue_that_is_off_moves_the_colour_difference_only(frames, soft):
    found = [figures(repaint(frames, soft, tinted(codes)), frames, soft) for codes in (4, 8, 16)]
    assert rising([0, *(f.colour for f in found)]) and found[0].colour > 1
    for f in found:
        assert f.gradient == pytest.approx(1, abs=0.01) and f.flicker == pytest.approx(1, abs=0.01) and f.largest == 0


@pytest.mark.parametrize(("fault", "strengths"), [(flickering, (1, 2, 4)), (shaken, (0.5, 1, 2))])
def test_flickering_light_and_a_shaking_patch_move_the_flicker_only(frames, soft, fault, strengths):
    found = [figures(repaint(frames, soft, fault(strength)), frames, soft) for strength in strengths]
    assert rising([1, *(f.flicker for f in found)]) and found[0].flicker > 1.2 and found[-1].flicker > 2.5
    for f in found:
        assert f.gradient == pytest.approx(1, abs=0.05) and f.colour < 1 and f.largest == 0


def test_an_edge_that_lies_elsewhere_than_declared_moves_the_exactness_only(frames, hard):
    size_hw = frames[0].size_hw
    shifted = [ellipse(size_hw, feather_px=0, shift_px=shift) for shift in (1, 3, 6)]
    found = [figures(repaint(frames, alpha, tinted(16)), frames, hard) for alpha in shifted]
    straight = figures(repaint(frames, hard, tinted(16)), frames, hard)
    assert rising([straight.changed, *(f.changed for f in found)]) and straight.changed == 0
    assert all(f.largest > 1 for f in found)
    for f in found:
        assert f.gradient == pytest.approx(1, abs=0.01) and f.flicker == pytest.approx(1, abs=0.01)
        assert f.colour == pytest.approx(straight.colour, rel=0.05) and f.area == straight.area


def test_an_alpha_grown_too_wide_moves_the_area_only(frames):
    alphas = [ellipse(frames[0].size_hw, grown_px=grown) for grown in (0, 2, 4, 8)]
    found = [figures(repaint(frames, alpha, lambda rgb, _: rgb), frames, alpha) for alpha in alphas]
    assert rising([f.area for f in found])
    for f in found:
        assert f.gradient == pytest.approx(1, abs=0.002) and f.flicker == pytest.approx(1, abs=0.002)
        assert f.colour < 0.01 and f.changed == 0
