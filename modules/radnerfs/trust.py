"""What training saw of a head, on a coarse grid over the field's cube: where it can be believed, and from which views.

Skin seen along a slope or beside a silhouette teaches little: a fit that is off by a pixel shows what lies behind the
head instead. So every place is learnt, and later painted, only in views that show it about as well as the best one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.nn import functional

CELLS = 64
GOOD_SHARE = 0.7
"""A view is good for a place when its quality is at least this share of the best view's."""
UNSEEN_SHARE = 0.4
"""Below this share it shows nothing; between the two, painting fades."""


def cell_index(positions: Tensor) -> Tensor:
    """Flat cell number (z, y, x order) ``[N]`` of positions ``[N, 3]`` in the cube ±1."""
    cells = ((positions + 1) / 2 * CELLS).long().clamp(0, CELLS - 1)
    return (cells[:, 2] * CELLS + cells[:, 1]) * CELLS + cells[:, 0]


def trust_cells(positions: Tensor, squared_error: Tensor, exempt: Tensor) -> Tensor:
    """Trust uint8 ``[G, G, G]`` from what training rays show.

    Args:
        positions: ``[N, 3]`` in the cube ±1.
        squared_error: ``[N]`` mean squared colour error of the rendering there.
        exempt: bool ``[N]``: trusted whatever the error (the mouth, which changes all the time).

    Returns:
        255 up to twice the typical error, falling to 0 at four times; 0 more than a cell away from any ray.
    """
    flat = cell_index(positions)
    sums = positions.new_zeros(3, CELLS**3)
    for row, values in enumerate((torch.ones_like(squared_error), squared_error, exempt.to(squared_error))):
        sums[row].index_add_(0, flat, values)
    near = functional.avg_pool3d(sums.view(3, 1, *[CELLS] * 3), 3, 1, 1, count_include_pad=True)[:, 0] * 27
    count, error, free = near
    rms = (error / count.clamp(min=1)).sqrt()
    typical = squared_error.sqrt().median()
    trust = ((4 - rms / typical.clamp(min=1e-6)) / 2).clamp(0, 1)
    trust[free > 0.1 * count] = 1.0
    return (trust * (count > 0) * 255).round().to(torch.uint8)


def best_view_cells(positions: Tensor, quality: Tensor) -> Tensor:
    """Quality of the best view of each cell and its neighbours: uint8 ``[G, G, G]``, 255 = face to face.

    Args:
        positions: ``[N, 3]`` in the cube ±1.
        quality: ``[N]`` 0..1.
    """
    best = quality.new_zeros(CELLS**3).scatter_reduce_(0, cell_index(positions), quality, "amax")
    near = functional.max_pool3d(best.view(1, 1, CELLS, CELLS, CELLS), 3, 1, 1)[0, 0]
    return (near * 255).round().to(torch.uint8)


def good_views(positions: Tensor, quality: Tensor, best: Tensor) -> Tensor:
    """Rays that show their place about as well as the best view does: bool ``[N]``."""
    return quality >= GOOD_SHARE * best.flatten()[cell_index(positions)].float() / 255


def read_cells(cells: Tensor, unit: NDArray[np.floating]) -> NDArray[np.float32]:
    """A grid uint8 ``[G, G, G]`` read at points ``[..., 3]`` in the cube, trilinearly, as 0..1; 0 outside."""
    at = np.moveaxis((unit[..., ::-1] + 1) / 2 * CELLS - 0.5, -1, 0)  # z, y, x
    values = cells.cpu().numpy().astype(np.float32) / 255
    return np.asarray(map_coordinates(values, at, order=1, mode="constant"), dtype=np.float32)
