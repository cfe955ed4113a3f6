"""Condition windows of frames to what they add to the field's first layers, one program per frame.

As single operations this is forty kernels of two microseconds each; here it runs beside the start of the rays.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from modules.radnerfs.backends.triton_kernels.launch import launch
from modules.radnerfs.packed_condition import PackedCondition
from modules.radnerfs.packed_field import FrameTerms, PackedField

WARPS = 8
LEAK: tl.constexpr = tl.constexpr(0.02)


@triton.jit
def _leaky(x):
    return tl.where(x > 0, x, x * LEAK)


@triton.jit
def _item_layer(x, weights, s: tl.constexpr, LAYER: tl.constexpr):
    K: tl.constexpr = s.item_widths[LAYER]
    N: tl.constexpr = s.item_widths[LAYER + 1]
    n = tl.arange(0, N)[None, :]
    matrix = tl.load(weights + s.item_places[LAYER] + tl.arange(0, K)[:, None] * N + n)
    x = tl.dot(x, matrix, input_precision="ieee") + tl.load(weights + s.item_biases[LAYER] + n)
    return x if len(s.item_places) == LAYER + 1 else _leaky(x)


@triton.jit
def _attention_layer(x, weights, s: tl.constexpr, LAYER: tl.constexpr):
    """A convolution of three taps over the rows ``[16, K]``, then leaky ReLU; rows outside the window stay zero."""
    K: tl.constexpr = s.n_out if LAYER == 0 else 16
    column = tl.arange(0, 64)[None, :]
    matrix = tl.load(weights + s.attention_places[LAYER] + tl.arange(0, K)[:, None] * 64 + column)
    taps = tl.reshape(tl.dot(x, matrix, input_precision="ieee"), (64, 16))  # rows: item * 4 + tap
    row = tl.arange(0, 16)[:, None]
    chosen = (column % 4 < 3) & (column // 4 == row + column % 4 - 1)
    x = tl.dot(tl.where(chosen, 1.0, 0.0), taps, input_precision="ieee")
    x = _leaky(x + tl.load(weights + s.attention_biases[LAYER] + tl.arange(0, 16)[None, :]))
    return tl.where(row < s.window, x, 0.0)


@triton.jit
def _add_terms(values, weight, terms, frame, n_frames, N_IN: tl.constexpr, K: tl.constexpr, H: tl.constexpr):
    """``weight [H, N_IN] @ values [K]`` into a frame's row, rounded and what rounding lost."""
    h, k = tl.arange(0, H)[None, :], tl.arange(0, K)[:, None]
    columns = tl.load(weight + h * N_IN + k, mask=(k < N_IN) & (h >= 0), other=0.0)
    exact = tl.sum(columns * values[:, None], axis=0)
    rounded = exact.to(tl.float16)
    at = terms + frame * H + tl.arange(0, H)
    tl.store(at, rounded)
    tl.store(at + n_frames * H, (exact - rounded.to(tl.float32)).to(tl.float16))


@triton.jit
def _condition_kernel(
    windows, eye_areas, codes, per_code, weights, condition_weight, code_weight, ambient_terms, color_terms, n_frames,
    s: tl.constexpr, ROWS_GIVEN: tl.constexpr, N_CONDITION: tl.constexpr, N_CODE: tl.constexpr, KC: tl.constexpr,
    HA: tl.constexpr, HC: tl.constexpr, BLINK: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(0)
    N_IN: tl.constexpr = s.n_in
    K0: tl.constexpr = s.item_widths[0]
    WINDOW: tl.constexpr = s.window
    row, k = tl.arange(0, 16)[:, None], tl.arange(0, K0)[None, :]
    x = tl.load(windows + (frame * ROWS_GIVEN + row) * N_IN + k, mask=(row < WINDOW) & (k < N_IN), other=0.0)
    N_LAYERS: tl.constexpr = len(s.item_places)
    for layer in tl.static_range(N_LAYERS):
        x = _item_layer(x, weights, s, layer)
    WIDTH: tl.constexpr = s.n_out
    column = tl.arange(0, WIDTH)[None, :]
    if s.blink >= 0:
        area = 0.0
        if BLINK:
            area = tl.load(eye_areas + frame)
        x += area * tl.load(weights + s.blink + column) + tl.load(weights + s.blink + WIDTH + column)
    x = tl.where(row < WINDOW, x, 0.0)
    feature = tl.sum(x, axis=0)  # one row without attention
    N_CONVOLUTIONS: tl.constexpr = len(s.attention_places)
    if N_CONVOLUTIONS > 0:
        scores = x
        for layer in tl.static_range(N_CONVOLUTIONS):
            scores = _attention_layer(scores, weights, s, layer)
        score = tl.sum(scores, axis=1)  # only the first channel is not zero
        item = tl.arange(0, 16)
        mix = tl.load(weights + s.mix + row * 16 + item[None, :])
        logits = tl.sum(score[:, None] * mix, axis=0) + tl.load(weights + s.mix + 256 + item)
        logits = tl.where(item < WINDOW, logits, float("-inf"))
        share = tl.exp(logits - tl.max(logits, axis=0))
        share = share / tl.sum(share, axis=0)
        feature = tl.sum(tl.reshape(share, (16, 1)) * x, axis=0)
    _add_terms(feature, condition_weight, ambient_terms, frame, n_frames, N_CONDITION, WIDTH, HA)
    k = tl.arange(0, KC)
    code = tl.load(codes + frame * per_code + k, mask=k < N_CODE, other=0.0)
    _add_terms(code, code_weight, color_terms, frame, n_frames, N_CODE, KC, HC)


def encode_terms(
    packed: PackedField, condition: PackedCondition, windows: Tensor, codes: Tensor, eye_areas: Tensor | None
) -> FrameTerms:
    """``packed.terms(field.encode_conditions(windows, eye_areas), codes)`` in one kernel.

    Args:
        packed: the field.
        condition: its condition encoder.
        windows: float32 ``[F, W, 1, C]``.
        codes: float32 ``[D]`` or ``[F, D]``.
        eye_areas: ``[F]``; None counts as 0.
    """
    n_frames, device = len(windows), windows.device
    hidden = packed.sizes.ambient_hidden, packed.sizes.color_hidden
    terms = FrameTerms(*(torch.empty(2, n_frames, h, dtype=torch.float16, device=device) for h in hidden))
    n_code = packed.code_weight.shape[1]
    launch(
        _condition_kernel, n_frames, device,
        windows.contiguous(), windows if eye_areas is None else eye_areas, codes.contiguous(),
        n_code if codes.ndim == 2 else 0, condition.weights, packed.condition_weight, packed.code_weight,
        terms.ambient, terms.color, n_frames,
        s=condition.sizes, ROWS_GIVEN=windows.shape[1], N_CONDITION=packed.condition_weight.shape[1], N_CODE=n_code,
        KC=triton.next_power_of_2(max(n_code, 1)), HA=hidden[0], HC=hidden[1], BLINK=eye_areas is not None,
        num_warps=WARPS, enable_fp_fusion=True,
    )  # fmt: skip
    return terms
