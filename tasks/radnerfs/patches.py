"""Square patches of training frames around the mouth, drawn on the device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.radnerfs.ray_table import PatchMap, RayBatch, RayTable, gather

LEAST_COVERED = 0.95
"""A patch counts when at least this share of its pixels are rays."""
TRIES = 8
"""Places looked at for each patch; the first that is covered well enough is taken."""


def draw_patches(
    rays: RayTable, patches: PatchMap, count: int, size: int, generator: torch.Generator
) -> tuple[RayBatch, Tensor]:
    """Random patches: frames evenly, then places in the window around the mouth.

    Args:
        rays: the clip's rays.
        patches: which ray each pixel around the mouth is; windows narrower than ``size`` hold no patch.
        count: how many.
        size: side, px.
        generator: on the rays' device.

    Returns:
        ``size²`` rays of each of ``count`` frames, row by row, and 1.0 where a pixel is a ray ``[count, size²]``, 0.0
        elsewhere (such pixels repeat some ray). A patch for which no place was good enough is all 0.
    """
    device = patches.index.device
    frame = torch.randint(len(patches.index), (count, TRIES), generator=generator, device=device)
    free = patches.size[frame] - size  # [B, T, 2] places along y and x, less one
    place = torch.rand(count, TRIES, 2, generator=generator, device=device)
    corner = torch.minimum((place * (free + 1)).long(), free).clamp(min=0)
    index = _pixels(patches.index, frame, corner, size)  # [B, T, s²]
    covered = (index >= 0).float().mean(dim=2)
    good = (covered >= LEAST_COVERED) & (free >= 0).all(dim=2)
    best = good.int().argmax(dim=1)  # the first good place; the first of all when none is
    each = torch.arange(count, device=device)
    chosen = index[each, best]
    known = (chosen >= 0) & good[each, best][:, None]
    return gather(rays, chosen.clamp(min=0).long(), frame[each, best]), known.float()


def _pixels(index: Tensor, frame: Tensor, corner: Tensor, size: int) -> Tensor:
    """Ray numbers int32 ``[B, T, size²]`` of squares at ``corner [B, T, 2]`` (y, x); -1 beyond the map."""
    height, width = index.shape[1:]
    steps = torch.arange(size, device=index.device)
    y = corner[..., 0, None] + steps
    x = corner[..., 1, None] + steps
    inside = (y < height)[..., :, None] & (x < width)[..., None, :]
    rows, columns = y.clamp(max=max(height - 1, 0)), x.clamp(max=max(width - 1, 0))
    found = index[frame[..., None, None], rows[..., :, None], columns[..., None, :]]
    return torch.where(inside, found, -1).flatten(2)
