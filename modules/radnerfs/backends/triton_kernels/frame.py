"""Whole frames through the occupancy grid: rays are started, traced to their end, and the few long ones finished.

A ray's colour depends on other rays only through how many samples it may have (``sum_inference``: blocks of ``rays //
rays alive`` steps). So the tracing kernel takes every ray to ``max_steps`` samples in one go, each lane taking the next
ray when its own has ended, and counts after how many samples rays end; a second pass works out from these counts how
many more samples are allowed and gives them to the rays that want them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from modules.radnerfs.backends.triton_kernels.condition import encode_terms
from modules.radnerfs.backends.triton_kernels.field import WARPS, persistent_programs
from modules.radnerfs.backends.triton_kernels.frame_start import ENDED, SAMPLED, RaySettings, start_kernel
from modules.radnerfs.backends.triton_kernels.frame_trace import trace_kernel
from modules.radnerfs.backends.triton_kernels.launch import launch
from modules.radnerfs.packed_field import FrameTerms, PackedField

BLOCK = 128
"""Rays of one program at a time."""
TILE_WIDTH, TILE_HEIGHT = 8, 4
"""Pixels of one start program, multiples of a patch of 8 by 4 (a warp): neighbours read the same grid cells."""
START_WARPS = 1
"""Measured with the tile on an H200: 8 × 4 and 1 warp 14 µs, 16 × 8 and 4 warps 17 µs."""
CHUNK = 32
"""Consecutive rays that go to the same tracing program: few enough to share the work evenly (H200: 32 0.39 ms a frame,
128 0.48 ms)."""
TRIES = 4
"""Occupancy cells looked up at once; a lane that finds none sits out a sample."""
REFILL = 16
"""Free lanes that make it worth while to fetch new rays (H200: 16 and 48 alike)."""
RAY_FLOATS = 9
"""Numbers per started ray: origin, direction, first sample, near, far."""
STATE_FLOATS = 6
"""Numbers per unfinished ray: distance, colour, opacity, depth."""

__all__ = [
    "SAMPLED",
    "FrameBuffers",
    "RaySettings",
    "can_run",
    "encode_terms",
    "start_rays",
    "trace_rays",
    "working_memory",
]


@dataclass(frozen=True, slots=True, eq=False)
class FrameBuffers:
    """What one batch of frames is rendered from and into; the same memory each time, so it can be captured in a graph.

    Attributes:
        cameras: ``[F, 9]``. poses: ``[F, 16]``; unread with given rays.
        origins, directions: ``[F * H * W, 3]`` given rays, else None.
        mask: uint8 ``[F, H, W]`` pixels to render, else None.
        background: ``[3]``, ``[H, W, 3]`` or ``[F, H, W, 3]``.
        boxes: ``[12]`` the box that is marched through, and one around all occupied cells.
        bits: the occupancy bitfield.
        rays, owners, states, waiting, counters: working memory of the kernels (``working_memory``).
        rgb: ``[F, H, W, 3]`` float32, float16 or uint8. opacity, depth: ``[F, H, W]``.
    """

    cameras: Tensor
    poses: Tensor
    origins: Tensor | None
    directions: Tensor | None
    mask: Tensor | None
    background: Tensor
    boxes: Tensor
    bits: Tensor
    rays: Tensor
    owners: Tensor
    states: Tensor
    waiting: Tensor
    counters: Tensor
    rgb: Tensor
    opacity: Tensor
    depth: Tensor


def working_memory(n_frames: int, n_rays: int, settings: RaySettings, device: torch.device) -> dict[str, Tensor]:
    """Lists for ``n_frames`` frames of ``n_rays`` rays, by their names in ``FrameBuffers``."""
    capacity = n_frames * n_rays
    padded = triton.next_power_of_2(n_frames)
    return {
        "rays": torch.empty(RAY_FLOATS, capacity, device=device),
        "owners": torch.empty(capacity, dtype=torch.int32, device=device),
        "states": torch.empty(STATE_FLOATS, capacity, device=device),
        "waiting": torch.empty(capacity, dtype=torch.int32, device=device),
        "counters": torch.zeros(ENDED.value + padded * settings.bins, dtype=torch.int32, device=device),
    }


def can_run(device: torch.device) -> bool:
    """Whether kernels run on tensors of a device: a GPU's, or the CPU's in Triton's interpreter."""
    return device.type == "cuda" or triton.knobs.runtime.interpret


def start_rays(buffers: FrameBuffers, settings: RaySettings) -> None:
    """List the rays that meet something; every other pixel shows the background already."""
    n_frames, height, width = buffers.depth.shape
    tiles_x, tiles_y = triton.cdiv(width, TILE_WIDTH), triton.cdiv(height, TILE_HEIGHT)
    given, masked = buffers.origins is not None, buffers.mask is not None
    buffers.counters.zero_()
    launch(
        start_kernel, (tiles_x * tiles_y, n_frames), buffers.depth.device,
        buffers.cameras, buffers.poses, buffers.origins if given else buffers.cameras,
        buffers.directions if given else buffers.cameras, buffers.mask if masked else buffers.bits,
        *_background_of(buffers), buffers.boxes, buffers.bits, width, height, tiles_x,
        buffers.rays, buffers.owners, buffers.counters, buffers.rgb, buffers.opacity, buffers.depth,
        buffers.owners.numel(),
        c=settings, GIVEN=given, MASKED=masked, BYTES=buffers.rgb.dtype == torch.uint8,
        TW=TILE_WIDTH, TH=TILE_HEIGHT, TRIES=TRIES, num_warps=START_WARPS,
    )  # fmt: skip


def trace_rays(buffers: FrameBuffers, settings: RaySettings, packed: PackedField, terms: FrameTerms) -> None:
    """Take the listed rays to their end."""
    n_frames, height, width = buffers.depth.shape
    n_rays, device = height * width, buffers.depth.device
    for resume in (False, True):
        launch(
            trace_kernel, persistent_programs(triton.cdiv(n_frames * n_rays, BLOCK), device), device,
            buffers.rays, buffers.owners, buffers.states, buffers.waiting, buffers.counters, buffers.bits,
            buffers.owners.numel(), n_rays, n_frames, *_background_of(buffers),
            buffers.rgb, buffers.opacity, buffers.depth, packed.weights, packed.position_table, packed.ambient_table,
            packed.levels, terms.ambient, terms.color,
            s=packed.sizes, c=settings, RESUME=resume, MASKED=buffers.mask is not None,
            BYTES=buffers.rgb.dtype == torch.uint8, BLOCK=BLOCK, CHUNK=CHUNK,
            TRIES=TRIES, REFILL=REFILL, FRAMES=triton.next_power_of_2(n_frames), num_warps=WARPS,
            enable_fp_fusion=True,
        )  # fmt: skip


def _background_of(buffers: FrameBuffers) -> tuple[Tensor, int, int]:
    """The background, and how far apart its frames and pixels lie (0 = one for all)."""
    n_rays = buffers.depth[0].numel()
    ndim = buffers.background.ndim
    return buffers.background, n_rays * 3 if ndim == 4 else 0, 3 if ndim > 1 else 0
