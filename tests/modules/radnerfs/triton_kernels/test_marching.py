"""Marching against torch_reference: the same samples on the same rays, positions and lengths to 1e-5.

A sample within a rounding error of a cell's wall may fall on either side: one ray in 500 may differ.
"""

from __future__ import annotations

import pytest
import torch

from modules.radnerfs.backends import torch_marching
from modules.radnerfs.backends.base import MarchConfig
from modules.radnerfs.rays import RayBundle, RaySamples

SIZE = 16
BOX = (-1.0, -0.5, -1.0, 1.0, 0.5, 1.0)


def draw_rays(count: int, seed: int, distance: float = 3.0) -> RayBundle:
    generator = torch.Generator().manual_seed(seed)
    away = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    goal = 0.6 * torch.randn(count, 3, generator=generator)
    return RayBundle(distance * away, torch.nn.functional.normalize(goal - distance * away, dim=1))


def draw_bits(cascades: int, seed: int, share: float) -> torch.Tensor:
    density = torch.rand(cascades * SIZE**3, generator=torch.Generator().manual_seed(seed))
    return torch_marching.pack_bits(density, 1 - share)


def moved(rays: RayBundle, device: torch.device) -> RayBundle:
    return RayBundle(rays.origins.to(device), rays.directions.to(device))


def scene(count: int, seed: int, cascades: int = 1, share: float = 0.3):
    """Rays, entry, exit, bitfield on the CPU."""
    bound = float(2 ** (cascades - 1))
    rays = draw_rays(count, seed, 3 * bound)
    near, far = torch_marching.near_far(rays, bound * torch.tensor(BOX), 0.05)
    return rays, near, far, draw_bits(cascades, seed + 1, share)


def rows_of(samples: RaySamples, ray: int) -> torch.Tensor:
    rows = samples.ray_index.cpu() == ray
    return torch.cat([part.cpu()[rows] for part in (samples.positions, samples.directions, samples.deltas)], dim=1)


