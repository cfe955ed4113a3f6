"""Neighbourhood operations on padded windows; each frame has radii of its own, read on the device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modules.radnerfs.backends.torch_stencils import FAR_PX
from modules.radnerfs.backends.triton_kernels.launch import launch
from modules.radnerfs.backends.triton_kernels.surface_points import TILE_HEIGHT, TILE_WIDTH, tile_pixels, tiles
from modules.radnerfs.surface_tensors import SIZE_RADIUS, SIZES

WARPS = 8
TILE = {"SIZES": SIZES, "TILE_WIDTH": TILE_WIDTH, "TILE_HEIGHT": TILE_HEIGHT, "num_warps": WARPS}


@triton.jit
def _own_size(sizes, SIZES: tl.constexpr):
    frame = tl.program_id(1)
    return tl.load(sizes + frame * SIZES), tl.load(sizes + frame * SIZES + 1)


@triton.jit
def _step(depth, finite, start, row, column, down: tl.constexpr, right: tl.constexpr, wide, tall, width, STEP):
    """Whether the neighbour lies on the other side of a step."""
    row, column = row + down, column + right
    there = (row >= 0) & (column >= 0) & (row < tall) & (column < wide)
    other = tl.load(depth + start + row * width + column, mask=there, other=0.0)
    other = tl.where(other == float("inf"), 1e3, other)
    return there & (tl.abs(other - finite) > STEP)


@triton.jit
def _silhouettes_kernel(
    depth, sizes, out, height, width, step,
    SIZES: tl.constexpr, TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr,
):  # fmt: skip
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    wide, tall = _own_size(sizes, SIZES)
    valid = (row < height) & (column < width)
    own = (row < tall) & (column < wide)
    start = tl.program_id(1) * height * width
    own_depth = tl.load(depth + start + row * width + column, mask=own, other=0.0)
    finite = tl.where(own_depth == float("inf"), 1e3, own_depth)
    edge = _step(depth, finite, start, row, column, -1, 0, wide, tall, width, step)
    edge = edge | _step(depth, finite, start, row, column, 1, 0, wide, tall, width, step)
    edge = edge | _step(depth, finite, start, row, column, 0, -1, wide, tall, width, step)
    edge = edge | _step(depth, finite, start, row, column, 0, 1, wide, tall, width, step)
    tl.store(out + start + row * width + column, (edge & own).to(tl.uint8), mask=valid)


@triton.jit
def _nearest_kernel(
    marks, squared, out, sizes, height, width,
    FIRST: tl.constexpr, FAR: tl.constexpr, REACH: tl.constexpr, FACTOR: tl.constexpr, SIZES: tl.constexpr,
    TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr,
):  # fmt: skip
    """FIRST: from marks to squared distances down the columns; else on along the rows, to distances."""
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    wide, tall = _own_size(sizes, SIZES)
    valid = (row < height) & (column < width)
    own = (row < tall) & (column < wide)
    reach = tl.load(sizes + tl.program_id(1) * SIZES + REACH) * FACTOR
    start = tl.program_id(1) * height * width
    here = start + row * width + column
    best = row.to(tl.float32) * 0.0 + FAR * FAR
    shift = -reach
    while shift <= reach:
        if FIRST:
            there = own & (row + shift >= 0) & (row + shift < tall)
            marked = tl.load(marks + here + shift * width, mask=there, other=0) > 0
            found = tl.where(marked, 0.0, FAR * FAR)
        else:
            there = own & (column + shift >= 0) & (column + shift < wide)
            found = tl.load(squared + here + shift, mask=there, other=FAR * FAR)
        best = tl.minimum(best, found + shift * shift * 1.0)
        shift += 1
    if not FIRST:
        best = tl.minimum(tl.sqrt(best), FAR)
    tl.store(out + here, best, mask=valid)


@triton.jit
def _dilate_kernel(
    values, sizes, out, height, width,
    RADIUS: tl.constexpr, SIZES: tl.constexpr, TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr,
):  # fmt: skip
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    wide, tall = _own_size(sizes, SIZES)
    own = (row < tall) & (column < wide)
    radius = tl.load(sizes + tl.program_id(1) * SIZES + RADIUS)
    start = tl.program_id(1) * height * width
    here = start + row * width + column
    grown = row.to(tl.float32) * 0.0
    down = -radius
    while down <= radius:
        half = (tl.sqrt((radius * radius - down * down).to(tl.float32)) + 0.5).to(tl.int32)
        in_row = own & (row + down >= 0) & (row + down < tall)
        right = -half
        while right <= half:
            there = in_row & (column + right >= 0) & (column + right < wide)
            grown = tl.maximum(grown, tl.load(values + here + down * width + right, mask=there, other=0.0))
            right += 1
        down += 1
    tl.store(out + here, grown, mask=(row < height) & (column < width))


@triton.jit
def _mirrored(index, length):
    """Places beyond 0 .. length - 1 reflected at the first and the last one."""
    period = tl.maximum(2 * (length - 1), 1)
    folded = tl.abs(index) % period
    folded = tl.where(folded >= length, period - folded, folded)
    return tl.where(length == 1, 0, folded)


@triton.jit
def _soften_kernel(
    values, sizes, out, height, width,
    ALONG_ROWS: tl.constexpr, RADIUS: tl.constexpr, SIZES: tl.constexpr, TILE_WIDTH: tl.constexpr,
    TILE_HEIGHT: tl.constexpr,
):  # fmt: skip
    """One axis of a Gaussian of sigma radius / 2 that reaches four sigma."""
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    wide, tall = _own_size(sizes, SIZES)
    own = (row < tall) & (column < wide)
    radius = tl.load(sizes + tl.program_id(1) * SIZES + RADIUS)
    start = tl.program_id(1) * height * width
    total = row.to(tl.float32) * 0.0
    norm = 0.0
    offset = -2 * radius
    while offset <= 2 * radius:
        ratio = offset * 1.0 / radius.to(tl.float32)
        tap = tl.exp(-2.0 * ratio * ratio)
        if ALONG_ROWS:
            place = row * width + _mirrored(column + offset, wide)
        else:
            place = _mirrored(row + offset, tall) * width + column
        total += tap * tl.load(values + start + place, mask=own, other=0.0)
        norm += tap
        offset += 1
    tl.store(
        out + start + row * width + column, tl.where(own, total / norm, 0.0), mask=(row < height) & (column < width)
    )


@triton.jit
def _sharpen_kernel(
    image, inside, share_in, sizes, out, height, width, falloff, half,
    SIZES: tl.constexpr, TILE_WIDTH: tl.constexpr, TILE_HEIGHT: tl.constexpr,
):  # fmt: skip
    row, column = tile_pixels(width, TILE_WIDTH, TILE_HEIGHT)
    wide, tall = _own_size(sizes, SIZES)
    valid = (row < height) & (column < width)
    start = tl.program_id(1) * height * width
    here = start + row * width + column
    red = tl.load(image + here * 3, mask=valid, other=0.0)
    green = tl.load(image + here * 3 + 1, mask=valid, other=0.0)
    blue = tl.load(image + here * 3 + 2, mask=valid, other=0.0)
    own = (row < tall) & (column < wide) & (tl.load(inside + here, mask=valid, other=0) > 0)
    share = tl.load(share_in + here, mask=own, other=0.0)
    lifted = own & (share != 0)
    if tl.max(lifted.to(tl.int32), axis=0) > 0:
        reds, greens, blues, norm = red * 0.0, red * 0.0, red * 0.0, red * 0.0
        down = -half
        while down <= half:
            place = start + _mirrored(row + down, tall) * width
            right = -half
            while right <= half:
                at = place + _mirrored(column + right, wide)
                counts = lifted & (tl.load(inside + at, mask=lifted, other=0) > 0)
                tap = tl.exp((down * down + right * right) * falloff + norm * 0.0)
                reds += tap * tl.load(image + at * 3, mask=counts, other=0.0)
                greens += tap * tl.load(image + at * 3 + 1, mask=counts, other=0.0)
                blues += tap * tl.load(image + at * 3 + 2, mask=counts, other=0.0)
                norm += tl.where(counts, tap, 0.0)
                right += 1
            down += 1
        norm = tl.where(lifted, norm, 1.0)
        red = tl.where(lifted, tl.minimum(tl.maximum(red + share * (red - reds / norm), 0.0), 1.0), red)
        green = tl.where(lifted, tl.minimum(tl.maximum(green + share * (green - greens / norm), 0.0), 1.0), green)
        blue = tl.where(lifted, tl.minimum(tl.maximum(blue + share * (blue - blues / norm), 0.0), 1.0), blue)
    tl.store(out + here * 3, red, mask=valid)
    tl.store(out + here * 3 + 1, green, mask=valid)
    tl.store(out + here * 3 + 2, blue, mask=valid)


def _over(image: Tensor) -> tuple[int, int]:
    return tiles(image.shape[1], image.shape[2], len(image))


def silhouettes(depth: Tensor, sizes: Tensor, step_dm: float) -> Tensor:
    """See ``torch_stencils.silhouettes``."""
    out = torch.empty(depth.shape, dtype=torch.bool, device=depth.device)
    launch(
        _silhouettes_kernel, _over(depth), depth.device,
        depth, sizes, out.view(torch.uint8), *depth.shape[1:], step_dm, **TILE,
    )  # fmt: skip
    return out


def bounded_distance(zero: Tensor, sizes: Tensor, reach_column: int) -> Tensor:
    """See ``torch_stencils.bounded_distance``."""
    squared, distance = torch.empty(2, *zero.shape, device=zero.device).unbind(0)
    options = {"FAR": FAR_PX, "REACH": reach_column, "FACTOR": 2 if reach_column == SIZE_RADIUS else 1, **TILE}
    marks = zero.view(torch.uint8)
    for first, into in ((True, squared), (False, distance)):
        launch(
            _nearest_kernel, _over(zero), zero.device,
            marks, squared, into, sizes, *zero.shape[1:], FIRST=first, **options,
        )  # fmt: skip
    return distance


def dilate(values: Tensor, sizes: Tensor) -> Tensor:
    """See ``torch_stencils.dilate``."""
    out = torch.empty_like(values)
    launch(
        _dilate_kernel, _over(values), values.device, values, sizes, out, *values.shape[1:], RADIUS=SIZE_RADIUS, **TILE
    )
    return out


def soften(values: Tensor, sizes: Tensor) -> Tensor:
    """See ``torch_stencils.soften``."""
    for along_rows in (True, False):
        out = torch.empty_like(values)
        launch(
            _soften_kernel, _over(values), values.device,
            values, sizes, out, *values.shape[1:], ALONG_ROWS=along_rows, RADIUS=SIZE_RADIUS, **TILE,
        )  # fmt: skip
        values = out
    return values


def sharpen(image: Tensor, inside: Tensor, share: Tensor, sizes: Tensor, sigma: float) -> Tensor:
    """See ``torch_stencils.sharpen``."""
    out, half = torch.empty_like(image), round(sigma * 8 + 1) // 2
    launch(
        _sharpen_kernel, _over(share), image.device,
        image, inside.view(torch.uint8), share, sizes, out, *share.shape[1:], -0.5 / sigma**2, half, **TILE,
    )  # fmt: skip
    return out
