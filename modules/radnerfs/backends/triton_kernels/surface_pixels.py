"""Pixels between the stencils: what is believed, the alpha's end, contours in the mouth, and the picture itself."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modules.radnerfs.backends.triton_kernels.launch import blocks, launch
from modules.radnerfs.backends.triton_kernels.surface_points import TILE_HEIGHT, TILE_WIDTH, WARPS, tile_pixels, tiles
from modules.radnerfs.surface_tensors import (
    SIZE_MOUTH,
    SIZE_RADIUS,
    SIZES,
    FaceTables,
    FrameTensors,
    SurfaceSamples,
    SurfaceTensors,
)
from modules.radnerfs.trust import CELLS, GOOD_SHARE, UNSEEN_SHARE

BLOCK = 256


@triton.jit
def _cell(cells, x, y, z, wx, wy, wz, inside, CELLS: tl.constexpr):
    """A grid between its eight cells; positions and shares along x, y, z."""
    total = wx * 0.0
    for k in tl.static_range(2):
        for j in tl.static_range(2):
            for i in tl.static_range(2):
                weight = (wx if i == 1 else 1.0 - wx) * (wy if j == 1 else 1.0 - wy) * (wz if k == 1 else 1.0 - wz)
                at = ((z + k) * CELLS + (y + j)) * CELLS + (x + i)
                total += weight * tl.load(cells + at, mask=inside, other=0.0)
    return tl.where(inside, total, 0.0)


@triton.jit
def _place(values, CELLS: tl.constexpr):
    at = (values + 1.0) / 2.0 * CELLS - 0.5
    low = tl.minimum(tl.maximum(tl.floor(at), 0.0), CELLS - 2.0)
    return low.to(tl.int32), at - low, (at >= 0.0) & (at <= CELLS - 1.0)


@triton.jit
def _known_kernel(
    seen_in, cosine, mouth, canonical, distance, edge_px, box_center, box_scale, trust, best_view, out, count,
    per_frame,
    EDGES: tl.constexpr, QUALITY: tl.constexpr, CELLS: tl.constexpr, GOOD: tl.constexpr, UNSEEN: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """QUALITY: how well the view shows its places; else how far the field is believed."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = pixel < count
    seen = tl.load(seen_in + pixel, mask=valid, other=0) > 0
    edge = tl.load(edge_px + pixel // per_frame, mask=valid, other=1.0)
    near = tl.minimum(tl.load(distance + pixel, mask=seen, other=0.0) / (EDGES * edge), 1.0)
    value = tl.load(cosine + pixel, mask=seen, other=0.0) * near
    value = tl.minimum(tl.maximum(value, 0.0), 1.0)
    if not QUALITY:
        value = tl.maximum(value, tl.load(mouth + pixel, mask=seen, other=0.0))
        scale = tl.load(box_scale)
        x = (tl.load(canonical + pixel * 3, mask=seen, other=0.0) - tl.load(box_center)) * scale
        y = (tl.load(canonical + pixel * 3 + 1, mask=seen, other=0.0) - tl.load(box_center + 1)) * scale
        z = (tl.load(canonical + pixel * 3 + 2, mask=seen, other=0.0) - tl.load(box_center + 2)) * scale
        x, wx, in_x = _place(x, CELLS)
        y, wy, in_y = _place(y, CELLS)
        z, wz, in_z = _place(z, CELLS)
        inside = seen & in_x & in_y & in_z
        best = _cell(best_view, x, y, z, wx, wy, wz, inside, CELLS)
        good = (value / tl.maximum(best, 1e-3) - UNSEEN) / (GOOD - UNSEEN)
        good = tl.minimum(tl.maximum(good, 0.0), 1.0)
        value = _cell(trust, x, y, z, wx, wy, wz, inside, CELLS) * good
    tl.store(out + pixel, tl.where(seen, value, 0.0), mask=valid)


@triton.jit
def _fade_kernel(
    soft, distance, reliable, sizes, out, count, per_frame, least,
    RADIUS: tl.constexpr, SIZES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = pixel < count
    radius = tl.load(sizes + (pixel // per_frame) * SIZES + RADIUS, mask=valid, other=1).to(tl.float32)
    inside = tl.minimum(tl.load(distance + pixel, mask=valid, other=0.0) / (2.0 * radius), 1.0)
    faded = tl.load(soft + pixel, mask=valid, other=0.0) * inside * inside * (3.0 - 2.0 * inside)
    trusted = tl.load(reliable + pixel, mask=valid, other=0.0)
    alpha = tl.minimum(tl.minimum(tl.maximum(faded, 0.0), 1.0) * trusted, 1.0)
    tl.store(out + pixel, tl.where(trusted > least, alpha, 0.0), mask=valid)


@triton.jit
def _far(canonical, seen_in, here, x, y, z, start, row, column, down, right, height, width, jump):
    """Whether the neighbour shows a surface elsewhere on the head."""
    row, column = row + down, column + right
    there = (row >= 0) & (column >= 0) & (row < height) & (column < width)
    at = start + row * width + column
    there = there & here & (tl.load(seen_in + at, mask=there, other=0) > 0)
    step = tl.abs(tl.load(canonical + at * 3, mask=there, other=0.0) - x)
    step = tl.maximum(step, tl.abs(tl.load(canonical + at * 3 + 1, mask=there, other=0.0) - y))
    step = tl.maximum(step, tl.abs(tl.load(canonical + at * 3 + 2, mask=there, other=0.0) - z))
    return there & (step > jump)


@triton.jit
def _jumps_kernel(
    seen_in, canonical, mouth, alpha, out, height, width, jump, TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr
):
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    valid = (row < height) & (column < width)
    start = tl.program_id(1) * height * width
    at = start + row * width + column
    here = valid & (tl.load(seen_in + at, mask=valid, other=0) > 0) & (tl.load(mouth + at, mask=valid, other=0.0) > 0)
    here = here & (tl.load(alpha + at, mask=valid, other=0.0) > 0)
    x = tl.load(canonical + at * 3, mask=here, other=0.0)
    y = tl.load(canonical + at * 3 + 1, mask=here, other=0.0)
    z = tl.load(canonical + at * 3 + 2, mask=here, other=0.0)
    far = _far(canonical, seen_in, here, x, y, z, start, row, column, -1, 0, height, width, jump)
    far = far | _far(canonical, seen_in, here, x, y, z, start, row, column, 1, 0, height, width, jump)
    far = far | _far(canonical, seen_in, here, x, y, z, start, row, column, 0, -1, height, width, jump)
    far = far | _far(canonical, seen_in, here, x, y, z, start, row, column, 0, 1, height, width, jump)
    tl.store(out + at, far.to(tl.uint8), mask=valid)


@triton.jit
def _assemble_kernel(
    colours, slots, fine_slots, jumps, sizes, out, height, width, fine_height, fine_width,
    FINER: tl.constexpr, AT_MOUTH: tl.constexpr, SIZES: tl.constexpr, TILE_WIDTH: tl.constexpr,
    TILE_HEIGHT: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(1)
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    valid = (row < height) & (column < width)
    pixel = (frame * height + row) * width + column
    slot = tl.load(slots + pixel, mask=valid, other=-1)
    painted = slot >= 0
    red = tl.load(colours + slot * 3, mask=painted, other=0.0)
    green = tl.load(colours + slot * 3 + 1, mask=painted, other=0.0)
    blue = tl.load(colours + slot * 3 + 2, mask=painted, other=0.0)
    jump = valid & (tl.load(jumps + pixel, mask=valid, other=0) > 0)
    if tl.max(jump.to(tl.int32), axis=0) > 0:
        fine_row = (row - tl.load(sizes + frame * SIZES + AT_MOUTH + 1)) * FINER
        fine_column = (column - tl.load(sizes + frame * SIZES + AT_MOUTH)) * FINER
        reds, greens, blues, hits = red * 0.0, red * 0.0, red * 0.0, red * 0.0
        for step in tl.static_range(FINER * FINER):
            at = (frame * fine_height + fine_row + step // FINER) * fine_width + fine_column + step % FINER
            slot = tl.load(fine_slots + at, mask=jump, other=-1)
            hit = slot >= 0
            reds += tl.load(colours + slot * 3, mask=hit, other=0.0)
            greens += tl.load(colours + slot * 3 + 1, mask=hit, other=0.0)
            blues += tl.load(colours + slot * 3 + 2, mask=hit, other=0.0)
            hits += hit.to(tl.float32)
        many = tl.maximum(hits, 1.0)
        red = tl.where(hits > 0, reds / many, red)
        green = tl.where(hits > 0, greens / many, green)
        blue = tl.where(hits > 0, blues / many, blue)
    tl.store(out + pixel * 3, red, mask=valid)
    tl.store(out + pixel * 3 + 1, green, mask=valid)
    tl.store(out + pixel * 3 + 2, blue, mask=valid)


def _believed(
    surface: SurfaceTensors, distance: Tensor, edge_px: Tensor, face: FaceTables, edges: int, quality: bool
) -> Tensor:
    out = torch.empty_like(distance)
    launch(
        _known_kernel, blocks(out.numel(), BLOCK), out.device,
        surface.seen.view(torch.uint8), surface.cosine, surface.mouth, surface.canonical, distance, edge_px,
        face.box_center, face.box_scale, face.trust, face.best_view, out, out.numel(), out[0].numel(),
        EDGES=edges, QUALITY=quality, CELLS=CELLS, GOOD=GOOD_SHARE, UNSEEN=UNSEEN_SHARE, BLOCK=BLOCK,
    )  # fmt: skip
    return out


def known(
    surface: SurfaceTensors, distance: Tensor, edge_px: Tensor, face: FaceTables, silhouette_edges: int
) -> Tensor:
    """See ``torch_stencils.known``."""
    return _believed(surface, distance, edge_px, face, silhouette_edges, quality=False)


def view_quality(
    surface: SurfaceTensors, distance: Tensor, edge_px: Tensor, face: FaceTables, silhouette_edges: int
) -> Tensor:
    """See ``torch_stencils.view_quality``."""
    return _believed(surface, distance, edge_px, face, silhouette_edges, quality=True)


def fade(soft: Tensor, distance: Tensor, reliable: Tensor, sizes: Tensor, least: float) -> Tensor:
    """See ``torch_stencils.fade``."""
    out = torch.empty_like(soft)
    launch(
        _fade_kernel, blocks(out.numel(), BLOCK), out.device,
        soft, distance, reliable, sizes, out, out.numel(), out[0].numel(), least,
        RADIUS=SIZE_RADIUS, SIZES=SIZES, BLOCK=BLOCK,
    )  # fmt: skip
    return out


def mouth_jumps(surface: SurfaceTensors, alpha: Tensor, jump_dm: float) -> Tensor:
    """See ``torch_surface.mouth_jumps``."""
    out = torch.empty_like(surface.seen)
    height, width = alpha.shape[1:]
    launch(
        _jumps_kernel, tiles(height, width, len(alpha)), alpha.device,
        surface.seen.view(torch.uint8), surface.canonical, surface.mouth, alpha, out.view(torch.uint8), height, width,
        jump_dm, TILE_WIDTH=TILE_WIDTH, TILE_HEIGHT=TILE_HEIGHT, num_warps=WARPS,
    )  # fmt: skip
    return out


def assemble(colours: Tensor, samples: SurfaceSamples, jumps: Tensor, frames: FrameTensors, finer: int) -> Tensor:
    """See ``torch_surface.assemble``."""
    batch, height, width = jumps.shape
    image = torch.empty(batch, height, width, 3, device=colours.device)
    launch(
        _assemble_kernel, tiles(height, width, batch), colours.device,
        colours, samples.slots, samples.fine_slots, jumps.view(torch.uint8), frames.sizes, image, height, width,
        *samples.fine_slots.shape[1:], FINER=finer, AT_MOUTH=SIZE_MOUTH, SIZES=SIZES, TILE_WIDTH=TILE_WIDTH,
        TILE_HEIGHT=TILE_HEIGHT, num_warps=WARPS,
    )  # fmt: skip
    return image
