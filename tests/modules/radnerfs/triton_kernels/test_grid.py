"""Grid features against torch_reference: values to 1e-5, gradients to 1e-4 of the largest, fp16 tables to 2e-3."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.radnerfs.backends import torch_grid
from modules.radnerfs.config import GridConfig

CASES = list(itertools.product((2, 3), ("tiled", "hash"), ("linear", "smoothstep")))
FINE = GridConfig(8, 2, 16, 1024, 14, "hash")


def small(grid_type: str = "tiled", interpolation: str = "linear", features: int = 2) -> GridConfig:
    """Four levels, 4 to 40 cells; tables of 256 rows, so that fine levels share rows."""
    return GridConfig(4, features, 4, 40, 8, grid_type, interpolation)


def draw(config: GridConfig, n_dims: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions with the cube's corners among them, table, and gradient of the features."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(count, n_dims, generator=generator)
    positions[:2] = torch.tensor([[0.0], [1.0]])[: len(positions[:2])]
    table = torch.randn(config.levels(n_dims).n_rows, config.features_per_level, generator=generator)
    return positions, table, torch.randn(count, config.width, generator=generator)


def run(encode, positions, table, grad, levels, device, dtype=torch.float32):
    """Features and both gradients, on the CPU in float32."""
    where = positions.to(device).clone().requires_grad_()
    rows = table.to(device, dtype).clone().requires_grad_()
    features = encode(where, rows, levels)
    features.backward(grad.to(features))
    return [part.detach().float().cpu() for part in (features, where.grad, rows.grad)]


def assert_same(mine, expected, values=1e-5, gradients=1e-4) -> None:
    for index, (a, b) in enumerate(zip(mine, expected, strict=True)):
        scale = 1.0 if index == 0 else max(1.0, float(b.abs().max()) if b.numel() else 1.0)
        torch.testing.assert_close(a, b, rtol=0, atol=(values if index == 0 else gradients) * scale)


@pytest.mark.parametrize(("n_dims", "grid_type", "interpolation"), CASES)
@pytest.mark.parametrize("features", [1, 2, 3, 4])
def test_equals_the_reference(n_dims, grid_type, interpolation, features, kernel_device, triton_backend):
    config = small(grid_type, interpolation, features)
    for count in (1, 33 + 7 * features):
        inputs = (*draw(config, n_dims, count, seed=features), config.levels(n_dims))
        mine = run(triton_backend.grid_encode, *inputs, kernel_device)
        assert_same(mine, run(torch_grid.grid_encode, *inputs, torch.device("cpu")))


@settings(max_examples=8)
@given(
    count=st.integers(0, 90),
    n_dims=st.integers(2, 3),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(2, 6), st.integers(6, 90), st.integers(5, 12)),
    kinds=st.tuples(st.sampled_from(["tiled", "hash"]), st.sampled_from(["linear", "smoothstep"])),
)
def test_grids_of_any_shape(count, n_dims, sizes, kinds, kernel_device, triton_backend):
    config = GridConfig(*sizes, *kinds)
    inputs = (*draw(config, n_dims, count, seed=count), config.levels(n_dims))
    assert_same(run(triton_backend.grid_encode, *inputs, kernel_device), run(torch_grid.grid_encode, *inputs, "cpu"))


@pytest.mark.parametrize("n_dims", [2, 3])
def test_fine_levels(n_dims, kernel_device, triton_backend, on_gpu):
    """Cells as fine as training's, where the last bit of a position counts, and many points per row."""
    count = 40_000 if on_gpu else 48
    inputs = (*draw(FINE, n_dims, count, 3), FINE.levels(n_dims))
    assert_same(run(triton_backend.grid_encode, *inputs, kernel_device), run(torch_grid.grid_encode, *inputs, "cpu"))


def test_half_precision_table(kernel_device, triton_backend):
    config = small("hash")
    positions, table, grad = draw(config, 3, 50, 1)
    inputs = (positions, table.half().float(), grad.half().float(), config.levels(3))
    mine = run(triton_backend.grid_encode, *inputs, kernel_device, torch.float16)
    assert_same(mine, run(torch_grid.grid_encode, *inputs, "cpu"), values=2e-3, gradients=2e-3)


