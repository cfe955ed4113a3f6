import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.mp_feature_extractors.regions import angle_between, region_of_points
from modules.structures.crops import CropRegion, sample_region, transform_points


@pytest.mark.parametrize(
    ("end", "target", "expected"),
    [((1, 0), 0, 0), ((1, 1), 0, math.pi / 4), ((0, -1), math.pi / 2, 0), ((1, 0), math.pi / 2, math.pi / 2)],
)
def test_angle_is_clockwise_on_screen(end, target, expected):
    assert angle_between(np.zeros(2), np.array(end), target) == pytest.approx(expected, abs=1e-9)


@given(st.floats(-3, 3), st.floats(0.5, 3), st.integers(0, 100))
def test_region_of_points_turns_with_its_points(angle, scale, seed):
    points = np.random.default_rng(seed).normal(size=(12, 2)) * (30, 50) + (100, 200)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    upright = region_of_points(points, 0.0, scale, shift_y=-0.2)
    turned = region_of_points(points @ turn.T, angle, scale, shift_y=-0.2)
    np.testing.assert_allclose(turn @ (upright.center_x, upright.center_y), (turned.center_x, turned.center_y))
    assert turned.side == pytest.approx(upright.side)
    assert upright.side == pytest.approx(np.ptp(points, axis=0).max() * scale)


def smooth_picture(height, width):
    noise = np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("side", [96.0, 200.0, 640.0])
def test_sampling_puts_frame_points_where_crop_from_frame_says(side):
    """A white dot lands on its mapped place to a tenth of a crop pixel, at every reduction."""
    image = np.zeros((700, 700, 3), dtype=np.uint8)
    place = (333.0, 298.0)
    cv2.circle(image, (332, 297), round(side / 16), (255, 255, 255), -1)
    place = (332.5, 297.5)
    region = CropRegion(340.3, 310.8, side, 0.3)
    crop = sample_region(image, region, 128).astype(np.float64).sum(axis=2)
    rows, cols = np.mgrid[:128, :128] + 0.5
    found = np.array([(cols * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(found, transform_points(region.crop_from_frame(128), np.array(place)), atol=0.1)


def test_reductions_are_filtered_before_sampling():
    """A one-pixel checkerboard averages to grey instead of aliasing."""
    image = np.indices((512, 512)).sum(axis=0) % 2 * 255
    image = np.repeat(image[..., None], 3, axis=2).astype(np.uint8)
    crop = sample_region(image, CropRegion(256, 256, 400), 100)
    assert np.abs(crop.astype(int) - 127).max() <= 2


def test_outside_the_image_the_edge_repeats_or_stays_black():
    image = np.full((50, 50, 3), 200, dtype=np.uint8)
    assert sample_region(image, CropRegion(0, 25, 80), 64).min() == 200
    assert sample_region(image, CropRegion(0, 25, 80), 64, border_mode=cv2.BORDER_CONSTANT)[:, 0].max() == 0
    assert sample_region(image, CropRegion(500, 500, 10), 16).max() == 0, "a square beside the image is black"


def test_an_aligned_square_is_copied():
    image = smooth_picture(64, 64)
    np.testing.assert_array_equal(sample_region(image, CropRegion(32, 24, 32), 32), image[8:40, 16:48])
