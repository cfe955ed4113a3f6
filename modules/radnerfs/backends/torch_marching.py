"""Box intersection, Morton order and marching through the occupancy grid, in plain torch.

Rays step in lock step; rays that have left their interval drop out of the working set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modules.radnerfs.backends.base import MarchConfig, MarchedBlock
from modules.radnerfs.rays import RayBundle, RaySamples

MISS = torch.finfo(torch.float32).max
TINY = 1e-15


def near_far(rays: RayBundle, aabb: Tensor, min_near: float) -> tuple[Tensor, Tensor]:
    """Slab test of ``N`` rays with a box; see ``RenderBackend.near_far``."""
    directions = torch.where(rays.directions.abs() < TINY, TINY, rays.directions)  # a parallel ray must not give 0/0
    low, high = (aabb[:3] - rays.origins) / directions, (aabb[3:] - rays.origins) / directions
    near = torch.minimum(low, high).amax(dim=1)
    far = torch.maximum(low, high).amin(dim=1)
    missed = near > far
    return near.clamp(min=min_near).masked_fill(missed, MISS), far.masked_fill(missed, MISS)


def morton_encode(cells: Tensor) -> Tensor:
    """Cells ``[M, 3]`` (0..1023) to Morton numbers int64 ``[M]``."""
    spread = _spread_bits(cells.long())
    return spread[:, 0] | spread[:, 1] << 1 | spread[:, 2] << 2


def morton_decode(numbers: Tensor) -> Tensor:
    """Morton numbers ``[M]`` to cells int64 ``[M, 3]``."""
    numbers = numbers.long()
    return torch.stack([_gather_bits(numbers >> axis) for axis in range(3)], dim=1)


def _spread_bits(values: Tensor) -> Tensor:
    """Bit k moves to bit 3k (10 bits)."""
    values = (values | values << 16) & 0x030000FF
    values = (values | values << 8) & 0x0300F00F
    values = (values | values << 4) & 0x030C30C3
    return (values | values << 2) & 0x09249249


def _gather_bits(values: Tensor) -> Tensor:
    """Bit 3k moves to bit k (10 bits)."""
    values = values & 0x09249249
    values = (values | values >> 2) & 0x030C30C3
    values = (values | values >> 4) & 0x0300F00F
    values = (values | values >> 8) & 0x030000FF
    return (values | values >> 16) & 0x3FF


def pack_bits(density: Tensor, threshold: float) -> Tensor:
    """``density [8 * B] > threshold`` as uint8 ``[B]``, low bit first."""
    bits = (density.reshape(-1, 8) > threshold).to(torch.uint8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=density.device)
    return (bits * weights).sum(dim=1, dtype=torch.uint8)


def march_train(
    rays: RayBundle,
    near: Tensor,
    far: Tensor,
    bitfield: Tensor,
    march: MarchConfig,
    max_steps: int,
    jitter: Tensor | None = None,
) -> RaySamples:
    """Packed samples of all rays; see ``RenderBackend.march_train``."""
    start = near if jitter is None else near + _step_length(near, march) * jitter
    starts, lengths, counts = _march(rays, start, far, bitfield, march, max_steps)
    used = lengths > 0  # [N, S], row by row: packing keeps ray order
    ray_index = used.nonzero()[:, 0]
    t, dt = starts[used], lengths[used]
    directions = rays.directions[ray_index]
    positions = _points(rays.origins[ray_index], directions, t, march.bound)
    return RaySamples(positions, directions, torch.stack([dt, t + dt], dim=1), ray_index, counts)


def march_infer(
    rays: RayBundle, start: Tensor, far: Tensor, bitfield: Tensor, march: MarchConfig, n_steps: int
) -> MarchedBlock:
    """The next block of samples of each ray; see ``RenderBackend.march_infer``."""
    starts, lengths, _ = _march(rays, start, far, bitfield, march, n_steps)
    positions = _points(rays.origins[:, None], rays.directions[:, None], starts, march.bound)
    return MarchedBlock(positions, lengths, starts + lengths)


def _points(origins: Tensor, directions: Tensor, t: Tensor, bound: float) -> Tensor:
    return (origins + t[..., None] * directions).clamp(-bound, bound)


def _step_length(t: Tensor, march: MarchConfig) -> Tensor:
    return (t * march.dt_gamma).clamp(march.dt_min, march.dt_max)


@dataclass(slots=True, eq=False)
class _Front:
    """Rays still under way: their row, origin, direction, current distance, end, and number of samples so far."""

    row: Tensor
    origins: Tensor
    directions: Tensor
    t: Tensor
    far: Tensor
    count: Tensor

    def keep(self, going: Tensor) -> _Front:
        parts = (self.row, self.origins, self.directions, self.t, self.far, self.count)
        return _Front(*(part[going] for part in parts))


def _march(
    rays: RayBundle, start: Tensor, far: Tensor, bitfield: Tensor, march: MarchConfig, max_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Start and length ``[N, max_steps]`` of each sample (length 0 = none) and the counts ``[N]``."""
    n_rays = len(rays)
    starts, lengths = start.new_zeros(n_rays, max_steps), start.new_zeros(n_rays, max_steps)
    counts = torch.zeros(n_rays, dtype=torch.int64, device=start.device)
    front = _Front(torch.arange(n_rays, device=start.device), rays.origins, rays.directions, start, far, counts.clone())
    front = front.keep(front.t < front.far)
    while len(front.row):
        points = _points(front.origins, front.directions, front.t, march.bound)
        dt = _step_length(front.t, march)
        occupied, cell_exit = _look_up(points, front.directions, dt, bitfield, march)
        row, slot = front.row[occupied], front.count[occupied]
        starts[row, slot], lengths[row, slot] = front.t[occupied], dt[occupied]
        counts[row] = front.count[occupied] + 1
        front.count = front.count + occupied.long()
        front.t = _advance(front.t, dt, torch.where(occupied, -1.0, front.t + cell_exit), march)
        front = front.keep((front.t < front.far) & (front.count < max_steps))
    return starts, lengths, counts


def _advance(t: Tensor, dt: Tensor, goal: Tensor, march: MarchConfig) -> Tensor:
    """One step, and more while the goal (the end of an empty cell) is not reached."""
    t = t + dt
    behind = t < goal
    while bool(behind.any()):
        t = torch.where(behind, t + _step_length(t, march), t)
        behind = t < goal
    return t


def _look_up(
    points: Tensor, directions: Tensor, dt: Tensor, bitfield: Tensor, march: MarchConfig
) -> tuple[Tensor, Tensor]:
    """Whether each point's cell is occupied, and the distance to where the ray leaves that cell."""
    size = march.grid_size
    level = torch.maximum(_exponent(points.abs().amax(dim=1)), _exponent(dt * (size * 0.5))).clamp(
        0, march.cascades - 1
    )
    extent = (2.0**level).clamp(max=march.bound)[:, None]
    cells = (0.5 * (points / extent + 1) * size).clamp(0, size - 1).int()
    number = level * size**3 + morton_encode(cells)
    occupied = (bitfield[number >> 3].int() >> (number & 7).int() & 1).bool()
    ahead = torch.where(directions >= 0, 1.0, 0.0)
    boundary = ((cells + ahead) / size * 2 - 1) * extent
    directions = torch.where(directions.abs() < TINY, TINY, directions)
    return occupied, ((boundary - points) / directions).amin(dim=1).clamp(min=0)


def _exponent(values: Tensor) -> Tensor:
    """Binary exponent e of ``value = m · 2^e`` with m in 0.5..1, as int64."""
    return torch.frexp(values).exponent.long()
