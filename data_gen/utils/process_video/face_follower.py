"""Follow the largest face frame by frame: acquire with the detector, then let the landmarks lead themselves.

The landmark network sees the face through a square read off its own last landmarks. That square moves slowly, because
its placement alone makes landmarks jitter by 0.25–0.7 % of the eye distance.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import Landmarker, region_of_face, region_of_landmarks
from data_gen.utils.process_video.scene_cuts import CutDetector
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropRegion
from modules.structures.frames import Frame
from modules.structures.landmarks import LandmarkResult
from modules.video.colour import rgb_from_planes

COARSE_SIDE = 640
"""Longer side of the cheap whole-frame look."""
FACE_SIDE = 64
"""A face this high is large enough for the detector, so looks around a known face are shrunk to it."""


@dataclass(frozen=True, slots=True)
class FollowConfig:
    """When a followed face is believed.

    Attributes:
        min_presence: landmark presence below it loses the face.
        min_agreement: IoU of detector box and landmark box that counts as agreement.
        confirm_s: seconds between detector looks at the followed face's surroundings.
        audit_s: seconds between detector looks at the whole frame.
        search_s: while no face is near, seconds between coarse whole-frame looks.
        search_fine_s: the same for looks fine enough for tiny faces.
        max_missed: detector looks in a row that may disagree before the face is given up.
        min_run: a face seen for fewer frames in a row is not believed.
        min_support: share of detector looks at a run that must have agreed.
        takeover: another face this many times higher takes over.
        reach: face sizes that a lost face may have moved and still be the same person, at once and per frame after.
    """

    min_presence: float = 0.5
    min_agreement: float = 0.3
    confirm_s: float = 0.5
    audit_s: float = 2.0
    search_s: float = 0.2
    search_fine_s: float = 1.0
    max_missed: int = 6
    min_run: int = 5
    min_support: float = 0.3
    takeover: float = 1.5
    reach: tuple[float, float] = (1.0, 0.15)


class Detector(Protocol):
    """The part of ``FaceDetector`` that following needs."""

    def detect_face_bbox(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int | None = None
    ) -> list[FaceDetection]:
        """Faces, largest first."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What one frame said.

    Attributes:
        result: landmarks, or None.
        run: number of the unbroken run they belong to.
        shot: number of the shot.
        person: number of the person; a face that reappears elsewhere in a shot is somebody else.
        agreed: whether the detector agreed; None when it was not asked.
    """

    result: LandmarkResult | None
    run: int
    shot: int
    person: int
    agreed: bool | None


def landmark_box(points: NDArray) -> BoundingBox:
    """Bounding box of landmarks ``[478, 2]``: the face from the top of the forehead to the chin."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return BoundingBox(float(x0), float(y0), float(x1), float(y1))


class RegionSmoother:
    """Moves the landmark network's square slowly while the head is still, and at once when it is not.

    A share of each correction is applied that grows with its size: ``FLOOR`` for jitter, all of it from ``FULL_AT``
    (in sides of the square, or radians) on. Measured on a news anchor: 8 % less landmark jitter.
    """

    FLOOR = 0.1
    FULL_AT = 0.1

    def __init__(self) -> None:
        self._state = np.zeros(4)

    def reset(self, region: CropRegion) -> None:
        """Start over at ``region``."""
        self._state = self._vector(region)

    def update(self, region: CropRegion) -> CropRegion:
        """The square to use for the next frame after ``region`` was read off this one."""
        change = self._vector(region) - self._state
        change[3] = np.remainder(change[3] + np.pi, 2 * np.pi) - np.pi
        moved = np.hypot(change[0], change[1]) / np.exp(self._state[2])
        relative = np.array([moved, moved, abs(change[2]), abs(change[3])])
        self._state = self._state + np.clip(relative / self.FULL_AT, self.FLOOR, 1.0) * change
        x, y, log_side, angle = (float(v) for v in self._state)
        return CropRegion(x, y, float(np.exp(log_side)), angle)

    @staticmethod
    def _vector(region: CropRegion) -> NDArray[np.float64]:
        return np.array([region.center_x, region.center_y, np.log(region.side), region.angle_rad])


