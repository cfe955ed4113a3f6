"""What pixels see of the rasterised heads: attributes by barycentric weights, teeth, view directions, samples."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modules.radnerfs.backends.torch_surface import EMPTY
from modules.radnerfs.backends.triton_kernels.launch import blocks, launch
from modules.radnerfs.backends.triton_kernels.rasterize import triangle_shares, vertex_on_screen
from modules.radnerfs.surface import FLATTEST_RAY, TEETH_DEPTH_DM, TEETH_REACH_DM
from modules.radnerfs.surface_tensors import (
    ATTRIBUTES,
    COLUMN_MEMBRANE,
    COLUMN_MOUTH,
    COLUMN_NORMAL,
    COLUMN_WEIGHT,
    SIZE_MOUTH,
    FaceTables,
    FrameTensors,
    SurfaceSamples,
    SurfaceTensors,
)

TILE_WIDTH, TILE_HEIGHT, WARPS = 32, 8, 8
"""Pixels of one program: neighbours read the same vertices. H200: 0.11 ms for 32 windows of 320 x 384."""


@triton.jit
def tile_pixels(width, TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr):
    """Rows and columns of this program's pixels."""
    across = tl.cdiv(width, TILE_WIDTH)
    tile = tl.program_id(0)
    lane = tl.arange(0, TILE_WIDTH * TILE_HEIGHT)
    row = (tile // across) * TILE_HEIGHT + lane // TILE_WIDTH
    return row, (tile % across) * TILE_WIDTH + lane % TILE_WIDTH


@triton.jit
def _corners(triangles, triangle, seen):
    a = tl.load(triangles + triangle * 3, mask=seen, other=0)
    b = tl.load(triangles + triangle * 3 + 1, mask=seen, other=0)
    c = tl.load(triangles + triangle * 3 + 2, mask=seen, other=0)
    return a, b, c


@triton.jit
def _weights(screen, a, b, c, x, y, seen, left, top, SCALE: tl.constexpr):
    """Perspective-correct weights of the corners, and 1/depth."""
    xa, ya, na = vertex_on_screen(screen, a, seen, left, top, SCALE)
    xb, yb, nb = vertex_on_screen(screen, b, seen, left, top, SCALE)
    xc, yc, nc = vertex_on_screen(screen, c, seen, left, top, SCALE)
    first, second, third = triangle_shares(x, y, xa, ya, na, xb, yb, nb, xc, yc, nc)
    first, second, third = tl.maximum(first, 0.0), tl.maximum(second, 0.0), tl.maximum(third, 0.0)
    nearness = first + second + third
    return first / nearness, second / nearness, third / nearness, nearness


@triton.jit
def _blend(table, a, b, c, wa, wb, wc, seen, column: tl.constexpr, STRIDE: tl.constexpr):
    """One attribute at a point."""
    value = wa * tl.load(table + a * STRIDE + column, mask=seen, other=0.0)
    value += wb * tl.load(table + b * STRIDE + column, mask=seen, other=0.0)
    value += wc * tl.load(table + c * STRIDE + column, mask=seen, other=0.0)
    return value


@triton.jit
def view_ray(rays, x, y):
    """Unit direction of a window point; ``rays`` points at the frame's nine numbers."""
    rx = x * tl.load(rays) + y * tl.load(rays + 3) + tl.load(rays + 6)
    ry = x * tl.load(rays + 1) + y * tl.load(rays + 4) + tl.load(rays + 7)
    rz = x * tl.load(rays + 2) + y * tl.load(rays + 5) + tl.load(rays + 8)
    length = tl.sqrt(rx * rx + ry * ry + rz * rz)
    return rx / length, ry / length, rz / length


@triton.jit
def _canonical(
    attributes, head, origin, place, a, b, c, wa, wb, wc, rx, ry, rz, seen,
    WIDTH: tl.constexpr, MEMBRANE: tl.constexpr, DEPTH: tl.constexpr, REACH: tl.constexpr, FLATTEST: tl.constexpr,
):  # fmt: skip
    """Canonical position; on the membrane that of the teeth's plane behind it."""
    x = _blend(attributes, a, b, c, wa, wb, wc, seen, 0, WIDTH)
    y = _blend(attributes, a, b, c, wa, wb, wc, seen, 1, WIDTH)
    z = _blend(attributes, a, b, c, wa, wb, wc, seen, 2, WIDTH)
    inside = seen & (_blend(attributes, a, b, c, wa, wb, wc, seen, MEMBRANE, WIDTH) > 0.5)
    px = _blend(head, a, b, c, wa, wb, wc, inside, 0, 3)
    py = _blend(head, a, b, c, wa, wb, wc, inside, 1, 3)
    pz = _blend(head, a, b, c, wa, wb, wc, inside, 2, 3)
    onward = (tl.load(origin + 2) - DEPTH - pz) / tl.minimum(rz, -FLATTEST)
    onward = tl.minimum(tl.maximum(onward, -REACH), REACH)
    x = tl.where(inside, px + onward * rx - tl.load(origin) + tl.load(place), x)
    y = tl.where(inside, py + onward * ry - tl.load(origin + 1) + tl.load(place + 1), y)
    z = tl.where(inside, pz + onward * rz - tl.load(origin + 2) + tl.load(place + 2), z)
    return x, y, z


@triton.jit
def _points_kernel(
    keys, screen, head, triangles, attributes, teeth_origin, teeth_place, rays, sizes,
    seen_out, canonical_out, weight_out, mouth_out, cosine_out, depth_out,
    n_vertices, n_frames, height, width,
    NOTHING: tl.constexpr, SHOWN: tl.constexpr, SIZES: tl.constexpr, WIDTH: tl.constexpr, WEIGHT: tl.constexpr,
    MEMBRANE: tl.constexpr, NORMAL: tl.constexpr, MOUTH: tl.constexpr, DEPTH: tl.constexpr, REACH: tl.constexpr,
    FLATTEST: tl.constexpr, TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(1)
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    valid = (row < height) & (column < width)
    own = valid & (column < tl.load(sizes + frame * SIZES)) & (row < tl.load(sizes + frame * SIZES + 1))
    x, y = column.to(tl.float32) + 0.5, row.to(tl.float32) + 0.5
    pixel = (frame * height + row) * width + column
    key = tl.load(keys + pixel, mask=own, other=NOTHING)
    seen = own & (key != NOTHING)
    a, b, c = _corners(triangles, tl.where(seen, key & 0xFFFFFFFF, 0).to(tl.int32), seen)
    wa, wb, wc, nearness = _weights(screen + frame * n_vertices * 3, a, b, c, x, y, seen, 0.0, 0.0, 1)
    rx, ry, rz = view_ray(rays + frame * 9, x, y)
    cx, cy, cz = _canonical(
        attributes, head + frame * n_vertices * 3, teeth_origin, teeth_place, a, b, c, wa, wb, wc, rx, ry, rz, seen,
        WIDTH, MEMBRANE, DEPTH, REACH, FLATTEST,
    )  # fmt: skip
    nx = _blend(attributes, a, b, c, wa, wb, wc, seen, NORMAL, WIDTH)
    ny = _blend(attributes, a, b, c, wa, wb, wc, seen, NORMAL + 1, WIDTH)
    nz = _blend(attributes, a, b, c, wa, wb, wc, seen, NORMAL + 2, WIDTH)
    length = tl.maximum(tl.sqrt(nx * nx + ny * ny + nz * nz), 1e-6)
    mouth = _blend(attributes, a, b, c, wa, wb, wc, seen, MOUTH, WIDTH)
    cosine = tl.where(mouth > 0, 1.0, -(nx * rx + ny * ry + nz * rz) / length)
    weight = tl.where(seen, _blend(attributes, a, b, c, wa, wb, wc, seen, WEIGHT, WIDTH), 0.0)
    if SHOWN:
        other = frame + n_frames
        key = tl.load(keys + (other.to(tl.int64) * height + row) * width + column, mask=own, other=NOTHING)
        there = own & (key != NOTHING)
        a, b, c = _corners(triangles, tl.where(there, key & 0xFFFFFFFF, 0).to(tl.int32), there)
        wa, wb, wc, _ = _weights(screen + other * n_vertices * 3, a, b, c, x, y, there, 0.0, 0.0, 1)
        shown = _blend(attributes, a, b, c, wa, wb, wc, there, WEIGHT, WIDTH)
        weight = tl.maximum(weight, tl.where(there, shown, 0.0))
    tl.store(seen_out + pixel, seen.to(tl.uint8), mask=valid)
    tl.store(canonical_out + pixel * 3, tl.where(seen, cx, 0.0), mask=valid)
    tl.store(canonical_out + pixel * 3 + 1, tl.where(seen, cy, 0.0), mask=valid)
    tl.store(canonical_out + pixel * 3 + 2, tl.where(seen, cz, 0.0), mask=valid)
    tl.store(weight_out + pixel, weight, mask=valid)
    tl.store(mouth_out + pixel, tl.where(seen, mouth, 0.0), mask=valid)
    tl.store(cosine_out + pixel, tl.where(seen, cosine, 0.0), mask=valid)
    tl.store(depth_out + pixel, tl.where(seen, 1.0 / nearness, float("inf")), mask=valid)


@triton.jit
def _append(count, kept, position, direction, frames, box, x, y, z, rx, ry, rz, frame):
    """Put the kept lanes' samples behind those that are there; returns their rows, -1 for the others."""
    amount = tl.sum(kept.to(tl.int32), axis=0)
    start = tl.atomic_add(count, amount, sem="relaxed")
    slot = start + tl.cumsum(kept.to(tl.int32), axis=0) - 1
    scale = tl.load(box + 3)
    at = slot * 3
    tl.store(position + at, (x - tl.load(box)) * scale, mask=kept)
    tl.store(position + at + 1, (y - tl.load(box + 1)) * scale, mask=kept)
    tl.store(position + at + 2, (z - tl.load(box + 2)) * scale, mask=kept)
    tl.store(direction + at, rx, mask=kept)
    tl.store(direction + at + 1, ry, mask=kept)
    tl.store(direction + at + 2, rz, mask=kept)
    tl.store(frames + slot, frame + tl.zeros_like(slot), mask=kept)
    return tl.where(kept, slot, -1)


@triton.jit
def _collect_kernel(
    seen_in, canonical, alpha, rays, box, count, position, direction, frames, slots, height, width,
    TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(1)
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    valid = (row < height) & (column < width)
    pixel = (frame * height + row) * width + column
    kept = valid & (tl.load(seen_in + pixel, mask=valid, other=0) > 0)
    kept = kept & (tl.load(alpha + pixel, mask=valid, other=0.0) > 0)
    x = tl.load(canonical + pixel * 3, mask=kept, other=0.0)
    y = tl.load(canonical + pixel * 3 + 1, mask=kept, other=0.0)
    z = tl.load(canonical + pixel * 3 + 2, mask=kept, other=0.0)
    rx, ry, rz = view_ray(rays + frame * 9, column.to(tl.float32) + 0.5, row.to(tl.float32) + 0.5)
    slot = _append(count, kept, position, direction, frames, box, x, y, z, rx, ry, rz, frame)
    tl.store(slots + pixel, slot, mask=valid)


@triton.jit
def _collect_fine_kernel(
    keys, jumps, screen, head, triangles, attributes, teeth_origin, teeth_place, rays, sizes, box,
    count, position, direction, frames, slots, n_vertices, height, width, coarse_height, coarse_width,
    NOTHING: tl.constexpr, FINER: tl.constexpr, SIZES: tl.constexpr, AT_MOUTH: tl.constexpr, WIDTH: tl.constexpr,
    MEMBRANE: tl.constexpr, DEPTH: tl.constexpr, REACH: tl.constexpr, FLATTEST: tl.constexpr,
    TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(1)
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    valid = (row < height) & (column < width)
    left = tl.load(sizes + frame * SIZES + AT_MOUTH)
    top = tl.load(sizes + frame * SIZES + AT_MOUTH + 1)
    coarse_row, coarse_column = top + row // FINER, left + column // FINER
    there = valid & (coarse_row < coarse_height) & (coarse_column < coarse_width)
    coarse = (frame * coarse_height + coarse_row) * coarse_width + coarse_column
    there = there & (tl.load(jumps + coarse, mask=there, other=0) > 0)
    pixel = (frame * height + row) * width + column
    if tl.max(there.to(tl.int32), axis=0) > 0:
        key = tl.load(keys + pixel, mask=there, other=NOTHING)
        hit = there & (key != NOTHING)
        a, b, c = _corners(triangles, tl.where(hit, key & 0xFFFFFFFF, 0).to(tl.int32), hit)
        x, y = column.to(tl.float32) + 0.5, row.to(tl.float32) + 0.5
        wa, wb, wc, _ = _weights(
            screen + frame * n_vertices * 3, a, b, c, x, y, hit, left.to(tl.float32), top.to(tl.float32), FINER
        )
        rx, ry, rz = view_ray(rays + frame * 9, left + x / FINER, top + y / FINER)
        cx, cy, cz = _canonical(
            attributes, head + frame * n_vertices * 3, teeth_origin, teeth_place, a, b, c, wa, wb, wc, rx, ry, rz, hit,
            WIDTH, MEMBRANE, DEPTH, REACH, FLATTEST,
        )  # fmt: skip
        slot = _append(count, hit, position, direction, frames, box, cx, cy, cz, rx, ry, rz, frame)
        tl.store(slots + pixel, slot, mask=valid)
    else:
        tl.store(slots + pixel, row * 0 - 1, mask=valid)


def tiles(height: int, width: int, n_frames: int) -> tuple[int, int]:
    """Grid of programs over padded windows."""
    return blocks(height, TILE_HEIGHT) * blocks(width, TILE_WIDTH), n_frames


def surface_points(
    keys: Tensor, screen: Tensor, head: Tensor, face: FaceTables, frames: FrameTensors
) -> SurfaceTensors:
    """See ``torch_surface.surface_points``."""
    batch, height, width = len(frames.sizes), *keys.shape[1:]
    shape, device = (batch, height, width), keys.device
    seen = torch.empty(shape, dtype=torch.bool, device=device)
    canonical = torch.empty(*shape, 3, device=device)
    weight, mouth, cosine, depth = torch.empty(4, *shape, device=device).unbind(0)
    launch(
        _points_kernel, tiles(height, width, batch), device,
        keys, screen, head.contiguous(), face.triangles, face.attributes, face.teeth_origin, face.teeth_place,
        frames.rays, frames.sizes, seen.view(torch.uint8), canonical, weight, mouth, cosine, depth,
        screen.shape[1], batch, height, width,
        NOTHING=EMPTY, SHOWN=len(keys) > batch, SIZES=frames.sizes.shape[1], WIDTH=ATTRIBUTES, WEIGHT=COLUMN_WEIGHT,
        MEMBRANE=COLUMN_MEMBRANE, NORMAL=COLUMN_NORMAL, MOUTH=COLUMN_MOUTH, DEPTH=TEETH_DEPTH_DM,
        REACH=TEETH_REACH_DM, FLATTEST=FLATTEST_RAY, TILE_WIDTH=TILE_WIDTH, TILE_HEIGHT=TILE_HEIGHT, num_warps=WARPS,
    )  # fmt: skip
    return SurfaceTensors(seen, canonical, weight, mouth, cosine, depth)


def collect_samples(
    surface: SurfaceTensors,
    alpha: Tensor,
    jumps: Tensor,
    fine_keys: Tensor,
    screen: Tensor,
    head: Tensor,
    face: FaceTables,
    frames: FrameTensors,
    finer: int,
) -> SurfaceSamples:
    """See ``torch_surface.collect_samples``; the order of the samples follows from which program came first."""
    batch, height, width = alpha.shape
    device, most = alpha.device, alpha.numel() + fine_keys.numel()
    position, direction = torch.empty(2, most, 3, device=device).unbind(0)
    owner = torch.empty(most, dtype=torch.int32, device=device)
    slots = torch.empty(alpha.shape, dtype=torch.int32, device=device)
    fine_slots = torch.empty(fine_keys.shape, dtype=torch.int32, device=device)
    count = torch.zeros(1, dtype=torch.int32, device=device)
    box = torch.cat([face.box_center, face.box_scale.view(1)])
    launch(
        _collect_kernel, tiles(height, width, batch), device,
        surface.seen.view(torch.uint8), surface.canonical, alpha, frames.rays, box, count, position, direction, owner,
        slots, height, width, TILE_WIDTH=TILE_WIDTH, TILE_HEIGHT=TILE_HEIGHT, num_warps=WARPS,
    )  # fmt: skip
    launch(
        _collect_fine_kernel, tiles(fine_keys.shape[1], fine_keys.shape[2], batch), device,
        fine_keys, jumps.view(torch.uint8), screen, head.contiguous(), face.triangles, face.attributes,
        face.teeth_origin, face.teeth_place, frames.rays, frames.sizes, box, count, position, direction, owner,
        fine_slots, screen.shape[1], *fine_keys.shape[1:], height, width,
        NOTHING=EMPTY, FINER=finer, SIZES=frames.sizes.shape[1], AT_MOUTH=SIZE_MOUTH, WIDTH=ATTRIBUTES,
        MEMBRANE=COLUMN_MEMBRANE, DEPTH=TEETH_DEPTH_DM, REACH=TEETH_REACH_DM, FLATTEST=FLATTEST_RAY,
        TILE_WIDTH=TILE_WIDTH, TILE_HEIGHT=TILE_HEIGHT, num_warps=WARPS,
    )  # fmt: skip
    return SurfaceSamples(position, direction, owner, slots, fine_slots, count)
