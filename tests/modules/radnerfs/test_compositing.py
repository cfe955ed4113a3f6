from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modules.radnerfs.backends.base import MarchedBlock, RaySums
from modules.radnerfs.backends.torch_compositing import (
    composite_infer,
    composite_opaque,
    composite_train,
    volume_weights,
)
from modules.radnerfs.rays import RaySamples

DEPTHS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(0, 1e4) | st.just(math.inf)
)


@settings(max_examples=80, deadline=None)
@given(depths=DEPTHS)
def test_weights_are_shares(depths):
    weights, transmittance = volume_weights(torch.from_numpy(depths))
    assert (weights >= 0).all()
    assert (weights.sum(dim=1) <= 1 + 1e-9).all()
    assert (transmittance[:, 0] == 1).all()
    assert (transmittance.diff(dim=1) <= 0).all()


@settings(max_examples=80, deadline=None)
@given(depths=DEPTHS)
def test_an_opaque_last_sample_takes_the_rest(depths):
    sigmas = torch.from_numpy(depths).requires_grad_()
    rgbs = torch.ones(*depths.shape, 3, dtype=torch.float64)
    image, weights = composite_opaque(sigmas, rgbs, torch.ones_like(sigmas))
    assert torch.allclose(weights.sum(dim=1), torch.ones(len(depths), dtype=torch.float64))
    assert torch.allclose(image, torch.ones_like(image))
    image[:, 0].sum().backward()
    assert not sigmas.grad.isnan().any()


def packed(counts: list[int], seed: int = 0) -> tuple[RaySamples, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    draw = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    ray_index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
    samples = RaySamples(
        draw(total, 3), draw(total, 3), draw(total, 2), ray_index, torch.tensor(counts, dtype=torch.int64)
    )
    return samples, 6 * draw(total), draw(total, 3), draw(total)


def naive(samples: RaySamples, sigmas, rgbs, ambient, t_thresh: float) -> list[list[float]]:
    """One ray, one sample at a time: [r, g, b, opacity, depth, ambient] per ray."""
    rows, place = [], 0
    for count in samples.counts.tolist():
        row, transmittance = [0.0] * 6, 1.0
        for i in range(place, place + count):
            alpha = 1 - math.exp(-float(sigmas[i] * samples.deltas[i, 0]))
            weight = alpha * transmittance
            parts = [
                *(float(c) * weight for c in rgbs[i]),
                weight,
                weight * float(samples.deltas[i, 1]),
                float(ambient[i]),
            ]
            row = [a + b for a, b in zip(row, parts, strict=True)]
            transmittance *= 1 - alpha
            if transmittance < t_thresh:
                break
        rows.append(row)
        place += count
    return rows


def test_training_sums_equal_the_naive_loop():
    for counts, thresh in (([3, 0, 7, 1], 1e-4), ([5, 5], 0.3), ([0, 0], 0.1), ([], 0.1)):
        samples, sigmas, rgbs, ambient = packed(counts)
        sums = composite_train(sigmas, rgbs, ambient, samples, thresh)
        mine = torch.cat([sums.image, torch.stack([sums.opacity, sums.depth, sums.ambient], dim=1)], dim=1)
        expected = torch.tensor(naive(samples, sigmas, rgbs, ambient, thresh), dtype=torch.float64)
        assert torch.allclose(mine, expected.view(mine.shape))


def test_training_gradients():
    samples, *values = packed([4, 0, 2])
    inputs = [v.requires_grad_() for v in values]

    def outputs(sigmas, rgbs, ambient):
        sums = composite_train(sigmas, rgbs, ambient, samples, 1e-4)
        return sums.image, sums.opacity, sums.ambient

    assert torch.autograd.gradcheck(outputs, inputs)
    assert not composite_train(*inputs, samples, 1e-4).depth.requires_grad


def test_opaque_gradients():
    generator = torch.Generator().manual_seed(1)
    sigmas = torch.rand(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    rgbs = torch.rand(3, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    deltas = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s, c: composite_opaque(s, c, deltas), (sigmas, rgbs))


def zero_sums(count: int) -> RaySums:
    zeros = torch.zeros(count, dtype=torch.float64)
    return RaySums(torch.zeros(count, 3, dtype=torch.float64), zeros, zeros, zeros)


@settings(max_examples=40, deadline=None)
@given(split=st.integers(1, 5), seed=st.integers(0, 99))
def test_blocks_sum_to_the_whole(split, seed):
    samples, sigmas, rgbs, ambient = packed([6, 6, 6], seed)
    deltas, ends = samples.deltas.view(3, 6, 2).unbind(-1)
    points = samples.positions.view(3, 6, 3)

    def add(sums: RaySums, part: slice) -> tuple[RaySums, torch.Tensor]:
        block = MarchedBlock(points[:, part], deltas[:, part], ends[:, part])
        values = (v.view(3, 6, *v.shape[1:])[:, part] for v in (sigmas, rgbs, ambient))
        return composite_infer(sums, *values, block, 0.0)

    first, going = add(zero_sums(3), slice(0, split))
    assert going.all()
    second, _ = add(first, slice(split, 6))
    whole = composite_train(sigmas, rgbs, ambient, samples, 0.0)
    for name in ("image", "opacity", "depth", "ambient"):
        assert torch.allclose(getattr(second, name), getattr(whole, name))


def test_a_ray_ends_one_sample_after_it_is_dark():
    block = MarchedBlock(torch.zeros(2, 4, 3), torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]]), torch.ones(2, 4))
    sums, going = composite_infer(
        zero_sums(2), torch.ones(2, 4), torch.ones(2, 4, 3), torch.ones(2, 4), block, t_thresh=0.5
    )
    assert sums.ambient.tolist() == [2, 1]  # T is 1, then e⁻¹ < 0.5: that sample still counts
    assert going.tolist() == [False, False]
