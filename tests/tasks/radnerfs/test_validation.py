"""Scores and pictures of held-out frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from modules.metrics.picture import psnr as picture_psnr
from tasks.radnerfs.losses import charbonnier, code_penalty, psnr
from tasks.radnerfs.validation import blended, box_mask, difference, sharpness, strip


def test_psnr_of_a_known_error():
    target = np.full((10, 10, 3), 100, np.uint8)
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    image = target.copy()
    image[:5] += 10
    image[5:] += 90  # outside the mask: does not count
    assert picture_psnr(image, target, mask) == pytest.approx(20 * np.log10(255 / 10))
    both = torch.from_numpy(image[:5] / 255), torch.from_numpy(target[:5] / 255)
    assert float(psnr(*both)) == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)


def test_blur_lowers_sharpness():
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    mask = np.ones((40, 40), bool)
    blurred = cv2.GaussianBlur(image, (0, 0), 1.0)
    assert sharpness(blurred, mask) < 0.1 * sharpness(image, mask)


def test_blending_and_pictures():
    source, image = np.full((8, 8, 3), 10, np.uint8), np.full((8, 8, 3), 30.0)
    alpha = np.zeros((8, 8, 1), np.float32)
    alpha[:, 4:] = 0.5
    out = blended(image, source, alpha)
    assert (out[:, :4] == 10).all() and (out[:, 4:] == 20).all()
    assert (difference(source, source) == 128).all() and difference(out, source).max() == 168
    assert strip([source, out], (2, 2, 6, 5), scale=3).shape == (9, 12 + 4 + 12, 3)
    edited = alpha[..., 0] > 0
    assert box_mask((2, 1, 6, 4), edited).sum() == 6


def test_charbonnier_is_quadratic_then_linear_and_obeys_weights():
    target = torch.zeros(2, 3)
    ones = torch.ones(2)
    small, large = torch.full((2, 3), 1e-3), torch.full((2, 3), 0.5)
    assert float(charbonnier(small, target, ones, 0.02)) == pytest.approx(1e-6 / 0.04, rel=0.01)
    assert float(charbonnier(large, target, ones, 0.02)) == pytest.approx(0.48, rel=0.01)
    mixed = torch.stack([small[0], large[0]])
    only_first = charbonnier(mixed, target, torch.tensor([1.0, 0.0]), 0.02)
    torch.testing.assert_close(only_first, charbonnier(small, target, ones, 0.02))
    assert float(charbonnier(mixed, target, torch.zeros(2), 0.02)) == 0


def test_code_penalty_ignores_a_common_offset():
    codes = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert float(code_penalty(codes)) == pytest.approx(0.5)
    torch.testing.assert_close(code_penalty(codes + 5), code_penalty(codes))
    assert float(code_penalty(torch.zeros(3, 0))) == 0
