"""Light offline smoothing of landmark tables: the head's jitter goes, lip closures stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter

from modules.structures.landmarks import MOUTH, N_MEDIAPIPE, RIGID, Landmarks2D

WINDOW = 5
ORDER = 2
JUMP = 0.5
"""A face whose centre moves further than this share of its size in one frame is treated as another one."""

_NOT_MOUTH = np.setdiff1d(np.arange(N_MEDIAPIPE), MOUTH)


def smooth_landmarks(landmarks: Landmarks2D) -> Landmarks2D:
    """Savitzky–Golay (5 frames, parabola) on all but the mouth, restarted at every gap and jump.

    The mouth keeps its own shape frame by frame (a 60 ms closure must survive); it only follows the head's smoothed
    motion, which removes the jitter it shares with the rest of the face.
    """
    points, depth, blendshapes = landmarks.points.copy(), landmarks.depth.copy(), landmarks.blendshapes
    for start, stop in unbroken_runs(landmarks):
        points[start:stop] = _smooth_points(landmarks.points[start:stop])
        depth[start:stop] = _smooth(landmarks.depth[start:stop])
    return replace(landmarks, points=points, depth=depth, blendshapes=blendshapes)


def unbroken_runs(landmarks: Landmarks2D) -> list[tuple[int, int]]:
    """Half-open row ranges over which the face is valid and moves steadily."""
    rows = np.flatnonzero(landmarks.valid)
    if len(rows) == 0:
        return []
    points = landmarks.points[rows]
    center = points.mean(axis=1)
    size = np.ptp(points, axis=1).max(axis=1)
    leap = np.linalg.norm(np.diff(center, axis=0), axis=1) / np.minimum(size[1:], size[:-1])
    breaks = np.flatnonzero((np.diff(rows) > 1) | (leap > JUMP)) + 1
    return [(int(piece[0]), int(piece[-1]) + 1) for piece in np.split(rows, breaks)]


def _smooth_points(points: NDArray[np.float32]) -> NDArray[np.float32]:
    smoothed = points.astype(np.float64)
    smoothed[:, _NOT_MOUTH] = _smooth(points[:, _NOT_MOUTH])
    mouth = list(MOUTH)
    for row in range(len(points)):
        matrix, offset = fit_similarity(points[row, list(RIGID)], smoothed[row, list(RIGID)])
        smoothed[row, mouth] = points[row, mouth] @ matrix.T + offset
    return smoothed.astype(np.float32)


def _smooth(values: NDArray) -> NDArray:
    """Filter along axis 0; runs shorter than the window are left as they are."""
    if len(values) < WINDOW:
        return values
    return np.asarray(savgol_filter(values, WINDOW, ORDER, axis=0, mode="interp"), dtype=values.dtype)


def fit_similarity(source: NDArray, target: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least-squares rotation × scale ``[2, 2]`` and offset ``[2]`` that take ``source`` ``[N, 2]`` to ``target``."""
    source = source.astype(np.float64)
    from_center, to_center = source.mean(axis=0), target.mean(axis=0)
    a, b = source - from_center, target - to_center
    norm = (a**2).sum()
    cos = (a * b).sum() / norm
    sin = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / norm
    matrix = np.array([[cos, -sin], [sin, cos]])
    return matrix, to_center - matrix @ from_center
