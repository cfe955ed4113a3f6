"""Many regions of many images at once, on the GPU, by the rule of ``sample_region``: one transfer, one set of kernels.

What a region shows is cut out of its image first; all cuts, whatever their sizes, travel as one row of bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.structures.crops import CropRegion, region_source, sample_region

Image = NDArray[np.uint8]
TABLE_COLUMNS = 9
"""Per region: the six numbers of pixels_from_crop, height, width, and where its bytes begin."""


def sample_regions(
    images: Sequence[Image],
    regions: Sequence[CropRegion],
    size: int,
    device: torch.device,
    *,
    border_mode: int = cv2.BORDER_REPLICATE,
) -> Tensor:
    """RGB uint8 ``[B, size, size, 3]`` on ``device``: image ``i`` seen through region ``i``.

    On CUDA a value may differ from ``sample_region``'s by one where rounding is close; on the CPU it is the same.

    Args:
        images: ``[H, W, 3]`` uint8 each, of any size.
        regions: one per image.
        size: side of the crops.
        device: where they are wanted.
        border_mode: beyond the image: its edge repeated (``BORDER_REPLICATE``), or black (``BORDER_CONSTANT``).
    """
    pairs = list(zip(images, regions, strict=True))
    if device.type != "cuda" or not pairs:
        crops = [sample_region(rgb, region, size, border_mode=border_mode) for rgb, region in pairs]
        stacked = np.stack(crops) if crops else np.zeros((0, size, size, 3), np.uint8)
        return torch.from_numpy(stacked).to(device)
    sources = [_cut(rgb, region, size) for rgb, region in pairs]
    return sample_packed(packed_sources(sources).to(device, non_blocking=True), len(sources), size, border_mode)


def _cut(rgb: Image, region: CropRegion, size: int) -> tuple[Image, NDArray[np.float64]]:
    """The pixels a region needs, and ``[3, 3]`` pixels_from_crop; one black pixel where it shows nothing."""
    source = region_source(rgb, region, size)
    if source is None:
        return np.zeros((1, 1, 3), np.uint8), np.eye(3)
    pixels, crop_from_pixels = source
    pixels_from_crop = np.linalg.inv(crop_from_pixels)
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) @ pixels_from_crop[:2, :2].T
    low, high = (corners + pixels_from_crop[:2, 2]).min(axis=0), (corners + pixels_from_crop[:2, 2]).max(axis=0)
    limit = np.array(pixels.shape[1::-1])
    # one pixel more on each side, so that the cut's edge shows only where the image ends
    first = np.clip(np.floor(low).astype(int) - 1, 0, limit - 1)
    stop = np.clip(np.ceil(high).astype(int) + 1, first + 1, limit)
    cut_from_pixels = np.eye(3)
    cut_from_pixels[:2, 2] = -first
    return pixels[first[1] : stop[1], first[0] : stop[0]], cut_from_pixels @ pixels_from_crop


def packed_sources(sources: Sequence[tuple[Image, NDArray[np.float64]]]) -> Tensor:
    """A table of ``TABLE_COLUMNS`` float64 numbers per source, then the pixels of all, as one row of bytes."""
    table = np.zeros((len(sources), TABLE_COLUMNS))
    at = 0
    for row, (pixels, matrix) in zip(table, sources, strict=True):
        row[:] = *matrix[:2].ravel(), *pixels.shape[:2], at
        at += pixels.size
    parts = [table.view(np.uint8).ravel(), *(pixels.ravel() for pixels, _ in sources)]
    return torch.from_numpy(np.concatenate(parts))


def sample_packed(packed: Tensor, count: int, size: int, border_mode: int = cv2.BORDER_REPLICATE) -> Tensor:
    """Crops ``[count, size, size, 3]`` uint8 of ``packed_sources``, on its device."""
    header = count * TABLE_COLUMNS * 8
    table, data = packed[:header].view(torch.float64).reshape(count, TABLE_COLUMNS), packed[header:]
    matrix, begin = table[:, :6].float().reshape(count, 2, 3), table[:, 8].long()[:, None, None]
    height, width = table[:, 6].long()[:, None, None], table[:, 7].long()[:, None, None]
    centers = torch.arange(size, device=packed.device, dtype=torch.float32) + 0.5
    x, y = (
        matrix[:, axis, 0, None, None] * centers
        + matrix[:, axis, 1, None, None] * centers[:, None]
        + (matrix[:, axis, 2, None, None] - 0.5)
        for axis in (0, 1)
    )  # [B, size, size], counted from the centre of pixel 0
    left, top = x.floor(), y.floor()
    share_x, share_y = (x - left)[..., None], (y - top)[..., None]
    channel = torch.arange(3, device=packed.device)

    def corner(dy: int, dx: int) -> Tensor:
        column, row = left.long() + dx, top.long() + dy
        inside_x, inside_y = column.clamp(min=0).minimum(width - 1), row.clamp(min=0).minimum(height - 1)
        values = data[(begin + (inside_y * width + inside_x) * 3)[..., None] + channel].float()
        if border_mode == cv2.BORDER_CONSTANT:
            values = values * ((column == inside_x) & (row == inside_y))[..., None]
        return values

    upper = torch.lerp(corner(0, 0), corner(0, 1), share_x)
    lower = torch.lerp(corner(1, 0), corner(1, 1), share_x)
    return torch.lerp(upper, lower, share_y).round().to(torch.uint8)
