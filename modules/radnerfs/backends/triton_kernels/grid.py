"""Multi-resolution grid features: one lane per corner of a point's cell.

Neighbouring corners then lie in neighbouring lanes: those that share a memory sector are fetched, and added to, once.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from modules.radnerfs.backends.base import GridLevels
from modules.radnerfs.backends.torch_grid import level_tables
from modules.radnerfs.backends.triton_kernels.launch import blocks, launch

POINTS = 64
WARPS = 4
"""Points of one program, and its warps. H200, 65,536 random points, 16 3-D levels of 2^16 rows of two numbers: forward
37 us, the table's gradient 79 us, with the positions' 99 us. (16, 4): 46, 80, 86 us; (128, 4): 37, 81, 100 us; (64, 8):
40, 79, 88 us. Points side by side on a surface: forward 38 us, table 116 us: they add to the same rows. float16 tables
take the same time: it is the number of gathers and atomic adds that counts."""
COLUMNS: tl.constexpr = tl.constexpr(6)
"""Integers per level: multipliers of x, y and z, wrap mask, first row, 1 where axes are hashed."""


@triton.jit
def _axis(positions, point, inside_all, axis: tl.constexpr, D: tl.constexpr, valid):
    """Coordinate of each lane's point, the test for 0..1, and a number that is NaN where it is not finite."""
    x = tl.load(positions + point * D + axis, mask=valid, other=0.0)
    return x, inside_all & (x >= 0.0) & (x <= 1.0), x * 0.0


@triton.jit
def _place(x, scale, upper, SMOOTH: tl.constexpr):
    """Along one axis: the corner's coordinate, its weight, and the weight's slope in ``x``."""
    scaled = x * scale + 0.5
    cell = scaled.to(tl.int32)
    fraction = scaled - cell.to(tl.float32)
    blend, slope = fraction, scale + 0.0 * fraction
    if SMOOTH:
        blend = fraction * fraction * (3.0 - 2.0 * fraction)
        slope = 6.0 * fraction * (1.0 - fraction) * scale
    return cell + upper, tl.where(upper == 1, blend, 1.0 - blend), tl.where(upper == 1, slope, -slope)


@triton.jit
def _corner(x, y, z, corner, scale, level_ints, D: tl.constexpr, SMOOTH: tl.constexpr):
    """Row of each lane's corner, and coordinate weight and slope along each axis (z counts 1 and 0 in 2-D)."""
    cx, wx, sx = _place(x, scale, corner & 1, SMOOTH)
    cy, wy, sy = _place(y, scale, (corner >> 1) & 1, SMOOTH)
    ix = cx * tl.load(level_ints)
    iy = cy * tl.load(level_ints + 1)
    flat, mixed, wz, sz = ix + iy, ix ^ iy, wx * 0.0 + 1.0, sx * 0.0
    if D == 3:
        cz, wz, sz = _place(z, scale, (corner >> 2) & 1, SMOOTH)
        iz = cz * tl.load(level_ints + 2)
        flat, mixed = flat + iz, mixed ^ iz
    row = tl.where(tl.load(level_ints + 5) == 1, mixed, flat) & tl.load(level_ints + 3)
    return row + tl.load(level_ints + 4), wx, wy, wz, sx, sy, sz


@triton.jit
def _points(positions, n_points, D: tl.constexpr, BLOCK: tl.constexpr, C: tl.constexpr):
    """Per lane: point, corner, coordinates (0 outside the cube), inside, and a number that is NaN if one is not."""
    lane = tl.arange(0, BLOCK * C)
    point = tl.program_id(0).to(tl.int64) * BLOCK + lane // C
    valid = point < n_points
    x, inside, broken = _axis(positions, point, valid, 0, D, valid)
    y, inside, odd = _axis(positions, point, inside, 1, D, valid)
    broken += odd
    z = x
    if D == 3:
        z, inside, odd = _axis(positions, point, inside, 2, D, valid)
        broken += odd
    x, y, z = tl.where(inside, x, 0.0), tl.where(inside, y, 0.0), tl.where(inside, z, 0.0)
    return point, lane % C, x, y, z, inside, broken


