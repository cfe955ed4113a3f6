"""Smooth box tracks: Kalman filter with Rauch-Tung-Striebel smoother for whole clips, One-Euro for live use.

Centre x, centre y, log width and log height are four independent signals of constant velocity with random kicks: four
filters of two states keep covariances small, so that a track of any length fits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from filterpy.common import Q_discrete_white_noise
from filterpy.kalman import KalmanFilter
from numpy.typing import NDArray

MEASUREMENT_STD = 0.01
"""Noise of one box edge over the face size; landmark boxes jitter about this much."""
ACCELERATION_STD = 0.02
"""Kick per frame² over the face size; a fast nod reaches 0.1 face sizes per frame within five frames."""
START_SPEED_VARIANCE = 0.01
"""Of the unknown velocity in a track's first frame, (face sizes per frame)²."""
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
    states = boxes_to_states(boxes[rows])
    size = np.exp((states[:, 2] + states[:, 3]) / 2)
    step = np.abs(np.diff(states, axis=0))
    moved = np.maximum(step[:, 0], step[:, 1]) / np.minimum(size[1:], size[:-1])
    allowed = JUMP * np.sqrt(np.diff(rows))
    breaks = np.flatnonzero((moved > allowed) | (np.maximum(step[:, 2], step[:, 3]) > allowed)) + 1
    return np.split(rows, breaks)


def kalman_rts(values: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Smoothed positions ``[T, K]`` of K signals, in units in which the noise is ``MEASUREMENT_STD``.

    Args:
        values: ``[T, K]``; rows that are not ``seen`` are never read. The first row must be seen.
        seen: ``[T]`` bool.
    """
    return np.stack([_smoothed_signal(signal, seen) for signal in values.T], axis=1)


def _smoothed_signal(values: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One signal ``[T]``: position and velocity, filtered forward and smoothed backward."""
    kalman: Any = KalmanFilter(dim_x=2, dim_z=1)  # filterpy's inferred types know only its initial zeros
    kalman.F = np.array([[1.0, 1.0], [0.0, 1.0]])
    kalman.H = np.array([[1.0, 0.0]])
    kalman.R = np.array([[MEASUREMENT_STD**2]])
    kalman.Q = np.asarray(Q_discrete_white_noise(dim=2, dt=1.0, var=ACCELERATION_STD**2), np.float64)
    kalman.P = np.diag([MEASUREMENT_STD**2, START_SPEED_VARIANCE])
    kalman.x = np.array([values[0], 0.0])
    means, covariances, _, _ = kalman.batch_filter([v if s else None for v, s in zip(values, seen, strict=True)])
    return kalman.rts_smoother(means, covariances)[0][:, 0]


def _smooth_piece(boxes: Boxes, is_detected: NDArray[np.bool_]) -> Boxes:
    states = boxes_to_states(boxes)
    size = float(np.median(np.exp((states[is_detected, 2] + states[is_detected, 3]) / 2)))
    unit = np.array([size, size, 1.0, 1.0])
    return states_to_boxes(kalman_rts(states / unit, is_detected) * unit)


class OneEuroFilter:
    """Low-pass filter for live signals whose cut-off rises with speed (Casiez, Roussel and Vogel, CHI 2012).

    A slow signal is freed from jitter, a fast one from lag. It needs no future, so it serves live use; whole clips are
    better off with ``smooth_boxes``.

    Args:
        min_cutoff_hz: cut-off at rest; lower means less jitter.
        beta: how much the cut-off rises, in Hz per (unit of the signal per second); higher means less lag.
        speed_cutoff_hz: cut-off of the speed's own filter.
    """

    def __init__(self, min_cutoff_hz: float = 1.0, beta: float = 0.0, speed_cutoff_hz: float = 1.0) -> None:
        if min_cutoff_hz <= 0 or speed_cutoff_hz <= 0 or beta < 0:
            raise ValueError(
                f"cut-offs must be positive and beta not negative: {min_cutoff_hz}, {speed_cutoff_hz}, {beta}"
            )
        self._min_cutoff_hz, self._beta, self._speed_cutoff_hz = min_cutoff_hz, beta, speed_cutoff_hz
        self.reset()

    def reset(self) -> None:
        """Forget what was seen; the next value passes through."""
        self._time_s: float | None = None
        self._value = self._speed = np.zeros(0)

    def update(self, value: NDArray[np.float64], time_s: float) -> NDArray[np.float64]:
        """The filtered ``[K]`` signals at ``time_s`` (seconds); each signal has its own cut-off.

        Raises:
            ValueError: when time does not move forward.
        """
        value = np.asarray(value, dtype=np.float64)
        if self._time_s is None:
            self._time_s, self._value, self._speed = time_s, value, np.zeros_like(value)
            return value
        elapsed = time_s - self._time_s
        if elapsed <= 0:
            raise ValueError(f"live values must come in order of time: {time_s} s after {self._time_s} s")
        speed = (value - self._value) / elapsed
        self._speed = self._speed + _pull(self._speed_cutoff_hz, elapsed) * (speed - self._speed)
        cutoff = self._min_cutoff_hz + self._beta * np.abs(self._speed)
        self._value = self._value + _pull(cutoff, elapsed) * (value - self._value)
        self._time_s = time_s
        return self._value


class LiveBoxSmoother:
    """One-Euro over a box that arrives frame by frame; a jump starts it over, and so does ``reset``.

    Args:
        min_cutoff_hz: see ``OneEuroFilter``.
        beta: likewise, for speeds in face sizes per second.
    """

    def __init__(self, min_cutoff_hz: float = 1.5, beta: float = 3.0) -> None:
        self._filter = OneEuroFilter(min_cutoff_hz, beta)
        self._unit = np.ones(4)
        self._last: Boxes | None = None

    def reset(self) -> None:
        """Start over, for instance at a cut."""
        self._filter.reset()
        self._last = None

    def update(self, box: NDArray[np.float64], time_s: float) -> NDArray[np.float64]:
        """The smoothed box ``[4]`` at ``time_s``, seconds."""
        if self._last is not None and len(split_at_jumps(np.stack([self._last, box]), np.arange(2))) > 1:
            self.reset()
        state = boxes_to_states(box[None])[0]
        if self._last is None:
            size = math.exp((state[2] + state[3]) / 2)
            self._unit = np.array([size, size, 1.0, 1.0])
        self._last = box
        return states_to_boxes((self._filter.update(state / self._unit, time_s) * self._unit)[None])[0]


def _pull(cutoff_hz: float | NDArray[np.float64], elapsed_s: float) -> float | NDArray[np.float64]:
    """Share of the way to a new value that a first-order low-pass goes in one step."""
    radians = 2 * math.pi * cutoff_hz * elapsed_s
    return radians / (radians + 1)


def boxes_to_states(boxes: Boxes) -> NDArray[np.float64]:
    """Boxes ``[T, 4]`` as centre x, centre y, log width, log height."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, np.log(high - low)], axis=1)


def states_to_boxes(states: NDArray[np.float64]) -> Boxes:
    """The inverse of ``boxes_to_states``."""
    half = np.exp(states[:, 2:]) / 2
    return np.concatenate([states[:, :2] - half, states[:, :2] + half], axis=1)
