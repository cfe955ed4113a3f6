from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.radnerfs.backends.base import MarchConfig
from modules.radnerfs.backends.torch_marching import (
    MISS,
    march_infer,
    march_train,
    morton_decode,
    morton_encode,
    near_far,
    pack_bits,
)
from modules.radnerfs.rays import RayBundle

SIZE = 16


def random_rays(count: int, seed: int, distance: float = 3.0) -> RayBundle:
    generator = torch.Generator().manual_seed(seed)
    away = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    goal = 0.6 * torch.randn(count, 3, generator=generator)
    return RayBundle(distance * away, torch.nn.functional.normalize(goal - distance * away, dim=1))


def random_bits(cascades: int, seed: int, share: float = 0.3) -> torch.Tensor:
    density = torch.rand(cascades * SIZE**3, generator=torch.Generator().manual_seed(seed))
    return pack_bits(density, 1 - share)


def naive_march(rays, near, far, bits, march: MarchConfig, max_steps: int) -> list[list[tuple[float, float]]]:
    """One ray and one step at a time; float32 sums, so that steps land where the tested code's do."""
    f32 = lambda v: torch.tensor(v, dtype=torch.float32).item()  # noqa: E731
    result = []
    for origin, direction, t, end in zip(
        rays.origins.tolist(), rays.directions.tolist(), near.tolist(), far.tolist(), strict=True
    ):
        samples: list[tuple[float, float]] = []
        while t < end and len(samples) < max_steps:
            p = [
                min(max(f32(o + f32(t * d)), -march.bound), march.bound) for o, d in zip(origin, direction, strict=True)
            ]
            dt = f32(min(max(t * march.dt_gamma, march.dt_min), march.dt_max))
            level = max(math.frexp(max(abs(x) for x in p))[1], math.frexp(dt * march.grid_size * 0.5)[1])
            level = min(max(level, 0), march.cascades - 1)
            extent = min(2.0**level, march.bound)
            cell = [int(min(max(0.5 * (x / extent + 1) * march.grid_size, 0), march.grid_size - 1)) for x in p]
            number = level * march.grid_size**3 + sum(
                ((c >> bit) & 1) << (3 * bit + axis) for axis, c in enumerate(cell) for bit in range(10)
            )
            if bits[number // 8].item() >> number % 8 & 1:
                samples.append((t, dt))
                t = f32(t + dt)
                continue
            exits = [
                (((c + (d >= 0)) / march.grid_size * 2 - 1) * extent - x) / d
                for c, d, x in zip(cell, direction, p, strict=True)
            ]
            goal = t + max(0.0, min(exits))
            while True:
                t = f32(t + min(max(t * march.dt_gamma, march.dt_min), march.dt_max))
                if t >= goal:
                    break
        result.append(samples)
    return result


@pytest.mark.parametrize(("cascades", "dt_gamma"), [(1, 1 / 256), (2, 0.02)])
def test_equals_the_naive_loop(cascades, dt_gamma):
    bound = float(2 ** (cascades - 1))
    rays, bits = random_rays(24, 1, 3 * bound), random_bits(cascades, 2)
    near, far = near_far(rays, torch.tensor([-bound] * 3 + [bound] * 3), 0.05)
    march = MarchConfig(bound, SIZE, cascades, dt_gamma, 0.02, 0.2)
    samples = march_train(rays, near, far, bits, march, 12)
    expected = naive_march(rays, near, far, bits, march, 12)
    same = 0
    for ray, (count, theirs) in enumerate(zip(samples.counts.tolist(), expected, strict=True)):
        mine = samples.deltas[samples.ray_index == ray]
        # a sample within a rounding error of a cell's wall may fall on either side: allow one such ray
        same += count == len(theirs) and all(
            abs(m[0].item() - dt) < 1e-5 and abs(m[1].item() - (t + dt)) < 1e-4
            for m, (t, dt) in zip(mine, theirs, strict=True)
        )
    assert same >= 23
    assert samples.counts.max() == 12


def test_blocks_continue_where_the_last_one_ended():
    rays, bits = random_rays(30, 5), random_bits(1, 6)
    near, far = near_far(rays, torch.tensor([-1.0, -1, -1, 1, 1, 1]), 0.05)
    march = MarchConfig(1.0, SIZE, 1, 1 / 256, 0.05, 0.05)
    whole = march_infer(rays, near, far, bits, march, 9)
    first = march_infer(rays, near, far, bits, march, 4)
    full = first.deltas[:, -1] > 0
    rest = RayBundle(rays.origins[full], rays.directions[full])
    second = march_infer(rest, first.ends[full, -1], far[full], bits, march, 5)
    assert torch.equal(whole.deltas[:, :4], first.deltas)
    assert torch.equal(whole.ends[full, 4:] * (second.deltas > 0), second.ends * (second.deltas > 0))
    assert torch.equal(whole.deltas[full, 4:], second.deltas)


def test_jitter_shifts_by_a_fraction_of_a_step():
    rays, bits = random_rays(20, 3), torch.full((SIZE**3 // 8,), 255, dtype=torch.uint8)
    near, far = near_far(rays, torch.tensor([-1.0, -1, -1, 1, 1, 1]), 0.05)
    march = MarchConfig(1.0, SIZE, 1, 1 / 256, 0.05, 0.05)
    plain = march_train(rays, near, far, bits, march, 3)
    shifted = march_train(rays, near, far, bits, march, 3, jitter=torch.full((20,), 0.5))
    hit = (plain.counts == 3) & (shifted.counts == 3)
    first = [
        samples.deltas[samples.ray_index == ray][0, 1] for ray in hit.nonzero()[:, 0] for samples in (plain, shifted)
    ]
    steps = torch.stack(first).view(-1, 2).diff(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, 0.025), atol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_march(count):
    rays = random_rays(count, 0)
    near = far = torch.full((count,), MISS)
    bits, march = random_bits(1, 0), MarchConfig(1.0, SIZE, 1, 1 / 256, 0.05, 0.05)
    samples = march_train(rays, near, far, bits, march, 4)
    assert samples.positions.shape == (0, 3)
    assert samples.counts.tolist() == [0] * count
    assert march_infer(rays, near, far, bits, march, 4).deltas.shape == (count, 4)


def test_box_hit_miss_inside_and_parallel():
    box = torch.tensor([-1.0, -1, -1, 1, 1, 1])
    origins = torch.tensor([[0.0, 0, -3], [5, 0, -3], [0, 0, 0], [0.99, 0, -3], [0, 0, 3]])
    directions = torch.tensor([[0.0, 0, 1]] * 5)
    near, far = near_far(RayBundle(origins, directions), box, 0.05)
    assert near.tolist()[:4] == pytest.approx([2, MISS, 0.05, 2])
    assert far.tolist()[:4] == pytest.approx([4, MISS, 1, 4])
    assert far[4] < near[4]  # the box lies behind: nothing to march


@settings(max_examples=50, deadline=None)
@given(cells=st.lists(st.tuples(*[st.integers(0, 1023)] * 3), max_size=20))
def test_morton_round_trip(cells):
    values = torch.tensor(cells, dtype=torch.int64).view(-1, 3)
    numbers = morton_encode(values)
    assert torch.equal(morton_decode(numbers), values)
    for cell, number in zip(cells, numbers.tolist(), strict=True):
        assert number == sum(((c >> bit) & 1) << (3 * bit + axis) for axis, c in enumerate(cell) for bit in range(10))


def test_bits_are_packed_low_bit_first():
    density = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0, 2])
    assert pack_bits(density, 0.5).tolist() == [1, 128]
