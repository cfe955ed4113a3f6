"""Offline smoothing of landmark tables, by region: the head's jitter goes, lip closures and blinks stay.

The face is averaged over a stretch of time. Lips and eyelids are not: they keep their shape frame by frame, and only
follow the averaged points around them, so that what they share with those (a shaking camera, a trembling square that
the network looks through) goes from them too. Irises follow the same way and are averaged lightly.

Averaging is a local parabola over time with a bell of weights. It is symmetric in the middle of a run, so nothing
comes late; it takes real frame times, so its stretch is in seconds at any frame rate, a varying one included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modules.structures.frame_index import shot_ranges
from modules.structures.landmarks import (
    EYES,
    IMAGE_LEFT_EYE,
    IMAGE_RIGHT_EYE,
    IRISES,
    MEDIAPIPE_BLENDSHAPES,
    MOUTH,
    N_MEDIAPIPE,
    RIGID,
    UPPER_FACE_SCORES,
    Landmarks2D,
)

NOMINAL_STEP_S = 0.04
"""Time between frames where no times are given."""
JUMP = 0.5
"""A face whose centre moves further than this share of its size in one frame is treated as another one."""

EYELIDS = tuple(point for point in EYES if point not in RIGID)
"""The eye rings without their corners. In blinks they move at least half as far as the lid's middle, others 0.3."""
SMOOTHED_SCORES = tuple(
    i for i in UPPER_FACE_SCORES if not MEDIAPIPE_BLENDSHAPES[i].startswith(("eyeBlink", "eyeLook"))
)
"""Columns of the scores that are smoothed: brows, squints, wide eyes, the nose; not the mouth, blinks or gaze."""

# fmt: off
_NOSE_AND_CHEEKS = (
    168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 97, 326, 205, 425, 50, 280, 36, 266, 101, 330, 117, 346, 118, 347,
)
_AROUND_EYES = (
    (33, 133, 226, 247, 30, 29, 27, 28, 56, 190, 243, 112, 26, 22, 23, 24, 110, 25),
    (263, 362, 446, 467, 260, 259, 257, 258, 286, 414, 463, 341, 256, 252, 253, 254, 339, 255),
)
"""Corners of the eyes and the rings outside the lids, image left and right."""
# fmt: on
_FOLLOWERS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    (MOUTH, _NOSE_AND_CHEEKS),
    (tuple(p for p in IMAGE_LEFT_EYE if p in EYELIDS) + IRISES[:5], _AROUND_EYES[0]),
    (tuple(p for p in IMAGE_RIGHT_EYE if p in EYELIDS) + IRISES[5:], _AROUND_EYES[1]),
)
"""Points that keep their shape, and those they follow: measured steadier than following the whole face."""
_KEPT = MOUTH + EYELIDS
_AVERAGED = [point for point in range(N_MEDIAPIPE) if point not in _KEPT + IRISES]
_LEAST_WEIGHT = 1e-4
"""Rows that would count less do not count: parabolas through next to nothing are no help."""


