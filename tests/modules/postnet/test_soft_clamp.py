"""The soft clamp: visemes within the range pass, what lies beyond keeps its order and stays near."""

from __future__ import annotations

import pytest
import torch

from modules.postnet.soft_clamp import soft_clamp


def spoken(count: int = 1000) -> torch.Tensor:
    """A coordinate that is wide in one frame of fifty only, as the widest vowels are."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(count, 1, generator=generator)
    values[::50] = 3.0
    return values


def test_rare_visemes_pass_unchanged_where_percentiles_flatten_them():
    values = spoken()
    kept = soft_clamp(values, values.amin(0), values.amax(0), 0.25)
    assert torch.equal(kept, values)
    flattened = values.clamp(torch.quantile(values, 0.03), torch.quantile(values, 0.97))
    assert float(flattened.max()) < 1.01  # two thirds of the widest vowel are gone


def test_beyond_the_range_the_order_is_kept_and_the_margin_never_passed():
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.5])
    steps = torch.linspace(-2.0, 2.0, 401, dtype=torch.float64)[:, None].expand(-1, 2)
    kept = soft_clamp(steps, low.double(), high.double(), 0.25)
    assert (kept[1:] > kept[:-1]).all()
    far = soft_clamp(torch.tensor([[-50.0, 50.0]]), low, high, 0.25)[0]
    assert torch.allclose(far, torch.tensor([-1.25, 0.75]))


def test_it_leaves_the_range_without_an_edge():
    low, high = torch.tensor([0.0]), torch.tensor([1.0])
    values = torch.tensor([[0.5], [1.0], [1.0001]], requires_grad=True)
    soft_clamp(values, low, high, 0.25).sum().backward()
    assert torch.allclose(values.grad, torch.ones(3, 1), atol=1e-3)


def test_bad_ranges_are_refused():
    with pytest.raises(ValueError, match="low <= high"):
        soft_clamp(torch.zeros(1, 1), torch.ones(1), torch.zeros(1), 0.1)
    with pytest.raises(ValueError, match="margin"):
        soft_clamp(torch.zeros(1, 1), torch.zeros(1), torch.ones(1), 0.0)
