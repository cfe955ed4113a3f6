"""The whole field in one kernel: grid features, three small networks and spherical harmonics of a block of samples.

Programs are persistent: the matrices (up to 150 KB) stay in shared memory while blocks of samples pass. Activations
stay in registers between layers; products are float16 with float32 sums.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modules.radnerfs.backends.triton_kernels.launch import launch
from modules.radnerfs.packed_field import FrameTerms, PackedField

BLOCK = 128
"""Samples of one program at a time."""
WARPS = 8
"""Measured with BLOCK on an H200, one 512 × 512 frame of the original's sizes: 128 samples and 8 warps 0.31 ms, 64 and
4 0.40 ms, 256 and 16 0.51 ms (128 registers a thread are too few)."""
CORNER_PASSES: tl.constexpr = tl.constexpr(1)
"""A cell's corners are read in this many passes of a loop."""
FRAMES_AT_ONCE: tl.constexpr = tl.constexpr(8)
"""Frames whose constant parts one product of 16 rows adds: 8 rounded, 8 remainders."""


@triton.jit
def _halves(packed):
    """The two float16 in an int32, as float32."""
    low = (packed & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)
    high = (packed >> 16).to(tl.int16).to(tl.float16, bitcast=True)
    return low.to(tl.float32), high.to(tl.float32)


@triton.jit
def _axis(x, scale, multiplier, upper, SMOOTH: tl.constexpr):
    """Along one axis: the corner's part of the row number, and its weight, ``[corners, levels, BLOCK]``."""
    scaled = x[None, :] * scale + 0.5
    cell = scaled.to(tl.int32)
    blend = scaled - cell.to(tl.float32)
    if SMOOTH:
        blend = blend * blend * (3.0 - 2.0 * blend)
    part = cell * multiplier
    return (
        tl.where(upper == 1, (part + multiplier)[None, :, :], part[None, :, :]),
        tl.where(upper == 1, blend[None, :, :], 1.0 - blend[None, :, :]),
    )


@triton.jit
def _grid(x, y, z, inside, table, levels, g: tl.constexpr):
    """Half-precision features ``[padded * copies, BLOCK]`` of points in 0..1; zeros where not ``inside``.

    A warp reads 32 samples of one corner of one level at once, which share cells.
    """
    PADDED: tl.constexpr = g.padded
    N_POINTS: tl.constexpr = x.shape[0]
    EACH: tl.constexpr = (1 << g.n_dims) // CORNER_PASSES
    SMOOTH: tl.constexpr = g.smooth
    level = tl.arange(0, PADDED)
    scale = tl.load(levels + level).to(tl.float32, bitcast=True)[:, None]
    mx = tl.load(levels + 16 + level)[:, None]
    my = tl.load(levels + 32 + level)[:, None]
    mz = tl.load(levels + 48 + level)[:, None]
    mask = tl.load(levels + 64 + level)[None, :, None]
    first = tl.load(levels + 80 + level)[None, :, None]
    a = tl.zeros((PADDED, N_POINTS), tl.float32)
    b = tl.zeros((PADDED, N_POINTS), tl.float32)
    for turn in range(CORNER_PASSES):
        corner = turn * EACH + tl.arange(0, EACH)[:, None, None]
        used = (inside[None, :] & (level < g.n_levels)[:, None])[None, :, :] & (corner >= 0)
        ix, wx = _axis(x, scale, mx, corner & 1, SMOOTH)
        iy, wy = _axis(y, scale, my, (corner >> 1) & 1, SMOOTH)
        weight = wx * wy
        row = ix + iy
        if g.hashed:
            mixes = (tl.load(levels + 96 + level) == 1)[None, :, None]
            mixed = ix ^ iy
        if g.n_dims == 3:
            iz, wz = _axis(z, scale, mz, (corner >> 2) & 1, SMOOTH)
            if g.drops_axis:  # the upper corners are the lower ones: read them once
                kept = (mz != 0)[None, :, :]
                used = used & (kept | (corner < 4))
                wz = tl.where(kept, wz, 1.0)
            weight *= wz
            row += iz
            if g.hashed:
                mixed ^= iz
        if g.hashed:
            row = tl.where(mixes, mixed, row)
        # not contiguous at all, but said to be, so that Triton lays warps along the samples; a thread still reads one
        place = tl.max_contiguous((row & mask) + first, [1, 2, 4])
        low, high = _halves(tl.load(table + place, mask=used, other=0))
        a += tl.sum(weight * low, axis=0)
        b += tl.sum(weight * high, axis=0)
    return _rows(a.to(tl.float16), b.to(tl.float16), g)


