"""Listed rays taken to their end through the fused field.

Each lane holds a ray and takes the next one when its own has ended, so a block is full of samples until the list ends.
"""

from __future__ import annotations

import triton
import triton.language as tl

from modules.radnerfs.backends.triton_kernels.field import field_block, field_matrices, frame_rows, view_rows
from modules.radnerfs.backends.triton_kernels.frame_start import (
    ASKED,
    ENDED,
    SAMPLED,
    STARTED,
    UNFINISHED,
    background_color,
    point,
    search,
    step_length,
    store_pixel,
)


@triton.jit
def _limits(counters, n_rays, n_frames, c: tl.constexpr, MASKED: tl.constexpr, FRAMES: tl.constexpr):
    """How many samples a ray of each frame may have: ``[FRAMES]``; see ``sum_inference``."""
    BINS: tl.constexpr = c.bins
    frame = tl.arange(0, FRAMES)
    bin = tl.arange(0, BINS)[None, :]
    ended = tl.load(counters + ENDED + frame[:, None] * BINS + bin)
    asked = tl.full((FRAMES,), 0, tl.int32) + n_rays
    if MASKED:
        asked = tl.load(counters + ASKED + frame)
    asked = tl.maximum(asked, 1)
    alive = asked
    step = tl.zeros_like(frame)
    going = (step < c.max_steps) & (frame < n_frames)
    while tl.max(going.to(tl.int32), axis=0) == 1:
        more = tl.minimum(tl.maximum(asked // tl.maximum(alive, 1), 1), 8)
        step = tl.where(going, step + more, step)
        alive = tl.sum(tl.where(bin > step[:, None], ended, 0), axis=1)
        going = going & (step < c.max_steps) & (alive > 0)
    return step


@triton.jit
def _fetch3(planes, capacity, new, a, b, c):
    """Three neighbouring values of new rays; the others keep theirs."""
    return (
        tl.load(planes, mask=new, other=a),
        tl.load(planes + capacity, mask=new, other=b),
        tl.load(planes + 2 * capacity, mask=new, other=c),
    )


@triton.jit
def _put_aside(states, waiting, counters, capacity, spent, n_left, entry, t, red, green, blue, solid, deep):
    """List rays that had ``max_steps`` samples and would go on."""
    left = spent.to(tl.int32)
    slot = tl.atomic_add(counters + UNFINISHED, n_left, sem="relaxed") + tl.cumsum(left, 0) - left
    tl.store(waiting + slot, entry, mask=spent)
    tl.store(states + slot, t, mask=spent)
    tl.store(states + slot + capacity, red, mask=spent)
    tl.store(states + slot + 2 * capacity, green, mask=spent)
    tl.store(states + slot + 3 * capacity, blue, mask=spent)
    tl.store(states + slot + 4 * capacity, solid, mask=spent)
    tl.store(states + slot + 5 * capacity, deep, mask=spent)


@triton.jit
def trace_kernel(  # noqa: PLR0915, C901 - one loop whose state is many registers
    rays, owners, states, waiting, counters, bits, capacity, n_rays, n_frames,
    background, per_frame, per_pixel, rgb, opacity, depth,
    weights, position_table, ambient_table, levels, ambient_terms, color_terms,
    s: tl.constexpr, c: tl.constexpr, RESUME: tl.constexpr, MASKED: tl.constexpr, BYTES: tl.constexpr,
    BLOCK: tl.constexpr, CHUNK: tl.constexpr, TRIES: tl.constexpr, REFILL: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    """Trace listed rays to their end; with RESUME those that had ``max_steps`` samples and may have more."""
    n_listed = tl.load(counters + (UNFINISHED if RESUME else STARTED))
    chunks = tl.cdiv(n_listed, CHUNK)
    program, n_programs = tl.program_id(0), tl.num_programs(0)
    n_mine = (chunks - program + n_programs - 1) // n_programs * CHUNK
    if n_mine > 0:
        HA: tl.constexpr = s.ambient_hidden
        HC: tl.constexpr = s.color_hidden
        BINS: tl.constexpr = c.bins
        matrices = field_matrices(weights, s)
        ambient_frames = frame_rows(ambient_terms, 0, n_frames, HA)
        color_frames = frame_rows(color_terms, 0, n_frames, HC)
        lane = tl.arange(0, BLOCK)
        zero = lane.to(tl.float32) * 0.0
        entry = lane * 0 - 1
        pixel = lane * 0
        frame, count, limit = pixel, pixel, pixel + c.max_steps
        if RESUME:
            limits = _limits(counters, n_rays, n_frames, c, MASKED, FRAMES) - c.max_steps
        ox, oy, oz, dx, dy, dz, t, near, far = zero, zero, zero, zero, zero, zero, zero, zero, zero
        red, green, blue, solid, deep = zero, zero, zero, zero, zero
        views = view_rows(dx, dy, dz, s)
        ready = lane < 0
        ended = tl.zeros((FRAMES * BINS,), tl.int32)
        sampled = pixel
        taken = 0
        n_free = BLOCK
        while (n_free < BLOCK) | (taken < n_mine):
            if (n_free >= REFILL) & (taken < n_mine):
                # free lanes take the next rays
                free = entry < 0
                rank = taken + tl.cumsum(free.to(tl.int32), 0) - 1
                place = (rank // CHUNK * n_programs + program) * CHUNK + rank % CHUNK
                new = free & (rank < n_mine) & (place < n_listed)
                taken += n_free
                if RESUME:
                    state = states + place
                    t, red, green = _fetch3(state, capacity, new, t, red, green)
                    blue, solid, deep = _fetch3(state + 3 * capacity, capacity, new, blue, solid, deep)
                    entry = tl.load(waiting + place, mask=new, other=entry)
                else:
                    entry = tl.where(new, place, entry)
                    t = tl.load(rays + entry + 6 * capacity, mask=new, other=t)
                    red, green, blue = tl.where(new, 0.0, red), tl.where(new, 0.0, green), tl.where(new, 0.0, blue)
                    solid, deep = tl.where(new, 0.0, solid), tl.where(new, 0.0, deep)
                    ready |= new  # a started ray stands before its first sample
                ray = rays + entry
                ox, oy, oz = _fetch3(ray, capacity, new, ox, oy, oz)
                dx, dy, dz = _fetch3(ray + 3 * capacity, capacity, new, dx, dy, dz)
                near = tl.load(ray + 7 * capacity, mask=new, other=near)
                far = tl.load(ray + 8 * capacity, mask=new, other=far)
                views = view_rows(dx, dy, dz, s)
                pixel = tl.load(owners + entry, mask=new, other=pixel)
                frame = pixel // n_rays
                count = tl.where(new, 0, count)
                if RESUME:
                    mine = frame[:, None] == tl.arange(0, FRAMES)[None, :]
                    limit = tl.sum(tl.where(mine, limits[None, :], 0), axis=1)
            # one sample of each lane that stands before an occupied cell
            x, y, z = point(ox, dx, t, c), point(oy, dy, t, c), point(oz, dz, t, c)
            sigma, r, g, b = field_block(
                x, y, z, views, frame, ready, matrices, ambient_frames, color_frames, 0,
                position_table, ambient_table, levels, s, False, True,
            )  # fmt: skip
            dt = step_length(t, c)
            through = 1.0 - solid
            weight = tl.where(ready, (1.0 - tl.exp(-sigma * c.density_scale * dt)) * through, 0.0)
            red, green, blue = red + weight * r, green + weight * g, blue + weight * b
            solid += weight
            deep += weight * (t + dt)
            t = tl.where(ready, t + dt, t)
            count += ready.to(tl.int32)
            sampled += ready.to(tl.int32)
            # where it stands next
            dark = ready & (through < c.t_thresh)
            full = count >= limit
            busy = (entry >= 0) & ~dark & ~full
            t, ready = search(ox, oy, oz, dx, dy, dz, t, far, busy, bits, c, TRIES)
            done = dark | (busy & ~ready & (t >= far))
            spent = (entry >= 0) & ~dark & full
            if RESUME:
                done |= spent
                spent = lane < 0
            n_each = tl.sum((entry < 0).to(tl.int32) + (done.to(tl.int32) << 10) + (spent.to(tl.int32) << 20))
            n_left = n_each >> 20
            n_free = (n_each & 1023) + ((n_each >> 10) & 1023) + n_left
            if n_each >> 10 > 0:
                if not RESUME:
                    slot = tl.where(spent, BINS - 1, count + (~dark).to(tl.int32))
                    ended += tl.histogram(frame * BINS + slot, FRAMES * BINS, mask=done | spent)
                    if n_left > 0:
                        _put_aside(
                            states, waiting, counters, capacity, spent, n_left, entry, t, red, green, blue, solid, deep
                        )
                rest = 1.0 - solid
                br, bg, bb = background_color(
                    background, frame, pixel - frame * n_rays, per_frame, per_pixel, done
                )  # fmt: skip
                away = tl.where(far > near, tl.maximum(deep - near, 0.0) / (far - near), 0.0)
                store_pixel(
                    rgb, opacity, depth, pixel.to(tl.int64), red + rest * br, green + rest * bg, blue + rest * bb,
                    solid, away, done, BYTES,
                )  # fmt: skip
                entry = tl.where(done | spent, -1, entry)
        tl.atomic_add(counters + SAMPLED, tl.sum(sampled), sem="relaxed")
        if not RESUME:
            slots = tl.arange(0, FRAMES * BINS)
            tl.atomic_add(counters + ENDED + slots, ended, mask=ended > 0, sem="relaxed")
