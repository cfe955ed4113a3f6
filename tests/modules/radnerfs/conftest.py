from __future__ import annotations

import pytest
import torch

from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import RADNeRFConfig
from modules.radnerfs.occupancy_grid import grid_cells
from modules.radnerfs.radnerf import RADNeRF
from tests.modules.radnerfs import golden


@pytest.fixture(scope="package")
def backend():
    return get_backend("torch")


@pytest.fixture(scope="package")
def ellipsoid(backend) -> torch.Tensor:
    """The golden density grid ``[1, 128³]`` in Morton order."""
    grid = torch.empty(1, 128**3)
    grid[0, backend.morton_encode(grid_cells(128, torch.device("cpu")))] = golden.analytic_density()
    return grid


@pytest.fixture(scope="package")
def may_head(backend, ellipsoid) -> RADNeRF:
    """The May head with golden weights and the golden occupancy."""
    golden.load_json("manifest_radnerf_head")
    field = RADNeRF(RADNeRFConfig(), backend)
    golden.fill(field)
    field.density_grid.copy_(ellipsoid)
    field.density_bitfield.copy_(backend.pack_bits(ellipsoid.view(-1), 10.0))
    return field