class FaceFollower:
    """Follows one face through frames handed over in order.

    Args:
        landmarker: puts landmarks on a face.
        detector: finds faces.
        config: when a face is believed.
    """

    def __init__(self, landmarker: Landmarker, detector: Detector, config: FollowConfig) -> None:
        self._landmarker, self._detector, self._config = landmarker, detector, config
        self._cuts, self._smoother = CutDetector(), RegionSmoother()
        self._region: CropRegion | None = None
        self._last: LandmarkResult | None = None
        self._skipped: deque[tuple[int, Frame]] = deque()
        self._known: dict[int, tuple[BoundingBox, int]] = {}
        self._row = -1
        self._run = self._shot = self._person = self._persons = self._missed = 0
        self._confirmed_s = self._audited_s = self._searched_s = self._searched_fine_s = -np.inf

    def step(self, frame: Frame) -> dict[int, Observation]:
        """Observe the next frame: {row: observation}, rows counted from 0; may add to rows just before.

        A search does not happen in every frame, so a face found now is looked for in the frames since the last one.
        """
        self._row += 1
        if self._cuts.is_cut(frame):
            self._start_shot()
        result, agreed = self._follow(frame), None
        earlier: dict[int, Observation] = {}
        if result is None:
            self._lose()
            result = self._acquire(frame)
            if result is None:
                self._skipped.append((self._row, frame))
            else:
                agreed = True
                earlier = self._look_back(result)
        else:
            result, agreed = self._check(frame, result)
        if result is not None:
            self._last = result
            self._known[self._person] = landmark_box(result.points), self._row
            self._region = self._smoother.update(region_of_landmarks(result.points))
        return {self._row: self._observation(result, agreed), **earlier}

    def _observation(self, result: LandmarkResult | None, agreed: bool | None) -> Observation:
        return Observation(result, self._run, self._shot, self._person, agreed)

    def _start_shot(self) -> None:
        self._lose()
        self._shot += 1
        self._forget()
        self._searched_s = self._searched_fine_s = -np.inf

    def _forget(self) -> None:
        """Whatever is found next is nobody seen before."""
        self._known.clear()
        self._last = None
        self._skipped.clear()

    def _lose(self) -> None:
        if self._region is not None:
            self._run += 1
        self._region, self._missed = None, 0

    def _landmarks(self, frame: Frame, region: CropRegion) -> LandmarkResult | None:
        """Believable landmarks seen through ``region``; only the pixels under it become RGB."""
        bounds = _window(frame, region.bounding_box())
        if bounds is None:
            return None
        x, y = bounds[:2]
        result = self._landmarker.detect(rgb_from_planes(frame, bounds), region.shifted(-x, -y)).shifted(x, y)
        believable = result.score >= self._config.min_presence and is_face_shaped(result.points)
        return result if believable else None

    def _follow(self, frame: Frame) -> LandmarkResult | None:
        if self._region is None or self._last is None:
            return None
        result = self._landmarks(frame, self._region)
        return result if result is not None and moved_like_a_head(self._last.points, result.points) else None

    def _acquire(self, frame: Frame) -> LandmarkResult | None:
        """Look where the face was last, then, less often, everywhere."""
        now = float(frame.time_s)
        faces: list[FaceDetection] = []
        if self._last is not None:
            faces = self._look_around(frame, landmark_box(self._last.points), 4.0)
        for face in faces or self._search(frame, now):
            result = self._settle(frame, face)
            if result is not None:
                self._confirmed_s = self._audited_s = now
                self._person = self._identify(landmark_box(result.points))
                return result
        return None

    def _search(self, frame: Frame, now: float) -> list[FaceDetection]:
        fine = now - self._searched_fine_s >= self._config.search_fine_s
        if not fine and now - self._searched_s < self._config.search_s:
            return []
        self._searched_s = now
        if fine:
            self._searched_fine_s = now
        faces = self._detector.detect_face_bbox(rgb_from_planes(frame), max_side=None if fine else COARSE_SIDE)
        if not faces:
            self._skipped.clear()
        return faces

    def _identify(self, box: BoundingBox) -> int:
        """Number of the person seen nearest to ``box`` in this shot, or a new one when nobody can have got there."""
        near = {
            person: _distance(old, box) for person, (old, row) in self._known.items() if self._can_be(old, row, box)
        }
        if near:
            return min(near, key=near.__getitem__)
        self._persons += 1
        return self._persons

    def _can_be(self, old: BoundingBox, row: int, box: BoundingBox) -> bool:
        at_once, per_frame = self._config.reach
        allowed = min(4.0, at_once + per_frame * (self._row - row))
        return _distance(old, box) < allowed and 0.5 < box.height / old.height < 2.0

    def _look_back(self, result: LandmarkResult) -> dict[int, Observation]:
        """Follow a face just found back through the frames since the last search."""
        found: dict[int, Observation] = {}
        while self._skipped:
            row, frame = self._skipped.pop()
            before = self._landmarks(frame, region_of_landmarks(result.points))
            if before is None or not moved_like_a_head(result.points, before.points):
                break
            found[row] = self._observation(before, None)
            result = before
        self._skipped.clear()
        return found

    def _settle(self, frame: Frame, face: FaceDetection) -> LandmarkResult | None:
        """Landmarks of a detected face; the second look goes through the square the first one gives."""
        first = self._landmarks(frame, region_of_face(face))
        if first is None:
            return None
        region = region_of_landmarks(first.points)
        result = self._landmarks(frame, region)
        if result is None or landmark_box(result.points).iou(face.box) < self._config.min_agreement:
            return None
        self._smoother.reset(region)
        self._region = region
        return result

    def _look_around(self, frame: Frame, box: BoundingBox, factor: float) -> list[FaceDetection]:
        """Faces in a square ``factor`` times the size of ``box`` around it, nearest first."""
        half = max(box.width, box.height) * factor / 2
        cx, cy = box.center
        bounds = _window(frame, BoundingBox(cx - half, cy - half, cx + half, cy + half))
        if bounds is None:
            return []
        rgb = rgb_from_planes(frame, bounds)
        faces = self._detector.detect_face_bbox(rgb, max_side=int(FACE_SIDE * factor))
        moved = [face.shifted(*bounds[:2]) for face in faces]
        return sorted(moved, key=lambda face: _distance(box, face.box))

    def _check(self, frame: Frame, result: LandmarkResult) -> tuple[LandmarkResult | None, bool | None]:
        """Ask the detector about the followed face now and then; a much larger face takes over."""
        now, box = float(frame.time_s), landmark_box(result.points)
        if now - self._audited_s >= self._config.audit_s:
            self._audited_s = self._confirmed_s = now
            faces = self._detector.detect_face_bbox(rgb_from_planes(frame), max_side=COARSE_SIDE)
            larger = self._take_over(frame, faces, box)
            if larger is not None:
                return larger, True
        elif now - self._confirmed_s >= self._config.confirm_s:
            self._confirmed_s = now
            faces = self._look_around(frame, box, 2.5)
        else:
            return result, None
        agreed = any(face.box.iou(box) >= self._config.min_agreement for face in faces)
        self._missed = 0 if agreed else self._missed + 1
        if self._missed > self._config.max_missed:
            self._lose()
            return None, agreed
        return result, agreed

    def _take_over(self, frame: Frame, faces: list[FaceDetection], box: BoundingBox) -> LandmarkResult | None:
        for face in faces:
            if face.box.height > self._config.takeover * box.height and face.box.iou(box) == 0:
                result = self._settle(frame, face)
                if result is not None:
                    self._run += 1
                    self._missed = 0
                    self._person = self._identify(landmark_box(result.points))
                    return result
        return None


