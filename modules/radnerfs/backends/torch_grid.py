"""Multi-resolution grid features in plain torch, shaped for the CPU's caches.

All levels and corners go through one ``embedding_bag`` (gather and weighting in one pass); its own backward sorts the
row numbers and is ten times slower than what is done here, one flat ``scatter_add_`` per feature. Measured with 16384
points, 12 3-D levels of up to 2^17 rows, one Xeon thread: forward and backward 25 ms against 130 ms.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from modules.radnerfs.backends.base import GridLevels

HASH_PRIMES = (1, 2654435761, 805459861)
CHUNK_POINTS = 1 << 15
"""Points handled at once: 2^15 × 16 levels × 8 corners take 32 MB of row numbers and weights."""


@dataclass(frozen=True, slots=True, eq=False)
class LevelTables:
    """Per-level constants: scale ``[L, 1]``, axis multipliers int32 ``[D, L, 1]``, wrap mask and offset ``[L, 1, 1]``.

    ``n_flat`` levels combine axes by addition, the rest by XOR.
    """

    scale: Tensor
    multiplier: Tensor
    mask: Tensor
    offset: Tensor
    n_flat: int


def grid_encode(positions: Tensor, table: Tensor, levels: GridLevels) -> Tensor:
    """Interpolated features ``[M, L * F]`` of positions ``[M, D]`` in 0..1; see ``RenderBackend.grid_encode``."""
    inside = ((positions >= 0) & (positions <= 1)).all(dim=1, keepdim=True)
    if bool(inside.all()):
        return _GridEncode.apply(positions, table, levels)
    features = _GridEncode.apply(torch.where(inside, positions, 0.0), table, levels)
    gate = inside.to(features.dtype) + 0.0 * positions.detach().sum(dim=1, keepdim=True)  # NaN where not finite
    return features * gate


class _GridEncode(torch.autograd.Function):
    """Interpolation of positions already known to lie in 0..1."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, table: Tensor, levels: GridLevels) -> Tensor:
        ctx.save_for_backward(positions, table)
        ctx.levels = levels
        chunks = positions.split(CHUNK_POINTS)
        cells = _locate(chunks[0], levels)
        ctx.cells = cells if len(chunks) == 1 else None  # a training batch keeps them; more is located again
        parts = [_blend(cells, table)]
        parts += [_blend(_locate(chunk, levels), table) for chunk in chunks[1:]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_features: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        positions, table = ctx.saved_tensors
        want_positions, want_table = ctx.needs_input_grad[:2]
        grad_positions = torch.empty_like(positions) if want_positions else None
        grad_table = torch.zeros_like(table, memory_format=torch.contiguous_format) if want_table else None
        for start in range(0, len(positions), CHUNK_POINTS):
            part = slice(start, start + CHUNK_POINTS)
            cells = ctx.cells or _locate(positions[part], ctx.levels)
            grad = grad_features[part].reshape(-1, len(ctx.levels.scales), table.shape[1]).permute(1, 2, 0).contiguous()
            if grad_table is not None:
                _scatter(grad_table, cells, grad)
            if grad_positions is not None:
                grad_positions[part] = _position_gradient(cells, table, grad, ctx.levels)
        return grad_positions, grad_table, None


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Where ``N`` points lie in every level, and the 2^D corners of their cells, the first axis fastest.

    Attributes:
        fraction: ``[D, L, N]`` place in the cell, 0..1.
        blend: ``[D, L, N]`` weight of the upper corner along each axis.
        rows: int32 ``[L, 2^D, N]`` table rows of the corners.
        weights: ``[L, 2^D, N]`` their weights.
    """

    fraction: Tensor
    blend: Tensor
    rows: Tensor
    weights: Tensor


def _locate(positions: Tensor, levels: GridLevels) -> _Cells:
    tables = level_tables(levels, positions.device, positions.dtype)
    scaled = positions.t().contiguous()[:, None] * tables.scale + 0.5  # [D, L, N], never negative: truncation is floor
    corner = scaled.int()
    fraction = scaled.sub_(corner)
    blend = fraction * fraction * (3 - 2 * fraction) if levels.smooth else fraction
    weights = torch.empty(len(levels.scales), 2**levels.n_dims, len(positions), dtype=blend.dtype, device=blend.device)
    _combine(torch.mul, torch.stack([1 - blend, blend], dim=2), weights)
    return _Cells(fraction, blend, _corner_rows(corner, tables), weights)


def _corner_rows(corner: Tensor, tables: LevelTables) -> Tensor:
    """Table rows int32 ``[L, 2^D, N]`` of the cells whose low corners are ``[D, L, N]``."""
    low = corner * tables.multiplier
    pairs = torch.stack([low, low + tables.multiplier], dim=2)  # [D, L, 2, N]
    rows = corner.new_empty(corner.shape[1], 2 ** len(corner), corner.shape[2])
    _combine(torch.add, pairs[:, : tables.n_flat], rows[: tables.n_flat])
    _combine(torch.bitwise_xor, pairs[:, tables.n_flat :], rows[tables.n_flat :])
    return rows.bitwise_and_(tables.mask).add_(tables.offset)


def _combine(operation: Callable[..., Tensor], pairs: Tensor, out: Tensor) -> None:
    """All combinations of the axes' lower and upper values ``[D, L, 2, N]`` into ``out [L, 2^D, N]``."""
    combined = pairs[0]
    for pair in pairs[1:-1]:
        combined = operation(pair[:, :, None], combined[:, None]).flatten(1, 2)
    operation(pairs[-1][:, :, None], combined[:, None], out=out.unflatten(1, (2, -1)))


def _blend(cells: _Cells, table: Tensor) -> Tensor:
    """Weighted corners, ``[N, L * F]``."""
    n_levels, n_corners, n_points = cells.rows.shape
    rows = cells.rows.transpose(1, 2).reshape(-1, n_corners)  # [L * N, 2^D]: level after level stays in cache
    weights = cells.weights.transpose(1, 2).reshape(-1, n_corners)
    features = F.embedding_bag(rows, table, per_sample_weights=weights.to(table.dtype), mode="sum")
    return features.view(n_levels, n_points, table.shape[1]).transpose(0, 1).flatten(1)


def _scatter(grad_table: Tensor, cells: _Cells, grad: Tensor) -> None:
    """Add ``weight · gradient`` of every corner to its table row; ``grad`` is ``[L, F, N]``."""
    n_features = grad_table.shape[1]
    flat = grad_table.view(-1)
    places = (cells.rows.view(-1) * n_features).long()
    for feature in range(n_features):
        flat[feature:].scatter_add_(0, places, (cells.weights * grad[:, feature : feature + 1]).view(-1))


def _position_gradient(cells: _Cells, table: Tensor, grad: Tensor, levels: GridLevels) -> Tensor:
    """Gradient ``[N, D]`` through the corner weights; the cells themselves are constant."""
    corners = torch.zeros_like(cells.weights)  # gradient with respect to each corner's weight
    for feature in range(table.shape[1]):
        column = table[:, feature].contiguous()  # gathering single numbers is 3 times faster than gathering rows
        values = column.index_select(0, cells.rows.view(-1)).view_as(corners)
        corners.addcmul_(values, grad[:, feature : feature + 1])
    slope = 6 * cells.fraction * (1 - cells.fraction) if levels.smooth else torch.ones_like(cells.fraction)
    scale = level_tables(levels, grad.device, grad.dtype).scale
    axes = []
    for axis in range(levels.n_dims):
        along = corners
        for other in reversed(range(levels.n_dims)):  # the last axis is the slowest corner bit: fold it away first
            low, high = along.unflatten(1, (2, -1)).unbind(1)
            along = high - low if other == axis else torch.lerp(low, high, cells.blend[other][:, None])
        axes.append((along[:, 0] * slope[axis] * scale).sum(dim=0))
    return torch.stack(axes, dim=1)


@functools.lru_cache(maxsize=64)
def level_tables(levels: GridLevels, device: torch.device, dtype: torch.dtype) -> LevelTables:
    """A grid's constants as tensors, made once per grid, device and dtype."""
    multipliers, masks, hashed = [], [], []
    for level, resolution in enumerate(levels.resolutions):
        size = levels.offsets[level + 1] - levels.offsets[level]
        axes, wraps = _axis_strides(resolution, size, levels.n_dims)
        hashed.append(levels.hashed and wraps)
        if hashed[-1]:  # only the low bits survive the mask, so reduced primes give the same rows within int32
            axes = [prime % size for prime in HASH_PRIMES[: levels.n_dims]]
        multipliers.append(axes)
        masks.append(size - 1 if wraps else 2**31 - 1)
    ints = functools.partial(torch.tensor, dtype=torch.int32, device=device)
    return LevelTables(
        scale=torch.tensor(levels.scales, dtype=dtype, device=device)[:, None],
        multiplier=ints(multipliers).t()[:, :, None].contiguous(),
        mask=ints(masks)[:, None, None],
        offset=ints(levels.offsets[:-1])[:, None, None],
        n_flat=hashed.index(True) if True in hashed else len(hashed),
    )


def _axis_strides(resolution: int, size: int, n_dims: int) -> tuple[list[int], bool]:
    """Stride of each axis in the flat index, 0 for axes the tiled rule leaves out, and whether the index must wrap.

    An axis counts only while the stride so far is at most the level's size, so fine 3-D levels ignore their last axis.
    """
    strides, stride = [], 1
    for _ in range(n_dims):
        strides.append(stride if stride <= size else 0)
        stride = stride * (resolution + 1) if stride <= size else stride
    return strides, stride > size
