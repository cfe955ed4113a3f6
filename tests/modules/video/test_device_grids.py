"""Batches of padded images are blurred and resized as OpenCV does it with each image by itself."""

import cv2
import numpy as np
import pytest
import torch

from modules.video.device_grids import Grids, area, box_of_three, continued, cut, gaussian, linear

CPU = torch.device("cpu")
SIZES = np.array([[37, 50], [64, 41], [20, 23]])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.random((height, width, 2)).astype(np.float32) for height, width in SIZES]


@pytest.fixture(scope="module")
def grids():
    return Grids(SIZES, (70, 64), CPU)


def padded(images, grids, fill=0.0):
    batch = torch.full((len(images), 2, *grids.padded_hw), fill)
    for number, image in enumerate(images):
        batch[number, :, : image.shape[0], : image.shape[1]] = torch.from_numpy(image.transpose(2, 0, 1))
    return batch


def assert_same(batch, expected, atol=2e-6):
    for made, image in zip(batch, expected, strict=True):
        height, width = image.shape[:2]
        np.testing.assert_allclose(made[:, :height, :width].numpy().transpose(1, 2, 0), image, atol=atol)


@pytest.mark.parametrize("sigma", [0.5, 1.4, 9.0, 40.0])
def test_a_gaussian_is_that_of_opencv_even_where_it_is_wider_than_the_image(images, grids, sigma):
    assert_same(gaussian(grids, sigma)(padded(images, grids)), [cv2.GaussianBlur(i, (0, 0), sigma) for i in images])


def test_each_image_has_a_width_of_its_own(images, grids):
    sigmas = np.array([1.0, 2.5, 4.0])
    expected = [cv2.GaussianBlur(image, (0, 0), sigma) for image, sigma in zip(images, sigmas, strict=True)]
    assert_same(gaussian(grids, sigmas)(padded(images, grids)), expected)


def test_padding_stays_empty_and_counts_for_nothing(images, grids):
    made = gaussian(grids, 2.0)(padded(images, grids, fill=9.0))
    assert torch.equal(made[0, :, 37:], torch.zeros(2, 33, 64)) and float(made.max()) <= 1
    assert int(grids.inside().sum()) == int((SIZES[:, 0] * SIZES[:, 1]).sum())


def test_a_box_of_three(images, grids):
    assert_same(box_of_three(grids)(padded(images, grids)), [cv2.blur(image, (3, 3)) for image in images])


@pytest.mark.parametrize("size", [lambda n: -(-n // 4), lambda n: n // 4, lambda n: -(-n // 3)])
def test_means_over_cells_and_back(images, grids, size):
    cells = grids.coarser(size(SIZES))
    coarse = [cv2.resize(i, tuple(size(np.array(i.shape[1::-1]))), interpolation=cv2.INTER_AREA) for i in images]
    fine = [cv2.resize(c, i.shape[1::-1], interpolation=cv2.INTER_LINEAR) for c, i in zip(coarse, images, strict=True)]
    made = area(grids, cells)(padded(images, grids))
    assert_same(made, coarse)
    assert_same(linear(cells, grids)(made), fine)
    assert_same(area(grids, cells)(padded(images, grids)[:, 0])[:, None], [image[..., :1] for image in coarse])


def test_borders_go_on_into_the_padding(images, grids):
    made = continued(padded(images, grids), grids)
    for number, image in enumerate(images):
        height, width = image.shape[:2]
        around = cv2.copyMakeBorder(image, 0, 70 - height, 0, 64 - width, cv2.BORDER_REPLICATE)
        np.testing.assert_array_equal(made[number].numpy().transpose(1, 2, 0), around)


def test_parts_are_cut_out(images, grids):
    batch = padded(images, grids)
    made = cut(batch, np.array([[0, 0], [3, 5], [65, 60]]), (8, 6))
    assert torch.equal(made[1], batch[1, :, 3:11, 5:11])
    assert torch.equal(made[2, :, :5, :4], batch[2, :, 65:, 60:])
