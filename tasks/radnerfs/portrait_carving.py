"""Cells that cannot hold the head, because frames show something else where they are seen.

GeneFace++ leaves that to training; on a CPU the samples in empty cells are most of the work.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.occupancy_grid import all_cells, cell_centres

MARGIN = 0.03
"""Share of the picture's side by which heads are taken to be larger than they were segmented."""
DOUBTS = 2
"""So many frames may show a cell beside the head: hair flies, and segmentation errs."""


def beside_the_head(
    masks: Tensor, poses: Tensor, image_from_camera: Tensor, bound: float, grid_size: int, backend: RenderBackend
) -> Tensor:
    """Which cells of the cube are seen beside the head by more than ``DOUBTS`` frames.

    Args:
        masks: bool ``[F, S, S]``, the head in frames.
        poses: ``[F, 4, 4]`` world_from_camera of the same frames.
        image_from_camera: ``[3, 3]`` of pictures of ``S`` px.
        bound: half side of the cube.
        grid_size: cells per axis.
        backend: for Morton order.

    Returns:
        bool ``[grid_size³]`` in Morton order.
    """
    side = masks.shape[1]
    centres = cell_centres(all_cells(grid_size, masks.device, backend), grid_size, bound)
    matrix = image_from_camera.to(centres)
    reach = 1 + 2 * (round(MARGIN * side) + round(_cell_px(poses, matrix, bound, grid_size)))
    wide = functional.max_pool2d(masks[:, None].float(), reach, stride=1, padding=reach // 2)[:, 0] > 0
    beside = torch.zeros(len(centres), dtype=torch.int32, device=masks.device)
    for mask, pose in zip(wide, poses.to(centres), strict=True):
        seen = (centres - pose[:3, 3]) @ pose[:3, :3] @ matrix.T
        column, row = (seen[:, :2] / seen[:, 2:].clamp_min(1e-6)).floor().long().unbind(dim=1)
        inside = (seen[:, 2] > 0) & (column >= 0) & (column < side) & (row >= 0) & (row < side)
        on_head = mask[row.clamp(0, side - 1), column.clamp(0, side - 1)]
        beside += inside & ~on_head
    return beside > DOUBTS


def _cell_px(poses: Tensor, matrix: Tensor, bound: float, grid_size: int) -> float:
    """How large a cell at the cube's centre looks, px."""
    distance = poses[:, :3, 3].norm(dim=1).median()
    return float(matrix[0, 0] * 2 * bound / grid_size / distance)
