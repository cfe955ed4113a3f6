"""Follow every face of a stream: cheap detection inside each track's region, association by overlap, smooth boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from data_gen.utils.process_video.box_smoothing import smooth_boxes
from data_gen.utils.process_video.scene_cuts import CutDetector
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.frames import Frame
from modules.structures.tracks import FaceTrack
from modules.video.colour import rgb_from_planes

MIN_OVERLAP = 0.2
"""Least IoU of a detection with the track's last box."""
MAX_GAP = 12
"""Frames a track survives without a detection."""
MIN_HITS = 5
"""Frames a face must be seen in to be reported."""


class _RegionDetector(Protocol):
    def detect(self, rgb: NDArray[np.uint8], area: BoundingBox | None = None) -> list[FaceDetection]: ...


class _FrameDetector(Protocol):
    def detect_face_bbox(self, rgb: NDArray[np.uint8]) -> list[FaceDetection]: ...


@dataclass(slots=True)
class _Track:
    first: int
    boxes: list[BoundingBox | None] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    last: BoundingBox | None = None
    gap: int = 0

    def add(self, face: FaceDetection | None) -> None:
        self.boxes.append(face.box if face is not None else None)
        self.scores.append(face.score if face is not None else 0.0)
        if face is not None:
            self.last, self.gap = face.box, 0
        else:
            self.gap += 1


class MultiTracker:
    """Grows tracks frame by frame.

    Args:
        frame_detector: finds faces on whole frames.
        region_detector: cheap detector used inside each track's surroundings.
        audit_s: seconds between whole-frame looks while any face is followed.
        search_s: the same while none is.
    """

    def __init__(
        self,
        frame_detector: _FrameDetector,
        region_detector: _RegionDetector,
        *,
        audit_s: float = 2.0,
        search_s: float = 0.2,
    ) -> None:
        self._frame_detector, self._region_detector = frame_detector, region_detector
        self._audit_s, self._search_s = audit_s, search_s
        self._cuts = CutDetector()
        self._live: list[_Track] = []
        self._done: list[_Track] = []
        self._looked_s = -np.inf

    def step(self, frame: Frame) -> None:
        """Take the next frame."""
        if self._cuts.is_cut(frame):
            self._done += self._live
            self._live, self._looked_s = [], -np.inf
        now = float(frame.time_s)
        if now - self._looked_s >= (self._audit_s if self._live else self._search_s):
            self._looked_s = now
            self._audit(frame)
        else:
            for track in self._live:
                track.add(self._look_near(frame, track))
        self._done += [track for track in self._live if track.gap > MAX_GAP]
        self._live = [track for track in self._live if track.gap <= MAX_GAP]

    def finish(self) -> list[FaceTrack]:
        """All tracks seen often enough, the one with the most face area over time first."""
        tracks = [track for track in self._done + self._live if sum(b is not None for b in track.boxes) >= MIN_HITS]
        return [_smoothed(track) for track in sorted(tracks, key=_seen_area, reverse=True)]

    def _audit(self, frame: Frame) -> None:
        faces = self._frame_detector.detect_face_bbox(rgb_from_planes(frame))
        taken = associate([track.last for track in self._live], [face.box for face in faces])
        for index, track in enumerate(self._live):
            face = taken.get(index)
            track.add(faces[face] if face is not None else self._look_near(frame, track))
        for index, face in enumerate(faces):
            if index not in taken.values():
                track = _Track(frame.index)
                track.add(face)
                self._live.append(track)

    def _look_near(self, frame: Frame, track: _Track) -> FaceDetection | None:
        if track.last is None:
            return None
        height, width = frame.size_hw
        cx, cy = track.last.center
        half = max(track.last.width, track.last.height) * 1.25
        bounds = BoundingBox(cx - half, cy - half, cx + half, cy + half).pixel_bounds(width, height)
        if bounds is None:
            return None
        x, y = bounds[:2]
        found = [_to_face_box(face, x, y) for face in self._region_detector.detect(rgb_from_planes(frame, bounds))]
        last = track.last
        best = max(found, key=lambda face: face.box.iou(last), default=None)
        return best if best is not None and best.box.iou(last) >= MIN_OVERLAP else None


def _to_face_box(face: FaceDetection, x: float, y: float) -> FaceDetection:
    """A region detection in frame pixels, its brow-to-chin square stretched to CenterFace's forehead-to-chin box."""
    box, (cx, cy) = face.box, face.box.center
    half_width = box.width * 0.44
    stretched = BoundingBox(cx - half_width + x, cy - box.height * 0.72 + y, cx + half_width + x, box.y1 + y)
    return FaceDetection(stretched, face.score, face.keypoints + np.array([x, y], dtype=np.float32))


def associate(known: list[BoundingBox | None], found: list[BoundingBox]) -> dict[int, int]:
    """Best assignment of ``found`` boxes to ``known`` ones by overlap: {index of known: index of found}."""
    if not known or not found:
        return {}
    overlap = np.array([[box.iou(old) if old is not None else 0.0 for box in found] for old in known])
    rows, cols = linear_sum_assignment(-overlap)
    return {int(r): int(c) for r, c in zip(rows, cols, strict=True) if overlap[r, c] >= MIN_OVERLAP}


def _seen_area(track: _Track) -> float:
    return sum(box.area for box in track.boxes if box is not None)


def _smoothed(track: _Track) -> FaceTrack:
    seen = np.array([box is not None for box in track.boxes])
    boxes = np.stack([box.as_array() if box is not None else np.full(4, np.nan) for box in track.boxes])
    last = int(np.flatnonzero(seen)[-1]) + 1
    scores = np.array(track.scores[:last], dtype=np.float32)
    return FaceTrack(smooth_boxes(boxes[:last], seen[:last]), seen[:last], scores, track.first)
