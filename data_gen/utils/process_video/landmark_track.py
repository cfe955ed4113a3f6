"""One streaming pass over a video: follow the largest face, put 478 landmarks on it, and say where there is none.

CenterFace acquires; the landmark network then follows its own landmarks through a slowly moving region, because the
placement of its crop alone makes landmarks jitter by 0.25–0.7 % of the eye distance. What needs the whole clip
(rejecting false faces, smoothing) works on the tables afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import Landmarker, region_of_face, region_of_landmarks
from data_gen.utils.process_video.box_smoothing import smooth_boxes
from data_gen.utils.process_video.landmark_smoothing import smooth_landmarks
from data_gen.utils.process_video.scene_cuts import CutDetector
from modules.commons.errors import NoFaceError
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropRegion
from modules.structures.frames import Frame
from modules.structures.landmarks import (
    MEDIAPIPE_BLENDSHAPES,
    N_MEDIAPIPE,
    LandmarkResult,
    Landmarks2D,
    face_height_px,
)
from modules.structures.tracks import FaceTrack
from modules.video.colour import rgb_from_planes


@dataclass(frozen=True, slots=True)
class FollowConfig:
    """When a followed face is believed.

    Attributes:
        min_presence: landmark presence below it loses the face.
        min_agreement: IoU of detector box and landmark box that counts as agreement.
        confirm_s: seconds between detector looks at the followed face's surroundings.
        audit_s: seconds between detector looks at the whole frame.
        search_s: while no face is near, seconds between whole-frame looks.
        max_missed: detector looks in a row that may disagree before the face is given up.
        min_run: a face seen for fewer frames in a row is not believed.
        min_support: share of detector looks at a run that must have agreed.
        takeover: another face this many times larger (in height) takes over.
    """

    min_presence: float = 0.5
    min_agreement: float = 0.3
    confirm_s: float = 0.5
    audit_s: float = 2.0
    search_s: float = 0.2
    max_missed: int = 6
    min_run: int = 5
    min_support: float = 0.3
    takeover: float = 1.5


class Detector(Protocol):
    """The part of ``FaceDetector`` that following needs."""

    def detect_face_bbox(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int | None = None
    ) -> list[FaceDetection]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What one frame said: landmarks or none, which run they belong to, and whether the detector agreed (or was asked)."""

    result: LandmarkResult | None
    run: int
    agreed: bool | None


