"""Fields of the sizes that are rendered, with golden weights, for tests of packed and fused rendering."""

from __future__ import annotations

from dataclasses import replace

import torch

from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from modules.radnerfs.occupancy_grid import all_cells, cell_centres
from modules.radnerfs.radnerf import RADNeRF
from tests.modules.radnerfs import golden

SURFACE = RADNeRFConfig(
    position_grid=GridConfig(n_levels=12, desired_resolution=1024, log2_table_size=18, grid_type="hash"),
    ambient_grid=GridConfig(3, 2, 4, 16, 14, "hash"),
    smo_win_size=1,
    with_att=False,
    sh_degree=2,
    individual_embedding_num=1,
    individual_embedding_dim=0,
    render=RenderConfig(sampler="surface", n_samples=1),
)
NARROW = dict(hidden_dim_ambient=64, hidden_dim_sigma=64, hidden_dim_color=64, geo_feat_dim=64, cond_out_dim=32)
SHALLOW = dict(num_layers_ambient=2, num_layers_sigma=2, num_layers_color=2)
SMALL_GRID = GridConfig(5, 2, 4, 40, 9, "tiled", "smoothstep")
CONFIGS = {
    "may": RADNeRFConfig(individual_embedding_num=9),
    "gpu": SURFACE,
    "cpu": replace(SURFACE, ambient_dim=2, **NARROW, **SHALLOW),
    "odd": RADNeRFConfig(
        position_grid=SMALL_GRID, ambient_grid=SMALL_GRID, ambient_dim=2, hidden_dim_ambient=16, hidden_dim_sigma=32,
        hidden_dim_color=64, num_layers_ambient=2, num_layers_color=3, geo_feat_dim=7, sh_degree=3, bound=2.0,
        position_scale=0.7, individual_embedding_num=9, cond_in_dim=20, cond_out_dim=12,
    ),
}  # fmt: skip


def golden_field(name: str, device: torch.device | str = "cpu") -> RADNeRF:
    """A field of that configuration with golden weights, which are of an original head's scale."""
    field = RADNeRF(CONFIGS[name], get_backend("torch"))
    golden.fill(field)
    return field.to(device)


def samples(field: RADNeRF, count: int, n_frames: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Positions (some outside the bound), directions, frame numbers, condition features and codes of frames."""
    generator = torch.Generator().manual_seed(seed)
    device = field.individual_embeddings.device
    reach = field.config.bound / field.config.position_scale
    positions = (torch.rand(count, 3, generator=generator) * 2 - 1) * reach * 1.05
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    frame = torch.randint(n_frames, (count,), generator=generator, dtype=torch.int32).sort().values
    features = torch.randn(n_frames, field.config.cond_out_dim, generator=generator)
    codes = 0.2 * torch.randn(n_frames, field.config.individual_embedding_dim, generator=generator)
    return tuple(values.to(device) for values in (positions, directions, frame, features, codes))


SMOOTH_GRID = GridConfig(4, 2, 2, 12, 10, "hash")


def smooth_field(device, bound=1.0, **render) -> RADNeRF:
    """A field whose colours change slowly, with an occupied ball; small enough for the interpreter."""
    config = replace(
        CONFIGS["odd"], position_grid=SMOOTH_GRID, ambient_grid=SMOOTH_GRID, bound=bound, position_scale=1.0,
        cond_in_dim=204, render=replace(CONFIGS["odd"].render, **dict(grid_size=32, max_steps=12) | render),
    )  # fmt: skip
    field = RADNeRF(config, get_backend("torch"))
    golden.fill(field)
    with torch.no_grad():
        for net in (field.ambient_net, field.sigma_net, field.color_net):
            for layer in net.net:
                layer.weight.mul_(0.5)
    return field.to(device)


def occupy(field: RADNeRF, radius: float | None) -> RADNeRF:
    """Occupied: a ball, everything (infinite radius) or nothing (None)."""
    size = field.config.render.grid_size
    for cascade in range(field.cascades):
        extent = min(2.0**cascade, field.config.bound)
        cells = all_cells(size, field.density_bitfield.device, field.backend)
        distance = cell_centres(cells, size, extent).norm(dim=1)
        density = (distance <= (-1.0 if radius is None else radius)).float()
        bits = field.backend.pack_bits(density, 0.5)
        field.density_bitfield[cascade * len(bits) : (cascade + 1) * len(bits)] = bits
    return field
