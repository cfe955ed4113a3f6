"""Soft masks with the space they live in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.array_file import ArrayFileWriter, mapped_npz
from modules.structures.landmarks import N_MEDIAPIPE

OCCLUSION_SCHEMA = "occlusion/4"
HAND_SHAPE = (21, 2)
"""Points of a hand."""
_HASHED_AT_ONCE = 256
"""Frames; their masks take some 16 MB."""


class OcclusionEvidence(IntEnum):
    """What a frame's mask was judged by; each kind knows all that the ones before it know."""

    NONE = 0
    """Nobody looked: there is no face."""
    HANDS = 1
    """Hands, motion and colour: objects and what the hand detector misses may be left out."""
    APPEARANCE = 2
    """Besides, what this person's face looks like elsewhere in the clip."""
    NERF = 3
    """Besides, what the person's trained head looks like with this frame's motion."""


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
        if self.hands.ndim != 3 or self.hands.shape[1:] != HAND_SHAPE:
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
        mouth: float32 ``[T]`` share of the lips' outline that is covered, 0..1.
        evidence: uint8 ``[T]`` of ``OcclusionEvidence``: what each frame was judged by.
        hand_rows: int64 ``[N]``, ascending: the frame of each hand that was found, one or more in a frame.
        hand_points: float32 ``[N, 21, 2]`` px of the frame, MediaPipe's points of each.
    """

    coverage: NDArray[np.float32]
    hidden: NDArray[np.bool_]
    rows: NDArray[np.int64]
    masks: NDArray[np.uint8]
    mouth: NDArray[np.float32]
    evidence: NDArray[np.uint8]
    hand_rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    hand_points: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, *HAND_SHAPE), np.float32))

    def __post_init__(self) -> None:
        per_frame = (self.hidden.shape[:1], self.mouth.shape, self.evidence.shape)
        if any(shape != self.coverage.shape for shape in per_frame) or self.masks.shape[:1] != self.rows.shape:
            raise ValueError(
                f"occlusion arrays disagree: coverage {self.coverage.shape}, hidden {self.hidden.shape}, "
                f"rows {self.rows.shape}, masks {self.masks.shape}, mouth {self.mouth.shape}, "
                f"evidence {self.evidence.shape}"
            )
        if self.hand_points.shape != (*self.hand_rows.shape, *HAND_SHAPE):
            raise ValueError(f"hands disagree: {self.hand_rows.shape} frames, points {self.hand_points.shape}")

    def __len__(self) -> int:
        return len(self.coverage)

    @classmethod
    def nothing(
        cls, count: int, mask_size: int, evidence: OcclusionEvidence = OcclusionEvidence.NONE
    ) -> OcclusionTable:
        """A table of ``count`` frames in which nothing was found."""
        return cls(
            coverage=np.zeros(count, np.float32),
            hidden=np.zeros((count, N_MEDIAPIPE), bool),
            rows=np.zeros(0, np.int64),
            masks=np.zeros((0, mask_size, mask_size), np.uint8),
            mouth=np.zeros(count, np.float32),
            evidence=np.full(count, evidence, np.uint8),
        )

    @property
    def mask_size(self) -> int:
        """Side of the stored masks, px."""
        return self.masks.shape[-1]

    def judged_by(self) -> dict[str, int]:
        """How many frames each kind of evidence judged, by its name; kinds that judged none are left out."""
        counts = np.bincount(self.evidence, minlength=len(OcclusionEvidence)).tolist()
        return {kind.name.lower(): counts[kind] for kind in OcclusionEvidence if counts[kind]}

    def digest(self) -> str:
        """A SHA-256 of all that the table says, for caches; masks on disk are read piece by piece."""
        found = hashlib.sha256()
        for member in fields(self):
            array = getattr(self, member.name)
            found.update(f"{member.name} {array.dtype} {array.shape}".encode())
            for start in range(0, len(array), _HASHED_AT_ONCE):
                found.update(np.ascontiguousarray(array[start : start + _HASHED_AT_ONCE]).tobytes())
        return found.hexdigest()

    def part(self, first: int, stop: int) -> OcclusionTable:
        """Frames ``first`` up to, not including, ``stop``, counted from ``first``."""
        start, end = np.searchsorted(self.rows, (first, stop))
        frames, hands = slice(first, stop), slice(*np.searchsorted(self.hand_rows, (first, stop)))
        return OcclusionTable(
            coverage=self.coverage[frames],
            hidden=self.hidden[frames],
            rows=self.rows[start:end] - first,
            masks=self.masks[start:end],
            mouth=self.mouth[frames],
            evidence=self.evidence[frames],
            hand_rows=self.hand_rows[hands] - first,
            hand_points=self.hand_points[hands],
        )

    def hands_in(self, row: int) -> NDArray[np.float32]:
        """Points ``[N, 21, 2]`` px of the hands found in frame ``row``."""
        return self.hand_points[slice(*np.searchsorted(self.hand_rows, (row, row + 1)))]

    def stored_mask(self, row: int) -> NDArray[np.uint8] | None:
        """Mask of frame ``row`` as it is stored, ``[S, S]``; None when nothing was found there."""
        found = int(np.searchsorted(self.rows, row))
        return self.masks[found] if found < len(self.rows) and self.rows[found] == row else None

    def mask(self, row: int, crop_size: int) -> NDArray[np.bool_] | None:
        """Occluder of frame ``row`` at ``[crop_size, crop_size]``, or None when nothing was found there."""
        soft = self.soft_mask(row, crop_size)
        return None if soft is None else soft > 0.5

    def soft_mask(self, row: int, crop_size: int) -> NDArray[np.float32] | None:
        """The same with its soft edge: float32 0..1, half where the occluder covers half of a pixel."""
        stored = self.stored_mask(row)
        if stored is None:
            return None
        grown = cv2.resize(stored, (crop_size, crop_size), interpolation=cv2.INTER_LINEAR)
        return np.asarray(grown, np.float32) / np.float32(255)

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        with self.writer(path, self) as writer:
            writer.append(masks=self.masks)

    @staticmethod
    def writer(path: Path, numbers: OcclusionTable) -> ArrayFileWriter:
        """Writes a table whose masks come block by block (``append(masks=…)``); all but those are of ``numbers``."""
        small = {
            "schema": np.array(OCCLUSION_SCHEMA),
            "coverage": numbers.coverage,
            "hidden": numbers.hidden,
            "rows": numbers.rows,
            "mouth": numbers.mouth,
            "evidence": numbers.evidence,
            "hand_rows": numbers.hand_rows,
            "hand_points": numbers.hand_points,
        }
        size = numbers.mask_size
        return ArrayFileWriter(path, {"masks": (np.uint8, (len(numbers.rows), size, size))}, small)

    @classmethod
    def load(cls, path: Path) -> OcclusionTable:
        """Read what ``save`` or ``writer`` wrote; masks are read from disk when they are looked at.

        Raises:
            ValueError: when the file is not this schema.
        """
        data = mapped_npz(path)
        if "schema" not in data or str(data["schema"]) != OCCLUSION_SCHEMA:
            raise ValueError(f"{path} does not hold occlusion of schema {OCCLUSION_SCHEMA}")
        small = {member.name: np.array(data[member.name]) for member in fields(cls) if member.name != "masks"}
        return cls(masks=data["masks"], **small)


def filled(ring: NDArray[np.floating], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels ``[H, W]`` inside a closed ring of continuous places ``[N, 2]`` px, its own pixels included."""
    area = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(area, [np.round(ring - 0.5).astype(np.int32)], 1)  # pixel (0, 0) is centred at (0.5, 0.5)
    return area > 0
