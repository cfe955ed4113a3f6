"""Rays of whole frames up to their first sample, and the maths along a ray that starting and tracing share."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

STARTED: tl.constexpr = tl.constexpr(0)
UNFINISHED: tl.constexpr = tl.constexpr(1)
SAMPLED: tl.constexpr = tl.constexpr(2)
"""Places of the counters: rays started, rays unfinished, samples evaluated; then rays asked for per frame."""
ASKED: tl.constexpr = tl.constexpr(8)
ENDED: tl.constexpr = tl.constexpr(16)
"""Place of the counts of rays by the number of samples after which they ended, ``bins`` per frame."""


@dataclass(frozen=True, slots=True)
class RaySettings:
    """What a ray's way depends on; compiled in. ``bins`` is a power of two above ``max_steps + 1``."""

    bound: float
    grid_size: int
    cascades: int
    dt_gamma: float
    dt_min: float
    dt_max: float
    min_near: float
    t_thresh: float
    density_scale: float
    max_steps: int
    bins: int


@triton.jit
def step_length(t, c: tl.constexpr):
    """Length of the interval that starts at distance ``t``."""
    return tl.minimum(tl.maximum(t * c.dt_gamma, c.dt_min), c.dt_max)


@triton.jit
def _spread(v):
    """Bit k moves to bit 3k (10 bits)."""
    v = (v | (v << 16)) & 0x030000FF
    v = (v | (v << 8)) & 0x0300F00F
    v = (v | (v << 4)) & 0x030C30C3
    return (v | (v << 2)) & 0x09249249


@triton.jit
def _exponent(v):
    """Binary exponent e of ``v = m * 2**e`` with m in 0.5..1."""
    return ((v.to(tl.int32, bitcast=True) >> 23) & 255) - 126


@triton.jit
def _cell(p, extent, c: tl.constexpr):
    return tl.minimum(tl.maximum(0.5 * (p / extent + 1.0) * c.grid_size, 0.0), c.grid_size - 1.0).to(tl.int32)


@triton.jit
def point(o, d, t, c: tl.constexpr):
    """One coordinate at distance ``t``, inside the bound."""
    return tl.minimum(tl.maximum(o + t * d, -c.bound), c.bound)


@triton.jit
def occupied(ox, oy, oz, dx, dy, dz, t, wanted, bits, c: tl.constexpr):
    """Whether the cells at distance ``t`` are occupied; False where not ``wanted``."""
    x, y, z = point(ox, dx, t, c), point(oy, dy, t, c), point(oz, dz, t, c)
    extent = tl.full(x.shape, 1.0, tl.float32)
    level = tl.zeros_like(x).to(tl.int32)
    if c.cascades > 1:
        reach = tl.maximum(tl.maximum(tl.abs(x), tl.abs(y)), tl.abs(z))
        level = tl.maximum(_exponent(reach), _exponent(step_length(t, c) * (c.grid_size * 0.5)))
        level = tl.minimum(tl.maximum(level, 0), c.cascades - 1)
        extent = (1 << level).to(tl.float32)
    extent = tl.minimum(extent, c.bound)
    cell = _spread(_cell(x, extent, c)) | (_spread(_cell(y, extent, c)) << 1) | (_spread(_cell(z, extent, c)) << 2)
    number = level * (c.grid_size * c.grid_size * c.grid_size) + cell
    byte = tl.load(bits + (number >> 3), mask=wanted, other=0).to(tl.int32)
    return ((byte >> (number & 7)) & 1) == 1


@triton.jit
def search(ox, oy, oz, dx, dy, dz, t, end, wanted, bits, c: tl.constexpr, TRIES: tl.constexpr):
    """Go on along the ``wanted`` rays to an occupied cell before distance ``end``, at most ``TRIES`` intervals.

    All cells are looked up at once. Answers the distance, and whether an occupied cell is there.
    """
    k = tl.arange(0, TRIES)[None, :]
    tries = t[:, None] + k.to(tl.float32) * 0.0
    onward = t
    for step in tl.static_range(TRIES):
        tries = tl.where(k == step, onward[:, None], tries)
        onward += step_length(onward, c)
    look = wanted[:, None] & (tries < end[:, None])
    hit = look & occupied(
        ox[:, None], oy[:, None], oz[:, None], dx[:, None], dy[:, None], dz[:, None], tries, look, bits, c
    )
    first = tl.min(tl.where(hit, k, TRIES), axis=1)
    found = first < TRIES
    there = tl.sum(tl.where(k == first[:, None], tries, 0.0), axis=1)
    return tl.where(found, there, tl.where(wanted, onward, t)), found


