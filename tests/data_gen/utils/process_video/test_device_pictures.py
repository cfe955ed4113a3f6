import cv2
import numpy as np
import pytest
import torch

from data_gen.utils.process_video.device_pictures import Filters, largest, looked_up, median, smallest

SIZE = 48
FILTERS = Filters(torch.device("cpu"))


@pytest.fixture
def picture():
    return np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)


def on(values):
    return torch.from_numpy(values)


def close(found, true):
    np.testing.assert_allclose(found.numpy(), true, atol=2e-6)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 4.0])
def test_blurs_are_opencvs(picture, sigma):
    close(FILTERS.gaussian(on(picture), sigma), cv2.GaussianBlur(picture, (0, 0), sigma))


@pytest.mark.parametrize("border", [cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101])
def test_box_means_are_opencvs(picture, border):
    close(FILTERS.box(on(picture), 5, border), cv2.blur(picture, (5, 5), borderType=border))


def test_slopes_are_opencvs(picture):
    across, down = (cv2.Sobel(picture, cv2.CV_32F, x, 1 - x, scale=0.125) for x in (1, 0))
    close(FILTERS.steps(on(picture), 0.125), np.hypot(across, down))


@pytest.mark.parametrize("size", [SIZE, 2 * SIZE, 100])
def test_enlarging_is_opencvs(picture, size):
    close(FILTERS.enlarged(on(picture)[None], size)[0], cv2.resize(picture, (size, size)))


def test_several_planes_are_filtered_each_by_itself(picture):
    planes = np.stack([picture, picture[::-1]])
    found = FILTERS.gaussian(on(planes), 1.5)
    close(found[1], cv2.GaussianBlur(planes[1], (0, 0), 1.5))


@pytest.mark.parametrize("side", [3, 7])
def test_morphology_is_opencvs(picture, side):
    square = np.ones((side, side), np.uint8)
    close(largest(on(picture), side), cv2.dilate(picture, square))
    close(smallest(on(picture)[None], side)[0], cv2.erode(picture, square))


def test_looking_along_flow_is_opencvs_remap_with_a_repeated_border(picture):
    flow = np.random.default_rng(1).normal(0, 6, (SIZE, SIZE, 2)).astype(np.float32)
    line = np.arange(SIZE, dtype=np.float32)
    x, y = flow[..., 0] + line[None], flow[..., 1] + line[:, None]
    true = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    found = looked_up(on(picture)[None, None], FILTERS.places(on(flow))[None])[0, 0]
    assert np.abs(found.numpy() - true).mean() < 0.01  # some versions of OpenCV read at multiples of 1 / 32 px


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_medians_are_numpys(count):
    values = np.random.default_rng(count).random((3, 20), dtype=np.float32)
    where = np.arange(20) % (20 // count) == 0
    close(median(on(values), on(where)), np.median(values[:, where], axis=1))
    close(median(on(values[:, :count])), np.median(values[:, :count], axis=1))
