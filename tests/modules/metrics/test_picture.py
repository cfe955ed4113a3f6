"""Likeness, sharpness, noise and colour difference: loops, the library over whole pictures, and known cases."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from modules.metrics.picture import (
    MS_SSIM_LEAST_PX,
    changed_window,
    delta_e,
    luma,
    ms_ssim,
    noise_sigma,
    psnr,
    scope_window,
    score_scopes,
    sharpness,
    ssim_map,
    window_slice,
)

ALL_OF_IT = None


def textured(height, width, seed=0):
    """A picture with detail at several scales."""
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.normal(size=(height, width, 3)), (0, 0), s) * s for s in (0.8, 2, 6)]
    return np.clip(128 + 60 * sum(layers), 0, 255).astype(np.uint8)


def altered(target, window, seed=1, strength=40):
    """``target`` with noise inside ``window``; every pixel of it is changed."""
    image, part = target.copy(), window_slice(window)
    noise = np.random.default_rng(seed).integers(1, strength, image[part].shape)
    image[part] = np.where(image[part] < 128, image[part] + noise, image[part] - noise)
    return image


def planes(picture):
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].double() / 255  # float32 is off by up to 5e-5


def library_map(image, target):
    _, full = structural_similarity_index_measure(planes(image), planes(target), data_range=1.0, return_full_image=True)
    return full[0].mean(0).numpy()


def library_ms_ssim(image, target):
    return float(multiscale_structural_similarity_index_measure(planes(image), planes(target), data_range=1.0))


def windows_of(height, width):
    """In the middle, in each corner, along an edge, one pixel, the last row and column, everything."""
    h, w = height, width
    return [
        (w // 3, h // 3, w // 3 + 20, h // 3 + 9), (0, 0, 7, 5), (w - 4, 0, w, 8), (0, h - 6, 9, h),
        (w - 1, h - 1, w, h), (0, h // 2, w, h // 2 + 3), (w // 2, h // 2, w // 2 + 1, h // 2 + 1), (0, 0, w, h),
    ]  # fmt: skip


# --- psnr


def loop_psnr(image, target, mask):
    squares = [
        (float(image[r, c, k]) - float(target[r, c, k])) ** 2
        for r in range(mask.shape[0])
        for c in range(mask.shape[1])
        if mask[r, c]
        for k in range(3)
    ]
    mean = sum(squares) / len(squares) if squares else math.nan
    return math.inf if mean == 0 else 10 * math.log10(255**2 / mean)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31), st.floats(0, 1))
def test_psnr_is_that_of_a_loop(height, width, seed, share):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = np.where(rng.random((height, width, 1)) < share, rng.integers(0, 256, target.shape, np.uint8), target)
    mask = rng.random((height, width)) < 0.5
    everything = np.ones_like(mask)
    assert psnr(image, target) == pytest.approx(loop_psnr(image, target, everything))
    assert psnr(image, target, mask) == pytest.approx(loop_psnr(image, target, mask), nan_ok=True)


def test_psnr_of_a_constant_difference_counts_masked_pixels_only():
    target = np.full((20, 30, 3), 100, np.uint8)
    image = target + np.uint8(5)
    mask = np.zeros((20, 30), bool)
    mask[3:7, 4:9] = True
    image[~mask] = 255
    assert psnr(image, target, mask) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(image, target) < psnr(image, target, mask)
    image[mask] = target[mask]
    assert psnr(image, target, mask) == math.inf and psnr(target, target.copy()) == math.inf
    assert math.isnan(psnr(image, target, np.zeros_like(mask))) and math.isnan(psnr(image, image, np.zeros_like(mask)))


# --- SSIM


def loop_ssim(image, target):
    """Wang et al. 2004 word by word, borders mirrored."""
    axis = np.arange(-5, 6)
    weight = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    padded = [np.pad(p.astype(float) / 255, ((5, 5), (5, 5), (0, 0)), mode="reflect") for p in (image, target)]
    found = np.zeros(image.shape)
    for r, c, k in np.ndindex(image.shape):
        x, y = (p[r : r + 11, c : c + 11, k] for p in padded)
        mx, my = (weight * x).sum(), (weight * y).sum()
        vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
        both = (weight * (x - mx) * (y - my)).sum()
        found[r, c, k] = (2 * mx * my + 1e-4) * (2 * both + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    return found.mean(axis=2)


@pytest.mark.parametrize("window", [(0, 0, 23, 17), (9, 6, 14, 9)])
def test_ssim_map_is_that_of_a_loop(window):
    target = textured(17, 23)
    image = altered(target, window)
    found = ssim_map(image, target)
    assert found.dtype == np.float32 and found.shape == (17, 23)
    assert np.abs(found - loop_ssim(image, target)).max() < 5e-5
    assert found.min() < 0.9


def test_ssim_of_two_greys():
    image, target = np.full((16, 18, 3), 51, np.uint8), np.full((16, 18, 3), 102, np.uint8)
    expected = (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)
    assert np.allclose(ssim_map(image, target), expected, atol=1e-4)


@pytest.mark.parametrize("index", range(8))
def test_ssim_of_the_changed_window_is_that_of_the_whole_picture(index):
    target = textured(61, 75)
    image = altered(target, windows_of(61, 75)[index])
    found, full = ssim_map(image, target), library_map(image, target)
    assert np.abs(found - full).max() <= 1e-5
    assert found.min() < 0.999


def test_ssim_map_is_one_where_nothing_changed_near_and_nan_in_tiny_pictures():
    target = textured(64, 64)
    image = altered(target, (20, 30, 24, 40))
    assert (ssim_map(target, target.copy()) == 1).all()
    near = np.zeros((64, 64), bool)
    near[25:45, 15:29] = True
    assert (ssim_map(image, target)[~near] == 1).all()
    assert np.isnan(ssim_map(image[:10], target[:10])).all() and ssim_map(image[:10], target[:10]).shape == (10, 64)
    assert np.isfinite(ssim_map(image[28:39, 15:26], target[28:39, 15:26])).all()


# --- MS-SSIM


@pytest.mark.parametrize("size", [(176, 176), (177, 191)])
@pytest.mark.parametrize("index", range(8))
def test_ms_ssim_of_the_changed_window_is_that_of_the_whole_picture(size, index):
    target = textured(*size)
    image = altered(target, windows_of(*size)[index], strength=110)
    assert ms_ssim(image, target) == pytest.approx(library_ms_ssim(image, target), abs=1e-5)


def test_ms_ssim_of_a_negative_is_zero_and_of_equals_one():
    target = textured(176, 180)
    assert ms_ssim(255 - target, target) == pytest.approx(library_ms_ssim(255 - target, target), abs=1e-6) == 0
    assert ms_ssim(target, target.copy()) == 1


def test_ms_ssim_falls_with_blur_and_needs_room():
    target = textured(200, 190)
    blurred = [cv2.GaussianBlur(target, (0, 0), sigma) for sigma in (0.6, 1.2, 2.4)]
    scores = [ms_ssim(image, target) for image in blurred]
    assert 1 > scores[0] > scores[1] > scores[2] > 0
    short = MS_SSIM_LEAST_PX - 1
    assert math.isnan(ms_ssim(blurred[0][:short], target[:short]))
    assert math.isnan(ms_ssim(target[:, :short], target[:, :short]))


# --- scopes


def scopes(height, width):
    """Everything, a large region, a small one inside it, one at the corner, none."""
    masks = [np.zeros((height, width), bool) for _ in range(4)]
    masks[0][60:130, 40:150] = cv2.ellipse(np.zeros((70, 110), np.uint8), (55, 35), (50, 30), 0, 0, 360, 1, -1) > 0
    masks[1][90:110, 70:120] = True
    masks[2][-12:, :9] = True
    return [ALL_OF_IT, *masks]


def test_scopes_are_those_of_whole_pictures():
    target = textured(230, 240)
    image = altered(target, (50, 70, 140, 225))
    image[225:, :6] = 0
    masks = scopes(230, 240)
    full = library_map(image, target)
    found = score_scopes(image, target, masks)
    everything = found[0]
    assert everything.psnr == psnr(image, target) and everything.ssim == pytest.approx(full.mean(), abs=1e-5)
    assert everything.ms_ssim == pytest.approx(library_ms_ssim(image, target), abs=1e-5)
    for mask, scores in list(zip(masks, found, strict=True))[1:4]:
        window = window_slice(scope_window(mask))
        merged = np.where(mask[..., None], image, target)
        assert scores.psnr == pytest.approx(loop_psnr(image, target, mask))
        assert scores.ssim == pytest.approx(full[mask].mean(), abs=1e-5)
        assert scores.ms_ssim == pytest.approx(library_ms_ssim(merged[window], target[window]), abs=1e-5)
        assert scores.ssim < 0.99 and scores.ms_ssim < 0.9999
    assert all(math.isnan(value) for value in (found[4].psnr, found[4].ssim, found[4].ms_ssim))


def test_scopes_of_equal_pictures_and_of_small_ones():
    target = textured(180, 180)
    for scores in score_scopes(target, target.copy(), [None, np.ones((180, 180), bool)]):
        assert (scores.psnr, scores.ssim, scores.ms_ssim) == (math.inf, 1, 1)
    small = score_scopes(altered(target, (9, 9, 40, 40))[:100], target[:100], [None, np.ones((100, 180), bool)])
    assert all(math.isnan(scores.ms_ssim) and 0 < scores.ssim < 1 for scores in small)


def test_what_lies_outside_the_mask_moves_neither_psnr_nor_ms_ssim():
    target, mask = textured(200, 200), scopes(200, 200)[2]
    image = altered(target, (60, 80, 130, 120))
    elsewhere = np.where(mask[..., None], image, altered(target, (0, 0, 200, 200), seed=5))
    first, second = (score_scopes(picture, target, [mask])[0] for picture in (image, elsewhere))
    assert first.psnr == second.psnr and first.ms_ssim == second.ms_ssim


@pytest.mark.parametrize("score", [psnr, ssim_map, ms_ssim, delta_e, lambda a, b: score_scopes(a, b, [None])])
def test_pictures_of_different_size_are_refused(score):
    with pytest.raises(ValueError, match="one size"):
        score(np.zeros((200, 200, 3), np.uint8), np.zeros((200, 201, 3), np.uint8))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 0.3))
def test_changed_window_is_tight(height, width, seed, share):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = target + (rng.random(target.shape) < share).astype(np.uint8)
    changed = [(r, c) for r in range(height) for c in range(width) if (image[r, c] != target[r, c]).any()]
    if not changed:
        assert changed_window(image, target) is None
        return
    rows, columns = zip(*changed, strict=True)
    assert changed_window(image, target) == (min(columns), min(rows), max(columns) + 1, max(rows) + 1)


@settings(max_examples=60)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(1, 20), st.data())
def test_scope_window_holds_the_mask_and_stays_inside(height, width, least, data):
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    left, top, right, bottom = scope_window(mask, least)
    assert 0 <= left <= x0 and x1 <= right <= width and 0 <= top <= y0 and y1 <= bottom <= height
    assert (right - left, bottom - top) == (max(least, x1 - x0), max(least, y1 - y0))
    if left > 0 and right < width:
        assert abs(left + right - x0 - x1) <= 1


def test_scope_window_without_a_mask_or_without_room():
    assert scope_window(np.zeros((200, 200), bool)) is None
    assert scope_window(np.ones((200, 175), bool)) is None
    assert scope_window(np.ones((176, 300), bool)) == (0, 0, 300, 176)


# --- sharpness and noise


def full(picture):
    return np.ones(picture.shape[:2], bool)


@pytest.mark.parametrize("window", [(0, 0, 19, 14), (4, 3, 12, 9)])
@pytest.mark.parametrize("measure", ["sharpness", "noise"])
def test_sharpness_and_noise_are_those_of_a_loop(window, measure):
    rng = np.random.default_rng(0)
    grey = rng.normal(100, 30, (14, 19))
    mask = np.zeros((14, 19), bool)
    mask[window_slice(window)] = rng.random(mask[window_slice(window)].shape) < 0.6
    padded = np.pad(grey, 1, mode="reflect")
    laplacian, operator = [[0, 1, 0], [1, -4, 1], [0, 1, 0]], [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]
    kernel = np.array(laplacian if measure == "sharpness" else operator)
    answers = [(padded[r : r + 3, c : c + 3] * kernel).sum() for r, c in np.ndindex(mask.shape) if mask[r, c]]
    if measure == "sharpness":
        assert sharpness(grey, mask) == pytest.approx(np.var(answers), rel=1e-4)
    else:
        smallest = sorted(abs(a) for a in answers)[: round(0.75 * len(answers))]
        assert noise_sigma(grey, mask) == pytest.approx(sum(smallest) / len(smallest) / 6 / 0.5149, rel=1e-4)


def test_nothing_masked_has_neither_sharpness_nor_noise():
    nothing = np.zeros((9, 9), bool)
    assert math.isnan(sharpness(np.ones((9, 9)), nothing)) and math.isnan(noise_sigma(np.ones((9, 9)), nothing))


@pytest.mark.parametrize("sigma", [0.7, 3.0, 12.0])
def test_noise_of_known_strength(sigma):
    """On a slope, which both operators do not see."""
    rng = np.random.default_rng(1)
    slope = np.linspace(20, 120, 240) + np.linspace(0, 60, 200)[:, None]
    grey = slope + rng.normal(0, sigma, slope.shape)
    mask = full(grey)
    mask[:20] = mask[-3:] = False
    grey[:18] += rng.normal(0, 50, (18, 240))  # outside the mask and out of its neighbours' reach
    assert noise_sigma(grey, mask) == pytest.approx(sigma, rel=0.05)
    assert sharpness(grey, mask) == pytest.approx(20 * sigma**2, rel=0.05)


def test_noise_of_an_eight_bit_picture():
    rng = np.random.default_rng(2)
    picture = np.clip(np.round(120 + rng.normal(0, 4, (200, 200, 1))), 0, 255).astype(np.uint8).repeat(3, axis=2)
    assert noise_sigma(luma(picture), full(picture)) == pytest.approx(4, rel=0.05)


def test_edges_hardly_drive_the_noise():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:200, :200]
    slanted = np.where((x + y) % 80 < 40, 60.0, 180.0)  # one pixel in ten touches an edge
    upright = np.where((x // 20 + y // 20) % 2 == 0, 60.0, 180.0)
    noise = rng.normal(0, 2, slanted.shape)
    operator = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
    mean_based = np.sqrt(np.pi / 2) / 6 * np.abs(cv2.filter2D((slanted + noise), cv2.CV_64F, operator)).mean()
    assert mean_based > 3
    assert noise_sigma(slanted + noise, full(noise)) == pytest.approx(2, rel=0.2)
    assert noise_sigma(upright + noise, full(noise)) == pytest.approx(2, rel=0.06)


def test_blur_lowers_both_and_noise_raises_both():
    rng = np.random.default_rng(4)
    grey = luma(textured(160, 170))
    blurred = [grey, *(cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (0.6, 1.0, 2.0))]
    noisy = [grey, *(grey + rng.normal(0, sigma, grey.shape) for sigma in (3, 6, 12))]
    for measure in (sharpness, noise_sigma):
        falling, rising = ([measure(g, full(g)) for g in pictures] for pictures in (blurred, noisy))
        assert falling == sorted(falling, reverse=True) and falling[0] > 1.05 * falling[-1]
        assert rising == sorted(rising) and rising[-1] > 1.05 * rising[0]


def test_luma_is_not_rounded():
    picture = np.array([[[10, 20, 30], [255, 255, 255]]], np.uint8)
    assert luma(picture) == pytest.approx(np.array([[0.299 * 10 + 0.587 * 20 + 0.114 * 30, 255]]), abs=1e-3)


# --- colour


def lab_by_hand(rgb):
    """sRGB to CIELAB with the D65 white, which is what the matrix makes of (1, 1, 1) (IEC 61966-2-1, CIE 15)."""
    c = np.asarray(rgb, float) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.412456, 0.357576, 0.180437], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]])
    t = matrix @ linear / matrix.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_delta_e_of_known_pairs():
    image = np.array([[[255, 0, 0], [255, 255, 255], [7, 7, 7]]], np.uint8)
    target = np.array([[[0, 255, 0], [0, 0, 0], [7, 7, 7]]], np.uint8)
    red, green = np.array([53.24, 80.09, 67.20]), np.array([87.73, -86.18, 83.18])
    assert delta_e(image, target) == pytest.approx(np.array([[np.linalg.norm(red - green), 100, 0]]), abs=0.02)


def test_delta_e_is_that_of_a_loop():
    rng = np.random.default_rng(5)
    target = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    image = target.copy()
    image[2:8, 3:10] = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    found = delta_e(image, target)
    assert found.dtype == np.float32 and found.shape == (9, 11)
    for r, c in np.ndindex(9, 11):
        expected = np.linalg.norm(lab_by_hand(image[r, c]) - lab_by_hand(target[r, c]))
        assert found[r, c] == pytest.approx(expected, abs=0.05)
    assert not delta_e(target, target.copy()).any()
