"""Sound and the features taken from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class AudioClip:
    """Mono float32 samples ``[N]`` in -1..1 at ``sample_rate_hz``."""

    samples: NDArray[np.float32]
    sample_rate_hz: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise ValueError(f"audio must be mono float32 [N], got {self.samples.dtype} {self.samples.shape}")

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz


@dataclass(frozen=True, slots=True, eq=False)
class AudioFeatures:
    """Feature rows ``[T, C]``; row i covers time ``(i + 0.5) / rate_hz`` of the clip."""

    values: NDArray[np.float32]
    rate_hz: float
    extractor: str
