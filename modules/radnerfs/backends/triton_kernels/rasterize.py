"""Meshes onto the screen: projection, and the nearest triangle of every pixel by atomic minimum.

A program takes a few triangles and walks their bounding boxes together. An edge's crossing of a row is computed from
the same ends in the same order by both triangles that share it, so neighbours neither overlap nor leave a hole.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modules.radnerfs.backends.torch_surface import EMPTY, INFINITY_BITS
from modules.radnerfs.backends.triton_kernels.launch import blocks, launch

TRIANGLES, STEP, WARPS = 16, 16, 4
"""Triangles per program, and pixels of each that are tested at once. H200: 0.29 ms for 64 heads of a 512 crop."""
VERTICES = 256


@triton.jit
def _project_kernel(head, matrices, screen, n_vertices, n_frames, BLOCK: tl.constexpr):
    mesh = tl.program_id(1)
    vertex = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = vertex < n_vertices
    at = (mesh * n_vertices + vertex) * 3
    x = tl.load(head + at, mask=valid, other=0.0).to(tl.float64)
    y = tl.load(head + at + 1, mask=valid, other=0.0).to(tl.float64)
    z = tl.load(head + at + 2, mask=valid, other=0.0).to(tl.float64)
    matrix = matrices + (mesh % n_frames) * 12
    u = tl.load(matrix) * x + tl.load(matrix + 1) * y + tl.load(matrix + 2) * z + tl.load(matrix + 3)
    v = tl.load(matrix + 4) * x + tl.load(matrix + 5) * y + tl.load(matrix + 6) * z + tl.load(matrix + 7)
    depth = tl.load(matrix + 8) * x + tl.load(matrix + 9) * y + tl.load(matrix + 10) * z + tl.load(matrix + 11)
    total = u + v + depth
    drawable = (depth > 0) & (total - total == 0)  # neither infinite nor NaN
    depth = tl.where(drawable, depth, 1.0)
    nothing = float("nan")
    tl.store(screen + at, tl.where(drawable, u / depth, nothing).to(tl.float32), mask=valid)
    tl.store(screen + at + 1, tl.where(drawable, v / depth, nothing).to(tl.float32), mask=valid)
    tl.store(screen + at + 2, tl.where(drawable, 1.0 / depth, nothing).to(tl.float32), mask=valid)


@triton.jit
def vertex_on_screen(screen, vertex, valid, left, top, SCALE: tl.constexpr):
    """x, y in pixels of a window that begins at (left, top) and is SCALE times finer, and 1/depth."""
    x = (tl.load(screen + vertex * 3, mask=valid, other=0.0) - left) * SCALE
    y = (tl.load(screen + vertex * 3 + 1, mask=valid, other=0.0) - top) * SCALE
    return x, y, tl.load(screen + vertex * 3 + 2, mask=valid, other=0.0)


@triton.jit
def triangle_shares(x, y, xa, ya, na, xb, yb, nb, xc, yc, nc):
    """Each corner's part of 1/depth at a point: all three are linear on the screen."""
    x1, y1, x2, y2 = xb - xa, yb - ya, xc - xa, yc - ya
    dx, dy = x - xa, y - ya
    area = x1 * y2 - y1 * x2
    second = (dx * y2 - dy * x2) / area
    third = (x1 * dy - y1 * dx) / area
    return (1.0 - second - third) * na, second * nb, third * nc


@triton.jit
def _upper_first(xa, ya, xb, yb):
    swap = (ya > yb) | ((ya == yb) & (xa > xb))
    return tl.where(swap, xb, xa), tl.where(swap, yb, ya), tl.where(swap, xa, xb), tl.where(swap, ya, yb)


@triton.jit
def _slope(xa, ya, xb, yb):
    rise = yb - ya
    return tl.where(rise > 0, (xb - xa) / tl.maximum(rise, 1e-30), 0.0)


@triton.jit
def _span(a, b, c, size, GENEROUS: tl.constexpr):
    """First row or column of a bounding box in the window, and how many; GENEROUS leaves room for rounding."""
    low, high = tl.minimum(tl.minimum(a, b), c), tl.maximum(tl.maximum(a, b), c)
    if GENEROUS:
        first, stop = tl.floor(low - 0.5), tl.ceil(high + 0.5)
    else:
        first, stop = tl.ceil(low - 0.5), tl.ceil(high - 0.5)
    limit = size.to(tl.float32)
    first = tl.minimum(tl.maximum(first, 0.0), limit)
    return first, tl.minimum(tl.maximum(stop, 0.0), limit) - first


