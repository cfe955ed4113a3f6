"""Crops: where the square the networks see lies in each frame, and the one owner of the half-pixel convention."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.boxes import BoundingBox

CROP_SCHEMA = "crop-metadata/1"


@dataclass(frozen=True, slots=True)
class CropRegion:
    """A square in frame space: centre and side in pixels, rotation in radians (clockwise on screen)."""

    center_x: float
    center_y: float
    side: float
    angle_rad: float = 0.0

    def __post_init__(self) -> None:
        values = (self.center_x, self.center_y, self.side, self.angle_rad)
        if not all(math.isfinite(v) for v in values) or self.side <= 0:
            raise ValueError(f"crop region must be finite with a positive side: {self}")

    def crop_from_frame(self, crop_size: int) -> NDArray[np.float64]:
        """``[3, 3]`` map of continuous frame pixels to continuous crop pixels."""
        scale = crop_size / self.side
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        rotate = np.array([[cos, sin], [-sin, cos]]) * scale
        offset = np.array([crop_size / 2, crop_size / 2]) - rotate @ np.array([self.center_x, self.center_y])
        matrix = np.eye(3)
        matrix[:2, :2] = rotate
        matrix[:2, 2] = offset
        return matrix

    def frame_from_crop(self, crop_size: int) -> NDArray[np.float64]:
        """``[3, 3]`` map of continuous crop pixels to continuous frame pixels, the inverse of ``crop_from_frame``."""
        scale = self.side / crop_size
        cos, sin = math.cos(self.angle_rad), math.sin(self.angle_rad)
        matrix = np.eye(3)
        matrix[:2, :2] = np.array([[cos, -sin], [sin, cos]]) * scale
        matrix[:2, 2] = np.array([self.center_x, self.center_y]) - matrix[:2, :2] @ np.full(2, crop_size / 2)
        return matrix

    def shifted(self, x: float, y: float) -> CropRegion:
        """The same square moved by (x, y) px, for instance into the pixels of a window."""
        return replace(self, center_x=self.center_x + x, center_y=self.center_y + y)

    def bounding_box(self) -> BoundingBox:
        """Axis-aligned box in frame space that holds the (possibly rotated) square."""
        half = self.side / 2 * (abs(math.cos(self.angle_rad)) + abs(math.sin(self.angle_rad)))
        return BoundingBox(self.center_x - half, self.center_y - half, self.center_x + half, self.center_y + half)


@dataclass(frozen=True, slots=True, eq=False)
class CropMetadata:
    """How frames map to crops: one region for the whole clip, or one per frame (``first_frame`` on)."""

    regions: tuple[CropRegion, ...]
    frame_size_hw: tuple[int, int]
    crop_size: int
    first_frame: int = 0

    def __post_init__(self) -> None:
        if not self.regions:
            raise ValueError("crop metadata holds no region")
        if self.crop_size not in (256, 512):
            raise ValueError(f"crop_size must be 256 or 512, got {self.crop_size}")

    def region(self, frame_index: int) -> CropRegion:
        """The region of a frame; a fixed crop answers the same region for every frame."""
        if len(self.regions) == 1:
            return self.regions[0]
        return self.regions[min(max(frame_index - self.first_frame, 0), len(self.regions) - 1)]

    def crop_from_frame(self, frame_index: int) -> NDArray[np.float64]:
        """``[3, 3]`` map of continuous frame pixels to continuous crop pixels at ``frame_index``."""
        return self.region(frame_index).crop_from_frame(self.crop_size)

    def frame_from_crop(self, frame_index: int) -> NDArray[np.float64]:
        """``[3, 3]`` map of continuous crop pixels to continuous frame pixels at ``frame_index``."""
        return self.region(frame_index).frame_from_crop(self.crop_size)

    def to_json(self) -> str:
        return json.dumps(
            {
                "schema": CROP_SCHEMA,
                "frame_size_hw": list(self.frame_size_hw),
                "crop_size": self.crop_size,
                "first_frame": self.first_frame,
                "regions": [[r.center_x, r.center_y, r.side, r.angle_rad] for r in self.regions],
            }
        )

    @classmethod
    def from_json(cls, text: str, source: Path | str = "crop metadata") -> CropMetadata:
        """Parse ``to_json``'s text.

        Raises:
            ValueError: when the text is not this schema; the message names ``source``.
        """
        try:
            data = json.loads(text)
            if data.get("schema") != CROP_SCHEMA:
                raise ValueError(f"schema is {data.get('schema')!r}, expected {CROP_SCHEMA!r}")
            return cls(
                regions=tuple(CropRegion(*(float(v) for v in row)) for row in data["regions"]),
                frame_size_hw=(int(data["frame_size_hw"][0]), int(data["frame_size_hw"][1])),
                crop_size=int(data["crop_size"]),
                first_frame=int(data["first_frame"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{source} is not crop metadata of this project: {error}") from error


def warp_affine(
    image: NDArray,
    dst_from_src: NDArray[np.float64],
    size_wh: tuple[int, int],
    *,
    flags: int = cv2.INTER_LINEAR,
    border_mode: int = cv2.BORDER_REPLICATE,
) -> NDArray:
    """Resample ``image`` by a ``[3, 3]`` affine map given in continuous pixels (centres at +0.5).

    OpenCV's warpAffine centres pixels on integers; this is the only place that translates between the two.
    """
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    matrix = np.linalg.inv(shift) @ dst_from_src @ shift
    return cv2.warpAffine(image, matrix[:2], size_wh, flags=flags, borderMode=border_mode)


def transform_points(dst_from_src: NDArray[np.float64], points: NDArray) -> NDArray:
    """Apply a ``[3, 3]`` affine map to points ``[..., 2]``."""
    return points @ dst_from_src[:2, :2].T + dst_from_src[:2, 2]


def sample_region(
    rgb: NDArray[np.uint8],
    region: CropRegion,
    size: int,
    *,
    flags: int = cv2.INTER_LINEAR,
    border_mode: int = cv2.BORDER_REPLICATE,
) -> NDArray[np.uint8]:
    """RGB ``[size, size, 3]`` seen through ``region``; reductions of 2× and more are area-filtered first.

    Plain bilinear sampling of a large face skips pixels, and the skipped ones change with every sub-pixel move: the
    landmarks of a 4K face would jitter for no reason in the picture.
    """
    source = region_source(rgb, region, size)
    if source is None:
        return np.zeros((size, size, 3), dtype=np.uint8)
    pixels, crop_from_pixels = source
    sampled = warp_affine(pixels, crop_from_pixels, (size, size), flags=flags, border_mode=border_mode)
    return np.asarray(sampled, dtype=np.uint8)


def region_source(
    rgb: NDArray[np.uint8], region: CropRegion, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]] | None:
    """What ``sample_region`` samples: the image, or the part of it under the region area-filtered, and a map from it.

    Returns:
        Pixels ``[h, w, 3]`` and the ``[3, 3]`` map from them to a crop of ``size``; None when the region shows nothing.
    """
    matrix = region.crop_from_frame(size)
    reduction = int(region.side / size)
    bounds = region.bounding_box().pixel_bounds(rgb.shape[1], rgb.shape[0])
    if bounds is None:
        return None
    if reduction < 2:
        return rgb, matrix
    small, image_from_small = _reduce(rgb, bounds, reduction)
    return small, matrix @ image_from_small


def _reduce(
    rgb: NDArray[np.uint8], bounds: tuple[int, int, int, int], reduction: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The part of an image inside ``bounds`` at 1/``reduction``, with the ``[3, 3]`` map back to the image."""
    x0, y0, x1, y1 = bounds
    width, height = math.ceil((x1 - x0) / reduction), math.ceil((y1 - y0) / reduction)
    small = cv2.resize(rgb[y0:y1, x0:x1], (width, height), interpolation=cv2.INTER_AREA)
    image_from_small = np.array([[(x1 - x0) / width, 0, x0], [0, (y1 - y0) / height, y0], [0, 0, 1.0]])
    return np.asarray(small, dtype=np.uint8), image_from_small


def mask_elsewhere(
    values: NDArray[np.float32], region: CropRegion, dst_from_frame: NDArray[np.float64], size_wh: tuple[int, int]
) -> NDArray[np.float32]:
    """A mask ``[S, S]`` 0..1 over a region of a frame as it lies in another image of that frame, ``[H, W]``.

    Args:
        values: the mask; beyond the region there is nothing.
        region: what the mask covers.
        dst_from_frame: ``[3, 3]`` map of continuous frame pixels to the image's.
        size_wh: of the image.
    """
    dst_from_mask = dst_from_frame @ region.frame_from_crop(values.shape[0])
    warped = warp_affine(values, dst_from_mask, size_wh, flags=cv2.INTER_LINEAR, border_mode=cv2.BORDER_CONSTANT)
    return np.clip(warped, 0, 1).astype(np.float32)


def moved_grid(flow: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Positions (x, y) that ``cv2.remap``, to which pixel centres are whole numbers, samples for ``flow [h, w, 2]``."""
    height, width = flow.shape[:2]
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return flow[..., 0] + columns, flow[..., 1] + rows[:, None]
