import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.structures.crops import CropMetadata, CropRegion, mask_elsewhere, transform_points, warp_affine

regions = st.builds(
    CropRegion, st.floats(-500, 2000), st.floats(-500, 2000), st.floats(8, 3000), st.floats(-math.pi, math.pi)
)


@given(regions, st.sampled_from([256, 512]))
def test_crop_from_frame_sends_the_centre_and_corners_where_they_belong(region, size):
    matrix = region.crop_from_frame(size)
    center = transform_points(matrix, np.array([region.center_x, region.center_y]))
    np.testing.assert_allclose(center, size / 2, atol=1e-6)
    along_x = np.array([math.cos(region.angle_rad), math.sin(region.angle_rad)]) * region.side / 2
    edge = transform_points(matrix, np.array([region.center_x, region.center_y]) + along_x)
    np.testing.assert_allclose(edge, [size, size / 2], atol=1e-6)


@given(regions)
def test_frame_from_crop_inverts_crop_from_frame(region):
    metadata = CropMetadata((region,), (720, 1280), 512)
    product = metadata.frame_from_crop(3) @ metadata.crop_from_frame(3)
    np.testing.assert_allclose(product, np.eye(3), atol=1e-8)
    np.testing.assert_allclose(metadata.frame_from_crop(3), np.linalg.inv(metadata.crop_from_frame(3)), atol=1e-6)


@given(regions)
def test_bounding_box_holds_all_corners(region):
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * 1.0
    placed = transform_points(np.linalg.inv(region.crop_from_frame(1)), corners)
    box = region.bounding_box()
    assert placed.min() >= min(box.x0, box.y0) - 1e-6
    np.testing.assert_allclose(placed.min(axis=0), [box.x0, box.y0], atol=1e-6)
    np.testing.assert_allclose(placed.max(axis=0), [box.x1, box.y1], atol=1e-6)


def test_shifted_moves_only_the_centre():
    assert CropRegion(10, 20, 5, 0.3).shifted(-10, 1) == CropRegion(0, 21, 5, 0.3)


@pytest.mark.parametrize("values", [(0, 0, 0), (0, 0, -1), (math.nan, 0, 1), (0, math.inf, 1)])
def test_regions_without_a_size_or_place_are_refused(values):
    with pytest.raises(ValueError, match="crop region"):
        CropRegion(*values)


def test_warp_affine_agrees_with_resize_which_centres_pixels_at_a_half():
    ramp = np.tile(np.arange(16, dtype=np.float32), (16, 1))
    doubled = warp_affine(ramp, np.diag([2.0, 2.0, 1.0]), (32, 32))
    np.testing.assert_allclose(doubled, cv2.resize(ramp, (32, 32), interpolation=cv2.INTER_LINEAR), atol=1e-4)
    naive = cv2.warpAffine(ramp, np.diag([2.0, 2.0])[:, [0, 1]] @ np.eye(2, 3), (32, 32))
    assert np.abs(naive[:, 2:-2] - doubled[:, 2:-2]).min() > 0.2, "the bare call is off by a quarter of a step"


def test_warp_affine_is_the_identity_for_the_identity():
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    np.testing.assert_array_equal(warp_affine(image, np.eye(3), (11, 9)), image)


def test_a_fixed_crop_serves_every_frame_and_a_moving_one_clamps():
    fixed = CropMetadata((CropRegion(1, 2, 3),), (10, 10), 256)
    assert fixed.region(0) == fixed.region(999) == CropRegion(1, 2, 3)
    moving = CropMetadata(tuple(CropRegion(i, 0, 1) for i in range(3)), (10, 10), 256, first_frame=5)
    assert [moving.region(i).center_x for i in (0, 5, 6, 7, 50)] == [0, 0, 1, 2, 2]


def test_json_round_trip_and_foreign_text():
    metadata = CropMetadata((CropRegion(1.25, 2.5, 3.75, 0.1), CropRegion(1, 2, 3)), (720, 1280), 512, 4)
    again = CropMetadata.from_json(metadata.to_json())
    assert again.regions == metadata.regions
    assert (again.frame_size_hw, again.crop_size, again.first_frame) == ((720, 1280), 512, 4)
    for text in ("", "[]", "{}", '{"schema": "other"}', metadata.to_json().replace('"regions"', '"squares"')):
        with pytest.raises(ValueError, match=r"place\.json is not crop metadata"):
            CropMetadata.from_json(text, "place.json")


def test_metadata_needs_a_region_and_a_known_size():
    with pytest.raises(ValueError, match="no region"):
        CropMetadata((), (10, 10), 256)
    with pytest.raises(ValueError, match="crop_size"):
        CropMetadata((CropRegion(1, 1, 1),), (10, 10), 300)


def test_a_mask_over_a_region_lies_at_the_same_place_of_another_image():
    mask = np.zeros((8, 8), np.float32)
    mask[:, 4:] = 1  # the right half of a square around (30, 20)
    square = CropRegion(30.0, 20.0, 16.0)
    in_frame = mask_elsewhere(mask, square, np.eye(3), (60, 40))
    assert in_frame.shape == (40, 60) and in_frame.max() == 1
    assert in_frame[14:26, 32:36].min() == 1 and not in_frame[:, :28].any() and not in_frame[:10].any()
    other = CropRegion(30.0, 20.0, 32.0).crop_from_frame(64)  # twice as large, the square in its middle
    np.testing.assert_allclose(mask_elsewhere(mask, square, other, (64, 64)).sum(), 4 * in_frame.sum(), rtol=0.02)