def assert_same_samples(mine: RaySamples, expected: RaySamples) -> None:
    assert int(mine.counts.sum()) == len(mine.positions) == len(mine.ray_index)
    assert (mine.ray_index.diff() >= 0).all()
    same = (mine.counts.cpu() == expected.counts).tolist()
    for ray, equal in enumerate(same):
        same[ray] = equal and torch.allclose(rows_of(mine, ray), rows_of(expected, ray), atol=1e-5)
    assert same.count(False) <= max(1, len(same) // 500) if same else True


@pytest.mark.parametrize(
    ("cascades", "dt_gamma", "max_steps", "share"),
    [
        (1, 1 / 256, 12, 0.3),
        (1, 0.0, 40, 0.1),
        (2, 0.02, 12, 0.3),
        (3, 0.05, 7, 0.5),
        (1, 1 / 256, 8, 0.0),
        (1, 1 / 256, 5, 1.0),
    ],
)
@pytest.mark.parametrize("jitter", [False, True])
def test_training_samples(cascades, dt_gamma, max_steps, share, jitter, kernel_device, triton_backend, on_gpu):
    count = 2000 if on_gpu else 20
    rays, near, far, bits = scene(count, max_steps, cascades, share)
    march = MarchConfig(float(2 ** (cascades - 1)), SIZE, cascades, dt_gamma, 0.02, 0.2)
    noise = torch.rand(count, generator=torch.Generator().manual_seed(1)) if jitter else None
    expected = torch_marching.march_train(rays, near, far, bits, march, max_steps, noise)
    parts = (moved(rays, kernel_device), near.to(kernel_device), far.to(kernel_device), bits.to(kernel_device))
    mine = triton_backend.march_train(*parts, march, max_steps, None if noise is None else noise.to(kernel_device))
    assert_same_samples(mine, expected)
    assert (len(mine.positions) == 0) == (share == 0.0)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_inference_blocks(share, kernel_device, triton_backend, on_gpu):
    count = 2000 if on_gpu else 33
    rays, near, far, bits = scene(count, 3, share=share)
    march = MarchConfig(1.0, SIZE, 1, 1 / 256, 0.05, 0.05)
    expected = torch_marching.march_infer(rays, near, far, bits, march, 6)
    parts = (moved(rays, kernel_device), near.to(kernel_device), far.to(kernel_device), bits.to(kernel_device))
    mine = triton_backend.march_infer(*parts, march, 6)
    pairs = ((mine.deltas, expected.deltas), (mine.ends, expected.ends), (mine.positions, expected.positions))
    same = torch.stack([(a.cpu() - b).abs().flatten(1).amax(dim=1) < 1e-5 for a, b in pairs]).all(dim=0)
    assert int((~same).sum()) <= max(1, count // 500)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_march(count, kernel_device, triton_backend):
    rays = moved(draw_rays(count, 0), kernel_device)
    near = far = torch.full((count,), torch_marching.MISS, device=kernel_device)
    bits = draw_bits(1, 0, 0.3).to(kernel_device)
    march = MarchConfig(1.0, SIZE, 1, 1 / 256, 0.05, 0.05)
    samples = triton_backend.march_train(rays, near, far, bits, march, 4)
    assert samples.positions.shape == (0, 3)
    assert samples.counts.tolist() == [0] * count
    assert triton_backend.march_infer(rays, near, far, bits, march, 4).deltas.shape == (count, 4)


def test_strided_rays(kernel_device, triton_backend):
    rays, near, far, bits = scene(20, 8)
    march = MarchConfig(1.0, SIZE, 1, 1 / 256, 0.05, 0.05)
    turned = RayBundle(*(part.to(kernel_device).t().contiguous().t() for part in (rays.origins, rays.directions)))
    halves = [torch.stack([part, part], dim=1).to(kernel_device)[:, 0] for part in (near, far)]
    mine = triton_backend.march_train(turned, *halves, bits.to(kernel_device), march, 9)
    assert_same_samples(mine, torch_marching.march_train(rays, near, far, bits, march, 9))


def test_box(kernel_device, triton_backend):
    rays = draw_rays(300, 2)
    rays.directions[:3] = torch.tensor([0.0, 0, 1])  # parallel to two slabs
    expected = torch_marching.near_far(rays, torch.tensor(BOX), 0.05)
    mine = triton_backend.near_far(moved(rays, kernel_device), torch.tensor(BOX, device=kernel_device), 0.05)
    for a, b in zip(mine, expected, strict=True):
        assert torch.equal(a.cpu() == torch_marching.MISS, b == torch_marching.MISS)
        assert torch.allclose(a.cpu(), b, rtol=1e-6)
    assert (expected[0] == torch_marching.MISS).any()
    none = RayBundle(torch.zeros(0, 3, device=kernel_device), torch.zeros(0, 3, device=kernel_device))
    assert triton_backend.near_far(none, torch.tensor(BOX, device=kernel_device), 0.05)[0].shape == (0,)


@pytest.mark.parametrize("count", [0, 1, 700])
def test_morton_order(count, kernel_device, triton_backend):
    cells = torch.randint(0, 1024, (count, 3), generator=torch.Generator().manual_seed(count))
    numbers = triton_backend.morton_encode(cells.to(kernel_device))
    assert torch.equal(numbers.cpu(), torch_marching.morton_encode(cells))
    back = triton_backend.morton_decode(numbers)
    assert back.dtype == torch.int64
    assert torch.equal(back.cpu(), cells)
    assert torch.equal(triton_backend.morton_encode(cells.to(kernel_device, torch.int32)), numbers)


def test_packed_bits(kernel_device, triton_backend):
    density = torch.rand(8 * 300, generator=torch.Generator().manual_seed(0))
    density[:16] = torch.tensor([0.5, 0.50001] * 8)
    mine = triton_backend.pack_bits(density.to(kernel_device), 0.5)
    assert torch.equal(mine.cpu(), torch_marching.pack_bits(density, 0.5))
    assert triton_backend.pack_bits(density[:0].to(kernel_device), 0.5).shape == (0,)
