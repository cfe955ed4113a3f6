"""SSIM as a tensor operation: its gradient, its precision, its refusals (its values: ``test_picture.py``)."""

from __future__ import annotations

import pytest
import torch

from modules.metrics.picture_structure import ssim_planes


def planes(seed: int, size: int = 24) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_gradient_is_that_of_finite_differences():
    image, target = planes(0, 12).requires_grad_(), planes(1, 12)
    ssim_planes(image, target)[0].mean().backward()
    direction = planes(2, 12) - 0.5
    with torch.no_grad():
        ahead, behind = (float(ssim_planes(image + s * direction, target)[0].mean()) for s in (1e-2, -1e-2))
    assert image.grad is not None
    assert float((image.grad * direction).sum()) == pytest.approx((ahead - behind) / 2e-2, rel=1e-2)


def test_structure_ignores_brightness_and_equals_score_one():
    image = planes(0) * 0.5
    whole, structure = ssim_planes(image, image + 0.3)
    assert float(structure.mean()) == pytest.approx(1, abs=1e-3) and float(whole.mean()) < 0.95
    assert float(ssim_planes(image, image)[0].min()) > 1 - 1e-5


def test_below_autocast_it_is_as_exact():
    image, target = planes(0), planes(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = ssim_planes(image, target)[0]
    torch.testing.assert_close(found, ssim_planes(image, target)[0])


def test_used_in_inference_mode_first_it_still_differentiates():
    with torch.inference_mode():
        ssim_planes(planes(0), planes(1))
    image = planes(0).requires_grad_()
    ssim_planes(image, planes(1))[0].sum().backward()
    assert image.grad is not None and image.grad.isfinite().all()


def test_what_makes_no_sense_is_refused():
    for pair in ((planes(0), planes(0, 25)), (planes(0, 10), planes(1, 10)), (planes(0)[0], planes(1)[0])):
        with pytest.raises(ValueError, match="11 px"):
            ssim_planes(*pair)
