"""Box intersection, Morton order and marching: one lane per ray, one warp per program.

A ray's walk is a chain of look-ups, so many small programs hide the waiting, and with one warp the question whether
any of its rays goes on needs no shared memory.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from modules.radnerfs.backends.base import MarchConfig, MarchedBlock
from modules.radnerfs.backends.torch_marching import MISS
from modules.radnerfs.backends.triton_kernels.launch import blocks, launch
from modules.radnerfs.backends.triton_kernels.vectors import load3, store3
from modules.radnerfs.rays import RayBundle, RaySamples

RAYS = 32
"""Rays of one program, which has one warp. H200, 262,144 rays through a ball, 1.2 million samples: counting them takes
82 us; with two warps (64 rays) 86 us, with four 98 us."""
BLOCK = 256
"""Elements of one program where each is on its own."""


@triton.jit
def _safe(direction):
    """A parallel ray must not give 0/0."""
    return tl.where(tl.abs(direction) < 1e-15, 1e-15, direction)


@triton.jit
def _slab(origins, directions, box, rows, valid, axis: tl.constexpr):
    origin = tl.load(origins + rows * 3 + axis, mask=valid, other=0.0)
    direction = _safe(tl.load(directions + rows * 3 + axis, mask=valid, other=1.0))
    low = tl.div_rn(tl.load(box + axis) - origin, direction)
    high = tl.div_rn(tl.load(box + 3 + axis) - origin, direction)
    return tl.minimum(low, high), tl.maximum(low, high)


@triton.jit
def _box_kernel(origins, directions, box, near, far, count, min_near, miss, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = rows < count
    enter_x, leave_x = _slab(origins, directions, box, rows, valid, 0)
    enter_y, leave_y = _slab(origins, directions, box, rows, valid, 1)
    enter_z, leave_z = _slab(origins, directions, box, rows, valid, 2)
    enter = tl.maximum(tl.maximum(enter_x, enter_y), enter_z)
    leave = tl.minimum(tl.minimum(leave_x, leave_y), leave_z)
    missed = enter > leave
    tl.store(near + rows, tl.where(missed, miss, tl.maximum(enter, min_near)), mask=valid)
    tl.store(far + rows, tl.where(missed, miss, leave), mask=valid)


@triton.jit
def _spread(values):
    """Bit k moves to bit 3k (10 bits)."""
    values = (values | (values << 16)) & 0x030000FF
    values = (values | (values << 8)) & 0x0300F00F
    values = (values | (values << 4)) & 0x030C30C3
    return (values | (values << 2)) & 0x09249249


@triton.jit
def _gather(values):
    """Bit 3k moves to bit k (10 bits)."""
    values = values & 0x09249249
    values = (values | (values >> 2)) & 0x030C30C3
    values = (values | (values >> 4)) & 0x0300F00F
    values = (values | (values >> 8)) & 0x030000FF
    return (values | (values >> 16)) & 0x3FF


@triton.jit
def _morton_kernel(cells, numbers, count, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = rows < count
    x = _spread(tl.load(cells + rows * 3, mask=valid, other=0).to(tl.int32))
    y = _spread(tl.load(cells + rows * 3 + 1, mask=valid, other=0).to(tl.int32))
    z = _spread(tl.load(cells + rows * 3 + 2, mask=valid, other=0).to(tl.int32))
    tl.store(numbers + rows, (x | (y << 1) | (z << 2)).to(tl.int64), mask=valid)


@triton.jit
def _cells_kernel(numbers, cells, count, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = rows < count
    number = tl.load(numbers + rows, mask=valid, other=0).to(tl.int32)
    for axis in tl.static_range(3):
        tl.store(cells + rows * 3 + axis, _gather(number >> axis).to(tl.int64), mask=valid)


@triton.jit
def _bits_kernel(density, packed, count, threshold, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    bit = tl.arange(0, 8)[None, :]
    values = tl.load(density + rows[:, None].to(tl.int64) * 8 + bit, mask=rows[:, None] < count, other=0.0)
    bits = (values > threshold).to(tl.int32) << bit
    tl.store(packed + rows, tl.sum(bits, axis=1).to(tl.uint8), mask=rows < count)


@triton.jit
def _exponent(values):
    """Binary exponent e of ``value = m · 2^e`` with m in 0.5..1; far below zero for 0."""
    return ((values.to(tl.int32, bitcast=True) >> 23) & 0xFF) - 126


@triton.jit
def _clamp(values, low, high):
    return tl.minimum(tl.maximum(values, low), high)


@triton.jit
def _cell(point, extent, size):
    return _clamp(0.5 * (tl.div_rn(point, extent) + 1.0) * size, 0.0, size - 1.0).to(tl.int32)


@triton.jit
def _to_wall(point, direction, cell, extent, size):
    """Distance to the wall of the cell that the ray goes towards, along one axis."""
    ahead = tl.where(direction >= 0.0, 1.0, 0.0)
    wall = (tl.div_rn(cell.to(tl.float32) + ahead, size) * 2.0 - 1.0) * extent
    return tl.div_rn(wall - point, _safe(direction))


@triton.jit
def _look_up(x, y, z, dx, dy, dz, dt, bits, bound, size, cells, cascades, looking):
    """Whether each point's cell is occupied, and the distance to where the ray leaves that cell."""
    furthest = tl.maximum(tl.maximum(tl.abs(x), tl.abs(y)), tl.abs(z))
    level = tl.maximum(_exponent(furthest), _exponent(dt * (size * 0.5)))
    level = _clamp(level, 0, cascades - 1)
    extent = tl.minimum((1 << level).to(tl.float32), bound)
    cx, cy, cz = _cell(x, extent, size), _cell(y, extent, size), _cell(z, extent, size)
    number = level.to(tl.int64) * cells + (_spread(cx) | (_spread(cy) << 1) | (_spread(cz) << 2)).to(tl.int64)
    byte = tl.load(bits + (number >> 3), mask=looking, other=0).to(tl.int32)
    leave = tl.minimum(_to_wall(x, dx, cx, extent, size), _to_wall(y, dy, cy, extent, size))
    leave = tl.minimum(leave, _to_wall(z, dz, cz, extent, size))
    return ((byte >> (number & 7).to(tl.int32)) & 1) == 1, tl.maximum(leave, 0.0)


