"""What is true of a synthetic sequence: the exact mask of the thing, and where the face is behind it.

Writes: ``<name>.truth.npz`` beside the sequence's video.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import ConfigError
from modules.metrics.occlusion import within
from modules.structures.crops import CropMetadata, transform_points, warp_affine
from modules.structures.landmarks import JAW_LINE, face_height_px
from modules.structures.masks import filled

TRUTH_SCHEMA = "occluder-truth/1"
JUDGED_MARGIN = 0.04
"""The lower face is judged with this share of the face height around it: as far as an edit can reach."""
AROUND_MARGIN = 0.1
"""A second figure looks this far."""


@dataclass(frozen=True, slots=True, eq=False)
class SequenceTruth:
    """The exact answer for one sequence.

    Attributes:
        masks: uint8 ``[T, h, w]``, share of each frame pixel the thing covers (255 = all), over ``bounds``.
        bounds: int ``[4]``, half-open (x0, y0, x1, y1) frame px.
        points: float32 ``[T, 478, 2]`` frame px: the face's landmarks as seen before anything was put over it.
        thin: whether the thing counts as thin. kind: what it is.
    """

    masks: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    points: NDArray[np.float32]
    thin: bool
    kind: str

    def __post_init__(self) -> None:
        size = (int(self.bounds[3] - self.bounds[1]), int(self.bounds[2] - self.bounds[0]))
        if self.masks.shape[1:] != size or len(self.masks) != len(self.points):
            raise ValueError(f"masks {self.masks.shape}, bounds {self.bounds}, points {self.points.shape} disagree")

    def __len__(self) -> int:
        return len(self.masks)

    def in_crop(self, row: int, metadata: CropMetadata, size: int) -> NDArray[np.float32]:
        """The mask of frame ``row`` over its crop at ``[size, size]``, 0..1."""
        if not self.masks[row].any():
            return np.zeros((size, size), dtype=np.float32)
        frame_from_mask = np.eye(3)
        frame_from_mask[:2, 2] = self.bounds[:2]
        matrix = metadata.region(row).crop_from_frame(size) @ frame_from_mask
        soft = self.masks[row].astype(np.float32) / 255
        reduction = int(1 / matrix[0, 0]) if matrix[0, 0] > 0 else 1
        if reduction > 1:  # bilinear sampling of a reduced picture skips pixels
            soft = cv2.GaussianBlur(soft, (0, 0), 0.4 * reduction)
        placed = warp_affine(soft, matrix, (size, size), border_mode=cv2.BORDER_CONSTANT)
        return np.clip(placed, 0, 1).astype(np.float32)

    def lower_face(self, row: int, metadata: CropMetadata, size: int) -> NDArray[np.bool_]:
        """The lower face in the crop: the polygon along the jaw, closed from ear to ear ``[size, size]``.

        Of a face that is cut off by the frame's rim, only what the frame shows.
        """
        return lower_face_in_crop(self.points[row], metadata, row, size)

    def judged(self, row: int, metadata: CropMetadata, size: int, margin: float = JUDGED_MARGIN) -> NDArray[np.bool_]:
        """The lower face with ``margin`` face heights around it: where masks are compared."""
        points = transform_points(metadata.region(row).crop_from_frame(size), self.points[row])
        reach = margin * float(face_height_px(points))
        return within(self.lower_face(row, metadata, size), reach) & _shown(metadata, row, size)

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` without pickle, through a temporary name."""
        temporary = path.with_name(f".{path.stem}.tmp.npz")
        np.savez_compressed(
            temporary,
            schema=np.array(TRUTH_SCHEMA),
            masks=self.masks,
            bounds=self.bounds,
            points=self.points,
            thin=np.array(self.thin),
            kind=np.array(self.kind),
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> SequenceTruth:
        """Read what ``save`` wrote.

        Raises:
            ConfigError: when the file is missing or of another schema.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                if str(data["schema"]) != TRUTH_SCHEMA:
                    raise ConfigError(f"{path} is not of schema {TRUTH_SCHEMA}; delete it and build the set again")
                return cls(data["masks"], data["bounds"], data["points"], bool(data["thin"]), str(data["kind"]))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{path} cannot be read ({error}); delete it and build the set again") from error


def lower_face_in_crop(points: NDArray[np.floating], metadata: CropMetadata, row: int, size: int) -> NDArray[np.bool_]:
    """Where the lower face of landmarks ``[478, 2]`` frame px is in the crop of frame ``row``, ``[size, size]``.

    Of a face that is cut off by the frame's rim, only what the frame shows.
    """
    placed = transform_points(metadata.region(row).crop_from_frame(size), points)
    return filled(placed[list(JAW_LINE)], (size, size)) & _shown(metadata, row, size)


def _shown(metadata: CropMetadata, row: int, size: int) -> NDArray[np.bool_]:
    """The part of the crop that lies inside the frame: beyond, crops repeat the frame's rim."""
    height, width = metadata.frame_size_hw
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float64)
    placed = transform_points(metadata.region(row).crop_from_frame(size), corners)
    return filled(np.clip(placed, -size, 2 * size), (size, size))
