"""Frames that the person's own head cannot explain: something unseen stands in front, or the fit has slipped."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.radnerfs.engine import TrainingEngine

JUDGED_AT = 0.3
"""Share of training after which frames are judged: late enough to mean something, early enough to matter."""
RAYS_PER_FRAME = 512
OUTLIER = 5.0
"""A frame is dropped when its error lies this many robust standard deviations above the median ..."""
FLOOR = 1.5
"""... and is at least this many times the median."""


def judge_frames(engine: TrainingEngine, rays_per_frame: int = RAYS_PER_FRAME) -> Tensor:
    """What the engine should believe of each training frame ``[F]``: 1, or 0 for those it explains much worse.

    Measured on random rays, about ``rays_per_frame`` of each frame, by all processes together.
    """
    n_frames, per_step = engine.rays.n_frames, engine.config.rays_per_step
    total, count = torch.zeros(2, n_frames, device=engine.device)
    for _ in range(-(-n_frames * rays_per_frame // per_step)):
        batch = engine.draw()
        error = (engine.render_plainly(batch) - batch.rgb).abs().mean(dim=(1, 2))
        total.index_add_(0, batch.frame, error)
        count.index_add_(0, batch.frame, torch.ones_like(error))
    return believable(engine.ranks.total(total), engine.ranks.total(count))


def believable(total: Tensor, count: Tensor) -> Tensor:
    """1 for frames whose mean error ``total / count`` is no outlier, else 0; frames never drawn are believed."""
    seen = count > 0
    believed = torch.ones_like(total)
    if not bool(seen.any()):
        return believed
    mean = total / count.clamp(min=1)
    middle = mean[seen].median()
    spread = 1.4826 * (mean[seen] - middle).abs().median()
    believed[seen & (mean > middle + OUTLIER * spread) & (mean > FLOOR * middle)] = 0.0
    return believed
