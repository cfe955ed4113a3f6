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
from modules.structures.landmarks import JAW_LINE, N_MEDIAPIPE, OUTER_LIP, Landmarks2D
from modules.structures.masks import HAND_SHAPE, OcclusionEvidence, OcclusionTable, filled

SAMPLES_PER_EDGE = 8
"""Places looked at between two points of the lips' outline."""


class TableRows:
    """Collects the masks of frames ``rows[0] .. rows[1]`` and measures them against the landmarks.

    Args:
        landmarks: of the whole clip.
        metadata: where the crops lie.
        mask_size: side of the stored masks, px.
        rows: half-open; the table counts from ``rows[0]``.
    """

    def __init__(
        self, landmarks: Landmarks2D, metadata: CropMetadata, mask_size: int, rows: tuple[int, int] | None = None
    ) -> None:
        self._landmarks, self._metadata, self._mask_size = landmarks, metadata, mask_size
        self._first, self._stop = rows or (0, len(landmarks))
        count = self._stop - self._first
        self._coverage, self._mouth = np.zeros(count, np.float32), np.zeros(count, np.float32)
        self._hidden = np.zeros((count, N_MEDIAPIPE), bool)
        self._evidence = np.zeros(count, np.uint8)
        self._rows: list[int] = []
        self._masks: list[NDArray[np.uint8]] = []
        self._hand_rows: list[int] = []
        self._hands: list[NDArray[np.float32]] = []

    def wants(self, row: int) -> bool:
        """Whether clip row ``row`` belongs to the table and shows a face."""
        return self._first <= row < self._stop and bool(self._landmarks.valid[row])

    def add(
        self,
        row: int,
        mask: NDArray[np.float32] | None,
        evidence: OcclusionEvidence,
        hands: NDArray[np.float32] | None = None,
    ) -> None:
        """Measure what covers the face of a clip row, in order; rows that are not wanted are passed over.

        Args:
            row: of the clip.
            mask: float32 ``[S, S]`` 0..1 over the crop, at any size; None when nothing was found.
            evidence: what it was judged by.
            hands: ``[N, 21, 2]`` px of the frame; None = none were looked for.
        """
        if not self.wants(row):
            return
        place = row - self._first
        self._evidence[place] = evidence
        for hand in () if hands is None else hands:
            self._hand_rows.append(place)
            self._hands.append(hand)
        if mask is None or not (mask > 0.5).any():
            return
        to_mask = np.diag([mask.shape[1] / self._metadata.crop_size, mask.shape[0] / self._metadata.crop_size, 1.0])
        points = transform_points(to_mask @ self._metadata.crop_from_frame(row), self._landmarks.points[row])
        covered = mask > 0.5
        self._coverage[place] = _share_covered(covered, lower_face(points, covered.shape))
        self._mouth[place] = share_of_lips(covered, points)
        self._hidden[place] = _points_on(covered, points)
        self._rows.append(place)
        interpolation = cv2.INTER_AREA if mask.shape[0] > self._mask_size else cv2.INTER_LINEAR
        small = cv2.resize(mask, (self._mask_size, self._mask_size), interpolation=interpolation)
        self._masks.append(np.round(small * 255).astype(np.uint8))

    def table(self) -> OcclusionTable:
        """What was collected."""
        size = self._mask_size
        masks = np.stack(self._masks) if self._masks else np.zeros((0, size, size), np.uint8)
        hands = np.stack(self._hands) if self._hands else np.zeros((0, *HAND_SHAPE), np.float32)
        return OcclusionTable(
            coverage=self._coverage,
            hidden=self._hidden,
            rows=np.array(self._rows, dtype=np.int64),
            masks=masks,
            mouth=self._mouth,
            evidence=self._evidence,
            hand_rows=np.array(self._hand_rows, dtype=np.int64),
            hand_points=hands.astype(np.float32),
        )


def occlusion_table(
    frames: Iterable[Frame],
    landmarks: Landmarks2D,
    metadata: CropMetadata,
    detector: OcclusionDetector,
    mask_size: int,
    rows: tuple[int, int] | None = None,
) -> OcclusionTable:
    """Hands in frames ``rows[0] .. rows[1]`` of a clip, counted from ``rows[0]``; by default in all.

    Args:
        frames: of the clip, a little more on both sides than is asked for: hands are followed through time.
        landmarks: of the whole clip.
        metadata: where the crops lie.
        detector: finds hands.
        mask_size: side of the stored masks, px.
        rows: half-open.
    """
    made = TableRows(landmarks, metadata, mask_size, rows)
    known = (frame for frame in frames if frame.index < len(landmarks))
    for window in frame_occlusions(known, landmarks, detector):
        if made.wants(window.index):
            mask = None if window.values is None else window.over_crop(metadata).values
            made.add(window.index, mask, OcclusionEvidence.HANDS, window.hands)
    return made.table()


def join_occlusion(parts: PartStore, path: Path, mask_size: int) -> None:
    """Join the tables of successive stretches into one file; memory is one stretch's masks."""
    starts = parts.starts()
    tables = {start: parts.load(start, OcclusionTable.load) for start in starts}  # masks stay on disk
    rows = np.concatenate([tables[start].rows + start for start in starts])
    numbers = OcclusionTable(
        coverage=np.concatenate([tables[start].coverage for start in starts]),
        hidden=np.concatenate([tables[start].hidden for start in starts]),
        rows=rows,
        masks=np.broadcast_to(np.uint8(0), (len(rows), mask_size, mask_size)),  # no memory: only its shape counts
        mouth=np.concatenate([tables[start].mouth for start in starts]),
        evidence=np.concatenate([tables[start].evidence for start in starts]),
        hand_rows=np.concatenate([tables[start].hand_rows + start for start in starts]),
        hand_points=np.concatenate([tables[start].hand_points for start in starts]),
    )
    with OcclusionTable.writer(path, numbers) as writer:
        for start in starts:
            writer.append(masks=tables[start].masks)


def lower_face(points: NDArray[np.floating], size_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    """Polygon along the jaw, closed straight from ear to ear: ``[H, W]``; ``points [478, 2]`` are its pixels."""
    return filled(points[list(JAW_LINE)], (size_hw[0], size_hw[1]))


def share_of_lips(covered: NDArray[np.bool_], points: NDArray[np.floating]) -> float:
    """Share of the lips' outer outline that lies on ``covered [H, W]``, 0..1; ``points [478, 2]`` are its pixels."""
    corners = np.asarray(points[list(OUTER_LIP)], np.float64)
    steps = np.arange(SAMPLES_PER_EDGE)[:, None, None] / SAMPLES_PER_EDGE
    outline = corners + steps * (np.roll(corners, -1, axis=0) - corners)
    return float(_points_on(covered, outline.reshape(-1, 2)).mean())


def _share_covered(mask: NDArray[np.bool_], area: NDArray[np.bool_]) -> float:
    return float(mask[area].mean()) if area.any() else 0.0


def _points_on(mask: NDArray[np.bool_], points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which points ``[N, 2]`` lie on the mask; points outside the image do not."""
    height, width = mask.shape
    columns, rows = np.floor(points).astype(int).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    hidden = np.zeros(len(points), dtype=bool)
    hidden[inside] = mask[rows[inside], columns[inside]]
    return hidden