@triton.jit
def _rows(a, b, g: tl.constexpr):
    """Both features ``[padded, BLOCK]`` as rows ``level * copies + feature``; further copies are zero."""
    N_LEVELS: tl.constexpr = a.shape[0]
    N_POINTS: tl.constexpr = a.shape[1]
    N_ROWS: tl.constexpr = g.rows
    rows = tl.join(a, b)
    if g.copies >= 4:
        rows = tl.reshape(tl.permute(tl.join(rows, tl.zeros_like(rows)), (0, 1, 3, 2)), (N_LEVELS, N_POINTS, 4))
    if g.copies >= 8:
        rows = tl.reshape(tl.permute(tl.join(rows, tl.zeros_like(rows)), (0, 1, 3, 2)), (N_LEVELS, N_POINTS, 8))
    if g.copies >= 16:
        rows = tl.reshape(tl.permute(tl.join(rows, tl.zeros_like(rows)), (0, 1, 3, 2)), (N_LEVELS, N_POINTS, 16))
    return tl.reshape(tl.permute(rows, (0, 2, 1)), (N_ROWS, N_POINTS))


@triton.jit
def view_rows(x, y, z, s: tl.constexpr):
    """Spherical harmonics of unit vectors as rows ``[16, BLOCK]``, half precision, zeros above the degree."""
    DEGREE: tl.constexpr = s.sh_degree
    k = tl.arange(0, 16)[:, None]
    x, y, z = x[None, :], y[None, :], z[None, :]
    rows = tl.where(k == 0, 0.28209479177387814, 0.0) + 0.0 * x
    if DEGREE > 1:
        rows = tl.where(k == 1, -0.48860251190291987 * y, rows)
        rows = tl.where(k == 2, 0.48860251190291987 * z, rows)
        rows = tl.where(k == 3, -0.48860251190291987 * x, rows)
    if DEGREE > 2:
        rows = tl.where(k == 4, 1.0925484305920792 * x * y, rows)
        rows = tl.where(k == 5, -1.0925484305920792 * y * z, rows)
        rows = tl.where(k == 6, 0.94617469575755997 * z * z - 0.31539156525251999, rows)
        rows = tl.where(k == 7, -1.0925484305920792 * x * z, rows)
        rows = tl.where(k == 8, 0.54627421529603959 * (x * x - y * y), rows)
    if DEGREE > 3:
        rows = tl.where(k == 9, 0.59004358992664352 * y * (y * y - 3.0 * x * x), rows)
        rows = tl.where(k == 10, 2.8906114426405538 * x * y * z, rows)
        rows = tl.where(k == 11, 0.45704579946446572 * y * (1.0 - 5.0 * z * z), rows)
        rows = tl.where(k == 12, 0.3731763325901154 * z * (5.0 * z * z - 3.0), rows)
        rows = tl.where(k == 13, 0.45704579946446572 * x * (1.0 - 5.0 * z * z), rows)
        rows = tl.where(k == 14, 1.4453057213202769 * z * (x * x - y * y), rows)
        rows = tl.where(k == 15, 0.59004358992664352 * x * (3.0 * y * y - x * x), rows)
    return rows.to(tl.float16)


@triton.jit
def _load(weights, WHICH: tl.constexpr, s: tl.constexpr):
    """A matrix by its number in ``FieldSizes.matrices``; one the field has not is a stand-in."""
    PLACE: tl.constexpr = s.matrices[WHICH][0]
    N_ROWS: tl.constexpr = s.matrices[WHICH][1] if PLACE >= 0 else 16
    N_COLUMNS: tl.constexpr = s.matrices[WHICH][2] if PLACE >= 0 else 16
    start = weights + (PLACE if PLACE >= 0 else 0)
    return tl.load(start + tl.arange(0, N_ROWS)[:, None] * N_COLUMNS + tl.arange(0, N_COLUMNS)[None, :])


