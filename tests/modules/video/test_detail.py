"""Sharpness learnt from a frame and its own render: blur undone, nothing invented, blurred moments followed."""

import itertools

import cv2
import numpy as np
import pytest

from modules.metrics.picture import sharpness
from modules.video.detail import (
    CORE,
    LEAST_GAIN,
    MOST_GAIN,
    MOST_SPECK,
    SIGMAS,
    DetailMatcher,
    band_energies,
    despeckled,
    refined,
)


def mouth(seed=0, height=60, width=90):
    """A dark mouth with teeth and a soft weight over it."""
    rng = np.random.default_rng(seed)
    luma = np.full((height, width), 0.55, np.float32)
    luma[20:40, 20:70] = 0.1
    luma[24:32, 24:66] = 0.8
    luma[24:32, 24:66:6] = 0.4
    luma += cv2.GaussianBlur(rng.normal(size=luma.shape).astype(np.float32), (0, 0), 1.0) * 0.08
    weight = np.zeros((height, width), np.float32)
    weight[14:46, 14:76] = 1
    rgb = np.clip(cv2.merge([luma, 0.8 * luma, 0.7 * luma]), 0, 1).astype(np.float32)
    return cv2.GaussianBlur(rgb, (0, 0), 0.6), weight


def soft(picture, sigma=0.7):
    return cv2.GaussianBlur(picture, (0, 0), sigma)


def test_a_softer_render_is_sharpened_to_what_was_filmed():
    source, weight = mouth()
    inside = weight > 0
    gains = DetailMatcher().update(source, soft(source, 0.45), weight, 0.0)
    assert all(1.02 < gain <= MOST_GAIN for gain in gains)
    other, _ = mouth(seed=5)  # another mouth, rendered by the same renderer
    render = soft(other, 0.45)
    pictures = other, render, refined(render, gains, weight)
    luma = [(255 * picture[..., 1]).astype(np.uint8) for picture in pictures]
    filmed, before, after = (sharpness(plane, inside) for plane in luma)
    assert before < 0.75 * filmed and before + 0.4 * (filmed - before) < after < 1.1 * filmed


def test_an_equal_render_stays_as_it_is():
    source, weight = mouth()
    clean = cv2.cvtColor(despeckled(cv2.cvtColor(source, cv2.COLOR_RGB2GRAY)), cv2.COLOR_GRAY2RGB)
    gains = DetailMatcher().update(clean, clean, weight, 0.0)
    assert gains == pytest.approx((1.0,) * len(SIGMAS), abs=2e-3)  # a speck may be left where two touched
    assert np.abs(refined(clean, (1.0,) * len(SIGMAS), weight) - clean).max() < 0.02
    assert refined(source, gains, 0 * weight) is source


def test_a_render_that_is_too_sharp_is_softened_but_not_beyond_the_limit():
    source, weight = mouth()
    gains = DetailMatcher().update(soft(source, 3.0), source, weight, 0.0)
    assert all(LEAST_GAIN <= gain < 0.9 for gain in gains)


def test_nothing_changes_where_the_weight_is_0():
    source, weight = mouth()
    changed = refined(source, (1.4, 1.3, 1.2), weight)
    assert np.array_equal(changed[weight == 0], source[weight == 0])
    assert not np.array_equal(changed, source) and changed.min() >= 0 and changed.max() <= 1


def test_closed_lips_say_less_than_teeth():
    source, weight = mouth()
    lips = 0.5 + 0.03 * (source - 0.5)
    assert (
        DetailMatcher().update(lips, soft(lips), weight, 0.0)[0]
        < DetailMatcher().update(source, soft(source), weight, 0.0)[0]
    )


def test_gains_are_steady_over_time_and_a_blurred_moment_is_followed():
    source, weight = mouth()
    matcher = DetailMatcher()
    usual = [matcher.update(*(p for p in (source, soft(source))), weight, number / 25)[0] for number in range(20)]
    assert np.ptp(usual) < 1e-6
    blurred = matcher.update(soft(source, 2.5), soft(source), weight, 20 / 25)[0]
    after = matcher.update(source, soft(source), weight, 21 / 25)[0]
    assert blurred < 0.75 and after == pytest.approx(usual[0], abs=0.05)


