"""Soft masks with the space they live in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.array_file import ArrayFileWriter, mapped_npz

OCCLUSION_SCHEMA = "occlusion/2"


@dataclass(frozen=True, slots=True, eq=False)
class OcclusionMask:
    """What stands in front of the face: float32 ``[H, W]`` in 0..1 (1 = occluder), in frame or crop pixels.

    ``hands`` holds hand landmarks ``[N, 21, 2]`` px in the same space (N = 0 when none were found).
    """

    values: NDArray[np.float32]
    space: Literal["frame", "crop"]
    hands: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ValueError(f"mask must be float32 [H, W], got {self.values.dtype} {self.values.shape}")
        if self.values.size and not (self.values.min() >= 0.0 and self.values.max() <= 1.0):
            raise ValueError("mask values outside 0..1")
        if self.hands.ndim != 3 or self.hands.shape[1:] != (21, 2):
            raise ValueError(f"hands must be [N, 21, 2], got {self.hands.shape}")

    @property
    def coverage(self) -> float:
        """Mean of the mask, 0..1."""
        return float(self.values.mean()) if self.values.size else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class OcclusionTable:
    """What stood in front of the face in each frame of a clip, in crop pixels.

    Attributes:
        coverage: float32 ``[T]`` share of the lower face that is covered, 0..1.
        hidden: bool ``[T, 478]`` landmarks that lie behind something; they are guesses, not observations.
        rows: int64 ``[M]``, ascending: the frames in which anything was found.
        masks: uint8 ``[M, S, S]`` masks of those frames over the whole crop, at a reduced size (255 = occluder).
    """

    coverage: NDArray[np.float32]
    hidden: NDArray[np.bool_]
    rows: NDArray[np.int64]
    masks: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.hidden.shape[:1] != self.coverage.shape or self.masks.shape[:1] != self.rows.shape:
            raise ValueError(
                f"occlusion arrays disagree: coverage {self.coverage.shape}, hidden {self.hidden.shape}, "
                f"rows {self.rows.shape}, masks {self.masks.shape}"
            )

    def __len__(self) -> int:
        return len(self.coverage)

    def mask(self, row: int, crop_size: int) -> NDArray[np.bool_] | None:
        """Occluder of frame ``row`` at ``[crop_size, crop_size]``, or None when nothing was found there."""
        found = int(np.searchsorted(self.rows, row))
        if found == len(self.rows) or self.rows[found] != row:
            return None
        grown = cv2.resize(self.masks[found], (crop_size, crop_size), interpolation=cv2.INTER_LINEAR)
        return np.asarray(grown) > 127

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        with self.writer(path, self.coverage, self.hidden, self.rows, self.masks.shape[-1]) as writer:
            writer.append(masks=self.masks)

    @staticmethod
    def writer(
        path: Path, coverage: NDArray[np.float32], hidden: NDArray[np.bool_], rows: NDArray[np.int64], mask_size: int
    ) -> ArrayFileWriter:
        """Writes a table whose masks come block by block (``append(masks=…)``)."""
        small = {"schema": np.array(OCCLUSION_SCHEMA), "coverage": coverage, "hidden": hidden, "rows": rows}
        return ArrayFileWriter(path, {"masks": (np.uint8, (len(rows), mask_size, mask_size))}, small)

    @classmethod
    def load(cls, path: Path) -> OcclusionTable:
        """Read what ``save`` or ``writer`` wrote; masks are read from disk when they are looked at.

        Raises:
            ValueError: when the file is not this schema.
        """
        data = mapped_npz(path)
        if "schema" not in data or str(data["schema"]) != OCCLUSION_SCHEMA:
            raise ValueError(f"{path} does not hold occlusion of schema {OCCLUSION_SCHEMA}")
        return cls(np.array(data["coverage"]), np.array(data["hidden"]), np.array(data["rows"]), data["masks"])