def landmark_box(points: NDArray) -> BoundingBox:
    """Bounding box of landmarks ``[478, 2]``: the face from the top of the forehead to the chin."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return BoundingBox(float(x0), float(y0), float(x1), float(y1))


def window_bounds(frame: Frame, box: BoundingBox) -> tuple[int, int, int, int] | None:
    """Pixels of ``frame`` under ``box`` and two more on each side, or None outside."""
    height, width = frame.size_hw
    return BoundingBox(box.x0 - 2, box.y0 - 2, box.x1 + 2, box.y1 + 2).pixel_bounds(width, height)


class RegionSmoother:
    """Moves the landmark network's square slowly while the head is still, and at once when it is not.

    A share of each correction is applied that grows with its size: 10 % for jitter, all of it from a tenth of the
    square's side on.
    """

    FLOOR = 0.1
    FULL_AT = 0.1

    def __init__(self) -> None:
        self._state: NDArray[np.float64] | None = None

    def reset(self, region: CropRegion) -> None:
        """Start over at ``region``."""
        self._state = self._vector(region)

    def update(self, region: CropRegion) -> CropRegion:
        """The square to use for the next frame after ``region`` was read off this one."""
        target = self._vector(region)
        if self._state is None:
            self._state = target
        else:
            change = target - self._state
            change[3] = np.remainder(change[3] + np.pi, 2 * np.pi) - np.pi
            size = np.exp(self._state[2])
            relative = np.array([np.hypot(*change[:2]) / size] * 2 + [abs(change[2]), abs(change[3])])
            self._state = self._state + np.clip(relative / self.FULL_AT, self.FLOOR, 1.0) * change
        x, y, log_side, angle = (float(v) for v in self._state)
        return CropRegion(x, y, float(np.exp(log_side)), angle)

    @staticmethod
    def _vector(region: CropRegion) -> NDArray[np.float64]:
        return np.array([region.center_x, region.center_y, np.log(region.side), region.angle_rad])


class FaceFollower:
    """Follows one face through frames handed over in order."""

    def __init__(self, landmarker: Landmarker, detector: Detector, config: FollowConfig) -> None:
        self._landmarker, self._detector, self._config = landmarker, detector, config
        self._cuts, self._smoother = CutDetector(), RegionSmoother()
        self._region: CropRegion | None = None
        self._last: LandmarkResult | None = None
        self._run, self._missed = 0, 0
        self._confirmed_s = self._audited_s = self._searched_s = -np.inf

    def step(self, frame: Frame) -> Observation:
        """Observe the next frame."""
        if self._cuts.is_cut(frame):
            self._lose()
            self._last, self._searched_s = None, -np.inf
        result = self._follow(frame)
        agreed = None
        if result is None:
            self._lose()
            result = self._acquire(frame)
            agreed = True if result is not None else None
        else:
            agreed = self._check(frame, result)
        if result is not None and self._region is not None:
            self._last = result
            self._region = self._smoother.update(region_of_landmarks(result.points))
        return Observation(result if self._region is not None else None, self._run, agreed)

    def _lose(self) -> None:
        if self._region is not None:
            self._run += 1
        self._region, self._missed = None, 0

    def _landmarks(self, frame: Frame, region: CropRegion) -> LandmarkResult | None:
        bounds = window_bounds(frame, region.bounding_box())
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
        faces: list[FaceDetection] = []
        if self._last is not None:
            faces = self._look_around(frame, landmark_box(self._last.points), 4.0)
        now = float(frame.time_s)
        if not faces and now - self._searched_s >= self._config.search_s:
            self._searched_s = now
            faces = self._detector.detect_face_bbox(rgb_from_planes(frame))
        for face in faces:
            result = self._settle(frame, face)
            if result is not None:
                self._confirmed_s = self._audited_s = now
                return result
        return None

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
        side = max(box.width, box.height) * factor
        cx, cy = box.center
        bounds = window_bounds(frame, BoundingBox(cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2))
        if bounds is None:
            return []
        rgb = rgb_from_planes(frame, bounds)
        # A face 64 px high is large enough for CenterFace, so the window shrinks to 64 px per face height.
        faces = self._detector.detect_face_bbox(rgb, max_side=int(64 * factor))
        return [_shift_face(face, *bounds[:2]) for face in faces]

    def _check(self, frame: Frame, result: LandmarkResult) -> bool | None:
        """Ask the detector about the followed face now and then; a much larger face takes over."""
        now, box = float(frame.time_s), landmark_box(result.points)
        if now - self._audited_s >= self._config.audit_s:
            self._audited_s = self._confirmed_s = now
            faces = self._detector.detect_face_bbox(rgb_from_planes(frame), max_side=640)
            if faces and faces[0].box.height > self._config.takeover * box.height and faces[0].box.iou(box) == 0:
                self._lose()
                self._last = None
                return None
        elif now - self._confirmed_s >= self._config.confirm_s:
            self._confirmed_s = now
            faces = self._look_around(frame, box, 2.5)
        else:
            return None
        agreed = any(face.box.iou(box) >= self._config.min_agreement for face in faces)
        self._missed = 0 if agreed else self._missed + 1
        if self._missed > self._config.max_missed:
            self._lose()
        return agreed


def _shift_face(face: FaceDetection, x: float, y: float) -> FaceDetection:
    box = BoundingBox(face.box.x0 + x, face.box.y0 + y, face.box.x1 + x, face.box.y1 + y)
    return FaceDetection(box, face.score, face.keypoints + np.array([x, y], dtype=np.float32))


def moved_like_a_head(before: NDArray, after: NDArray) -> bool:
    """Whether landmarks of two successive frames can be the same head: no leap, no sudden growth."""
    old, new = landmark_box(before), landmark_box(after)
    size = max(old.width, old.height)
    leap = max(abs(a - b) for a, b in zip(old.center, new.center, strict=True)) / size
    return leap < 0.6 and 0.6 < max(new.width, new.height) / size < 1.7


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


def track_and_landmark(
    frames: Iterable[Frame],
    landmarker: Landmarker,
    detector: Detector,
    *,
    min_face_px: float = 24,
    config: FollowConfig | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[FaceTrack, Landmarks2D]:
    """Follow the largest face of a video in one streaming pass.

    Args:
        frames: upright frames in presentation order, from index 0.
        min_face_px: least face height (forehead to chin) that is worth working on.
        progress: called with the number of frames done.

    Returns:
        Track and landmarks with one row per frame. Frames without a believable face are False and NaN; the track's
        boxes (of the landmarks, smoothed) are predictions there.

    Raises:
        NoFaceError: when no believable face is found, or it is too small.
    """
    config = config or FollowConfig()
    follower = FaceFollower(landmarker, detector, config)
    observations: list[Observation] = []
    for frame in frames:
        observations.append(follower.step(frame))
        if progress is not None:
            progress(len(observations))
    believed = believed_rows(observations, config)
    if not believed.any():
        raise NoFaceError(_no_face_message(observations))
    landmarks = smooth_landmarks(_table(observations, believed))
    height = float(np.median(face_height_px(landmarks.points[believed])))
    if height < min_face_px:
        raise NoFaceError(
            f"the face is about {height:.0f} px high, at least {min_face_px:.0f} px are needed: use a larger video"
        )
    return _track(landmarks, observations), landmarks


def _no_face_message(observations: list[Observation]) -> str:
    if not observations:
        return "no face was found: the video holds no frames"
    return f"no face was found in any of the {len(observations)} frames: the video must show a face"


def believed_rows(observations: list[Observation], config: FollowConfig) -> NDArray[np.bool_]:
    """``[T]`` rows whose run is long enough and was often enough confirmed by the detector."""
    seen = np.array([o.result is not None for o in observations], dtype=bool)
    runs = np.array([o.run for o in observations], dtype=np.int64)
    asked = np.array([o.agreed is not None for o in observations], dtype=bool)
    agreed = np.array([o.agreed is True for o in observations], dtype=bool)
    believed = np.zeros(len(observations), dtype=bool)
    shortest = min(config.min_run, len(observations))
    for run in np.unique(runs[seen]):
        rows = seen & (runs == run)
        support = agreed[rows].sum() / max(1, asked[rows].sum())
        if rows.sum() >= shortest and support >= config.min_support:
            believed |= rows
    return believed


def _table(observations: list[Observation], believed: NDArray[np.bool_]) -> Landmarks2D:
    count = len(observations)
    points = np.full((count, N_MEDIAPIPE, 2), np.nan, dtype=np.float32)
    depth = np.full((count, N_MEDIAPIPE), np.nan, dtype=np.float32)
    blendshapes = np.full((count, len(MEDIAPIPE_BLENDSHAPES)), np.nan, dtype=np.float32)
    for row in np.flatnonzero(believed):
        result = observations[row].result
        if result is not None:
            points[row], depth[row], blendshapes[row] = result.points, result.depth, result.blendshapes
    return Landmarks2D(points, depth, believed, blendshapes)


def _track(landmarks: Landmarks2D, observations: list[Observation]) -> FaceTrack:
    count = len(landmarks)
    boxes = np.zeros((count, 4))
    for row in np.flatnonzero(landmarks.valid):
        boxes[row] = landmark_box(landmarks.points[row]).as_array()
    scores = np.array([o.result.score if o.result is not None else 0.0 for o in observations], dtype=np.float32)
    return FaceTrack(smooth_boxes(boxes, landmarks.valid), landmarks.valid, scores * landmarks.valid)