@triton.jit
def _march_kernel(
    origins, directions, start, far, jitter, bits, first, positions, along, deltas, ends, ray_index, counts,
    n_rays, capacity, max_steps, bound, size, cells, cascades, dt_gamma, dt_min, dt_max,
    JITTER: tl.constexpr, MODE: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    """Walk the rays. MODE 0 counts their samples, 1 writes them packed from row ``first`` on, 2 into ``[N, steps]``."""
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    valid = ray < n_rays
    ox, oy, oz = load3(origins, ray, valid, 0.0)
    dx, dy, dz = load3(directions, ray, valid, 1.0)
    t = tl.load(start + ray, mask=valid, other=0.0)
    end = tl.load(far + ray, mask=valid, other=0.0)
    if JITTER:
        t += _clamp(t * dt_gamma, dt_min, dt_max) * tl.load(jitter + ray, mask=valid, other=0.0)
    place = ray.to(tl.int64) * max_steps
    if MODE == 1:
        place = tl.load(first + ray, mask=valid, other=0)
    count = ray * 0
    going = valid & (t < end)
    while tl.max(going.to(tl.int32), axis=0) > 0:
        x, y = _clamp(ox + t * dx, -bound, bound), _clamp(oy + t * dy, -bound, bound)
        z = _clamp(oz + t * dz, -bound, bound)
        dt = _clamp(t * dt_gamma, dt_min, dt_max)
        occupied, leave = _look_up(x, y, z, dx, dy, dz, dt, bits, bound, size, cells, cascades, going)
        occupied = occupied & going
        if MODE != 0:
            row = place + count
            kept = occupied & (row < capacity)
            store3(positions, row, x, y, z, kept)
        if MODE == 1:
            store3(along, row, dx, dy, dz, kept)
            tl.store(deltas + row * 2, dt, mask=kept)
            tl.store(deltas + row * 2 + 1, t + dt, mask=kept)
            tl.store(ray_index + row, ray.to(tl.int64), mask=kept)
        if MODE == 2:
            tl.store(deltas + row, dt, mask=kept)
            tl.store(ends + row, t + dt, mask=kept)
        goal = tl.where(occupied, t, t + leave)
        count += occupied.to(tl.int32)
        t += dt
        going = going & (count < max_steps) & (t < end)
        behind = going & (t < goal)  # step on to the end of an empty cell
        while tl.max(behind.to(tl.int32), axis=0) > 0:
            t = tl.where(behind, t + _clamp(t * dt_gamma, dt_min, dt_max), t)
            behind = behind & (t < goal)
        going = going & (t < end)
    if MODE == 0:
        tl.store(counts + ray, count.to(tl.int64), mask=valid)


def near_far(rays: RayBundle, aabb: Tensor, min_near: float) -> tuple[Tensor, Tensor]:
    """Slab test of ``N`` rays with a box; see ``RenderBackend.near_far``."""
    origins, directions = rays.origins.contiguous(), rays.directions.contiguous()
    near, far = origins.new_empty(len(rays)), origins.new_empty(len(rays))
    launch(
        _box_kernel, blocks(len(rays), BLOCK), origins.device,
        origins, directions, aabb.to(origins).contiguous(), near, far, len(rays), min_near, MISS, BLOCK=BLOCK,
    )  # fmt: skip
    return near, far


def morton_encode(cells: Tensor) -> Tensor:
    """Cells ``[M, 3]`` (0..1023) to Morton numbers int64 ``[M]``."""
    numbers = torch.empty(len(cells), dtype=torch.int64, device=cells.device)
    launch(
        _morton_kernel, blocks(len(cells), BLOCK), cells.device, cells.contiguous(), numbers, len(cells), BLOCK=BLOCK
    )
    return numbers


def morton_decode(numbers: Tensor) -> Tensor:
    """Morton numbers ``[M]`` to cells int64 ``[M, 3]``."""
    cells = torch.empty(len(numbers), 3, dtype=torch.int64, device=numbers.device)
    launch(_cells_kernel, blocks(len(cells), BLOCK), cells.device, numbers.contiguous(), cells, len(cells), BLOCK=BLOCK)
    return cells


def pack_bits(density: Tensor, threshold: float) -> Tensor:
    """``density [8 * B] > threshold`` as uint8 ``[B]``, low bit first."""
    values = density.reshape(-1).contiguous()
    packed = torch.empty(len(values) // 8, dtype=torch.uint8, device=values.device)
    launch(_bits_kernel, blocks(len(packed), BLOCK), values.device, values, packed, len(packed), threshold, BLOCK=BLOCK)
    return packed


def march_train(
    rays: RayBundle,
    near: Tensor,
    far: Tensor,
    bitfield: Tensor,
    march: MarchConfig,
    max_steps: int,
    jitter: Tensor | None = None,
) -> RaySamples:
    """Packed samples of all rays; see ``RenderBackend.march_train``. Reads their number back once."""
    walk = _Walk(rays, near, far, bitfield, march, max_steps, jitter)
    counts = walk.count()
    after = counts.cumsum(0)
    return walk.write(after - counts, counts, int(after[-1]) if len(rays) else 0)


def march_infer(
    rays: RayBundle, start: Tensor, far: Tensor, bitfield: Tensor, march: MarchConfig, n_steps: int
) -> MarchedBlock:
    """The next block of samples of each ray; see ``RenderBackend.march_infer``."""
    walk = _Walk(rays, start, far, bitfield, march, n_steps, None)
    shape = (len(rays), n_steps)
    deltas, ends = walk.start.new_zeros(shape), walk.start.new_zeros(shape)
    positions = walk.origins.clamp(-march.bound, march.bound)[:, None].repeat(1, n_steps, 1)
    walk.run(2, positions=positions, deltas=deltas, ends=ends, capacity=len(rays) * n_steps)
    return MarchedBlock(positions, deltas, ends)


class _Walk:
    """The rays of one call and how they step."""

    def __init__(
        self,
        rays: RayBundle,
        start: Tensor,
        far: Tensor,
        bitfield: Tensor,
        march: MarchConfig,
        max_steps: int,
        jitter: Tensor | None,
    ) -> None:
        self.origins, self.directions = rays.origins.contiguous(), rays.directions.contiguous()
        self.start, self.far, self.bitfield = start.contiguous(), far.contiguous(), bitfield.contiguous()
        self.jitter = None if jitter is None else jitter.to(self.start).contiguous()
        self.march, self.max_steps = march, max_steps

    def count(self) -> Tensor:
        """Samples of each ray, int64 ``[N]``."""
        counts = torch.empty(len(self.origins), dtype=torch.int64, device=self.start.device)
        self.run(0, counts=counts)
        return counts

    def write(self, first: Tensor, counts: Tensor, total: int) -> RaySamples:
        """All ``total`` samples, each ray's from its ``first`` row on."""
        start = self.start
        positions, along, deltas = start.new_empty(total, 3), start.new_empty(total, 3), start.new_empty(total, 2)
        ray_index = start.new_empty(total, dtype=torch.int64)
        self.run(1, first=first, positions=positions, along=along, deltas=deltas, ray_index=ray_index, capacity=total)
        return RaySamples(positions, along, deltas, ray_index, counts)

    def run(self, mode: int, capacity: int = 0, **tensors: Any) -> None:
        march, none = self.march, self.start
        names = ("first", "positions", "along", "deltas", "ends", "ray_index", "counts")
        launch(
            _march_kernel, blocks(len(self.origins), RAYS), self.start.device,
            self.origins, self.directions, self.start, self.far, none if self.jitter is None else self.jitter,
            self.bitfield, *(tensors.get(name, none) for name in names), len(self.origins), capacity, self.max_steps,
            float(march.bound), float(march.grid_size), march.grid_size**3, march.cascades,
            float(march.dt_gamma), march.dt_min, march.dt_max,
            JITTER=self.jitter is not None, MODE=mode, RAYS=RAYS, num_warps=1,
        )  # fmt: skip
