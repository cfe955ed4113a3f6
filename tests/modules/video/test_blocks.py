"""Coding blocks: found where they are and as strong as they are, given to a patch, never to a clean picture."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from scipy.fft import dctn

from modules.structures.frames import Frame, PlaneLayout
from modules.video.blocks import BLOCK, MOST_UNSEEN, NOT_CODED, BlockMatcher, Coding, border_profile, coded, cosines
from modules.video.device_blocks import coded as coded_on_device
from modules.video.device_grids import Grids
from modules.video.grain import code_step

LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", full_range=False, matrix="bt709")
DEEP = PlaneLayout("yuv420p10le", (1, 1), "left", full_range=False, matrix="bt709", bit_depth=10)
HEIGHT, WIDTH = 200, 240
BOUNDS = (20, 10, 220, 190)
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


def skin(seed=0, size_hw=(HEIGHT, WIDTH)):
    """Luma codes: something smooth with soft edges, and fine noise."""
    rng = np.random.default_rng(seed)
    coarse = cv2.GaussianBlur(rng.normal(size=size_hw), (0, 0), 6)
    return 110 + 25 * coarse / coarse.std() + rng.normal(0, 0.7, size_hw)


def rounded(luma, step, left=0, top=0):
    """Plain loop over whole blocks."""
    made, bases = luma.copy(), cosines().astype(np.float64)
    for y in range(top, luma.shape[0] - BLOCK + 1, BLOCK):
        for x in range(left, luma.shape[1] - BLOCK + 1, BLOCK):
            found = bases @ luma[y : y + BLOCK, x : x + BLOCK] @ bases.T
            made[y : y + BLOCK, x : x + BLOCK] = bases.T @ (np.rint(found / step) * step) @ bases
    return made


def frame(luma, number=0, layout=LAYOUT):
    scale, kind = (1, np.uint8) if layout.bit_depth == 8 else (4, np.uint16)
    plane = np.clip(np.rint(luma * scale), 0, 255 * scale).astype(kind)
    grey = np.full((HEIGHT // 2, WIDTH // 2), 128 * scale, kind)
    return Frame(number, number, Fraction(1, 25), (plane, grey, grey), layout)


def followed(luma, noise=1.0, layout=LAYOUT, seconds=12):
    matcher = BlockMatcher()
    return [matcher.update(frame(luma, number, layout), BOUNDS, noise) for number in range(0, 25 * seconds, 20)][-1]


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_source_is_left_alone(seed):
    coding = followed(skin(seed))
    patch = np.random.default_rng(seed).random((180, 200, 3)).astype(np.float32)
    assert coding == NOT_CODED and coded(patch, patch[..., 0], BOUNDS, coding, LAYOUT) is patch


@pytest.mark.parametrize("place", [(0, 0), (3, 5)])
@pytest.mark.parametrize("layout", [LAYOUT, DEEP], ids=["8 bits", "10 bits"])
def test_a_grid_is_found_where_it_is_and_its_step_about(place, layout):
    steps = []
    for step in (5.0, 10.0):
        coding = followed(rounded(skin(), step, *place), layout=layout)
        assert (coding.left, coding.top) == place
        steps.append(255 * coding.step)
    assert 3 < steps[0] < 7.5 and steps[0] + 2 < steps[1] < 16


def test_what_is_given_shows_as_much_of_a_grid_as_the_source():
    source = frame(rounded(skin(), 6.0))
    coding = followed(rounded(skin(), 6.0))
    grey = np.repeat(((skin(5) - 16) / 219)[..., None], 3, axis=2).astype(np.float32)[10:190, 20:220]
    made = coded(grey, np.ones(grey.shape[:2], np.float32), BOUNDS, coding, LAYOUT)
    whole = skin(5)
    whole[10:190, 20:220] = 16 + 219 * made[..., 1]
    profiles = [border_profile(one, BOUNDS) for one in (source, frame(whole), frame(skin(5)))]
    borders = [255 * float(profile[:, 0].mean()) for profile in profiles]
    assert 0.45 * borders[0] < borders[1] < 1.6 * borders[0] and borders[2] < 0.1 * borders[0]


def test_frequencies_of_whole_blocks_are_multiples_of_the_step():
    patch = np.random.default_rng(0).uniform(0.3, 0.7, (64, 72, 3)).astype(np.float32)
    rendered, coding = np.zeros((64, 72), np.float32), Coding(0.05, left=6, top=1)
    rendered[13:45, 27:51] = 1
    bounds = (3, 4, 75, 68)
    made = coded(patch, rendered, bounds, coding, LAYOUT)
    luma = made @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    # Blocks begin at columns 6 and rows 1 of the frame, so at column 3 and row 5 of the patch, and every 8 px.
    parts = dctn(luma[13:45, 27:51].reshape(4, 8, 3, 8), axes=(1, 3), norm="ortho") / coding.step
    assert np.abs(parts - np.rint(parts)).max() < 1e-3
    change = made - patch
    assert np.ptp(change, axis=2).max() < 1e-6 and np.abs(change[20:40, 30:50]).max() > 1e-3
    far = np.ones((64, 72), bool)
    far[13:45, 27:51] = False
    assert not change[far].any()
    half = coded(patch, rendered / 2, bounds, coding, LAYOUT) - patch
    np.testing.assert_allclose(half, change / 2, atol=1e-6, err_msg="only so far as it was rendered")
    assert coded(patch, 0 * rendered, bounds, coding, LAYOUT) is patch


def test_fine_noise_gives_a_step_that_is_not_seen_unless_borders_were_smoothed():
    marks = [np.where(np.arange(length) % BLOCK == 0, 0.2, 0.0) for length in (HEIGHT, WIDTH)]
    steps = marks[0].cumsum()[:, None] + marks[1].cumsum()[None]
    coding = followed(skin() + steps, noise=0.6)
    assert 0 < coding.step <= MOST_UNSEEN and (coding.left, coding.top) == (0, 0)
    assert followed(skin() + steps, noise=0.9).step < coding.step
    smoothed = skin()
    for axis, length in enumerate((HEIGHT, WIDTH)):
        lines = np.moveaxis(smoothed, axis, 0)
        for k in range(BLOCK, length, BLOCK):
            pair = lines[k - 1 : k + 1]
            pair += 0.15 * (pair.mean(axis=0) - pair)
    assert followed(smoothed, noise=0.6) == NOT_CODED


def test_states_cuts_and_windows_too_small():
    strong, other = BlockMatcher(), BlockMatcher()
    picture = rounded(skin(), 8.0)
    first = strong.update(frame(picture), BOUNDS, 1.0)
    assert first.step > 0, "what is plain is believed at once"
    assert strong.update(frame(skin(), 2), BOUNDS, 1.0) == first, "not measured again so soon"
    other.resume(strong.state())
    assert other.update(frame(picture, 3), BOUNDS, 1.0) == first
    assert other.update(frame(picture, 10), (0, 0, 20, 20), 1.0) == first
    assert other.update(frame(picture, 90), (0, 0, 20, 20), 1.0) == NOT_CODED
    strong.reset()
    assert strong.state() == {} and border_profile(frame(picture), (0, 0, 20, 20)) is None
    assert code_step(LAYOUT) * 12 > first.step > code_step(LAYOUT) * 5


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_batches_are_rounded_as_windows_are(device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    rng, sizes = np.random.default_rng(0), np.array([[61, 70], [80, 45], [33, 90]])
    grids = Grids(sizes, (80, 96), torch.device(device))
    bounds = np.array([[3, 9, 73, 70], [0, 0, 45, 80], [10, 5, 100, 38]])
    codings = (Coding(0.03), NOT_CODED, Coding(0.1, 5, 2))
    batch, singles = torch.zeros(3, 3, 80, 96), []
    for number, (height, width) in enumerate(sizes):
        one = rng.uniform(0.1, 0.9, (height, width, 3)).astype(np.float32)
        batch[number, :, :height, :width] = torch.from_numpy(one.transpose(2, 0, 1))
        singles.append(one)
    share = rng.uniform(0, 1, (3, 80, 96)).astype(np.float32)
    rendered = torch.from_numpy(share).to(device)
    made = coded_on_device(batch.to(device), rendered, grids, bounds, codings, LAYOUT).cpu()
    for number, (one, coding) in enumerate(zip(singles, codings, strict=True)):
        height, width = sizes[number]
        x0, y0, x1, y1 = bounds[number].tolist()
        expected = coded(one, share[number, :height, :width], (x0, y0, x1, y1), coding, LAYOUT)
        found = made[number, :, :height, :width].numpy().transpose(1, 2, 0)
        assert (np.abs(found - expected) > 1e-4).mean() < 0.02, (
            "a frequency half way between two steps may go either way"
        )
    assert coded_on_device(batch, rendered, grids, bounds, (NOT_CODED,) * 3, LAYOUT) is batch
