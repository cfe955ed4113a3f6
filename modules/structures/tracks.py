"""A face followed through time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.boxes import BoundingBox

TRACK_SCHEMA = "face-track/1"


@dataclass(frozen=True, slots=True, eq=False)
class FaceTrack:
    """One face over frames ``first_frame .. first_frame + T``; gaps are explicit.

    Attributes:
        boxes: ``[T, 4]`` x0 y0 x1 y1 px in frame space; smoothed; rows where ``is_detected`` is False are
            predictions and must not be read as evidence of a face.
        is_detected: ``[T]`` bool.
        scores: ``[T]`` detector or landmark confidence, 0 where undetected.
        first_frame: index of row 0 in the video.
    """

    boxes: NDArray[np.float64]
    is_detected: NDArray[np.bool_]
    scores: NDArray[np.float32]
    first_frame: int = 0

    def __post_init__(self) -> None:
        count = len(self.is_detected)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,):
            raise ValueError(
                f"track arrays disagree: boxes {self.boxes.shape}, is_detected {self.is_detected.shape}, "
                f"scores {self.scores.shape}"
            )

    def __len__(self) -> int:
        return len(self.is_detected)

    def box(self, row: int) -> BoundingBox:
        x0, y0, x1, y1 = (float(v) for v in self.boxes[row])
        return BoundingBox(x0, y0, x1, y1)

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            schema=np.array(TRACK_SCHEMA),
            boxes=self.boxes,
            is_detected=self.is_detected,
            scores=self.scores,
            first_frame=np.array(self.first_frame),
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> FaceTrack:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            if "schema" not in data or str(data["schema"]) != TRACK_SCHEMA:
                raise ValueError(f"{path} does not hold a face track of schema {TRACK_SCHEMA}")
            return cls(data["boxes"], data["is_detected"], data["scores"], int(data["first_frame"]))