@triton.jit
def _slab(o, d, low, high):
    d = tl.where(tl.abs(d) < 1e-15, 1e-15, d)
    a, b = (low - o) / d, (high - o) / d
    return tl.minimum(a, b), tl.maximum(a, b)


@triton.jit
def _cross_box(ox, oy, oz, dx, dy, dz, box):
    x0, x1 = _slab(ox, dx, tl.load(box), tl.load(box + 3))
    y0, y1 = _slab(oy, dy, tl.load(box + 1), tl.load(box + 4))
    z0, z1 = _slab(oz, dz, tl.load(box + 2), tl.load(box + 5))
    return tl.maximum(tl.maximum(x0, y0), z0), tl.minimum(tl.minimum(x1, y1), z1)


@triton.jit
def _camera_rays(px, py, camera, pose):
    """Unit directions through points of an image whose matrix is ``camera [9]``, and the origin, ``pose [16]``."""
    a, b, c = tl.load(camera), tl.load(camera + 1), tl.load(camera + 2)
    d, e, f = tl.load(camera + 3), tl.load(camera + 4), tl.load(camera + 5)
    g, h, i = tl.load(camera + 6), tl.load(camera + 7), tl.load(camera + 8)
    # the inverse but for its determinant, whose sign is kept: directions are normalised anyway
    det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    sign = tl.where(det < 0, -1.0, 1.0)
    x = sign * ((e * i - f * h) * px + (c * h - b * i) * py + (b * f - c * e))
    y = sign * ((f * g - d * i) * px + (a * i - c * g) * py + (c * d - a * f))
    z = sign * ((d * h - e * g) * px + (b * g - a * h) * py + (a * e - b * d))
    scale = 1.0 / tl.sqrt(x * x + y * y + z * z)
    x, y, z = x * scale, y * scale, z * scale
    dx = x * tl.load(pose) + y * tl.load(pose + 1) + z * tl.load(pose + 2)
    dy = x * tl.load(pose + 4) + y * tl.load(pose + 5) + z * tl.load(pose + 6)
    dz = x * tl.load(pose + 8) + y * tl.load(pose + 9) + z * tl.load(pose + 10)
    zero = dx * 0.0
    return tl.load(pose + 3) + zero, tl.load(pose + 7) + zero, tl.load(pose + 11) + zero, dx, dy, dz


@triton.jit
def store_pixel(rgb, opacity, depth, at, r, g, b, o, d, wanted, BYTES: tl.constexpr):
    """Write finished pixels: colours clamped, and rounded to bytes with BYTES."""
    r, g, b = tl.clamp(r, 0.0, 1.0), tl.clamp(g, 0.0, 1.0), tl.clamp(b, 0.0, 1.0)
    if BYTES:
        r, g, b = r * 255.0 + 0.5, g * 255.0 + 0.5, b * 255.0 + 0.5
    kind = rgb.dtype.element_ty
    tl.store(rgb + at * 3, r.to(kind), mask=wanted)
    tl.store(rgb + at * 3 + 1, g.to(kind), mask=wanted)
    tl.store(rgb + at * 3 + 2, b.to(kind), mask=wanted)
    tl.store(opacity + at, o, mask=wanted)
    tl.store(depth + at, d, mask=wanted)


@triton.jit
def background_color(background, frame, pixel, per_frame, per_pixel, wanted):
    """Colour behind pixels ``[BLOCK]`` of frames."""
    at = background + frame.to(tl.int64) * per_frame + pixel * per_pixel
    r = tl.load(at, mask=wanted, other=0.0)
    g = tl.load(at + 1, mask=wanted, other=0.0)
    b = tl.load(at + 2, mask=wanted, other=0.0)
    return r, g, b


