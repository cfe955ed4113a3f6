"""What an evaluation can be told: ``egs/egs_bases/evaluation/base.yaml`` and what inherits from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """How trials are measured.

    Attributes:
        seed: of the bootstrap and of chance rows.
        draws: of the bootstrap.
        block_s: seconds of neighbouring frames that are resampled together.
        worst_frames: how many a contact sheet shows.
        syncnet: the public ``syncnet_v2.model``; without it LSE-C and LSE-D are not measured.
        lpips_backbone: torchvision's AlexNet weights; without them, or without torchvision, LPIPS is not measured.
    """

    task: Literal["evaluation"] = "evaluation"
    seed: int = 0
    draws: int = 1000
    block_s: float = 0.5
    worst_frames: int = 10
    syncnet: Path = Path("checkpoints/syncnet/syncnet_v2.model")
    lpips_backbone: Path = Path("checkpoints/lpips/alexnet-owt-7be5be79.pth")

    def __post_init__(self) -> None:
        if self.draws < 1 or self.block_s <= 0 or self.worst_frames < 0:
            raise ValueError(f"needs draws >= 1, block_s > 0 and worst_frames >= 0: {self}")
