"""Occupancy grid: which cells of the field's cube are worth sampling.

Densities are ``[cascades, grid_size³]`` in Morton order; -1 marks cells no training camera sees. All functions are
pure: they return new tensors for the field's buffers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.radnerf import RADNeRF

CHUNK_CELLS = 1 << 17


@dataclass(frozen=True, slots=True, eq=False)
class OccupancyUpdate:
    """New density grid and bitfield, and the mean density they were made with."""

    density_grid: Tensor
    bitfield: Tensor
    mean_density: float


def cell_centres(cells: Tensor, grid_size: int, extent: float) -> Tensor:
    """Centres ``[M, 3]`` of cells int ``[M, 3]`` of a cube ±extent."""
    return (2 * cells.float() / (grid_size - 1) - 1) * (extent - extent / grid_size)


def mark_untrained(
    density_grid: Tensor,
    poses: Tensor,
    image_from_camera: Tensor,
    bound: float,
    grid_size: int,
    backend: RenderBackend,
    side_px: float | None = None,
) -> Tensor:
    """Set cells outside every camera's frustum to -1.

    Args:
        density_grid: ``[cascades, grid_size³]``.
        poses: ``[B, 4, 4]`` world_from_camera of the training frames.
        image_from_camera: ``[3, 3]``.
        bound: half side of the whole grid.
        grid_size: cells per axis.
        backend: for Morton order.
        side_px: of the square image; None = the principal point is at its centre.
    """
    centre, focal = image_from_camera[:2, 2].to(density_grid), image_from_camera[:2, :2].diagonal().to(density_grid)
    before = centre / focal
    behind = before if side_px is None else (side_px - centre) / focal
    cells = all_cells(grid_size, density_grid.device, backend)
    marked = density_grid.clone()
    for cascade in range(len(density_grid)):
        extent = min(2.0**cascade, bound)
        half_cell = extent / grid_size
        for start in range(0, len(cells), CHUNK_CELLS):
            part = slice(start, start + CHUNK_CELLS)
            centres = cell_centres(cells[part], grid_size, extent)
            seen = torch.zeros(len(centres), dtype=torch.bool, device=centres.device)
            for pose in poses.to(centres):
                in_camera = (centres - pose[:3, 3]) @ pose[:3, :3]
                depth = in_camera[:, 2:]
                place = in_camera[:, :2]
                inside = (-place < before * depth + 2 * half_cell) & (place < behind * depth + 2 * half_cell)
                seen |= inside.all(dim=1) & (depth[:, 0] > 0)
            marked[cascade, part][~seen] = -1.0
    return marked


@torch.no_grad()
def update_occupancy(field: RADNeRF, cond_feat: Tensor, generator: torch.Generator | None) -> OccupancyUpdate:
    """Refresh the grid with the densities of one frame's motion.

    Args:
        field: with occupancy buffers; not changed.
        cond_feat: ``[C]`` encoded condition of a (random) training frame.
        generator: source of the jitter inside cells; None samples at their centres.

    Returns:
        The densities, decayed and raised to the new ones where these are larger, and their bits.
    """
    render = field.config.render
    fresh = dilate(fresh_densities(field, cond_feat, generator), render.grid_size, field.backend)
    return merge_densities(field.density_grid, fresh, render.density_decay, render.density_thresh, field.backend)


@torch.no_grad()
def fresh_densities(field: RADNeRF, cond_feat: Tensor, generator: torch.Generator | None) -> Tensor:
    """Densities ``[cascades, grid_size³]`` at a point of every cell, for one frame; see ``update_occupancy``."""
    render, bound, backend = field.config.render, field.config.bound, field.backend
    cells = all_cells(render.grid_size, field.density_grid.device, backend)
    fresh = torch.empty_like(field.density_grid)
    for cascade in range(len(fresh)):
        extent = min(2.0**cascade, bound)
        for start in range(0, len(cells), CHUNK_CELLS):
            part = slice(start, start + CHUNK_CELLS)
            points = cell_centres(cells[part], render.grid_size, extent)
            if generator is not None:
                noise = torch.rand(points.shape, generator=generator, device=points.device)
                points = points + (2 * noise - 1) * (extent / render.grid_size)
            fresh[cascade, part] = field.density(points, cond_feat) * render.density_scale
    return fresh


def merge_densities(
    old: Tensor, fresh: Tensor, decay: float, threshold: float, backend: RenderBackend
) -> OccupancyUpdate:
    """Decay the old densities, raise them to the fresh ones where both are known, and pack the bits."""
    grid = merged(old, fresh, decay)
    mean = float(grid.clamp(min=0).mean())
    return OccupancyUpdate(grid, backend.pack_bits(grid.reshape(-1), min(mean, threshold)), mean)


def merged(old: Tensor, fresh: Tensor, decay: float) -> Tensor:
    """Decayed old densities, raised to the fresh ones where both are known."""
    return torch.where((old >= 0) & (fresh >= 0), torch.maximum(old * decay, fresh), old)


def dilate(density: Tensor, grid_size: int, backend: RenderBackend) -> Tensor:
    """Each cell's maximum over itself and its 6 face neighbours, ``[cascades, grid_size³]`` in Morton order."""
    order = backend.morton_encode(grid_cells(grid_size, density.device))  # Morton number of each xyz-ordered cell
    volume = density[:, order].view(-1, 1, grid_size, grid_size, grid_size)
    along = [F.max_pool3d(volume, kernel, 1, [k // 2 for k in kernel]) for kernel in ((3, 1, 1), (1, 3, 1), (1, 1, 3))]
    dilated = torch.stack(along).amax(dim=0)
    result = torch.empty_like(density)
    result[:, order] = dilated.view(len(density), -1)
    return result


def grid_cells(grid_size: int, device: torch.device) -> Tensor:
    """All cells int64 ``[grid_size³, 3]``, x slowest."""
    axis = torch.arange(grid_size, device=device)
    return torch.cartesian_prod(axis, axis, axis)


def all_cells(grid_size: int, device: torch.device, backend: RenderBackend) -> Tensor:
    """All cells int64 ``[grid_size³, 3]`` in Morton order."""
    return backend.morton_decode(torch.arange(grid_size**3, device=device))
