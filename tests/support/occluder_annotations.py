"""Occluders drawn by hand: what stands in front of, or close to, the lower half of a face in single frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.boxes import BoundingBox
from tests.support.annotations import DATA_DIR

SCHEMA = "occluder-annotation/1"
SHARPNESS = 4
"""Samples along a side of each pixel, of which a mask's coverage is the mean."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawnOccluder:
    """One outline.

    Attributes:
        what: "hand" or "microphone".
        soft: blurred by motion, so that the outline is the middle of a wide edge.
        points: ``[V, 2]`` frame pixels, the first pixel covers 0..1.
    """

    what: str
    soft: bool
    points: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 2 or len(self.points) < 3:
            raise ValueError(f"an outline needs three points or more, got shape {self.points.shape}")
        if not np.isfinite(self.points).all():
            raise ValueError("an outline has points that are no numbers")


@dataclass(frozen=True, slots=True, eq=False)
class OccludedFace:
    """All occluders of one face in one frame.

    Attributes:
        frame: index, as ``VideoReader`` counts.
        face: forehead to chin, ear to ear, roughly, in frame pixels.
        region: where the outlines are complete; outside it, nothing is said.
        occluders: empty where nothing is in front.
    """

    frame: int
    face: BoundingBox
    region: BoundingBox
    occluders: tuple[DrawnOccluder, ...]

    def mask(self, size_hw: tuple[int, int], soft: bool | None = None) -> NDArray[np.float32]:
        """Share ``[H, W]`` of every pixel that is covered; with ``soft``, by outlines of that kind only."""
        chosen = [occluder.points for occluder in self.occluders if soft is None or occluder.soft == soft]
        shares = np.zeros(size_hw, np.float32)
        if not chosen:
            return shares
        corner = np.floor(np.concatenate(chosen).min(axis=0)).astype(int)
        x0, y0 = np.maximum(corner, 0)
        x1, y1 = np.minimum(np.ceil(np.concatenate(chosen).max(axis=0)).astype(int), (size_hw[1], size_hw[0]))
        fine = np.zeros(((y1 - y0) * SHARPNESS, (x1 - x0) * SHARPNESS), np.uint8)
        for points in chosen:
            # drawn with sample centres on integers, 4 fractional bits
            places = np.round(((points - (x0, y0)) * SHARPNESS - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(fine, [places], 1, cv2.LINE_8, 4)
        samples = fine.reshape(y1 - y0, SHARPNESS, x1 - x0, SHARPNESS)
        shares[y0:y1, x0:x1] = samples.mean(axis=(1, 3), dtype=np.float32)
        return shares

    def judged(self, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
        """Pixels ``[H, W]`` that lie wholly in the region."""
        rows, columns = np.arange(size_hw[0]), np.arange(size_hw[1])
        down = (rows >= self.region.y0) & (rows + 1 <= self.region.y1)
        across = (columns >= self.region.x0) & (columns + 1 <= self.region.x1)
        return down[:, None] & across[None]


@dataclass(frozen=True, slots=True, eq=False)
class OccluderAnnotation:
    """The drawn frames of one clip, in order; a frame with two faces may be there twice."""

    clip: str
    size_wh: tuple[int, int]
    faces: tuple[OccludedFace, ...]
    note: str = ""

    def __post_init__(self) -> None:
        width, height = self.size_wh
        frames = [face.frame for face in self.faces]
        if frames != sorted(frames) or any(frame < 0 for frame in frames):
            raise ValueError(f"{self.clip}: frames are out of order: {frames}")
        for face in self.faces:
            for box in (face.face, face.region):
                if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
                    raise ValueError(f"{self.clip}: a box of frame {face.frame} leaves the picture")
            points = [occluder.points for occluder in face.occluders]
            if points and not _inside(np.concatenate(points), width, height):
                raise ValueError(f"{self.clip}: an outline of frame {face.frame} leaves the picture")


def load_occluders(path: Path) -> OccluderAnnotation:
    """Read an annotation file.

    Raises:
        ValueError: when the file is not of this schema or contradicts itself.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("schema") != SCHEMA:
        raise ValueError(f"{path} does not hold annotations of schema {SCHEMA}")
    faces = tuple(_face(entry) for entry in data["faces"])
    return OccluderAnnotation(data["clip"], (data["width"], data["height"]), faces, data.get("note", ""))


def occluders_of(clip: str) -> OccluderAnnotation:
    """The annotation in ``tests/data`` of the clip with this file name."""
    return load_occluders(DATA_DIR / f"occluders_{Path(clip).stem}.json")


def occluder_files() -> list[Path]:
    """Every annotation file there is, by name."""
    return sorted(DATA_DIR.glob("occluders_*.json"))


def _face(entry: dict) -> OccludedFace:
    drawn = tuple(
        DrawnOccluder(part["what"], bool(part["soft"]), np.array(part["points"], np.float64))
        for part in entry["occluders"]
    )
    return OccludedFace(entry["frame"], BoundingBox(*entry["face"]), BoundingBox(*entry["region"]), drawn)


def _inside(points: NDArray[np.float64], width: int, height: int) -> bool:
    return bool((points >= 0).all() and (points[:, 0] <= width).all() and (points[:, 1] <= height).all())
