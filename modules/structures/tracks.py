"""A face followed through time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.boxes import BoundingBox

TRACK_SCHEMA = "face-track/2"


class FrameStatus(IntEnum):
    """What is known of a face in one frame."""

    LOST = 0
    """Nothing: the box, if there is one, must not be read as evidence of a face."""
    DETECTED = 1
    """Landmarks that are believed, on a face large enough and turned to the camera enough to be worked on."""
    PREDICTED = 2
    """A short gap between two sights; the box is interpolated."""
    OCCLUDED = 3
    """Followed by its landmarks, but something covers it so far that no detector sees it; the landmarks are guesses."""
    PROFILE = 4
    """Seen from the side: half of the mouth is out of sight."""
    TOO_SMALL = 5
    """Seen, but below the size that is worth working on."""


SEEN = (FrameStatus.DETECTED, FrameStatus.OCCLUDED, FrameStatus.PROFILE, FrameStatus.TOO_SMALL)
"""The statuses in which something was looked at, not guessed."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceTrack:
    """One face over frames ``first_frame .. first_frame + T``; gaps are explicit.

    Attributes:
        boxes: ``[T, 4]`` x0 y0 x1 y1 px in frame space; smoothed; rows that are not ``is_detected`` are predictions.
        status: uint8 ``[T]`` of ``FrameStatus``.
        confidence: float32 ``[T]`` in 0..1 that this is a real face, 0 where nothing was seen.
        first_frame: index of row 0 in the video.
    """

    boxes: NDArray[np.float64]
    status: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    first_frame: int = 0

    def __post_init__(self) -> None:
        count = len(self.status)
        if self.boxes.shape != (count, 4) or self.confidence.shape != (count,):
            raise ValueError(
                f"track arrays disagree: boxes {self.boxes.shape}, status {self.status.shape}, "
                f"confidence {self.confidence.shape}"
            )

    def __len__(self) -> int:
        return len(self.status)

    @property
    def is_detected(self) -> NDArray[np.bool_]:
        """``[T]`` whether the face was seen in a frame, in whatever state."""
        return np.isin(self.status, SEEN)

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
            status=self.status,
            confidence=self.confidence,
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
            return cls(data["boxes"], data["status"], data["confidence"], int(data["first_frame"]))


def track_of_boxes(boxes: NDArray[np.float64], seen: NDArray[np.bool_], first_frame: int = 0) -> FaceTrack:
    """A track that is ``DETECTED`` with full confidence where ``seen [T]`` and ``LOST`` elsewhere."""
    status = np.where(seen, FrameStatus.DETECTED, FrameStatus.LOST).astype(np.uint8)
    return FaceTrack(np.asarray(boxes, np.float64), status, seen.astype(np.float32), first_frame)
