"""What the landmarker says of each frame by itself, for comparison with the smoothed landmarks that are fitted."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from data_gen.utils.mp_feature_extractors.face_landmarker import Landmarker, region_of_landmarks
from modules.structures.frames import Frame
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, N_MEDIAPIPE, Landmarks2D
from modules.video.colour import rgb_from_planes

MIN_SCORE = 0.5


def landmarks_frame_by_frame(frames: Iterable[Frame], smoothed: Landmarks2D, landmarker: Landmarker) -> Landmarks2D:
    """Look at every frame of the track once more, through the square around its smoothed landmarks.

    Args:
        frames: upright, in the order of ``smoothed``'s rows.
        smoothed: T frames.
        landmarker: finds landmarks.

    Returns:
        T frames; one whose face is not seen, or was not tracked, is invalid.
    """
    count = len(smoothed)
    points = np.full((count, N_MEDIAPIPE, 2), np.nan, np.float32)
    depth = np.full((count, N_MEDIAPIPE), np.nan, np.float32)
    scores = np.full((count, len(MEDIAPIPE_BLENDSHAPES)), np.nan, np.float32)
    valid = np.zeros(count, bool)
    for row, frame in enumerate(frames):
        if row >= count or not smoothed.valid[row]:
            continue
        found = landmarker.detect(rgb_from_planes(frame), region_of_landmarks(smoothed.points[row]))
        if found.score >= MIN_SCORE:
            points[row], depth[row], scores[row], valid[row] = found.points, found.depth, found.blendshapes, True
    return Landmarks2D(points, depth, valid, scores)
