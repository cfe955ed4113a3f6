"""Frames that the person's own head cannot explain: something unseen stands in front, or the fit has slipped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

WATCH = (0.15, 0.3)
"""Errors are gathered between these shares of training: late enough to mean something, early enough to matter."""
OUTLIER = 5.0
"""A frame is dropped when its error lies this many robust standard deviations above the median ..."""
FLOOR = 1.5
"""... and is at least this many times the median."""


class FrameErrors:
    """Gathers each training frame's colour error and stops believing outliers.

    Attributes:
        believed: float32 ``[F]``, 1 or 0.
    """

    def __init__(self, n_frames: int, device: torch.device) -> None:
        self.believed = torch.ones(n_frames, device=device)
        self._sum = torch.zeros(n_frames, device=device)
        self._count = torch.zeros(n_frames, device=device)
        self._judged = torch.zeros((), dtype=torch.bool)

    def watch(self, progress: float, frame: Tensor, error: Tensor) -> None:
        """Take note of a step's errors ``[N, 3]`` of rays of ``frame [N]``; judge when the time has come."""
        if WATCH[0] <= progress < WATCH[1]:
            self._sum.index_add_(0, frame, error.abs().mean(dim=1))
            self._count.index_add_(0, frame, torch.ones_like(self._sum[frame]))
        elif progress >= WATCH[1] and not bool(self._judged):
            self.believed = believable(self._sum, self._count)
            self._judged = torch.ones((), dtype=torch.bool)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {"believed": self.believed, "sum": self._sum, "count": self._count, "judged": self._judged}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""
        device = self.believed.device
        self.believed, self._sum, self._count = (tensors[n].to(device) for n in ("believed", "sum", "count"))
        self._judged = tensors["judged"].cpu()


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
