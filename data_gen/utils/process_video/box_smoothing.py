"""Kalman filter and Rauch-Tung-Striebel smoother for box tracks; motion is constant velocity with random kicks."""

from __future__ import annotations

from typing import Any

import numpy as np
from filterpy.common import Q_discrete_white_noise
from filterpy.kalman import KalmanFilter
from numpy.typing import NDArray

MEASUREMENT_STD = 0.01
"""Noise of one box edge over the face size; landmark boxes jitter about this much."""
ACCELERATION_STD = 0.02
"""Kick per frame² over the face size; a fast nod reaches 0.1 face sizes per frame within five frames."""
JUMP = 0.75
"""A box that moves (or grows) by more than this many face sizes in one frame is another shot or another face."""

Boxes = NDArray[np.float64]


def smooth_boxes(boxes: Boxes, is_detected: NDArray[np.bool_]) -> Boxes:
    """Smooth boxes ``[T, 4]`` over detected rows and predict the others.

    Rows between two detections are bridged by the filter; rows before the first and after the last hold its value.
    The track is cut where it jumps, and each piece is smoothed by itself.

    Raises:
        ValueError: when no row is detected.
    """
    rows = np.flatnonzero(is_detected)
    if len(rows) == 0:
        raise ValueError("a track without any detection cannot be smoothed")
    out = np.empty_like(boxes, dtype=np.float64)
    pieces = split_at_jumps(boxes, rows)
    for number, piece in enumerate(pieces):
        first, last = int(piece[0]), int(piece[-1]) + 1
        smoothed = _smooth_piece(boxes[first:last], is_detected[first:last])
        out[first:last] = smoothed
        out[last : int(pieces[number + 1][0]) if number + 1 < len(pieces) else len(boxes)] = smoothed[-1]
        if number == 0:
            out[:first] = smoothed[0]
    return out


def split_at_jumps(boxes: Boxes, rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Group detected ``rows`` into pieces the same face can have passed through; the allowance grows with the gap."""
    states = _to_states(boxes[rows])
    size = np.exp((states[:, 2] + states[:, 3]) / 2)
    step = np.abs(np.diff(states, axis=0))
    moved = np.maximum(step[:, 0], step[:, 1]) / np.minimum(size[1:], size[:-1])
    allowed = JUMP * np.sqrt(np.diff(rows))
    breaks = np.flatnonzero((moved > allowed) | (np.maximum(step[:, 2], step[:, 3]) > allowed)) + 1
    return np.split(rows, breaks)


def _smooth_piece(boxes: Boxes, is_detected: NDArray[np.bool_]) -> Boxes:
    states = _to_states(boxes)
    size = float(np.median(np.exp((states[is_detected, 2] + states[is_detected, 3]) / 2)))
    unit = np.array([size, size, 1.0, 1.0])
    scaled = states / unit
    filtered = _constant_velocity_filter(scaled[0])
    means, covariances, _, _ = filtered.batch_filter(
        [row if seen else None for row, seen in zip(scaled, is_detected, strict=True)]
    )
    smoothed = filtered.rts_smoother(means, covariances)[0]
    return _to_boxes(smoothed.reshape(len(boxes), 4, 2)[:, :, 0] * unit)


def _constant_velocity_filter(start: NDArray) -> KalmanFilter:
    """State: position and velocity of centre x, centre y, log width, log height, in face sizes per frame."""
    kalman: Any = KalmanFilter(dim_x=8, dim_z=4)  # filterpy's inferred types know only its initial zeros
    kalman.F = np.kron(np.eye(4), np.array([[1.0, 1.0], [0.0, 1.0]]))
    kalman.H = np.kron(np.eye(4), np.array([[1.0, 0.0]]))
    kalman.R = np.eye(4) * MEASUREMENT_STD**2
    kick = np.asarray(Q_discrete_white_noise(dim=2, dt=1.0, var=ACCELERATION_STD**2), dtype=np.float64)
    kalman.Q = np.kron(np.eye(4), kick)
    kalman.P = np.kron(np.eye(4), np.diag([MEASUREMENT_STD**2, 0.01]))
    kalman.x = np.stack([start, np.zeros(4)], axis=1).reshape(8)
    return kalman


def _to_states(boxes: Boxes) -> NDArray[np.float64]:
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, np.log(high - low)], axis=1)


def _to_boxes(states: NDArray[np.float64]) -> Boxes:
    half = np.exp(states[:, 2:]) / 2
    return np.concatenate([states[:, :2] - half, states[:, :2] + half], axis=1)
