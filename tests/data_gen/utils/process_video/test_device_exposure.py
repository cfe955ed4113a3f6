import numpy as np
import pytest
import torch

from data_gen.utils.process_video.device_exposure import DeviceExposure
from data_gen.utils.process_video.device_pictures import Filters
from data_gen.utils.process_video.exposure_match import matched_exposure

SIZE = 128
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def frames():
    """Three faces in another light: one partly covered, one with hardly a place to go by, one in a gentle slope."""
    generator = np.random.default_rng(0)
    expected = np.kron(generator.uniform(0.3, 0.8, (3, 8, 8, 3)), np.ones((1, 16, 16, 1))).astype(np.float32)
    observed = expected * np.array([1.1, 0.9, 1.0], np.float32) + generator.normal(0, 0.01, expected.shape)
    observed[0, 80:] = (0.05, 0.3, 0.9)
    observed[2] *= np.linspace(0.95, 1.05, SIZE)[None, :, None]
    spread = generator.uniform(0.01, 0.03, (3, SIZE, SIZE)).astype(np.float32)
    weight = (generator.random((3, SIZE, SIZE)) < 0.9).astype(np.float32)
    weight[1] = 0
    weight[1, :12, :12] = 1
    spread[1, 60:] = 0
    return expected, observed.astype(np.float32), spread, weight


def matched(expected, observed, spread, weight):
    rgb, other = (torch.from_numpy(np.ascontiguousarray(np.moveaxis(p, -1, 1))) for p in (expected, observed))
    found = DeviceExposure(Filters(CPU)).matched(rgb, other, torch.from_numpy(spread), torch.from_numpy(weight))
    return np.moveaxis(found.numpy(), 1, -1)


def test_a_batch_is_matched_as_its_frames_are_by_arrays(frames):
    expected, found = frames[0], matched(*frames)
    for one, own in zip(zip(*frames, strict=True), found, strict=True):
        true = matched_exposure(*one)
        np.testing.assert_allclose(own, true, atol=2e-5)
    assert np.array_equal(found[1], expected[1])
    assert np.abs(found[0, :70] / expected[0, :70] - [1.1, 0.9, 1.0]).max() < 0.05


def test_a_small_picture_is_matched_at_its_own_size(frames):
    small = [np.ascontiguousarray(values[:1, :48, :48]) for values in frames]
    true = matched_exposure(*(values[0] for values in small))
    assert np.abs(true - small[0][0]).max() > 0.03
    np.testing.assert_allclose(matched(*small)[0], true, atol=2e-5)
