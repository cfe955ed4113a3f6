"""Choose the square the networks see: fixed while the head stays put, smoothly moving when it does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, uniform_filter1d

from data_gen.utils.process_video.box_smoothing import split_at_jumps
from modules.commons.errors import NoFaceError
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.tracks import FaceTrack

FIXED_LIMIT = 1.4
"""A fixed square may be this much larger than the typical grown face; beyond, the square follows the head."""
REACH = 12
"""Frames the moving square looks to either side: about half a second."""

Squares = NDArray[np.float64]


def stable_crop(track: FaceTrack, frame_size_hw: tuple[int, int], margin: float, crop_size: int) -> CropMetadata:
    """Square(s) that hold every detected box of ``track`` grown by ``margin`` of its size on each side.

    Raises:
        NoFaceError: when the track holds no detection.
    """
    rows = np.flatnonzero(track.is_detected)
    if len(rows) == 0:
        raise NoFaceError("there is no face to crop: the track holds no detected frame")
    grown = grow_boxes(track.boxes, margin)
    fixed = _fixed_square(grown[rows])
    if fixed is not None:
        return CropMetadata((_region(fixed),), frame_size_hw, crop_size, track.first_frame)
    squares = np.empty((len(track), 3))
    pieces = split_at_jumps(track.boxes, rows)
    starts = [0, *(int(piece[0]) for piece in pieces[1:]), len(track)]
    for piece, start, stop in zip(pieces, starts[:-1], starts[1:], strict=True):
        squares[start:stop] = _piece_squares(grown, piece, start, stop)
    return CropMetadata(tuple(_region(row) for row in squares), frame_size_hw, crop_size, track.first_frame)


def grow_boxes(boxes: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """Boxes ``[T, 4]`` grown by ``margin`` of their width or height on each side."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] - margin * size, boxes[:, 2:] + margin * size], axis=1)


def _fixed_square(grown: NDArray[np.float64]) -> Squares | None:
    low, high = grown[:, :2].min(axis=0), grown[:, 2:].max(axis=0)
    side = float((high - low).max())
    typical = float(np.median((grown[:, 2:] - grown[:, :2]).max(axis=1)))
    return np.array([*((low + high) / 2), side]) if side <= FIXED_LIMIT * typical else None


def _piece_squares(grown: NDArray[np.float64], piece: NDArray[np.intp], start: int, stop: int) -> Squares:
    """Squares of rows ``start .. stop`` that serve the detections of one piece of the track."""
    fixed = _fixed_square(grown[piece])
    if fixed is not None:
        return np.tile(fixed, (stop - start, 1))
    all_rows = np.arange(start, stop)
    boxes = np.stack([np.interp(all_rows, piece, grown[piece, column]) for column in range(4)], axis=1)
    return follow_boxes(boxes)


def follow_boxes(boxes: NDArray[np.float64]) -> Squares:
    """Smooth squares ``[T, 3]`` (centre x, centre y, side) that cover boxes ``[T, 4]``.

    The side is a moving maximum averaged over the same reach, so the average never falls below what a frame needs.
    """
    center = gaussian_filter1d((boxes[:, :2] + boxes[:, 2:]) / 2, REACH * 0.75, axis=0, mode="nearest")
    need = 2 * np.maximum(center - boxes[:, :2], boxes[:, 2:] - center).max(axis=1)
    window = 2 * REACH + 1
    side = uniform_filter1d(maximum_filter1d(need, window, mode="nearest"), window, mode="nearest")
    return np.column_stack([center, side])


def _region(square: NDArray[np.float64]) -> CropRegion:
    return CropRegion(float(square[0]), float(square[1]), float(square[2]))
