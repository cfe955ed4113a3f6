"""The torch twin of ``delta_transfer`` and of the picture part of ``detail`` and ``grain``, for batches of windows.

What depends on earlier frames (which cells changed, how sharp and how grainy the source is) is found on the CPU by the
objects that do it there, from small parts of these pictures; so a run may change its device anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from modules.video.delta_transfer import (
    CELL_PX,
    FAR,
    FULL,
    LEAST,
    LIGHT_EDGES,
    MOST_GAIN,
    PLAIN,
    SAME,
    SMOOTHED_EDGES,
    STEP_PX,
    STILL_PX,
    THIN,
)
from modules.video.detail import CORE, MOST_SPECK, NEIGHBOURS, SIGMAS
from modules.video.device_grids import Grids, area, box_of_three, continued, gaussian, linear
from modules.video.grain import BLUE, GREEN, LEAST_ALPHA, RED
from modules.video.linear_light import BT709, LightCurve

_REMAP_STEPS = 32
"""OpenCV rounds positions so before it interpolates linearly (not cubically)."""


@dataclass(frozen=True, slots=True, eq=False)
class CarriedBatch:
    """``CarriedPatch`` of ``B`` windows padded to one size; 0 beyond each window.

    Attributes:
        new, shown: RGB ``[B, 3, H, W]``, both renderings.
        flow: ``[B, 2, H, W]`` px.
        alpha, rendered, paintable, compared, matched, mouth_shown: ``[B, H, W]``, ``alpha`` that of the region.
        grids: the windows' true sizes.
        edge_px: float64 ``[B]``, in main memory.
        real: ``[B, 4, H, W]`` 0..1, ``CarriedPatch.real``; None = no window has one.
    """

    new: Tensor
    shown: Tensor
    flow: Tensor
    alpha: Tensor
    rendered: Tensor
    paintable: Tensor
    compared: Tensor
    matched: Tensor
    mouth_shown: Tensor
    grids: Grids
    edge_px: NDArray[np.float64]
    real: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """Sources under their new motion.

    Attributes:
        rgb: ``[B, 3, H, W]``.
        alpha: ``[B, H, W]`` where it may be used.
        active, plain: bool ``[B, h, w]`` cells that change, and that change plainly; see ``DeltaTransfer``.
        cells: sizes of the grids of cells.
    """

    rgb: Tensor
    alpha: Tensor
    active: Tensor
    plain: Tensor
    cells: Grids


def in_source_light(
    source: Tensor, carried: CarriedBatch, free: Tensor | None = None, light: LightCurve = BT709
) -> CarriedBatch:
    """``delta_transfer.in_source_light`` of each window.

    Args:
        source: RGB ``[B, 3, H, W]`` 0..1.
        carried: the renderings and the motion.
        free: ``[B, H, W]`` 1 - what stands in front; None = nothing does.
        light: what coded values mean.
    """
    weight = carried.matched if free is None else carried.matched * free
    gains = _gains(source, carried, weight, light.offset)
    moved = carried_linearly(continued(gains, carried.grids), carried.flow)
    return replace(
        carried,
        new=(carried.new + light.offset) * moved - light.offset,
        shown=(carried.shown + light.offset) * gains - light.offset,
    )


def with_detail(carried: CarriedBatch, gains: Tensor) -> CarriedBatch:
    """``detail.refined`` on the new renderings where they are used.

    Args:
        carried: in the source's light.
        gains: ``[B, len(SIGMAS)]``, finest band first; a row of ones leaves its picture as sharp as it is.
    """
    new = carried.new
    luma = RED * new[:, 0] + GREEN * new[:, 1] + BLUE * new[:, 2]
    finer = _despeckled(luma)
    change = finer - luma
    for band, sigma in enumerate(SIGMAS):
        coarser = gaussian(carried.grids, sigma)(finer)
        fine, gain = finer - coarser, (gains[:, band] - 1)[:, None, None]
        square = fine * fine
        change = change + gain * torch.where(gain > 0, fine * (square / (square + CORE * CORE)), fine)
        finer = coarser
    lifted = (new + (carried.rendered * change)[:, None]).clamp(0, 1)
    return replace(carried, new=torch.where(carried.rendered[:, None] > 0, lifted, new))


def _despeckled(luma: Tensor) -> Tensor:
    """``detail.despeckled`` of each of ``[B, H, W]``."""
    height, width = luma.shape[1:]
    padded = functional.pad(luma[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    first, second, *others = (padded[:, y : y + height, x : x + width] for y, x in NEIGHBOURS)
    least, low = torch.minimum(first, second), torch.maximum(first, second)
    most, high = low, least
    for one in others:
        low, least = torch.minimum(low, torch.maximum(least, one)), torch.minimum(least, one)
        high, most = torch.maximum(high, torch.minimum(most, one)), torch.maximum(most, one)
    return torch.minimum(torch.maximum(luma, low - MOST_SPECK), high + MOST_SPECK)


def moved(source: Tensor, carried: CarriedBatch, free: Tensor | None) -> Moved:
    """The first half of ``DeltaTransfer.patch`` of each window; arguments as for ``in_source_light``, lit already."""
    rendered, compared, alpha = carried.rendered, carried.compared, carried.alpha
    grids = carried.grids
    if free is not None:
        hidden = 1 - carried_linearly(continued(free[:, None], grids), carried.flow)[:, 0]
        rendered = torch.maximum(rendered, hidden * carried.paintable)
        alpha = alpha * (1 - hidden * (1 - carried.paintable))
        compared = compared * free
    smooth = gaussian(grids, SMOOTHED_EDGES * carried.edge_px)
    kept = torch.cat([source - smooth(carried.shown) * compared[:, None], compared[:, None]], 1)
    kept = _sampled(continued(kept, grids), carried.flow, "bicubic")
    skin = kept[:, :3] + smooth(carried.new) * kept[:, 3:]
    target = (skin + (carried.new - skin) * rendered[:, None]).clamp(0, 1)
    cells = grids.coarser(np.maximum(-(-grids.size_hw // CELL_PX), 1))
    means = area(grids, cells)(torch.cat([carried.flow, (target - source).abs() * grids.inside()[:, None]], 1))
    moves, differs = means[:, :2].abs().amax(1), means[:, 2:].mean(1)
    active, plain = ((moves > times * STILL_PX) | (differs > times * SAME) for times in (1, PLAIN))
    return Moved(target, alpha, active, plain, cells)


def over_cells(done: Moved, cells: Tensor, grids: Grids) -> Tensor:
    """Alpha ``[B, H, W]`` over the cells ``bool [B, h, w]`` that are written, as ``DeltaTransfer.patch`` has it."""
    grown = box_of_three(done.cells)(cells.float())
    return torch.minimum(done.alpha, ((linear(done.cells, grids)(grown) - THIN) / (FULL - THIN)).clamp(0, 1))


def with_grain(
    rgb: Tensor, alpha: Tensor, rendered: Tensor, tiles: Tensor, offsets: Tensor, strengths: Tensor
) -> Tensor:
    """``Grain.add`` to each picture of a batch.

    Args:
        rgb: ``[B, 3, H, W]`` 0..1.
        alpha: ``[B, H, W]`` it will be blended with.
        rendered: ``[B, H, W]`` how much of it was rendered.
        tiles: ``[bands, T, T]``.
        offsets: int64 ``[B, bands, 2]`` row and column of the tiles at the first pixel that gets grain.
        strengths: ``[B, bands]``; none where all are below 1e-4.
    """
    share = alpha * rendered
    any_row, any_column = share.amax(2) > 0, share.amax(1) > 0
    first = [marks.int().argmax(1)[:, None] for marks in (any_row, any_column)]
    row, column = (
        torch.arange(length, device=rgb.device)[None] - start
        for length, start in zip(share.shape[1:], first, strict=True)
    )
    size, layers = tiles.shape[1], []
    for band in range(len(tiles)):
        at_row, at_column = ((axis + offsets[:, band, k, None]) % size for k, axis in enumerate((row, column)))
        layers.append(tiles[band][at_row[:, :, None], at_column[:, None]] * strengths[:, band, None, None])
    luma, blue, red = layers[0] + layers[1], layers[2], layers[3]
    grain = torch.stack([luma + red, luma - (RED * red + BLUE * blue) / GREEN, luma + blue], 1)
    amount = (share * (2 - share)).clamp(min=0).sqrt() / alpha.clamp(min=LEAST_ALPHA)
    wanted = (strengths.amax(1) >= 1e-4)[:, None, None, None] & (share > 0)[:, None]
    return torch.where(wanted, (rgb + amount[:, None] * grain).clamp(0, 1), rgb)


def _gains(source: Tensor, carried: CarriedBatch, weight: Tensor, offset: float) -> Tensor:
    """``delta_transfer._gains`` of each window, ``[B, 3, H, W]``."""
    grids = carried.grids
    cells = grids.coarser(np.maximum(grids.size_hw // STEP_PX, 1))
    sigma = LIGHT_EDGES * carried.edge_px / STEP_PX
    layers = torch.cat([source * weight[:, None], carried.shown * weight[:, None], weight[:, None]], 1)
    total = _spread(area(grids, cells)(layers), cells, sigma)
    mass = total[:, 6:]
    above, below = (part + offset * mass for part in (total[:, :3], total[:, 3:6]))
    gains = torch.where(mass > LEAST, above / below.clamp(min=LEAST), 1).clamp(1 / MOST_GAIN, MOST_GAIN)
    return linear(cells, grids)(gains)


def _spread(values: Tensor, cells: Grids, sigma: NDArray[np.float64]) -> Tensor:
    count = torch.from_numpy(cells.size_hw.prod(axis=1).astype(np.float32)).to(values.device, non_blocking=True)
    everywhere = values.sum((2, 3)) / count[:, None]
    return gaussian(cells, sigma)(values) + FAR * everywhere[..., None, None]


def carried_linearly(values: Tensor, flow: Tensor) -> Tensor:
    """``cv2.remap`` of ``[B, C, H, W]``, continued beyond their windows, at each pixel plus ``flow``, linearly."""
    return _sampled(values, flow, "bilinear", lambda place: (place * _REMAP_STEPS).round() / _REMAP_STEPS)


def _sampled(values: Tensor, flow: Tensor, mode: str, rounded: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """``cv2.remap`` of ``[B, C, H, W]`` at each pixel plus ``flow``; border pixels go on outside."""
    height, width = flow.shape[2:]
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    if rounded is not None:
        x, y = rounded(x), rounded(y)
    grid = torch.stack([x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1], -1)
    return functional.grid_sample(values, grid, mode=mode, padding_mode="border", align_corners=True)
