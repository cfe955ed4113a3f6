"""The fused field against its specification."""

from __future__ import annotations

import pytest
import torch

from modules.radnerfs.packed_field import PackedField, evaluate_reference
from tests.modules.radnerfs.packed_fields import CONFIGS, golden_field, samples


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("n_frames", [1, 19])
def test_fused_field(name, n_frames, kernel_device, on_gpu):
    from modules.radnerfs.backends.triton_kernels.field import evaluate

    field = golden_field(name, kernel_device)
    count = 100_003 if on_gpu else 150
    positions, directions, frame, features, codes = samples(field, count, n_frames)
    packed = PackedField.of(field)
    terms = packed.terms(features, codes)
    expected_sigma, expected_rgb = evaluate_reference(packed, positions, directions, frame, terms)
    sigma, rgb = evaluate(packed, positions, directions, frame, terms)
    error = (rgb - expected_rgb).abs()
    assert error.mean() < 2e-4
    assert (error > 1e-2).float().mean() < 2e-3  # where sums round apart, steep golden weights tell
    known = (expected_sigma > 1e-6) & (expected_sigma < 1e6)
    assert known.float().mean() > 0.3
    assert (torch.log(sigma) - torch.log(expected_sigma))[known].abs().mean() < 4e-3


def test_only_the_counted_rows(kernel_device):
    from modules.radnerfs.backends.triton_kernels.field import evaluate

    field = golden_field("cpu", kernel_device)
    positions, directions, frame, features, codes = samples(field, 200, 2)
    packed = PackedField.of(field)
    terms = packed.terms(features, codes)
    count = torch.tensor([70], dtype=torch.int32, device=kernel_device)
    sigma, rgb = evaluate(packed, positions, directions, frame, terms, count, need_density=False)
    _, expected = evaluate_reference(packed, positions, directions, frame, terms)
    assert sigma.numel() == 0
    assert (rgb[:70] - expected[:70]).abs().max() < 1e-2
    none = evaluate(packed, positions[:0], directions[:0], frame[:0], terms)
    assert none[1].shape == (0, 3)