@triton.jit
def field_matrices(weights, s: tl.constexpr):
    """All matrices of a field, to be loaded once and to stay in shared memory."""
    return (
        _load(weights, 0, s), _load(weights, 1, s), _load(weights, 2, s), _load(weights, 3, s), _load(weights, 4, s),
        _load(weights, 5, s), _load(weights, 6, s), _load(weights, 7, s), _load(weights, 8, s), _load(weights, 9, s),
        _load(weights, 10, s),
    )  # fmt: skip


@triton.jit
def frame_rows(terms, first, n_frames, H: tl.constexpr):
    """The constant parts of 8 frames from ``first`` on, as rows ``[16, H]``: rounded values, then remainders."""
    k = tl.arange(0, 16)[:, None]
    frame = first + k % FRAMES_AT_ONCE
    at = (k // FRAMES_AT_ONCE * n_frames + frame) * H + tl.arange(0, H)[None, :]
    return tl.load(terms + at, mask=(frame < n_frames) & (k >= 0), other=0.0)


@triton.jit
def _one_hot(frame, first):
    """``[BLOCK, 16]``: 1 where a row of ``frame_rows`` belongs to the sample's frame."""
    k = tl.arange(0, 16)[None, :]
    return tl.where(frame[:, None] - first == k % FRAMES_AT_ONCE, 1.0, 0.0).to(tl.float16)


@triton.jit
def _add_frames(acc, frame, rows, span, H: tl.constexpr, MANY: tl.constexpr):
    """Add each sample's frame part. ``rows`` are those of frames 0..7, or with MANY a pointer to all frames' parts."""
    if MANY:
        first, last, n_frames = span
        while first <= last:
            acc = tl.dot(_one_hot(frame, first), frame_rows(rows, first, n_frames, H), acc)
            first += 8
    else:
        acc = tl.dot(_one_hot(frame, 0), rows, acc)
    return acc


@triton.jit
def _relu(acc):
    half = acc.to(tl.float16)
    return tl.maximum(half, tl.zeros_like(half))  # rounding first: two numbers per instruction


@triton.jit
def _column(columns, K: tl.constexpr):
    """Output ``K`` of ``[BLOCK, 16]``: rounded weights' part plus the remainders'."""
    k = tl.arange(0, 16)[None, :]
    return tl.sum(tl.where(k % 8 == K, columns, 0.0), axis=1)


@triton.jit
def _tanh(x):
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit
def field_block(
    x, y, z, views, frame, used, matrices, ambient_frames, color_frames, span,
    position_table, ambient_table, levels,
    s: tl.constexpr, MANY: tl.constexpr, DENSITY: tl.constexpr,
):  # fmt: skip
    """Sigma, red, green and blue ``[BLOCK]`` of samples; those not ``used`` cost no table reads and mean nothing."""
    x, y, z = x * s.to_unit + 0.5, y * s.to_unit + 0.5, z * s.to_unit + 0.5
    inside = used & (x >= 0.0) & (x <= 1.0) & (y >= 0.0) & (y <= 1.0) & (z >= 0.0) & (z <= 1.0)
    x, y, z = tl.where(inside, x, 0.0), tl.where(inside, y, 0.0), tl.where(inside, z, 0.0)
    GRID: tl.constexpr = s.position
    MOTION_GRID: tl.constexpr = s.ambient
    HA: tl.constexpr = s.ambient_hidden
    HC: tl.constexpr = s.color_hidden
    located = tl.trans(_grid(x, y, z, inside, position_table, levels, GRID))
    acc = tl.dot(located, matrices[0])
    hidden = _relu(_add_frames(acc, frame, ambient_frames, span, HA, MANY))
    if s.at.ambient_hidden >= 0:
        hidden = _relu(tl.dot(hidden, matrices[1]))
    out = tl.dot(hidden, matrices[2])
    a0, a1 = _tanh(_column(out, 0)) * 0.5 + 0.5, _tanh(_column(out, 1)) * 0.5 + 0.5
    a2 = a1
    if s.ambient.n_dims == 3:
        a2 = _tanh(_column(out, 2)) * 0.5 + 0.5
    moved = tl.trans(_grid(a0, a1, a2, used, ambient_table, levels + 112, MOTION_GRID))
    hidden = _relu(tl.dot(moved, matrices[4], tl.dot(located, matrices[3])))
    if s.at.sigma_hidden >= 0:
        hidden = _relu(tl.dot(hidden, matrices[5]))
    sigma = a0
    if DENSITY:
        sigma = tl.exp(_column(tl.dot(hidden, matrices[6]), 0))
    acc = tl.dot(hidden, matrices[7])
    acc = tl.dot(tl.trans(views), matrices[8], acc)
    hidden = _relu(_add_frames(acc, frame, color_frames, span, HC, MANY))
    if s.at.color_hidden >= 0:
        hidden = _relu(tl.dot(hidden, matrices[9]))
    out = tl.dot(hidden, matrices[10])
    return sigma, tl.sigmoid(_column(out, 0)), tl.sigmoid(_column(out, 1)), tl.sigmoid(_column(out, 2))


@triton.jit
def _evaluate_kernel(
    positions, directions, frames, count, n_samples, n_frames, weights, position_table, ambient_table, levels,
    ambient_terms, color_terms, sigmas, rgbs,
    s: tl.constexpr, COUNTED: tl.constexpr, DENSITY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    if COUNTED:
        n_samples = tl.minimum(tl.load(count), n_samples)
    matrices = field_matrices(weights, s)
    block = tl.program_id(0)
    while block * BLOCK < n_samples:
        row = block * BLOCK + tl.arange(0, BLOCK)
        used = row < n_samples
        at = row.to(tl.int64) * 3
        x = tl.load(positions + at, mask=used, other=0.0)
        y = tl.load(positions + at + 1, mask=used, other=0.0)
        z = tl.load(positions + at + 2, mask=used, other=0.0)
        dx = tl.load(directions + at, mask=used, other=0.0)
        dy = tl.load(directions + at + 1, mask=used, other=0.0)
        dz = tl.load(directions + at + 2, mask=used, other=0.0)
        frame = tl.load(frames + row, mask=used, other=0)
        span = (tl.min(tl.where(used, frame, 0x7FFFFFF0)), tl.max(frame), n_frames)
        sigma, red, green, blue = field_block(
            x, y, z, view_rows(dx, dy, dz, s), frame, used, matrices, ambient_terms, color_terms, span,
            position_table, ambient_table, levels, s, True, DENSITY,
        )  # fmt: skip
        if DENSITY:
            tl.store(sigmas + row, sigma, mask=used)
        tl.store(rgbs + at, red, mask=used)
        tl.store(rgbs + at + 1, green, mask=used)
        tl.store(rgbs + at + 2, blue, mask=used)
        block += tl.num_programs(0)


def evaluate(
    packed: PackedField,
    positions: Tensor,
    directions: Tensor,
    frame: Tensor,
    terms: FrameTerms,
    count: Tensor | None = None,
    *,
    need_density: bool = True,
) -> tuple[Tensor, Tensor]:
    """Evaluate a packed field; nothing waits for the GPU, so it may be captured in a CUDA graph.

    Args:
        packed: the field, on the device of everything else.
        positions: float32 ``[M, 3]``, finite.
        directions: unit float32 ``[M, 3]``.
        frame: int32 ``[M]`` row of ``terms`` each point belongs to; neighbouring points should share frames.
        terms: per-frame parts.
        count: int32, ``count[0]`` rows are evaluated and the rest left as they come; None = all.
        need_density: False leaves out sigma (the first answer is then empty).

    Returns:
        Sigma ``[M]`` and rgb ``[M, 3]``, float32.
    """
    n_samples, device = len(positions), positions.device
    sigma = torch.empty(n_samples if need_density else 0, device=device)
    rgb = torch.empty(n_samples, 3, device=device)
    launch(
        _evaluate_kernel, persistent_programs(triton.cdiv(n_samples, BLOCK), device), device,
        positions.contiguous(), directions.contiguous(), frame.contiguous(), frame if count is None else count,
        n_samples, terms.n_frames, packed.weights, packed.position_table, packed.ambient_table, packed.levels,
        terms.ambient, terms.color, sigma, rgb,
        s=packed.sizes, COUNTED=count is not None, DENSITY=need_density,
        BLOCK=BLOCK, num_warps=WARPS, enable_fp_fusion=True,
    )  # fmt: skip
    return sigma, rgb


def persistent_programs(n_blocks: int, device: torch.device) -> int:
    """How many programs share ``n_blocks`` blocks: one per multiprocessor at most."""
    if device.type != "cuda":
        return min(n_blocks, 2)
    return min(n_blocks, torch.cuda.get_device_properties(device).multi_processor_count)