@triton.jit
def start_kernel(  # noqa: PLR0915 - straight through
    cameras, poses, origins, directions, mask, background, per_frame, per_pixel, boxes, bits,
    width, height, tiles_x, rays, owners, counters, rgb, opacity, depth, capacity,
    c: tl.constexpr, GIVEN: tl.constexpr, MASKED: tl.constexpr, BYTES: tl.constexpr,
    TW: tl.constexpr, TH: tl.constexpr, TRIES: tl.constexpr,
):  # fmt: skip
    """Rays of a tile of pixels up to their first sample; those that have one join the list, the rest is background."""
    frame = tl.program_id(1)
    lane = tl.arange(0, TW * TH)
    # lanes of a warp are 8 columns by 4 rows
    column = tl.program_id(0) % tiles_x * TW + (lane & 7) + (lane // 32 % (TW // 8)) * 8
    row = tl.program_id(0) // tiles_x * TH + (lane // 8 & 3) + (lane // (4 * TW)) * 4
    pixel = row * width + column
    valid = (column < width) & (row < height)
    at = frame.to(tl.int64) * (width * height) + pixel
    seen = valid
    if MASKED:
        seen = valid & (tl.load(mask + at, mask=valid, other=0) != 0)
        tl.atomic_add(counters + ASKED + frame, tl.sum(seen.to(tl.int32)), sem="relaxed")
    if GIVEN:
        ox = tl.load(origins + at * 3, mask=valid, other=0.0)
        oy = tl.load(origins + at * 3 + 1, mask=valid, other=0.0)
        oz = tl.load(origins + at * 3 + 2, mask=valid, other=0.0)
        dx = tl.load(directions + at * 3, mask=valid, other=1.0)
        dy = tl.load(directions + at * 3 + 1, mask=valid, other=0.0)
        dz = tl.load(directions + at * 3 + 2, mask=valid, other=0.0)
    else:
        px, py = column.to(tl.float32) + 0.5, row.to(tl.float32) + 0.5
        ox, oy, oz, dx, dy, dz = _camera_rays(px, py, cameras + frame * 9, poses + frame * 16)
    near, far = _cross_box(ox, oy, oz, dx, dy, dz, boxes)
    enter, leave = _cross_box(ox, oy, oz, dx, dy, dz, boxes + 6)  # nothing is occupied outside the second box
    near_far_hit = near <= far
    near = tl.maximum(near, c.min_near)
    leave = tl.minimum(far, leave)
    t = near
    searching = seen & near_far_hit & (enter < leave) & (near < leave)
    enter = tl.where(searching, tl.minimum(enter, leave), near)
    while tl.max((t < enter).to(tl.int32), axis=0) == 1:
        for _ in tl.static_range(4):
            t = tl.where(t < enter, t + step_length(t, c), t)
    searching &= t < leave
    found = searching & (lane < 0)
    while tl.max(searching.to(tl.int32), axis=0) == 1:
        t, hit = search(ox, oy, oz, dx, dy, dz, t, leave, searching, bits, c, TRIES)
        found |= hit
        searching = searching & ~hit & (t < leave)
    number = found.to(tl.int32)
    n_found = tl.sum(number)
    if n_found > 0:
        first = tl.atomic_add(counters + STARTED, n_found, sem="relaxed")
        place = first + tl.cumsum(number, 0) - number
        tl.store(owners + place, at.to(tl.int32), mask=found)
        place = rays + place
        tl.store(place, ox, mask=found)
        tl.store(place + capacity, oy, mask=found)
        tl.store(place + 2 * capacity, oz, mask=found)
        tl.store(place + 3 * capacity, dx, mask=found)
        tl.store(place + 4 * capacity, dy, mask=found)
        tl.store(place + 5 * capacity, dz, mask=found)
        tl.store(place + 6 * capacity, t, mask=found)
        tl.store(place + 7 * capacity, near, mask=found)
        tl.store(place + 8 * capacity, far, mask=found)
    missed = valid & ~found
    r, g, b = background_color(background, frame, pixel, per_frame, per_pixel, missed)
    store_pixel(rgb, opacity, depth, at, r, g, b, t * 0.0, t * 0.0, missed, BYTES)
