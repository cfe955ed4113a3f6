"""The torch twin of ``blocks.coded``, for batches of windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.structures.frames import PlaneLayout
from modules.video.blocks import BLOCK, Coding, cosines, luma_weights
from modules.video.device_grids import Grids, continued, cut


def coded(
    rgb: Tensor,
    rendered: Tensor,
    grids: Grids,
    bounds: NDArray[np.int64],
    codings: Sequence[Coding],
    layout: PlaneLayout,
) -> Tensor:
    """``blocks.coded`` of each picture of a batch.

    Args:
        rgb: ``[B, 3, H, W]`` 0..1.
        rendered: ``[B, H, W]`` 0..1.
        grids: true sizes of the windows.
        bounds: int64 ``[B, 4]`` of the windows in their frames.
        codings: how each one's luma is rounded.
        layout: of the frames.
    """
    if all(coding.step <= 0 for coding in codings):
        return rgb
    height, width = rgb.shape[2:]
    first = np.array([(c.top, c.left) for c in codings], np.int64)
    offset = (bounds[:, [1, 0]] - first) % BLOCK  # of a window's first pixel in its block
    weights = torch.from_numpy(luma_weights(layout).astype(np.float32)[0]).to(rgb.device)
    luma = (continued(rgb, grids) * weights[:, None, None]).sum(1, keepdim=True)
    rows, columns = (-(-(length + BLOCK - 1) // BLOCK) for length in (height, width))
    whole = cut(luma, -offset, (rows * BLOCK, columns * BLOCK))
    bases = torch.from_numpy(cosines()).to(rgb.device)
    steps = torch.tensor([max(coding.step, 1e-9) for coding in codings], device=rgb.device)[:, None, None, None, None]
    blocks = whole.reshape(-1, rows, BLOCK, columns, BLOCK).permute(0, 1, 3, 2, 4)
    found = ((bases @ blocks @ bases.T) / steps).round() * steps
    rounded = (bases.T @ found @ bases).permute(0, 1, 3, 2, 4).reshape(whole.shape)
    changed = (rgb + rendered[:, None] * cut(rounded - whole, offset, (height, width))).clamp(0, 1)
    wanted = torch.tensor([coding.step > 0 for coding in codings], device=rgb.device)
    return torch.where(wanted[:, None, None, None], changed, rgb)
