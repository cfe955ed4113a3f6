"""Batches of images of different sizes in one padded tensor: OpenCV's blurs and resizes as a few matrix products.

Each image ``[C, h, w]`` lies in the upper left corner of its padded one, and every operation works as if it had been
cut to its true size first: borders are mirrored or continued where the image ends, not where the padding does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Grids:
    """Sizes of a batch of images.

    Attributes:
        size_hw: int64 ``[B, 2]`` true heights and widths, in main memory.
        padded_hw: of the tensors.
        device: where they are.
    """

    size_hw: NDArray[np.int64]
    padded_hw: tuple[int, int]
    device: torch.device

    def coarser(self, size_hw: NDArray[np.int64]) -> Grids:
        """Grids over the same areas with other sizes ``[B, 2]``."""
        height, width = (int(size) for size in size_hw.max(axis=0))
        return Grids(size_hw, (height, width), self.device)

    def tensor(self, axis: int) -> Tensor:
        """True sizes along an axis, int64 ``[B, 1, 1]``, on the device."""
        return torch.as_tensor(self.size_hw[:, axis, None, None]).to(self.device, non_blocking=True)

    def inside(self) -> Tensor:
        """bool ``[B, H, W]``: what is image and not padding."""
        rows, columns = (torch.arange(length, device=self.device) for length in self.padded_hw)
        return (rows[None, :, None] < self.tensor(0)) & (columns[None, None] < self.tensor(1))


@dataclass(frozen=True, slots=True, eq=False)
class Separable:
    """An operation on rows and columns of each image of a batch: ``[B, h', h]`` and ``[B, w', w]``."""

    rows: Tensor
    columns: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """``[B, C, h, w]`` to ``[B, C, h', w']``, or the same without C."""
        if images.dim() == 3:
            return self.rows @ images @ self.columns.mT
        return self.rows[:, None] @ images @ self.columns.mT[:, None]


def gaussian(grids: Grids, sigma_px: NDArray[np.float64] | float) -> Separable:
    """``cv2.GaussianBlur`` of float images, borders mirrored without their last pixel.

    Args:
        grids: of the images.
        sigma_px: ``[B]`` or one for all.
    """
    sigma = np.broadcast_to(np.asarray(sigma_px, np.float64), (len(grids.size_hw),))
    half = np.rint(sigma * 8 + 1).astype(np.int64) // 2
    made = [_mirrored(grids, axis, half, lambda away, s=sigma: _bell(away, s)) for axis in (0, 1)]
    return Separable(*made)


def box_of_three(grids: Grids) -> Separable:
    """``cv2.blur`` with a window of 3 by 3."""
    half = np.ones(len(grids.size_hw), np.int64)
    return Separable(*(_mirrored(grids, axis, half, torch.ones_like) for axis in (0, 1)))


def area(fine: Grids, coarse: Grids) -> Separable:
    """``cv2.resize`` with INTER_AREA to a coarser grid: means over each cell's area."""
    made = []
    for axis in (0, 1):
        cells, length = coarse.tensor(axis).float(), fine.tensor(axis).float()
        step = length / cells
        start = torch.arange(coarse.padded_hw[axis], device=fine.device)[None, :, None] * step
        pixel = torch.arange(fine.padded_hw[axis], device=fine.device)[None, None]
        shared = (torch.minimum(start + step, pixel + 1) - torch.maximum(start, pixel)).clamp(min=0) / step
        made.append(torch.where((start < length - 0.5 * step) & (pixel < length), shared, 0))
    return Separable(*made)


def linear(coarse: Grids, fine: Grids) -> Separable:
    """``cv2.resize`` with INTER_LINEAR to a finer grid."""
    made = []
    for axis in (0, 1):
        cells, length = coarse.tensor(axis).float(), fine.tensor(axis).float()
        pixel = torch.arange(fine.padded_hw[axis], device=fine.device)[None, :, None]
        place = ((pixel + 0.5) * (cells / length) - 0.5).clamp(min=0)
        place = torch.minimum(place, cells - 1)
        cell = torch.arange(coarse.padded_hw[axis], device=fine.device)[None, None]
        hats = (1 - (place - cell).abs()).clamp(min=0)
        made.append(torch.where(pixel < length, hats, 0))
    return Separable(*made)


def continued(images: Tensor, grids: Grids) -> Tensor:
    """Images ``[B, C, H, W]`` whose border pixels go on into the padding."""
    frame = torch.arange(len(images), device=images.device)[:, None, None]
    row = torch.minimum(torch.arange(images.shape[2], device=images.device)[None, :, None], grids.tensor(0) - 1)
    column = torch.minimum(torch.arange(images.shape[3], device=images.device)[None, None], grids.tensor(1) - 1)
    return images.permute(0, 2, 3, 1)[frame, row, column].permute(0, 3, 1, 2)


def cut(images: Tensor, first: NDArray[np.int64], size_hw: tuple[int, int]) -> Tensor:
    """Parts ``[B, C, *size_hw]`` of images ``[B, C, H, W]`` from (row, column) ``first [B, 2]`` on.

    Where a part reaches beyond the tensor its last row or column goes on.
    """
    start = torch.as_tensor(first).to(images.device, non_blocking=True)
    frame = torch.arange(len(images), device=images.device)[:, None, None]
    row, column = (
        (start[:, axis, None] + torch.arange(size_hw[axis], device=images.device)).clamp(0, images.shape[2 + axis] - 1)
        for axis in (0, 1)
    )
    return images.permute(0, 2, 3, 1)[frame, row[:, :, None], column[:, None]].permute(0, 3, 1, 2)


def _bell(away: Tensor, sigma: NDArray[np.float64]) -> Tensor:
    spread = torch.from_numpy(sigma[:, None, None].astype(np.float32)).to(away.device, non_blocking=True)
    return torch.exp(-away.square() / (2 * spread * spread))


def _mirrored(grids: Grids, axis: int, half: NDArray[np.int64], taps: Callable[[Tensor], Tensor]) -> Tensor:
    """Matrices ``[B, n, n]`` of a symmetric filter that reaches ``half [B]`` px; rows sum up to 1.

    A pixel counts once for itself and once for each of its mirror images, which come again with the period
    ``2 (n - 1)``; the pixels that mirror lies on have one image less.
    """
    length, padded = grids.tensor(axis), grids.padded_hw[axis]
    index = torch.arange(padded, device=grids.device)
    to, of = index[None, :, None], index[None, None]
    reach = torch.as_tensor(half[:, None, None]).to(grids.device, non_blocking=True)
    period = 2 * (length - 1).clamp(min=1)
    times = int((half // np.maximum(2 * (grids.size_hw[:, axis] - 1), 1)).max()) + 1
    images = torch.arange(-times, times + 1, device=grids.device)[:, None, None, None] * period  # [images, B, 1, 1]
    total = torch.zeros((), device=grids.device)
    for sign in (1, -1):
        away = to - (sign * of + images)
        counts = away.abs() <= reach
        if sign < 0:
            counts &= (of != 0) & (of != length - 1)
        total = total + torch.where(counts, taps(away.float()), 0).sum(0)
    total = torch.where((to < length) & (of < length), total, 0)
    return total / total.sum(2, keepdim=True).clamp(min=1e-12)
