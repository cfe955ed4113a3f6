"""Starts kernels on the device that holds their tensors."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton


def launch(kernel: Any, n_blocks: int | tuple[int, ...], device: torch.device, *args: Any, **options: Any) -> None:
    """Run a kernel on ``device``.

    Triton takes the process's current GPU, whatever the tensors say. On other devices its interpreter runs.
    Unless ``enable_fp_fusion`` says otherwise, multiply and add stay apart: where a point lies in its cell is then what
    plain torch says, to the last bit.
    """
    grid = n_blocks if isinstance(n_blocks, tuple) else (n_blocks,)
    if 0 in grid:
        return
    guard = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with guard:
        kernel[grid](*args, **{"enable_fp_fusion": False, **options})


def blocks(count: int, block: int) -> int:
    """How many blocks cover ``count`` elements."""
    return triton.cdiv(count, block)
