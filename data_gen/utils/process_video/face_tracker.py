"""Follow every face of a stream: the detector acquires and audits, then each face's landmarks lead themselves.

The landmark network sees a face through a square read off its own last landmarks. That square stands still while the
head does, because its placement alone makes landmarks jitter.

A track is an unbroken life of a face: it ends at cuts and at every gap, because whoever appears where a face was lost
may be somebody else. Which tracks are one person is decided later, on tables. Everything the tracker remembers is plain
numbers, so that it can stop and go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import (
    Landmarker,
    detect_all,
    region_of_face,
    region_of_landmarks,
)
from data_gen.utils.process_video.appearance import FaceLook
from data_gen.utils.process_video.face_geometry import (
    distance_in_faces,
    is_face_shaped,
    landmark_box,
    moved_like_a_head,
    steadied,
)
from data_gen.utils.process_video.look_taker import LookTaker
from data_gen.utils.process_video.plausibility import face_plausibility, look_disagreement, mirror_disagreement
from data_gen.utils.process_video.tracker_state import FollowConfig, LiveFace, Sighting, TrackerState
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropRegion
from modules.structures.frames import Frame
from modules.structures.landmarks import LandmarkResult
from modules.video.colour import rgb_from_planes

FACE_SIDE = 64
"""A face this high is large enough for the detector, so looks around a known face are shrunk to it."""
RECENT_BYTES = 128 << 20
"""Most that frames held for looking back may take."""


class Detector(Protocol):
    """The part of ``FaceDetector`` that following needs."""

    def detect_face_bbox(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int | None = None
    ) -> list[FaceDetection]:
        """Faces, largest first."""
        ...

    def detect_any_roll(
        self,
        rgb: NDArray[np.uint8],
        area: BoundingBox | None = None,
        *,
        max_side: int | None = None,
        turn: bool = True,
    ) -> list[FaceDetection]:
        """Faces whose key points give their roll, largest first; with ``turn`` the whole picture is turned as well."""
        ...


class Confirmer(Protocol):
    """The part of ``RegionConfirmer`` that following needs."""

    def confirm(self, rgb: NDArray[np.uint8], box: BoundingBox, angle_rad: float = 0.0) -> float:
        """Score 0..1 of a face on ``box``."""
        ...


class FaceTracker:
    """Follows the faces of frames handed over in order.

    Args:
        landmarker: puts landmarks on a face.
        detector: finds faces.
        config: when a face is acquired, followed and given up.
        confirmer: cheap second opinion on a face followed; None = there is none.
        look_taker: takes in what people look like; None = looks are not taken.
        state: to go on from; the frames ``state.recent`` names must be handed to ``recall`` first.
    """

    def __init__(
        self,
        landmarker: Landmarker,
        detector: Detector,
        config: FollowConfig,
        confirmer: Confirmer | None = None,
        look_taker: LookTaker | None = None,
        state: TrackerState | None = None,
    ) -> None:
        self._landmarker, self._detector, self._config = landmarker, detector, config
        self._confirmer, self._look_taker = confirmer, look_taker
        self.state = state or TrackerState()
        self._frames: deque[Frame] = deque()

    def recall(self, frame: Frame) -> None:
        """Hold a frame that was seen before the tracker stopped, for looking back."""
        self._frames.append(frame)

    def step(self, frame: Frame, *, starts_shot: bool = False, ends_shot: bool = False) -> list[Sighting]:
        """Take the next frame; returns what is seen in it, and what of newly found faces was in the frames before.

        Args:
            frame: the next one.
            starts_shot: it is the first of a new shot.
            ends_shot: it is the last of its shot: whoever came since the last audit would never be found.
        """
        state = self.state
        state.row += 1
        if starts_shot:
            self._start_shot()
        now = float(frame.time_s)
        seen = self._without_collisions(self._follow_all(frame))
        scores: dict[int, float] = {}
        looks: dict[int, FaceLook] = {}
        earlier: list[Sighting] = []
        due, fine = self._audit_due(now)
        if due or ends_shot:
            rgb = rgb_from_planes(frame)
            scores, earlier = self._audit(frame, rgb, seen, fine=fine or ends_shot)
            looks = self._looks(rgb, seen)
        earlier += self._recover(frame, seen, scores)
        self._update(seen, scores, now)
        self._hold(frame, [landmark_box(result.points) for result in seen.values()])
        return [
            *(
                Sighting(state.row, track, result, scores.get(track, np.nan), looks.get(track))
                for track, result in seen.items()
            ),
            *earlier,
        ]

    def _start_shot(self) -> None:
        self.state.live = []
        self.state.audited_s = self.state.fine_s = -1e9
        self.state.searched = False
        self.state.recent = []
        self._frames.clear()

    def _settle_rolled(self, frame: Frame, rgb: NDArray[np.uint8], face: FaceDetection) -> LandmarkResult | None:
        """Landmarks of a face whose key points do not say which way up it is."""
        rolled = self._detector.detect_any_roll(rgb, face.box.scaled(2.0), max_side=2 * FACE_SIDE, turn=False)
        settled = (self._settle(frame, other) for other in rolled if _is_same_place(other.box, face.box))
        return next((result for result in settled if result is not None), None)

    def _landmarks(self, frame: Frame, region: CropRegion, least: float | None = None) -> LandmarkResult | None:
        """Believable landmarks seen through ``region``; only the pixels under it become RGB."""
        return self._all_landmarks(frame, [region], least)[0]

    def _all_landmarks(
        self, frame: Frame, regions: Sequence[CropRegion], least: float | None = None
    ) -> list[LandmarkResult | None]:
        """The same through several regions of a frame, at once where the landmarker can."""
        least = self._config.min_presence if least is None else least
        bounds = [window_around(frame, region.bounding_box()) for region in regions]
        looks = [
            (rgb_from_planes(frame, window), region.shifted(-window[0], -window[1]))
            for window, region in zip(bounds, regions, strict=True)
            if window is not None
        ]
        found = iter(detect_all(self._landmarker, looks))
        placed = [None if window is None else next(found).shifted(*window[:2]) for window in bounds]
        return [
            result if result is not None and result.score >= least and is_face_shaped(result.points) else None
            for result in placed
        ]

    def _follow_all(self, frame: Frame) -> dict[int, LandmarkResult]:
        """Landmarks of every face that was seen in the frame before, by track."""
        faces = [face for face in self.state.live if face.row == self.state.row - 1]
        results = self._all_landmarks(frame, [face.region for face in faces])
        return {
            face.track: result
            for face, result in zip(faces, results, strict=True)
            if result is not None and moved_like_a_head(face.box, landmark_box(result.points))
        }

    def _without_collisions(self, seen: dict[int, LandmarkResult]) -> dict[int, LandmarkResult]:
        """Two tracks on one face: the one that had to leap to get there has lost its own."""
        live = {face.track: face for face in self.state.live}
        boxes = {track: landmark_box(result.points) for track, result in seen.items()}
        strays: set[int] = set()
        tracks = sorted(boxes)
        for number, first in enumerate(tracks):
            for second in tracks[number + 1 :]:
                if {first, second} & strays or boxes[first].iou(boxes[second]) <= self._config.max_overlap:
                    continue
                strays.add(max((first, second), key=lambda t: _leap(live[t], boxes[t], self.state.row)))
        return {track: result for track, result in seen.items() if track not in strays}

    def _audit_due(self, now: float) -> tuple[bool, bool]:
        """Whether to look at the whole frame now, and whether finely."""
        config, following = self._config, bool(self.state.live)
        fine = now - self.state.fine_s >= config.fine_s[0 if following else 1]
        coarse = now - self.state.audited_s >= (config.audit_s if following else config.search_s)
        return fine or coarse, fine

    def _looks(self, rgb: NDArray[np.uint8], seen: dict[int, LandmarkResult]) -> dict[int, FaceLook]:
        """What everybody in the frame looks like."""
        if self._look_taker is None:
            return {}
        return {track: self._look_taker(rgb, result) for track, result in seen.items()}

    def _audit(
        self, frame: Frame, rgb: NDArray[np.uint8], seen: dict[int, LandmarkResult], *, fine: bool
    ) -> tuple[dict[int, float], list[Sighting]]:
        """Compare the whole frame's detections with the faces followed; new faces are added to ``seen``.

        Returns:
            Detector scores by track (0 where it disagreed), and what of new faces was in the frames before.
        """
        now = float(frame.time_s)
        self.state.audited_s = now
        if fine:
            self.state.fine_s = now
        side = min(max(frame.size_hw), self._config.sides[1 if fine else 0])
        any_roll = fine and not self.state.live
        look = self._detector.detect_any_roll if any_roll else self._detector.detect_face_bbox
        found = look(rgb, max_side=side)
        if any_roll and not found and side < max(frame.size_hw) and not self.state.searched:
            self.state.searched = True
            found = self._detector.detect_face_bbox(rgb, max_side=max(frame.size_hw))
        boxes = {track: landmark_box(result.points) for track, result in seen.items()}
        scores = {track: self._agreement(frame, rgb, result, found) for track, result in seen.items()}
        earlier: list[Sighting] = []
        for face in found:
            if len(self.state.live) >= self._config.max_faces or face.box.height < self._config.min_face_px:
                continue
            if any(_is_same_place(face.box, box) for box in boxes.values()):
                continue
            result = self._settle(frame, face) or (self._settle_rolled(frame, rgb, face) if fine else None)
            if result is None:
                continue
            track, back = self._welcome(frame, result)
            boxes[track], seen[track], scores[track] = landmark_box(result.points), result, face.score
            earlier += back
        return scores, earlier

    def _agreement(
        self, frame: Frame, rgb: NDArray[np.uint8], result: LandmarkResult, found: Sequence[FaceDetection]
    ) -> float:
        """Score of the detection of a followed face; what the whole frame did not show is looked at closely, twice."""
        box = landmark_box(result.points)
        agreeing = [face.score for face in found if face.box.iou(box) >= self._config.min_agreement]
        if not agreeing and self._confirmer is not None:
            score = self._confirmer.confirm(rgb, box, region_of_landmarks(result.points).angle_rad)
            agreeing = [score] if score >= self._config.min_confirmation else []
        if not agreeing:
            near = self._look_around(frame, box, 2.5)
            agreeing = [face.score for face in near if face.box.iou(box) >= self._config.min_agreement]
        return max(agreeing, default=0.0)

    def _look_around(self, frame: Frame, box: BoundingBox, factor: float) -> list[FaceDetection]:
        """Faces in a square ``factor`` times the size of ``box`` around it, nearest first."""
        half = max(box.width, box.height) * factor / 2
        cx, cy = box.center
        bounds = window_around(frame, BoundingBox(cx - half, cy - half, cx + half, cy + half))
        if bounds is None:
            return []
        faces = self._detector.detect_face_bbox(rgb_from_planes(frame, bounds), max_side=int(FACE_SIDE * factor))
        moved = [face.shifted(*bounds[:2]) for face in faces]
        return sorted(moved, key=lambda face: distance_in_faces(box, face.box))

    def _settle(self, frame: Frame, face: FaceDetection) -> LandmarkResult | None:
        """Landmarks of a detected face; the second look goes through the square the first one gives."""
        first = self._landmarks(frame, region_of_face(face), least=self._config.min_presence / 2)
        if first is None:
            return None
        result = self._landmarks(frame, region_of_landmarks(first.points))
        if result is None or landmark_box(result.points).iou(face.box) < self._config.min_agreement:
            return None
        return result if self._plausibility(frame, first, result) >= self._config.min_plausibility else None

    def _plausibility(self, frame: Frame, first: LandmarkResult, result: LandmarkResult) -> float:
        """How much two successive looks, and when they leave a doubt a third in the mirror, speak for a face."""
        settling = look_disagreement(first.points, result.points)
        plausible = face_plausibility(result.score, settling=settling)
        region = region_of_landmarks(first.points)
        bounds = window_around(frame, region.bounding_box())
        if plausible >= self._config.sure_plausibility or self._look_taker is None or bounds is None:
            return plausible
        x0, y0, x1, _ = bounds
        mirrored = CropRegion(x1 - region.center_x, region.center_y - y0, region.side, -region.angle_rad)
        rgb = np.ascontiguousarray(rgb_from_planes(frame, bounds)[:, ::-1])
        seen = self._landmarker.detect(rgb, mirrored).points
        points = result.points - np.array([x0, y0], np.float32)
        mirror = mirror_disagreement(points, seen, x1 - x0, self._look_taker.counterpart)
        return face_plausibility(result.score, settling=settling, mirror=mirror)

    def _welcome(self, frame: Frame, result: LandmarkResult, known: int = -1) -> tuple[int, list[Sighting]]:
        """Begin a track with a face found now, and follow it back, at most down to the row after ``known``."""
        track = self.state.tracks
        self.state.tracks += 1
        region = region_of_landmarks(result.points)
        box = landmark_box(result.points)
        self.state.live.append(LiveFace(track, region, box, (0.0, 0.0), self.state.row, float(frame.time_s)))
        return track, self._look_back(track, result, known)

    def _look_back(self, track: int, result: LandmarkResult, known: int) -> list[Sighting]:
        """Follow a face just found back through the frames held, down to where it was ``known`` before."""
        found: list[Sighting] = []
        for frame, (row, boxes) in zip(reversed(self._frames), reversed(self.state.recent), strict=True):
            if row <= known:
                break
            before = self._landmarks(frame, region_of_landmarks(result.points))
            if before is None or not moved_like_a_head(landmark_box(result.points), landmark_box(before.points)):
                break
            box = landmark_box(before.points)
            if any(box.iou(other) > self._config.max_overlap for other in boxes):
                break
            found.append(Sighting(row, track, before, float("nan")))
            boxes.append(box)
            result = before
        return found

    def _recover(self, frame: Frame, seen: dict[int, LandmarkResult], scores: dict[int, float]) -> list[Sighting]:
        """Look near where faces lost just now should be; whoever is found there begins a new track in ``seen``."""
        earlier: list[Sighting] = []
        lost = [face for face in self.state.live if face.track not in seen]
        for face in lost:
            taken = [landmark_box(result.points) for result in seen.values()]
            for candidate in self._look_around(frame, face.expected(self.state.row), 3.0):
                if any(_is_same_place(candidate.box, box) for box in taken):
                    continue
                result = self._settle(frame, candidate)
                if result is not None:
                    track, back = self._welcome(frame, result, face.row)
                    seen[track], scores[track] = result, candidate.score
                    earlier += back
                    self.state.live.remove(face)
                    break
        return earlier

    def _update(self, seen: dict[int, LandmarkResult], scores: dict[int, float], now: float) -> None:
        """Remember what was seen; forget who was given up."""
        kept: list[LiveFace] = []
        for face in self.state.live:
            result = seen.get(face.track)
            if result is None:
                if now - face.time_s <= self._config.give_up_s:
                    kept.append(face)
                continue
            score = scores.get(face.track)
            missed = face.missed if score is None else 0 if score > 0 else face.missed + 1
            if face.row == self.state.row:  # it began just now
                kept.append(face)
                continue
            if missed > self._config.max_missed:
                del seen[face.track]
                continue
            kept.append(_moved(face, result, self.state.row, now, missed))
        self.state.live = kept

    def _hold(self, frame: Frame, boxes: list[BoundingBox]) -> None:
        """Keep the frame for looking back: a small face is only found by a fine look."""
        self._frames.append(frame)
        self.state.recent.append((self.state.row, boxes))
        size = sum(plane.nbytes for plane in frame.planes)
        most = max(1, RECENT_BYTES // size)
        while len(self._frames) > most or frame.time_s - self._frames[0].time_s > self._config.hold_s:
            self._frames.popleft()
            self.state.recent.pop(0)


def _moved(face: LiveFace, result: LandmarkResult, row: int, now: float, missed: int) -> LiveFace:
    """A live face after one more sight."""
    box, wanted = landmark_box(result.points), region_of_landmarks(result.points)
    frames = max(row - face.row, 1)
    (x, y), (old_x, old_y) = box.center, face.box.center
    velocity = ((x - old_x) / frames, (y - old_y) / frames)
    region = steadied(face.region, wanted) if frames == 1 else wanted
    return replace(face, region=region, box=box, velocity=velocity, row=row, time_s=now, missed=missed)


def _leap(face: LiveFace, box: BoundingBox, row: int) -> tuple[float, int]:
    """How far a face had to move against its own motion to get to ``box``; of equals the younger one leapt."""
    return distance_in_faces(face.expected(row), box), face.track


def _is_same_place(found: BoundingBox, known: BoundingBox) -> bool:
    """Whether a detection lies on a face that is followed already."""
    (x, y), (cx, cy) = found.center, known.center
    inside = abs(x - cx) < known.width / 2 and abs(y - cy) < known.height / 2
    return found.iou(known) > 0.2 or inside


def window_around(frame: Frame, box: BoundingBox) -> tuple[int, int, int, int] | None:
    """Pixels of ``frame`` under ``box`` and two more on each side, or None outside."""
    height, width = frame.size_hw
    return BoundingBox(box.x0 - 2, box.y0 - 2, box.x1 + 2, box.y1 + 2).pixel_bounds(width, height)
