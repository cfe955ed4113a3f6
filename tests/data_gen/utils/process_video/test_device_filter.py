import numpy as np
import pytest
import torch

from data_gen.utils.process_video.device_filter import Batch, DeviceGuide, DeviceTemporalFilter
from data_gen.utils.process_video.device_pictures import Filters
from data_gen.utils.process_video.occlusion_filter import FilterConfig, FlowFinder, Guide, TemporalFilter, grey_of

SIZE, COUNT, CUT = 48, 9, 5
FILTERS = Filters(torch.device("cpu"))


@pytest.fixture(scope="module")
def moving():
    """Smooth pictures that wander, with another scene from ``CUT`` on, and evidence for each."""
    generator = np.random.default_rng(0)
    scenes = [np.kron(generator.random((10, 10, 3)), np.ones((8, 8, 1))).astype(np.float32) for _ in range(2)]
    pictures = np.stack([scenes[row >= CUT][row : row + SIZE, 2 * row % 7 :][:, :SIZE] for row in range(COUNT)])
    return pictures, generator.normal(0, 3, (COUNT, SIZE, SIZE)).astype(np.float32)


def by_arrays(pictures, evidence):
    run, done = TemporalFilter(FilterConfig()), []
    for row, (rgb, odds) in enumerate(zip(pictures, evidence, strict=True)):
        done += run.push(row, odds, rgb, fresh=row == CUT)
    return np.stack([odds for _, odds in [*done, *run.finish()]])


def batch(pictures, evidence, rows):
    flow, greys = FlowFinder(), [grey_of(rgb) for rgb in pictures]
    joined = [row not in (0, CUT) for row in rows]
    pairs = [(greys[row], greys[row - 1]) if go else None for row, go in zip(rows, joined, strict=True)]
    none = np.zeros((SIZE, SIZE, 2), np.float32)
    back = [none if pair is None else flow.found(*pair) for pair in pairs]
    ahead = [none if pair is None else flow.found(*pair[::-1]) for pair in pairs]
    rgb = np.ascontiguousarray(np.moveaxis(pictures[rows], -1, 1))
    arrays = evidence[rows], rgb, np.stack(back), np.stack(ahead), np.array(joined, np.float32)
    return Batch(*(torch.from_numpy(array) for array in arrays))


@pytest.mark.parametrize("most", [1, 2, 4, COUNT])
def test_batches_are_filtered_as_frames_are_one_by_one(moving, most):
    pictures, evidence = moving
    run, odds, shown = DeviceTemporalFilter(FilterConfig(), FILTERS), [], []
    for start in range(0, COUNT, most):
        rows = list(range(start, min(start + most, COUNT)))
        done = run.push(batch(pictures, evidence, rows))
        assert sum(map(len, odds)) + len(done[0]) == max(rows[-1] + 1 - FilterConfig().look_ahead, 0)
        odds.append(done[0])
        shown.append(done[1])
    rest = run.finish()
    assert rest is not None and run.finish() is None
    found = torch.cat([*odds, rest[0]]).numpy()
    away = np.abs(found - by_arrays(pictures, evidence))
    assert away.mean() < 2e-3 and np.quantile(away, 0.999) < 0.1  # OpenCV may read at multiples of 1 / 32 px
    assert np.array_equal(np.moveaxis(torch.cat([*shown, rest[1]]).numpy(), 1, -1), pictures)


def test_nothing_comes_of_nothing():
    assert DeviceTemporalFilter(FilterConfig(), FILTERS).finish() is None


def test_the_guide_of_each_frame_is_its_own(moving):
    pictures, values = (part[[0, 6]] for part in moving)
    rgb = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, 1)))
    guides = DeviceGuide.of(rgb, 2, 0.02, FILTERS)
    found = guides.refined(torch.from_numpy(values), rgb).numpy()
    for picture, one, own in zip(pictures, values, found, strict=True):
        np.testing.assert_allclose(own, Guide.of(picture, 2, 0.02).refined(one, picture), atol=2e-3)
    second = guides.of_frames(torch.tensor([1])).refined(torch.from_numpy(values[1:]), rgb[1:]).numpy()
    np.testing.assert_allclose(second[0], found[1], atol=1e-5)
