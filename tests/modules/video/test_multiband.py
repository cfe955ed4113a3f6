"""Multi-band blending: against two pyramids blended level by level, exact outside, gentle where casts differ."""

import cv2
import numpy as np
import pytest

from modules.video.membrane import support
from modules.video.multiband import inward, multiband


def pictures(height=96, width=128, seed=0):
    rng = np.random.default_rng(seed)
    source, patch = (
        cv2.GaussianBlur(rng.uniform(size=(height, width, 3)), (0, 0), 1.5).astype(np.float32) for _ in range(2)
    )
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot((x - width / 2) / (width / 2), (y - height / 2) / (height / 2))
    return source, patch, np.clip((0.8 - radius) / 0.2, 0, 1).astype(np.float32)


def two_pyramids(rgb, source, alpha, levels):
    """Burt and Adelson's blend as they wrote it."""
    if levels == 0:
        return source + alpha[..., None] * (rgb - source)
    size = alpha.shape[1], alpha.shape[0]
    coarser = [cv2.pyrDown(picture) for picture in (rgb, source)]
    bands = [p - cv2.pyrUp(c, dstsize=size) for p, c in zip((rgb, source), coarser, strict=True)]
    below = two_pyramids(*coarser, cv2.pyrDown(alpha), levels - 1)
    return bands[1] + alpha[..., None] * (bands[0] - bands[1]) + cv2.pyrUp(below, dstsize=size)


@pytest.mark.parametrize("levels", [0, 1, 3])
def test_it_is_the_blend_of_two_pyramids(levels):
    source, patch, alpha = pictures()
    kept = source.copy(), patch.copy(), alpha.copy()
    found, wanted = (
        multiband(patch, source, alpha, levels),
        two_pyramids(np.where(alpha[..., None] > 0, patch, source), source, inward(alpha), levels),
    )
    inside = alpha > 1e-3
    assert np.abs(found - np.clip(wanted, 0, 1))[inside].max() < 1e-6
    assert all(np.array_equal(a, b) for a, b in zip(kept, (source, patch, alpha), strict=True))


def test_nothing_outside_the_region_changes_and_nothing_there_is_read():
    source, patch, alpha = pictures()
    poisoned = np.where(alpha[..., None] > 0, patch, np.nan).astype(np.float32)
    found = multiband(poisoned, source, alpha)
    assert np.array_equal(found[alpha == 0], source[alpha == 0]) and np.isfinite(found).all()
    assert np.array_equal(found, multiband(patch, source, alpha))
    assert multiband(patch, source, 0 * alpha) is source


def test_an_equal_patch_changes_nothing_and_the_inside_is_the_patch():
    source, patch, _ = pictures()
    alpha = np.zeros(source.shape[:2], np.float32)
    alpha[10:-10, 10:-10] = 1
    assert np.allclose(multiband(source, source, alpha), source, atol=1e-6)
    assert np.abs(multiband(patch, source, alpha, 2) - patch)[40:56, 56:72].max() < 1e-4


def test_fine_detail_changes_over_half_the_width_of_the_alpha_and_a_cast_over_all_of_it():
    flat, hard = np.full((96, 128, 3), 0.5, np.float32), np.zeros((96, 128), np.float32)
    hard[20:-20, 20:-20] = 1
    alpha = np.asarray(cv2.blur(hard, (25, 25)), np.float32)
    stripes = flat + np.float32(0.1) * (np.arange(128) % 2 * 2 - 1)[None, :, None].astype(np.float32)
    outer = (alpha > 0.2) & (alpha < 0.45)
    amounts = []
    for patch in (stripes, flat + np.float32(0.1)):
        found = multiband(patch, flat, alpha, 3)
        blended = flat + support(alpha)[..., None] * (found - flat)
        amounts.append(np.abs(blended - flat)[outer].mean() / np.abs(patch - flat)[outer].mean())
    assert amounts[0] < 0.05 and amounts[1] > 0.05


def test_negative_levels_are_refused():
    source, patch, alpha = pictures()
    with pytest.raises(ValueError, match="levels"):
        multiband(patch, source, alpha, -1)
