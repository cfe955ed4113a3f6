"""The torch twin of ``real_mouth``, for batches of windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from modules.video.delta_transfer import STEP_PX
from modules.video.device_delta import CarriedBatch, carried_linearly
from modules.video.device_grids import area, continued, gaussian, linear
from modules.video.real_mouth import COLOUR_EDGES, LEAST_RIM, MOST_OFFSET, WHOLE_FROM


def with_real_mouth(source: Tensor, carried: CarriedBatch, free: Tensor | None = None) -> CarriedBatch:
    """``real_mouth.with_real_mouth`` of each window.

    Args:
        source: RGB ``[B, 3, H, W]`` 0..1.
        carried: in the source's light.
        free: ``[B, H, W]`` 1 - what stands in front; None = nothing does.
    """
    if carried.real is None:
        return carried
    grids = carried.grids
    real, used = carried.real[:, :3], carried.real[:, 3]
    seen = source if free is None else torch.cat([source, free[:, None]], 1)
    seen = carried_linearly(continued(seen, grids), carried.flow)
    rim = 4 * carried.rendered * (1 - carried.rendered) * used
    if free is not None:
        rim = rim * seen[:, 3]
    layers = torch.cat([(seen[:, :3] - real) * rim[:, None], rim[:, None]], 1)
    cells = grids.coarser(np.maximum(grids.size_hw // STEP_PX, 1))
    near = gaussian(cells, COLOUR_EDGES * carried.edge_px / STEP_PX)(area(grids, cells)(layers))
    offset = (near[:, :3] / (near[:, 3:] + LEAST_RIM)).clamp(-MOST_OFFSET, MOST_OFFSET)
    filmed = (real + linear(cells, grids)(offset)).clamp(0, 1)
    put_in = used * (carried.rendered / WHOLE_FROM).clamp(max=1)
    return replace(carried, new=carried.new + put_in[:, None] * (filmed - carried.new))


def rendered_only(carried: CarriedBatch) -> Tensor:
    """``rendered [B, H, W]`` without what was filmed, see ``real_mouth.without_filmed``."""
    return carried.rendered if carried.real is None else carried.rendered * (1 - carried.real[:, 3])
