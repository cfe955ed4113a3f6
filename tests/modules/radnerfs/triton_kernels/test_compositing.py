"""Volume rendering sums against torch_reference: sums to 1e-5, gradients to 2e-5 of the largest."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.radnerfs.backends import torch_compositing
from modules.radnerfs.backends.base import MarchedBlock, RaySums
from modules.radnerfs.rays import RaySamples

SUMS = ("image", "opacity", "depth", "ambient")


def draw_samples(counts: list[int], density: float, seed: int) -> tuple[RaySamples, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    total, numbers = sum(counts), torch.tensor(counts, dtype=torch.int64)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    ray_index = torch.repeat_interleave(torch.arange(len(counts)), numbers)
    samples = RaySamples(rand(total, 3), rand(total, 3), rand(total, 2), ray_index, numbers)
    return samples, [density * rand(total) ** 3, rand(total, 3), rand(total)]


def moved(samples: RaySamples, device: torch.device) -> RaySamples:
    parts = (samples.positions, samples.directions, samples.deltas, samples.ray_index, samples.counts)
    return RaySamples(*(part.to(device) for part in parts))


def sum_up(composite, samples, values, t_thresh, device, seed=5):
    """Sums and the gradients of a random mix of them, on the CPU."""
    inputs = [value.to(device).detach().requires_grad_() for value in values]
    sums = composite(*inputs, moved(samples, device), t_thresh)
    assert not sums.depth.requires_grad
    generator = torch.Generator().manual_seed(seed)
    outputs = [sums.image, sums.opacity, sums.ambient]
    weights = [torch.randn(out.shape, generator=generator).to(device) for out in outputs]
    torch.autograd.backward(outputs, weights)
    return [getattr(sums, name).detach().cpu() for name in SUMS], [value.grad.cpu() for value in inputs]


def assert_close(mine: list[torch.Tensor], expected: list[torch.Tensor], tolerance: float) -> None:
    for a, b in zip(mine, expected, strict=True):
        scale = max(1.0, float(b.abs().max()) if b.numel() else 1.0)
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("density", [0.5, 6.0, 300.0])
@pytest.mark.parametrize("t_thresh", [0.0, 1e-4, 0.3])
def test_training_sums_and_gradients(density, t_thresh, kernel_device, triton_backend):
    counts = torch.randint(0, 9, (70,), generator=torch.Generator().manual_seed(int(density))).tolist()
    samples, values = draw_samples(counts, density, seed=1)
    mine = sum_up(triton_backend.composite_train, samples, values, t_thresh, kernel_device)
    expected = sum_up(torch_compositing.composite_train, samples, values, t_thresh, torch.device("cpu"))
    assert_close(mine[0], expected[0], 1e-5)
    assert_close(mine[1], expected[1], 2e-5)


@settings(max_examples=8)
@given(
    counts=st.lists(st.integers(0, 12), max_size=70),
    density=st.floats(0, 500),
    t_thresh=st.sampled_from([0.0, 1e-4, 0.05, 0.5]),
)
def test_training_with_rays_of_any_length(counts, density, t_thresh, kernel_device, triton_backend):
    samples, values = draw_samples(counts, density, seed=len(counts))
    mine = sum_up(triton_backend.composite_train, samples, values, t_thresh, kernel_device)
    expected = sum_up(torch_compositing.composite_train, samples, values, t_thresh, torch.device("cpu"))
    assert_close(mine[0] + mine[1], expected[0] + expected[1], 5e-5)


@pytest.mark.parametrize("counts", [[], [0, 0, 0], [1], [0, 40, 0]])
def test_training_with_few_rays(counts, kernel_device, triton_backend):
    samples, values = draw_samples(counts, 3.0, seed=2)
    mine = sum_up(triton_backend.composite_train, samples, values, 1e-4, kernel_device)
    expected = sum_up(torch_compositing.composite_train, samples, values, 1e-4, torch.device("cpu"))
    assert_close(mine[0] + mine[1], expected[0] + expected[1], 2e-5)


def test_thin_samples_keep_their_digits(kernel_device, triton_backend):
    """1 - exp(-x) of an x near 1e-6 has no digits left in float32 when it is formed as it is written."""
    samples, values = draw_samples([6] * 10, 1e-5, seed=3)
    mine, _ = sum_up(triton_backend.composite_train, samples, values, 0.0, kernel_device)
    expected, _ = sum_up(torch_compositing.composite_train, samples, values, 0.0, torch.device("cpu"))
    assert torch.allclose(mine[1], expected[1], rtol=1e-5, atol=0)


def test_strided_half_precision_inputs(kernel_device, triton_backend):
    samples, values = draw_samples([4, 0, 7], 4.0, seed=4)
    halves = [value.half() for value in values]
    strided = [torch.stack([half, half], dim=-1).to(kernel_device)[..., 0].requires_grad_() for half in halves]
    sums = triton_backend.composite_train(*strided, moved(samples, kernel_device), 1e-4)
    expected, _ = sum_up(torch_compositing.composite_train, samples, [h.float() for h in halves], 1e-4, "cpu")
    assert_close([getattr(sums, name).detach().cpu() for name in SUMS], expected, 1e-5)
    sums.image.sum().backward()
    assert all(part.grad is not None and part.grad.dtype == torch.float16 for part in strided[:2])


@pytest.mark.parametrize(("n_rays", "n_steps"), [(0, 3), (1, 1), (50, 8)])
def test_inference_blocks(n_rays, n_steps, kernel_device, triton_backend):
    generator = torch.Generator().manual_seed(n_steps)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    deltas = rand(n_rays, n_steps) * (rand(n_rays, n_steps) > 0.2)
    block = (rand(n_rays, n_steps, 3), deltas, rand(n_rays, n_steps))
    old = (rand(n_rays, 3), rand(n_rays), rand(n_rays), rand(n_rays))
    values = (8 * rand(n_rays, n_steps), rand(n_rays, n_steps, 3), rand(n_rays, n_steps))
    results = []
    for composite, place in (
        (triton_backend.composite_infer, kernel_device),
        (torch_compositing.composite_infer, "cpu"),
    ):
        sums = RaySums(*(part.to(place) for part in old))
        moved_block = MarchedBlock(*(part.to(place) for part in block))
        new, going = composite(sums, *(value.to(place) for value in values), moved_block, 0.3)
        results.append(([getattr(new, name).cpu() for name in SUMS], going.cpu()))
    assert_close(results[0][0], results[1][0], 1e-5)
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize(("n_rays", "n_samples"), [(0, 2), (1, 1), (40, 1), (70, 2), (33, 7)])
@pytest.mark.parametrize("density", [1.0, 200.0])
def test_opaque_surfaces(n_rays, n_samples, density, kernel_device, triton_backend):
    generator = torch.Generator().manual_seed(n_samples)
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    values = (density * rand(n_rays, n_samples), rand(n_rays, n_samples, 3), rand(n_rays, n_samples))
    values[0][: n_rays // 4] = 0.0
    grads = (torch.randn(n_rays, 3, generator=generator), torch.randn(n_rays, n_samples, generator=generator))
    results = []
    for composite, place in (
        (triton_backend.composite_opaque, kernel_device),
        (torch_compositing.composite_opaque, torch.device("cpu")),
    ):
        sigmas, rgbs = (value.to(place).detach().requires_grad_() for value in values[:2])
        outputs = composite(sigmas, rgbs, values[2].to(place))
        torch.autograd.backward(outputs, [grad.to(place) for grad in grads])
        results.append([part.detach().cpu() for part in (*outputs, sigmas.grad, rgbs.grad)])
    assert_close(*results, 2e-5)


def test_infinitely_dense_samples(kernel_device, triton_backend):
    sigmas = torch.full((3, 4), torch.inf, device=kernel_device, requires_grad=True)
    rgbs = torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(0)).to(kernel_device).requires_grad_()
    image, weights = triton_backend.composite_opaque(sigmas, rgbs, torch.ones(3, 4, device=kernel_device))
    assert torch.equal(image, rgbs[:, 0])
    assert torch.equal(weights[:, 0], torch.ones(3, device=kernel_device))
    image.sum().backward()
    assert sigmas.grad.isfinite().all()