@dataclass(frozen=True, slots=True)
class SmoothingConfig:
    """Over what time either side of a frame, seconds, each part is averaged; 0 = not at all.

    Attributes:
        face_s: nose, cheeks, forehead, brows and jaw line, and their depth.
        iris_s: irises within the eye.
        score_s: blendshape scores of the upper face (``SMOOTHED_SCORES``).
    """

    face_s: float = 0.14
    iris_s: float = 0.1
    score_s: float = 0.12

    def __post_init__(self) -> None:
        if not all(0 <= value < 10 for value in (self.face_s, self.iris_s, self.score_s)):
            raise ValueError(f"smoothing times must be 0 to 10 s: {self}")

    @property
    def reach_s(self) -> float:
        """How far either side of a frame rows can matter to it."""
        return max(self.face_s + self.iris_s, self.score_s)


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """Turns, scales and shifts of the picture's plane: a point x + iy of a row goes to ``turn`` · (x + iy) + ``shift``.

    Attributes:
        turn, shift: complex128 ``[T]``.
    """

    turn: NDArray[np.complex128]
    shift: NDArray[np.complex128]

    def apply(self, points: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Move points ``[T, N]`` given as complex numbers."""
        return self.turn[:, None] * points + self.shift[:, None]


def smooth_landmarks(
    landmarks: Landmarks2D,
    times_s: NDArray[np.float64] | None = None,
    shot_starts: NDArray[np.int64] | None = None,
    config: SmoothingConfig | None = None,
) -> Landmarks2D:
    """Smooth a table region by region, restarted at every cut, gap and jump.

    Args:
        landmarks: of one face; rows that are not valid, or hold a NaN, stay as they are and are never smoothed over.
        times_s: float64 ``[T]`` rising frame times, seconds; None = 25 frames per second.
        shot_starts: int64 rows that begin a shot; None = one shot.
        config: how strongly.

    Returns:
        A table of the same size. A row depends on rows at most ``config.reach_s`` away, and on nothing else.

    Raises:
        ValueError: the times do not belong to the rows or do not rise.
    """
    config = config or SmoothingConfig()
    times_s = _checked_times(times_s, len(landmarks))
    points, depth = np.array(landmarks.points), np.array(landmarks.depth)
    scores = np.array(landmarks.blendshapes)
    for start, stop in unbroken_runs(landmarks, shot_starts):
        rows, columns = slice(start, stop), list(SMOOTHED_SCORES)
        points[rows] = _smooth_points(landmarks.points[rows], times_s[rows], config)
        depth[rows, _AVERAGED] = TimeAverage.over(times_s[rows], config.face_s).of(landmarks.depth[rows][:, _AVERAGED])
        some = TimeAverage.over(times_s[rows], config.score_s).of(landmarks.blendshapes[rows][:, columns])
        scores[rows, columns] = np.clip(some, 0.0, 1.0)
    return replace(landmarks, points=points, depth=depth, blendshapes=scores)


def _checked_times(times_s: NDArray[np.float64] | None, count: int) -> NDArray[np.float64]:
    if times_s is None:
        return np.asarray(np.arange(count) * NOMINAL_STEP_S, np.float64)
    if times_s.shape != (count,) or not (np.diff(times_s) > 0).all():
        raise ValueError(f"times of {count} landmark rows must be [{count}] and rise, got {times_s.shape}")
    return times_s


def unbroken_runs(landmarks: Landmarks2D, shot_starts: NDArray[np.int64] | None = None) -> list[tuple[int, int]]:
    """Half-open row ranges over which the face is valid, finite, of one shot, and moves steadily."""
    finite = np.isfinite(landmarks.points).all(axis=(1, 2)) & np.isfinite(landmarks.depth).all(axis=1)
    usable = landmarks.valid & finite & np.isfinite(landmarks.blendshapes).all(axis=1)
    rows = np.flatnonzero(usable)
    if len(rows) == 0:
        return []
    points = landmarks.points[rows]
    center = points.mean(axis=1)
    size = np.maximum(np.ptp(points, axis=1).max(axis=1), np.finfo(np.float32).tiny)
    leap = np.linalg.norm(np.diff(center, axis=0), axis=1) / np.minimum(size[1:], size[:-1])
    first_rows = [first for first, _ in shot_ranges(shot_starts, len(landmarks))]
    shot = np.searchsorted(first_rows, rows, side="right")
    breaks = np.flatnonzero((np.diff(rows) > 1) | (leap > JUMP) | (np.diff(shot) > 0)) + 1
    return [(int(piece[0]), int(piece[-1]) + 1) for piece in np.split(rows, breaks)]


def _smooth_points(
    points: NDArray[np.float32], times_s: NDArray[np.float64], config: SmoothingConfig
) -> NDArray[np.float32]:
    """One run ``[T, 478, 2]``."""
    raw = points[..., 0].astype(np.float64) + 1j * points[..., 1].astype(np.float64)
    smoothed = raw.copy()
    smoothed[:, _AVERAGED] = TimeAverage.over(times_s, config.face_s).of(raw[:, _AVERAGED])
    for followers, leaders in _FOLLOWERS:
        motion = fit_similarity(raw[:, list(leaders)], smoothed[:, list(leaders)])
        smoothed[:, list(followers)] = motion.apply(raw[:, list(followers)])
    irises = list(IRISES)
    smoothed[:, irises] = TimeAverage.over(times_s, config.iris_s).of(smoothed[:, irises])
    return np.stack([smoothed.real, smoothed.imag], axis=-1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class TimeAverage:
    """Weights of a local parabola over time: for each row, of which rows around it its smoothed value is the sum.

    Attributes:
        rows: int64 ``[T, K]`` rows around each one. weights: float64 ``[T, K]``, 0 beyond the stretch or the run.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def over(cls, times_s: NDArray[np.float64], half_s: float) -> TimeAverage:
        """Weights for rows at rising times ``[T]`` whose neighbours less than ``half_s`` away count.

        A row with fewer than four rows in reach stays as it is: three points make their own parabola.
        """
        count = len(times_s)
        here = np.arange(count)
        reach = int(np.max(np.searchsorted(times_s, times_s + half_s) - here, initial=1)) if half_s > 0 else 0
        around = here[:, None] + np.arange(-reach, reach + 1)
        rows = np.clip(around, 0, max(count - 1, 0))
        apart = (times_s[rows] - times_s[:, None]) / max(half_s, 1e-9)
        bell = np.where(around == rows, (1 - np.abs(np.clip(apart, -1, 1)) ** 3) ** 3, 0.0)
        bell[bell < _LEAST_WEIGHT] = 0.0
        weights = (around == here[:, None]).astype(np.float64)
        enough = np.count_nonzero(bell, axis=1) > 3
        weights[enough] = _parabola_weights(apart[enough], bell[enough])
        return cls(rows, weights)

    def of(self, values: NDArray) -> NDArray:
        """Average ``values [T, ...]`` over time, in their own type."""
        total = np.zeros(values.shape, np.promote_types(values.dtype, np.float64))
        for rows, weights in self.steps():
            total += weights.reshape(-1, *(1,) * (values.ndim - 1)) * values[rows]
        return total.astype(values.dtype)

    def steps(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """(rows ``[T]``, weights ``[T]``) to be added up, always in the same order."""
        return [(self.rows[:, k], self.weights[:, k]) for k in range(self.rows.shape[1]) if self.weights[:, k].any()]


def _parabola_weights(apart: NDArray[np.float64], bell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights ``[T, K]`` whose sum is the value at 0 of the parabola fitted with weights ``bell``."""
    moments = [(bell * apart**power).sum(axis=1) for power in range(5)]
    matrix = np.stack([np.stack([moments[i + j] for j in range(3)], axis=1) for i in range(3)], axis=1)
    at_zero = np.zeros((len(apart), 3, 1))
    at_zero[:, 0] = 1.0
    parabola = np.linalg.solve(matrix, at_zero)[..., 0]
    return bell * (parabola[:, :1] + parabola[:, 1:2] * apart + parabola[:, 2:] * apart**2)


def fit_similarity(source: NDArray[np.complex128], target: NDArray[np.complex128]) -> Similarity:
    """Least-squares turn, scale and shift of each row that take ``source [T, N]`` to ``target [T, N]``.

    Points that all lie in one place are only shifted.
    """
    from_center, to_center = source.mean(axis=1), target.mean(axis=1)
    a, b = source - from_center[:, None], target - to_center[:, None]
    norm = (a.real**2 + a.imag**2).sum(axis=1)
    spread = norm > 1e-6
    turn = np.where(spread, (a.conj() * b).sum(axis=1) / np.where(spread, norm, 1.0), 1.0)
    return Similarity(turn, to_center - turn * from_center)
