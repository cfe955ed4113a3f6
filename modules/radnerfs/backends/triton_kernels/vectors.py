"""Rows of three numbers, as three tensors."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load3(base, row, valid, other):
    """The numbers of row ``row`` of ``[N, 3]``."""
    x = tl.load(base + row * 3, mask=valid, other=other)
    y = tl.load(base + row * 3 + 1, mask=valid, other=other)
    z = tl.load(base + row * 3 + 2, mask=valid, other=other)
    return x, y, z


@triton.jit
def store3(base, row, x, y, z, valid):
    """Write row ``row`` of ``[N, 3]``."""
    tl.store(base + row * 3, x, mask=valid)
    tl.store(base + row * 3 + 1, y, mask=valid)
    tl.store(base + row * 3 + 2, z, mask=valid)
