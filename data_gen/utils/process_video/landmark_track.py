"""One streaming pass over a video: follow the largest face, put 478 landmarks on it, and say where there is none.

``face_follower`` looks at frames; what needs the whole clip (rejecting false faces, smoothing) works on tables here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import Landmarker
from data_gen.utils.process_video.box_smoothing import smooth_boxes
from data_gen.utils.process_video.face_follower import (
    Detector,
    FaceFollower,
    FollowConfig,
    Observation,
    landmark_box,
)
from data_gen.utils.process_video.landmark_smoothing import smooth_landmarks
from modules.commons.errors import NoFaceError
from modules.commons.progress import Progress
from modules.structures.frames import Frame
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, N_MEDIAPIPE, Landmarks2D, face_height_px
from modules.structures.tracks import FaceTrack


def track_and_landmark(
    frames: Iterable[Frame],
    landmarker: Landmarker,
    detector: Detector,
    *,
    min_face_px: float = 24,
    config: FollowConfig | None = None,
    progress: Progress | None = None,
) -> tuple[FaceTrack, Landmarks2D]:
    """Follow the largest face of a video in one streaming pass.

    Args:
        frames: upright frames in presentation order.
        landmarker: puts landmarks on a face (``FaceLandmarker``).
        detector: finds faces (``FaceDetector``).
        min_face_px: least face height (forehead to chin) that is worth working on.
        config: when a face is believed.
        progress: told ``("track", frames done, 0)``.

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
        for row, observation in follower.step(frame).items():
            observations[row : row + 1] = [observation]
        if progress is not None:
            progress("track", len(observations), 0)
    believed = believed_rows(observations, config)
    if not believed.any():
        raise NoFaceError(_no_face_message(len(observations)))
    landmarks = smooth_landmarks(_table(observations, believed))
    height = float(np.median(face_height_px(landmarks.points[believed])))
    if height < min_face_px:
        raise NoFaceError(
            f"the face is about {height:.0f} px high, at least {min_face_px:.0f} px are needed: use a larger video"
        )
    return _track(landmarks, observations), landmarks


def _no_face_message(count: int) -> str:
    if count == 0:
        return "no face was found: the video holds no frames"
    return f"no face was found in any of the {count} frames: the video must show a face"


def believed_rows(observations: list[Observation], config: FollowConfig) -> NDArray[np.bool_]:
    """``[T]`` rows that count as the face: long and often enough confirmed runs of the main person of each shot."""
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
    return believed & _main_person(observations, believed)


def _main_person(observations: list[Observation], believed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``[T]`` rows of the person with the most face area over time, shot by shot."""
    area: dict[int, dict[int, float]] = {}
    for row in np.flatnonzero(believed):
        seen = observations[row]
        if seen.result is not None:
            persons = area.setdefault(seen.shot, {})
            persons[seen.person] = persons.get(seen.person, 0.0) + landmark_box(seen.result.points).area
    main = {shot: max(persons, key=persons.__getitem__) for shot, persons in area.items()}
    return np.array([main.get(o.shot) == o.person for o in observations], dtype=bool)


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
    boxes = np.full((len(landmarks), 4), np.nan)
    for row in np.flatnonzero(landmarks.valid):
        boxes[row] = landmark_box(landmarks.points[row]).as_array()
    scores = np.array([o.result.score if o.result is not None else 0.0 for o in observations], dtype=np.float32)
    return FaceTrack(smooth_boxes(boxes, landmarks.valid), landmarks.valid, scores * landmarks.valid)
