"""What stands in front of one face over a whole clip, measured against its landmarks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.occlusion_detector import OcclusionDetector, frame_occlusions
from data_gen.utils.process_video.part_store import PartStore
from modules.structures.crops import CropMetadata, transform_points
from modules.structures.frames import Frame
from modules.structures.landmarks import JAW_LINE, N_MEDIAPIPE, Landmarks2D
from modules.structures.masks import OcclusionTable


def occlusion_table(
    frames: Iterable[Frame],
    landmarks: Landmarks2D,
    metadata: CropMetadata,
    detector: OcclusionDetector,
    mask_size: int,
    rows: tuple[int, int] | None = None,
) -> OcclusionTable:
    """Occluders of frames ``rows[0] .. rows[1]`` of a clip, counted from ``rows[0]``; by default of all.

    Args:
        frames: of the clip, a little more on both sides than is asked for: hands are followed through time.
        landmarks: of the whole clip.
        metadata: where the crops lie.
        detector: finds hands.
        mask_size: side of the stored masks, px.
        rows: half-open.
    """
    first, stop = rows or (0, len(landmarks))
    coverage = np.zeros(stop - first, dtype=np.float32)
    hidden = np.zeros((stop - first, N_MEDIAPIPE), dtype=bool)
    found: list[int] = []
    masks: list[NDArray[np.uint8]] = []
    known = (frame for frame in frames if frame.index < len(landmarks))
    for window in frame_occlusions(known, landmarks, detector):
        row = window.index - first
        if window.values is None or not 0 <= row < stop - first or not landmarks.valid[window.index]:
            continue
        points = transform_points(metadata.crop_from_frame(window.index), landmarks.points[window.index])
        mask = window.over_crop(metadata).values
        if not (mask > 0.5).any():
            continue
        coverage[row] = _share_covered(mask > 0.5, _lower_face(points, mask.shape))
        hidden[row] = _hidden_points(mask > 0.5, points)
        found.append(row)
        small = cv2.resize(mask, (mask_size, mask_size), interpolation=cv2.INTER_AREA)
        masks.append(np.round(small * 255).astype(np.uint8))
    stacked = np.stack(masks) if masks else np.zeros((0, mask_size, mask_size), dtype=np.uint8)
    return OcclusionTable(coverage, hidden, np.array(found, dtype=np.int64), stacked)


def no_occlusion(count: int, mask_size: int) -> OcclusionTable:
    """A table of ``count`` frames in which nothing was found."""
    return OcclusionTable(
        np.zeros(count, dtype=np.float32),
        np.zeros((count, N_MEDIAPIPE), dtype=bool),
        np.zeros(0, dtype=np.int64),
        np.zeros((0, mask_size, mask_size), dtype=np.uint8),
    )


def join_occlusion(parts: PartStore, path: Path, mask_size: int) -> None:
    """Join the tables of successive stretches into one file; memory is one stretch's masks."""
    starts = parts.starts()
    tables = {start: parts.load(start, OcclusionTable.load) for start in starts}  # masks stay on disk
    coverage = np.concatenate([tables[start].coverage for start in starts])
    hidden = np.concatenate([tables[start].hidden for start in starts])
    rows = np.concatenate([tables[start].rows + start for start in starts])
    with OcclusionTable.writer(path, coverage, hidden, rows, mask_size) as writer:
        for start in starts:
            writer.append(masks=tables[start].masks)


def _lower_face(points: NDArray[np.floating], size_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    """Polygon along the jaw, closed straight from ear to ear: ``[H, W]``."""
    area = np.zeros(size_hw[:2], dtype=np.uint8)
    cv2.fillPoly(area, [np.round(points[list(JAW_LINE)]).astype(np.int32)], 1)
    return area > 0


def _share_covered(mask: NDArray[np.bool_], area: NDArray[np.bool_]) -> float:
    return float(mask[area].mean()) if area.any() else 0.0


def _hidden_points(mask: NDArray[np.bool_], points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which points ``[N, 2]`` lie on the mask; points outside the image do not."""
    height, width = mask.shape
    columns, rows = np.floor(points).astype(int).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    hidden = np.zeros(len(points), dtype=bool)
    hidden[inside] = mask[rows[inside], columns[inside]]
    return hidden
