"""Predicted facial motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class MotionSequence:
    """Expression coefficients over time.

    Attributes:
        expression: ``[T, E]``; row i stands at time ``(i + 0.5) / rate_hz`` seconds.
        is_speech: ``[T]`` float32 in 0..1, 0 in silence.
        rate_hz: rows per second (50 for the embedded model, 25 for official checkpoints).
        face_model_version: version of the face model the coefficients belong to.
        opening: ``[T]`` about how far the lips are apart (dm over rest), where the maker knows it; lets closures be
            kept when the motion is sampled at frame times.
    """

    expression: NDArray[np.float32]
    is_speech: NDArray[np.float32]
    rate_hz: float
    face_model_version: str
    opening: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.expression.ndim != 2 or self.is_speech.shape != self.expression.shape[:1]:
            raise ValueError(f"motion arrays disagree: {self.expression.shape} and {self.is_speech.shape}")
        if self.opening is not None and self.opening.shape != self.is_speech.shape:
            raise ValueError(f"opening {self.opening.shape} does not belong to {len(self.is_speech)} rows of motion")

    def __len__(self) -> int:
        return len(self.expression)

    @property
    def duration_s(self) -> float:
        return len(self) / self.rate_hz