def _window(frame: Frame, box: BoundingBox) -> tuple[int, int, int, int] | None:
    """Pixels of ``frame`` under ``box`` and two more on each side, or None outside."""
    height, width = frame.size_hw
    return BoundingBox(box.x0 - 2, box.y0 - 2, box.x1 + 2, box.y1 + 2).pixel_bounds(width, height)


def _distance(first: BoundingBox, second: BoundingBox) -> float:
    """How far apart two boxes lie along x or y, in sizes of the first."""
    size = max(first.width, first.height)
    return max(abs(a - b) for a, b in zip(first.center, second.center, strict=True)) / size


def moved_like_a_head(before: NDArray, after: NDArray) -> bool:
    """Whether landmarks of two successive frames can be the same head: no leap, no sudden growth."""
    old, new = landmark_box(before), landmark_box(after)
    growth = max(new.width, new.height) / max(old.width, old.height)
    return _distance(old, new) < 0.6 and 0.6 < growth < 1.7


def is_face_shaped(points: NDArray) -> bool:
    """Whether landmarks ``[478, 2]`` lie in the order of a face: brows over eyes over nose over mouth over chin.

    Measured along the forehead → chin axis, so the roll of the head does not matter.
    """
    top, chin = points[10], points[152]
    axis = chin - top
    length = float(np.linalg.norm(axis))
    if not np.isfinite(length) or length < 1.0:
        return False
    along = (points - top) @ (axis / length) / length
    brows, eyes = along[[105, 334]].mean(), along[[33, 133, 362, 263]].mean()
    nose, mouth = along[1], along[[0, 17]].mean()
    ordered = 0 < brows < eyes < nose < mouth < 1
    width = float(np.linalg.norm(points[454] - points[234])) / length
    return bool(ordered and 0.25 < width < 1.6 and mouth - eyes > 0.15)