@triton.jit
def _rasterize_kernel(
    screen, triangles, keys, origins, n_vertices, n_triangles, height, width, origin_stride,
    INFINITY: tl.constexpr, PLACED: tl.constexpr, SCALE: tl.constexpr, BLOCK: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    mesh = tl.program_id(1)
    triangle = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = triangle < n_triangles
    left, top = 0.0, 0.0
    if PLACED:
        left = tl.load(origins + mesh * origin_stride).to(tl.float32)
        top = tl.load(origins + mesh * origin_stride + 1).to(tl.float32)
    screen += mesh * n_vertices * 3
    a = tl.load(triangles + triangle * 3, mask=valid, other=0)
    b = tl.load(triangles + triangle * 3 + 1, mask=valid, other=0)
    c = tl.load(triangles + triangle * 3 + 2, mask=valid, other=0)
    xa, ya, na = vertex_on_screen(screen, a, valid, left, top, SCALE)
    xb, yb, nb = vertex_on_screen(screen, b, valid, left, top, SCALE)
    xc, yc, nc = vertex_on_screen(screen, c, valid, left, top, SCALE)
    area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
    first_column, columns = _span(xa, xb, xc, width, True)
    first_row, rows = _span(ya, yb, yc, height, False)
    kept = valid & (area < 0) & (columns > 0) & (rows > 0)  # NaN compares as False
    count = tl.where(kept, columns * rows, 0.0).to(tl.int32)
    columns = tl.where(kept, columns, 1.0).to(tl.int32)
    first_column = tl.where(kept, first_column, 0.0).to(tl.int32)
    first_row = tl.where(kept, first_row, 0.0).to(tl.int32)
    low, high = tl.minimum(tl.minimum(na, nb), nc), tl.maximum(tl.maximum(na, nb), nc)
    # corners from top to bottom, equal heights from left to right
    x0, y0, x1, y1 = _upper_first(xa, ya, xb, yb)
    x1, y1, x2, y2 = _upper_first(x1, y1, xc, yc)
    x0, y0, x1, y1 = _upper_first(x0, y0, x1, y1)
    long, upper, lower = _slope(x0, y0, x2, y2), _slope(x0, y0, x1, y1), _slope(x1, y1, x2, y2)
    most = tl.max(count, axis=0)
    lane = tl.arange(0, STEP)
    start = 0
    while start < most:
        index = start + lane[None, :]
        row = first_row[:, None] + index // columns[:, None]
        column = first_column[:, None] + index % columns[:, None]
        x, y = column.to(tl.float32) + 0.5, row.to(tl.float32) + 0.5
        long_x = x0[:, None] + (y - y0[:, None]) * long[:, None]
        upper_x = x0[:, None] + (y - y0[:, None]) * upper[:, None]
        lower_x = x1[:, None] + (y - y1[:, None]) * lower[:, None]
        short_x = tl.where(y >= y1[:, None], lower_x, upper_x)
        inside = (index < count[:, None]) & (y >= y0[:, None]) & (y < y2[:, None])
        inside = inside & (x >= tl.minimum(long_x, short_x)) & (x < tl.maximum(long_x, short_x))
        first, second, third = triangle_shares(
            x, y, xa[:, None], ya[:, None], na[:, None], xb[:, None], yb[:, None], nb[:, None], xc[:, None],
            yc[:, None], nc[:, None],
        )  # fmt: skip
        # a sliver's plane is steep: a centre that rounding put outside it must not run away
        nearness = tl.minimum(tl.maximum(first + second + third, low[:, None]), high[:, None])
        order = (INFINITY - nearness.to(tl.int32, bitcast=True)).to(tl.int64)
        key = (order << 32) | triangle[:, None].to(tl.int64)
        pixel = (mesh.to(tl.int64) * height + row) * width + column
        tl.atomic_min(keys + pixel, key, mask=inside, sem="relaxed")

        start += STEP


def project(head: Tensor, pixel_from_head: Tensor) -> Tensor:
    """See ``torch_surface.project``."""
    n_meshes, n_vertices = head.shape[:2]
    head, screen = head.contiguous(), torch.empty_like(head, memory_format=torch.contiguous_format)
    launch(
        _project_kernel, (blocks(n_vertices, VERTICES), n_meshes), head.device,
        head, pixel_from_head.contiguous(), screen, n_vertices, len(pixel_from_head), BLOCK=VERTICES,
    )  # fmt: skip
    return screen


def rasterize(
    screen: Tensor, triangles: Tensor, height: int, width: int, origin: Tensor | None = None, scale: int = 1
) -> Tensor:
    """See ``torch_surface.rasterize``."""
    n_meshes, n_vertices = screen.shape[:2]
    keys = torch.full((n_meshes, height, width), EMPTY, dtype=torch.int64, device=screen.device)
    stride = 0 if origin is None else origin.stride(0)
    launch(
        _rasterize_kernel, (blocks(len(triangles), TRIANGLES), n_meshes), screen.device,
        screen, triangles, keys, screen if origin is None else origin, n_vertices, len(triangles), height, width,
        stride,
        INFINITY=INFINITY_BITS, PLACED=origin is not None, SCALE=scale, BLOCK=TRIANGLES, STEP=STEP, num_warps=WARPS,
    )  # fmt: skip
    return keys