def test_autocast_gives_the_next_layers_dtype(kernel_device, triton_backend):
    config = small("hash")
    positions, table, grad = draw(config, 3, 20, 1)
    expected = run(torch_grid.grid_encode, positions, table, grad, config.levels(3), "cpu")
    dtype = torch.bfloat16 if kernel_device.type == "cpu" else torch.float16
    rows = table.to(kernel_device).requires_grad_()
    with torch.autocast(kernel_device.type, dtype=dtype):
        features = triton_backend.grid_encode(positions.to(kernel_device), rows, config.levels(3))
    assert features.dtype == dtype
    features.backward(grad.to(features))
    assert rows.grad.dtype == torch.float32
    assert torch.allclose(features.detach().float().cpu(), expected[0], atol=3e-2)
    assert torch.allclose(rows.grad.cpu(), expected[2], atol=3e-2 * float(expected[2].abs().max()))


def test_strided_inputs(kernel_device, triton_backend):
    config = small()
    positions, table, grad = draw(config, 3, 24, 5)
    levels = config.levels(3)
    expected = run(torch_grid.grid_encode, positions, table, grad, levels, "cpu")
    where = positions.to(kernel_device).t().contiguous().t().requires_grad_()
    rows = table.to(kernel_device).t().contiguous().t().requires_grad_()
    assert not where.is_contiguous()
    features = triton_backend.grid_encode(where, rows, levels)
    features.backward(grad.to(kernel_device).t().contiguous().t())
    assert_same([part.detach().cpu() for part in (features, where.grad, rows.grad)], expected)


def test_outside_is_zero_and_not_finite_is_nan(kernel_device, triton_backend):
    config = small()
    table = draw(config, 3, 1, 0)[1].to(kernel_device).requires_grad_()
    outside = [[0.5, 0.5, 1.01], [-1e-6, 0.2, 0.3], [0.1, 0.2, 0.3]]
    where = torch.tensor(outside, device=kernel_device).requires_grad_()
    features = triton_backend.grid_encode(where, table, config.levels(3))
    assert (features[:2] == 0).all()
    assert (features[2] != 0).all()
    features[:2].sum().backward()
    assert not where.grad.any()
    assert not table.grad.any()
    broken = torch.tensor([[0.1, torch.nan, 0.3], [0.1, torch.inf, 0.3], [0.1, 0.2, 0.3]], device=kernel_device)
    nan = triton_backend.grid_encode(broken, table, config.levels(3)).isnan()
    assert nan.all(dim=1).tolist() == nan.any(dim=1).tolist() == [True, True, False]


def test_no_points(kernel_device, triton_backend):
    config = small()
    table = draw(config, 2, 0, 0)[1].to(kernel_device).requires_grad_()
    where = torch.zeros(0, 2, device=kernel_device, requires_grad=True)
    features = triton_backend.grid_encode(where, table, config.levels(2))
    features.sum().backward()
    assert features.shape == (0, config.width)
    assert not table.grad.any()


@pytest.mark.parametrize("wanted", ["positions", "table"])
def test_only_what_is_asked_for(wanted, kernel_device, triton_backend):
    config = small("hash")
    positions, table, grad = draw(config, 3, 20, 2)
    expected = run(torch_grid.grid_encode, positions, table, grad, config.levels(3), "cpu")
    where = positions.to(kernel_device).requires_grad_(wanted == "positions")
    rows = table.to(kernel_device).requires_grad_(wanted == "table")
    features = triton_backend.grid_encode(where, rows, config.levels(3))
    features.backward(grad.to(kernel_device))
    found, other = (where.grad, rows.grad) if wanted == "positions" else (rows.grad, where.grad)
    assert other is None
    assert torch.allclose(found.cpu(), expected[1 if wanted == "positions" else 2], atol=1e-3)


@pytest.mark.gpu
def test_replays_in_a_cuda_graph(kernel_device, triton_backend, on_gpu):
    if not on_gpu:
        pytest.skip("CUDA graphs need CUDA")
    levels = FINE.levels(3)
    positions, table, grad = (part.to(kernel_device) for part in draw(FINE, 3, 5000, 0))
    rows = table.requires_grad_()

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        features = triton_backend.grid_encode(positions, rows, levels)
        return features, torch.autograd.grad(features, rows, grad)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    positions.copy_(positions.flip(1))
    graph.replay()
    for mine, expected in zip(captured, step(), strict=True):
        assert torch.allclose(mine, expected, atol=1e-3)