def test_states_cuts_and_hidden_mouths():
    source, weight = mouth()
    matcher, other = DetailMatcher(), DetailMatcher()
    first = matcher.update(source, soft(source), weight, 0.0)
    other.resume(matcher.state())
    hidden = np.zeros_like(weight)
    assert other.update(source, source, hidden, 0.04) == first
    assert other.update(source, source, hidden, 9.0) == (1.0,) * len(SIGMAS)  # too long ago
    matcher.reset()
    assert matcher.state() == {} and matcher.update(source, source, hidden, 0.04) == (1.0,) * len(SIGMAS)
    with pytest.raises(ValueError, match="memory_s"):
        DetailMatcher(0.0)


def test_band_energies_are_those_of_a_plain_loop():
    source, weight = mouth()
    luma, wanted = cv2.cvtColor(source, cv2.COLOR_RGB2GRAY), []
    for plane in (luma, despeckled(luma)):
        scales = [plane]
        for sigma in SIGMAS:
            scales.append(cv2.GaussianBlur(scales[-1], (0, 0), sigma))
        bands = [finer - coarser for finer, coarser in itertools.pairwise(scales)]
        means = [sum(float(band[y, x]) ** 2 for y, x in np.argwhere(weight > 0)) for band in bands]
        wanted.append([total / float(weight.sum()) for total in means])
    assert np.allclose(band_energies(source, source, weight), wanted, rtol=1e-3)
    assert band_energies(source, source, np.zeros_like(weight)) is None


def test_specks_go_and_lines_of_teeth_stay():
    picture = np.full((40, 60), 0.6, np.float32)
    picture[10:30, 20] = picture[12, 30:40] = 0.2  # gaps between teeth
    picture[20:26, 30:50] = 0.9  # a tooth with its corners
    spotted = picture.copy()
    spotted[33, 40], spotted[5, 50], spotted[35, 10:12] = 0.0, 1.0, 0.0
    made, ends = despeckled(spotted), np.zeros(picture.shape, bool)
    ends[[10, 29], 20] = ends[12, [30, 39]] = True
    assert np.abs(made - picture)[~ends].max() <= MOST_SPECK + 1e-6, "lines and corners stay, specks of two pixels go"
    weak = picture + np.float32(MOST_SPECK / 2) * (np.indices(picture.shape).sum(0) % 2).astype(np.float32)
    assert np.abs(despeckled(weak) - weak)[~ends].max() < 1e-6, "weak detail stays"


@pytest.mark.parametrize("seed", range(3))
def test_no_pixel_stands_out_from_the_second_of_its_neighbours(seed):
    luma = np.random.default_rng(seed).random((9, 11)).astype(np.float32)
    made = despeckled(luma)
    padded = np.pad(luma, 1, mode="edge")
    for y, x in np.ndindex(luma.shape):
        around = sorted(np.delete(padded[y : y + 3, x : x + 3].ravel(), 4))
        assert made[y, x] == pytest.approx(np.clip(luma[y, x], around[1] - MOST_SPECK, around[-2] + MOST_SPECK))


def test_what_is_weak_is_not_lifted_and_colours_stay():
    stripes = np.where(np.arange(64) % 4 < 2, 1.0, -1.0).astype(np.float32)[None, :, None].repeat(40, axis=0)
    whole, rises = np.ones((40, 64), np.float32), []
    for height in (0.2 * CORE, 15 * CORE):
        given = np.array([0.5, 0.4, 0.3], np.float32) + np.float32(height) * stripes
        change = refined(given.astype(np.float32), (1.4, 1.4, 1.4), whole) - given
        assert np.ptp(change, axis=2).max() < 1e-6
        rises.append(np.abs(change[10:30, 10:50]).max() / height)
    assert rises[0] < 0.05 and rises[1] > 0.2
