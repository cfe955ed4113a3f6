from __future__ import annotations

import itertools
import math

import pytest
import torch

from modules.radnerfs.backends import torch_grid
from modules.radnerfs.backends.torch_grid import HASH_PRIMES, grid_encode
from modules.radnerfs.config import GridConfig
from modules.radnerfs.encoders.frequency import FrequencyEncoder
from modules.radnerfs.encoders.grid import GridEncoder
from modules.radnerfs.encoders.spherical_harmonics import SphericalHarmonicsEncoder

CASES = list(itertools.product((2, 3), ("tiled", "hash"), ("linear", "smoothstep")))


def small(grid_type: str, interpolation: str, features: int = 2) -> GridConfig:
    """Five levels, 4 to 40 cells; tables of 256 rows, so that fine levels share rows."""
    return GridConfig(5, features, 4, 40, 8, grid_type, interpolation)


def points(count: int, n_dims: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, n_dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table_for(config: GridConfig, n_dims: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    rows = config.levels(n_dims).n_rows
    return torch.randn(rows, config.features_per_level, generator=generator, dtype=torch.float64)


def naive_row(cell: list[int], resolution: int, size: int, hashed: bool) -> int:
    """The row rule with plain unsigned 32-bit integers."""
    stride, index = 1, 0
    for coordinate in cell:
        if stride <= size:
            index += coordinate * stride
            stride *= resolution + 1
    if hashed and stride > size:
        index = 0
        for coordinate, prime in zip(cell, HASH_PRIMES, strict=False):
            index ^= coordinate * prime % 2**32
    return index % 2**32 % size


def naive_encode(position: list[float], table: torch.Tensor, config: GridConfig) -> list[float]:
    levels = config.levels(len(position))
    features = []
    for level, scale in enumerate(levels.scales):
        total = torch.zeros(table.shape[1], dtype=table.dtype)
        scaled = [x * scale + 0.5 for x in position]
        for corner in itertools.product((0, 1), repeat=len(position)):
            weight = 1.0
            for bit, s in zip(corner, scaled, strict=True):
                t = s - math.floor(s)
                t = t * t * (3 - 2 * t) if levels.smooth else t
                weight *= t if bit else 1 - t
            cell = [math.floor(s) + bit for s, bit in zip(scaled, corner, strict=True)]
            size = levels.offsets[level + 1] - levels.offsets[level]
            row = naive_row(cell, levels.resolutions[level], size, levels.hashed)
            total += weight * table[levels.offsets[level] + row]
        features += total.tolist()
    return features


@pytest.mark.parametrize(("n_dims", "grid_type", "interpolation"), CASES)
def test_equals_the_naive_loop(n_dims, grid_type, interpolation):
    config = small(grid_type, interpolation)
    table = table_for(config, n_dims)
    where = torch.cat([points(20, n_dims), torch.zeros(1, n_dims), torch.ones(1, n_dims)]).double()
    expected = torch.tensor([naive_encode(p.tolist(), table, config) for p in where], dtype=torch.float64)
    assert torch.allclose(grid_encode(where, table, config.levels(n_dims)), expected, atol=1e-12)


@pytest.mark.parametrize(("n_dims", "grid_type", "interpolation"), CASES)
def test_gradients_equal_finite_differences(n_dims, grid_type, interpolation):
    config = small(grid_type, interpolation, features=3)
    where, table = points(4, n_dims, seed=3).requires_grad_(), table_for(config, n_dims).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, t: grid_encode(p, t, config.levels(n_dims)), (where, table), fast_mode=True
    )


def test_many_points_give_what_few_give(monkeypatch):
    config, n_dims = small("hash", "linear"), 3
    results = []
    for chunk in (1 << 15, 7):
        monkeypatch.setattr(torch_grid, "CHUNK_POINTS", chunk)
        where, table = points(40, n_dims).requires_grad_(), table_for(config, n_dims).requires_grad_()
        features = grid_encode(where, table, config.levels(n_dims))
        (features**2).sum().backward()
        results.append((features.detach(), where.grad, table.grad))
    for whole, chunked in zip(*results, strict=True):
        assert torch.allclose(whole, chunked)


def test_outside_is_zero_and_not_finite_is_nan():
    config = small("tiled", "linear")
    table = table_for(config, 3).requires_grad_()
    where = torch.tensor([[0.5, 0.5, 1.01], [-1e-6, 0.2, 0.3], [0.1, 0.2, 0.3]]).double().requires_grad_()
    features = grid_encode(where, table, config.levels(3))
    assert (features[:2] == 0).all()
    assert (features[2] != 0).all()
    features[:2].sum().backward()
    assert not where.grad.any()
    assert not table.grad.any()
    broken = torch.tensor([[0.1, torch.nan, 0.3], [0.1, torch.inf, 0.3], [0.1, 0.2, 0.3]]).double()
    assert grid_encode(broken, table, config.levels(3)).isnan().all(dim=1).tolist() == [True, True, False]


@pytest.mark.parametrize("count", [0, 1])
def test_few_points(count, backend):
    encoder = GridEncoder(small("hash", "linear"), 3, backend)
    where = torch.zeros(count, 3, requires_grad=True)
    features = encoder(where)
    features.sum().backward()
    assert features.shape == (count, 10)
    assert encoder.embeddings.grad.shape == encoder.embeddings.shape


def test_encoders_keep_leading_dimensions(backend):
    where = torch.rand(2, 3, 3)
    grid = GridEncoder(small("tiled", "linear"), 3, backend)
    assert torch.equal(grid(where, 2.0).view(6, -1), grid(where.view(6, 3), 2.0))
    assert grid(where).shape == (2, 3, grid.width)
    assert FrequencyEncoder(3, 4, backend)(where).shape == (2, 3, FrequencyEncoder(3, 4, backend).width)
    assert SphericalHarmonicsEncoder(3, backend)(where).shape == (2, 3, 9)


def test_spherical_harmonics_are_orthonormal(backend):
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=generator), dim=1)
    basis = backend.sh_encode(directions, 4)
    gram = basis.T @ basis * (4 * math.pi / len(directions))
    assert torch.allclose(gram, torch.eye(16), atol=0.03)
    for degree in (1, 2, 3):
        assert torch.equal(backend.sh_encode(directions[:5], degree), basis[:5, : degree**2])
    with pytest.raises(ValueError, match="degree"):
        backend.sh_encode(directions[:5], 5)


def test_smoothstep_is_flat_at_the_corners():
    config = GridConfig(1, 1, 8, 8, 12, "tiled", "smoothstep")
    corner = torch.tensor([[2.5 / 7, 2.5 / 7, 2.5 / 7]], dtype=torch.float64).requires_grad_()  # scale 7: cell 3.0
    grid_encode(corner, table_for(config, 3), config.levels(3)).sum().backward()
    assert torch.allclose(corner.grad, torch.zeros_like(corner), atol=1e-6)