@triton.jit
def _encode_kernel(
    positions, table, features, scales, ints, n_points, n_levels,
    D: tl.constexpr, F: tl.constexpr, FP: tl.constexpr, SMOOTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    C: tl.constexpr = 1 << D
    level = tl.program_id(1)
    point, corner, x, y, z, inside, broken = _points(positions, n_points, D, BLOCK, C)
    row, wx, wy, wz, _, _, _ = _corner(x, y, z, corner, tl.load(scales + level), ints + level * COLUMNS, D, SMOOTH)
    feature = tl.arange(0, FP)[None, :]
    used = inside[:, None] & (feature < F)
    value = tl.load(table + row[:, None].to(tl.int64) * F + feature, mask=used, other=0.0).to(tl.float32)
    # a point that is not finite carries its NaN along; others outside add zeros
    value = (wx * wy * wz)[:, None] * value + broken[:, None]
    total = tl.sum(tl.reshape(value, (BLOCK, C, FP)), axis=1)
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    out = features + (point[:, None] * n_levels + level) * F + feature
    tl.store(out, total.to(features.dtype.element_ty), mask=(point[:, None] < n_points) & (feature < F))


@triton.jit
def _gradient_kernel(
    positions, table, grad_features, grad_table, grad_positions, scales, ints, n_points, n_levels,
    LEVELS: tl.constexpr, D: tl.constexpr, F: tl.constexpr, FP: tl.constexpr, SMOOTH: tl.constexpr, BLOCK: tl.constexpr,
    WANT_TABLE: tl.constexpr, WANT_POSITIONS: tl.constexpr,
):  # fmt: skip
    C: tl.constexpr = 1 << D
    point, corner, x, y, z, inside, _ = _points(positions, n_points, D, BLOCK, C)
    feature = tl.arange(0, FP)[None, :]
    used = inside[:, None] & (feature < F)
    along_x, along_y, along_z = x * 0.0, x * 0.0, x * 0.0
    for step in range(LEVELS):
        level = tl.program_id(1) * LEVELS + step
        row, wx, wy, wz, sx, sy, sz = _corner(
            x, y, z, corner, tl.load(scales + level), ints + level * COLUMNS, D, SMOOTH
        )
        where = row[:, None].to(tl.int64) * F + feature
        grad = tl.load(grad_features + (point[:, None] * n_levels + level) * F + feature, mask=used, other=0.0)
        grad = grad.to(tl.float32)
        if WANT_TABLE:
            tl.atomic_add(grad_table + where, (wx * wy * wz)[:, None] * grad, mask=used, sem="relaxed")
        if WANT_POSITIONS:
            value = tl.load(table + where, mask=used, other=0.0).to(tl.float32)
            along = tl.sum(value * grad, axis=1)
            along_x += along * sx * wy * wz
            along_y += along * wx * sy * wz
            along_z += along * wx * wy * sz
    if WANT_POSITIONS:
        point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        out, valid = grad_positions + point * D, point < n_points
        tl.store(out, tl.sum(tl.reshape(along_x, (BLOCK, C)), axis=1), mask=valid)
        tl.store(out + 1, tl.sum(tl.reshape(along_y, (BLOCK, C)), axis=1), mask=valid)
        if D == 3:
            tl.store(out + 2, tl.sum(tl.reshape(along_z, (BLOCK, C)), axis=1), mask=valid)


def grid_encode(positions: Tensor, table: Tensor, levels: GridLevels) -> Tensor:
    """Interpolated features ``[M, L * F]`` of positions ``[M, D]``; see ``RenderBackend.grid_encode``.

    Sums and the table's gradient are formed in float32. Features come in the table's dtype; under autocast in
    autocast's, which is what the next layer would turn them into.
    """
    kind = positions.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else table.dtype
    return _GridEncode.apply(positions.float().contiguous(), table.contiguous(), levels, dtype)


class _GridEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, table: Tensor, levels: GridLevels, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(positions, table)
        ctx.levels = levels
        count, n_levels = len(positions), len(levels.scales)
        features = torch.empty(count, n_levels * table.shape[1], dtype=dtype, device=positions.device)
        launch(
            _encode_kernel, (blocks(count, POINTS), n_levels), positions.device,
            positions, table, features, *_geometry(levels, positions.device), count, n_levels,
            **_sizes(levels, table), BLOCK=POINTS, num_warps=WARPS,
        )  # fmt: skip
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_features: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        positions, table = ctx.saved_tensors
        levels: GridLevels = ctx.levels
        want_positions, want_table = ctx.needs_input_grad[:2]
        n_levels = len(levels.scales)
        each = n_levels if want_positions else 1  # a point's gradient sums over the levels, which stay in one program
        grad_positions = torch.empty_like(positions) if want_positions else None
        grad_table = torch.zeros(table.shape, dtype=torch.float32, device=table.device) if want_table else None
        unused = positions
        launch(
            _gradient_kernel, (blocks(len(positions), POINTS), n_levels // each), positions.device,
            positions, table, grad_features.contiguous(),
            unused if grad_table is None else grad_table, unused if grad_positions is None else grad_positions,
            *_geometry(levels, positions.device), len(positions), n_levels, **_sizes(levels, table),
            LEVELS=each, BLOCK=POINTS, WANT_TABLE=want_table, WANT_POSITIONS=want_positions, num_warps=WARPS,
        )  # fmt: skip
        return grad_positions, None if grad_table is None else grad_table.to(table.dtype), None, None


def _sizes(levels: GridLevels, table: Tensor) -> dict[str, int | bool]:
    n_features = table.shape[1]
    return {"D": levels.n_dims, "F": n_features, "FP": triton.next_power_of_2(n_features), "SMOOTH": levels.smooth}


@functools.lru_cache(maxsize=64)
def _geometry(levels: GridLevels, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scales float32 ``[L]`` and integers int32 ``[L, COLUMNS]`` of each level.

    Made on the CPU and copied, so that no stream has to wait for another's; a grid's first call therefore must not be
    one that a CUDA graph records.
    """
    tables = level_tables(levels, torch.device("cpu"), torch.float32)
    multipliers = tables.multiplier[:, :, 0].t()  # [L, D]
    ints = torch.zeros(len(multipliers), COLUMNS.value, dtype=torch.int32, device="cpu")
    ints[:, : levels.n_dims] = multipliers
    ints[:, 3], ints[:, 4] = tables.mask[:, 0, 0], tables.offset[:, 0, 0]
    ints[tables.n_flat :, 5] = 1
    return tables.scale[:, 0].contiguous().to(device), ints.to(device)
