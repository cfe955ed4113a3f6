"""Regions cut out in torch against ``sample_region``."""

import cv2
import numpy as np
import pytest
import torch

from data_gen.utils.mp_feature_extractors.region_sampler import _cut, packed_sources, sample_packed, sample_regions
from modules.structures.crops import CropRegion, sample_region
from tests.support.networks import made_up_picture

REGIONS = (
    CropRegion(200.3, 110.7, 90.5, 0.1),
    CropRegion(10.0, 5.0, 120.0, -2.5),
    CropRegion(160.0, 100.0, 500.0, 0.4),
    CropRegion(-500.0, 20.0, 30.0),
    CropRegion(318.9, 198.9, 3.0, 0.2),
)


@pytest.fixture(scope="module")
def pictures():
    return [made_up_picture(200, 320, 0), made_up_picture(180, 240, 1)]


@pytest.mark.parametrize("border", [cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT])
def test_all_at_once_are_what_they_are_one_by_one(pictures, border):
    """Enlarged, at the edges, reduced, outside, and smaller than a few pixels; images of two sizes."""
    images = [pictures[i % 2] for i in range(len(REGIONS))]
    packed = packed_sources([_cut(image, region, 64) for image, region in zip(images, REGIONS, strict=True)])
    found = sample_packed(packed, len(REGIONS), 64, border).numpy()
    for image, region, crop in zip(images, REGIONS, found, strict=True):
        expected = sample_region(image, region, 64, border_mode=border)
        difference = np.abs(crop.astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    assert found[3].max() == 0 and found[0].std() > 5


def test_only_what_a_region_shows_is_sent(pictures):
    pixels, _ = _cut(pictures[0], CropRegion(200.0, 100.0, 40.0), 64)
    assert max(pixels.shape[:2]) <= 43


def test_on_the_cpu_it_is_the_same_rule(pictures):
    crops = sample_regions([pictures[0]] * 2, REGIONS[:2], 32, torch.device("cpu"))
    for region, crop in zip(REGIONS[:2], crops.numpy(), strict=True):
        np.testing.assert_array_equal(crop, sample_region(pictures[0], region, 32))
    assert sample_regions([], [], 32, torch.device("cpu")).shape == (0, 32, 32, 3)
