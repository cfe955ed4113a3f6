"""Sound and the features taken from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class AudioClip:
    """Mono float32 samples ``[N]`` in -1..1 at ``sample_rate_hz``; long ones may lie in a file (``np.memmap``)."""

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
    """Feature rows ``[T, C]``; row i is centred on ``first_s + i / rate_hz`` of the clip.

    Attributes:
        values: the rows. rate_hz: rows per second.
        extractor: what made them.
        first_s: centre of row 0, seconds; None = half a row, so that row i covers ``i / rate_hz .. (i + 1) / rate_hz``.
    """

    values: NDArray[np.float32]
    rate_hz: float
    extractor: str
    first_s: float | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.rate_hz <= 0:
            raise ValueError(f"features must be [T, C] at a rate above 0, got {self.values.shape} at {self.rate_hz}")
        if self.first_s is None:
            object.__setattr__(self, "first_s", 0.5 / self.rate_hz)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """``[T]`` centre of each row, seconds of the clip."""
        assert self.first_s is not None
        return self.first_s + np.arange(len(self.values)) / self.rate_hz


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSpeech:
    """Sound made ready for feature extraction, and what was found in it.

    Attributes:
        clip: without constant offset and values that are no numbers, brought to one loudness.
        is_speech: bool ``[T]`` at ``rate_hz``; row i covers ``i / rate_hz .. (i + 1) / rate_hz`` s.
        rate_hz: rows per second.
        loudness_lufs: EBU R128's integrated loudness as it came; -inf in silence.
        clipped_share: samples that stand flat at the recording's limit, 0..1.
        warnings: one sentence each on why the motion will be poor; empty when there is no reason.
    """

    clip: AudioClip
    is_speech: NDArray[np.bool_]
    rate_hz: float
    loudness_lufs: float
    clipped_share: float
    warnings: tuple[str, ...] = ()

    @property
    def speech_share(self) -> float:
        """Share of the sound that is speech, 0..1."""
        return float(self.is_speech.mean()) if len(self.is_speech) else 0.0
