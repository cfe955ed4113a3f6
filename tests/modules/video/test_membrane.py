"""Seamless cloning: against OpenCV's, against a direct solution, and exact where it must be."""

import cv2
import numpy as np
import pytest

from modules.video.colour_match import membrane as coarse_membrane
from modules.video.membrane import LOW, harmonic, seamless, support


def pictures(size=160, seed=0):
    """A textured source, the same under another light with a bump of its own, and an elliptic region."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    source = np.stack([0.6 + 0.2 * np.sin(5 * x), 0.5 + 0.1 * np.cos(4 * y + x), 0.4 + 0.2 * x * y], 2)
    source += 0.02 * cv2.GaussianBlur(rng.normal(size=(size, size, 3)), (0, 0), 2)
    bump = 0.1 * np.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.01)[..., None]
    patch = source * np.array([1.2, 0.95, 0.8]) + 0.05 * (x - 0.5)[..., None] + bump
    region = ((x - 0.5) ** 2 / 0.16 + (y - 0.5) ** 2 / 0.1 < 1).astype(np.float32)
    return source.astype(np.float32), np.clip(patch, 0, 1).astype(np.float32), region


def blended(rgb, source, alpha):
    return source + support(alpha)[..., None] * (rgb - source)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_what_opencv_clones(seed):
    source, patch, region = pictures(seed=seed)
    kept = source.copy(), patch.copy()
    found = blended(seamless(patch, source, region), source, region)
    assert np.array_equal(source, kept[0]) and np.array_equal(patch, kept[1])
    coded = [np.rint(picture * 255).astype(np.uint8) for picture in (patch, source)]
    rows, columns = np.nonzero(region)
    centre = (int(columns.min() + columns.max() + 1) // 2, int(rows.min() + rows.max() + 1) // 2)
    reference = cv2.seamlessClone(*coded, (255 * region).astype(np.uint8), centre, cv2.NORMAL_CLONE)
    difference = np.abs(255 * found - reference)[region > 0]
    naive = np.abs(255 * patch - reference)[region > 0]
    assert difference.mean() < 1.5 and np.quantile(difference, 0.99) < 4 and naive.mean() > 15


def test_harmonic_agrees_with_the_direct_solution():
    y, x = np.mgrid[:40, :56].astype(np.float32) / 40
    known = np.zeros((40, 56), np.uint8)
    known[0], known[-1], known[:, 0], known[:, -1] = 1, 1, 1, 1
    values = np.stack([x + y, np.sin(3 * x), x * y], 2).astype(np.float32)
    found = harmonic(values, known)
    exact = coarse_membrane(values, known.astype(np.float32), 0.0)
    assert np.abs(found - exact).max() < 0.1 and np.abs(found - exact).mean() < 0.03  # of 0 to 2.3
    assert np.allclose(found[known > 0], values[known > 0], atol=1e-6)


def test_what_is_unknown_is_never_read_and_a_constant_stays_one():
    known = np.zeros((33, 47), np.uint8)
    known[5:8, 9:30] = 1
    values = np.full((33, 47, 3), np.nan, np.float32)
    values[known > 0] = 0.3
    assert np.allclose(harmonic(values, known), 0.3, atol=1e-5)


def test_an_equal_patch_changes_nothing_and_nothing_to_paste_either():
    source, patch, region = pictures()
    assert np.allclose(seamless(source, source, region), source, atol=1e-6)
    assert seamless(patch, source, 0 * region) is patch


def test_a_cast_is_gone_and_the_patch_keeps_its_gradients():
    source, _, region = pictures()
    dot = np.zeros_like(source)
    dot[78:82, 78:82] = 0.2
    found = seamless(np.clip(source + 0.07 + dot, 0, 1), source, region)
    inside = region > 0
    assert np.abs(found - source)[inside & (dot[..., 0] == 0)].max() < 0.01
    assert np.allclose((found - source)[79, 79], 0.2, atol=0.01)


def test_support_is_whole_beyond_a_faint_edge():
    assert support(np.float32([0, LOW, 0.05, 0.1, 0.4, 1])).tolist() == pytest.approx([0, 0.2, 0.5, 1, 1, 1])
