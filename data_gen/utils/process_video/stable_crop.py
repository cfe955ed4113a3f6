"""Choose the square the networks see: fixed while the head stays put, smoothly moving when it does not.

Reads tables only. Landmarks are read a few hundred rows at a time and boiled down to how far the face reaches, so a
memory-mapped table of any length will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, gaussian_filter1d, maximum_filter1d
from scipy.signal.windows import hann

from data_gen.utils.process_video.box_smoothing import split_at_jumps
from modules.commons.errors import NoFaceError
from modules.structures.array_file import forget
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.landmarks import FOREHEAD_CHIN, JAW_LINE, OUTER_EYE_CORNERS
from modules.structures.tracks import FaceTrack

FIXED_LIMIT = 1.4
"""A fixed square may be this much larger than the typical grown face; beyond, the square follows the head."""
REACH_S = 0.5
"""How far the moving square looks to either side, seconds."""
SAFETY = 0.04
"""Every landmark keeps this share of the face's size from the edge of the square."""
CHIN_ROOM = 0.15
"""Face heights the jaw may sink below where it was seen: the new speech may open the mouth wider."""
LEVEL_ROLL_RAD = np.deg2rad(20.0)
"""A head that hardly rolls further than this is left as it is; turning the square would only add motion."""
STEADY_ROLL_RAD = np.deg2rad(12.0)
"""A head whose roll stays within this range gets a square at one angle."""
FACE_FLOOR_PX = 24.0
"""Below this height a face cannot be tracked or worked on."""
CHUNK = 256
"""Rows of landmarks looked at together."""

Table = NDArray[np.float64]


class CropTables(TypedDict, total=False):
    """The keyword arguments of ``stable_crop`` that a clip's tables give."""

    points: NDArray[np.floating] | None
    shot_starts: NDArray[np.int64] | None
    frame_rate: float


@dataclass(frozen=True, slots=True, eq=False)
class _Reach:
    """How far the face reaches in each row, with its margins.

    ``low`` and ``high`` ``[T, 2]`` are measured from ``center`` ``[T, 2]`` (frame px) along the axes of a square turned
    by ``angle`` ``[T]``.
    """

    center: Table
    low: Table
    high: Table
    angle: Table

    def rows(self, wanted: NDArray[np.intp] | slice) -> _Reach:
        return _Reach(self.center[wanted], self.low[wanted], self.high[wanted], self.angle[wanted])

    def filled(self, known: NDArray[np.intp], start: int, stop: int) -> _Reach:
        """Rows ``start .. stop``, interpolated between the ``known`` ones and held beyond them."""
        rows = np.arange(start, stop)
        tables = (self.center, self.low, self.high, self.angle[:, None])
        center, low, high, angle = (
            np.stack([np.interp(rows, known, column) for column in table[known].T], axis=1) for table in tables
        )
        return _Reach(center, low, high, angle[:, 0])

    @property
    def middle(self) -> Table:
        """Middle of what must be seen, frame px ``[T, 2]``."""
        return self.center + _turned((self.low + self.high) / 2, -self.angle)

    @property
    def size(self) -> Table:
        """Side of the smallest square for each row alone: ``[T]``."""
        return (self.high - self.low).max(axis=1)


def stable_crop(
    track: FaceTrack,
    frame_size_hw: tuple[int, int],
    margin: float,
    crop_size: int,
    *,
    points: NDArray[np.floating] | None = None,
    shot_starts: NDArray[np.int64] | None = None,
    roll: bool = False,
    frame_rate: float = 25.0,
) -> CropMetadata:
    """Square(s) that hold every seen box of ``track`` grown by ``margin`` of its size on each side.

    Args:
        track: the face; rows that are not seen put no demands on the square.
        frame_size_hw: size of the frames.
        margin: share of the face's size on each side.
        crop_size: side of the crop in its own pixels, 256 or 512.
        points: landmarks ``[T, 478, 2]`` px of the track's rows, NaN where there are none; a memory map will do. All
            478 of every seen row then lie inside with a margin, also when the jaw sinks further (``CHIN_ROOM``).
        shot_starts: frames of the video that begin a shot; the square leaps there and never glides over.
        roll: turn the square slowly with the eye line of a head that rolls much; needs ``points``.
        frame_rate: frames per second, for how far a moving square looks ahead.

    Raises:
        NoFaceError: when the track holds no seen frame.
        ValueError: when ``points`` do not belong to the track, or ``roll`` is wanted without them.
    """
    rows = np.flatnonzero(track.is_detected)
    if len(rows) == 0:
        raise NoFaceError("there is no face to crop: the track holds no detected frame")
    if points is None and roll:
        raise ValueError("a square that rolls with the head needs landmarks")
    if points is not None and points.shape != (len(track), 478, 2):
        raise ValueError(f"{points.shape} landmarks do not belong to a track of {len(track)} rows")
    starts = np.zeros(0, np.int64) if shot_starts is None else np.asarray(shot_starts, np.int64) - track.first_frame
    pieces = split_at_shots(split_at_jumps(track.boxes, rows), starts)
    angle = _angles(points, pieces, len(track), frame_rate) if points is not None and roll else np.zeros(len(track))
    reach = _box_reach(track.boxes, margin, angle)
    if points is not None:
        reach = _with_landmarks(reach, points, rows, margin)
    squares = _squares(reach, rows, pieces, piece_bounds(pieces, starts, len(track)), frame_rate)
    if (squares == squares[0]).all():
        squares = squares[:1]
    regions = tuple(CropRegion(*(float(v) for v in square)) for square in squares)
    return CropMetadata(regions, frame_size_hw, crop_size, track.first_frame)


def small_face_note(track: FaceTrack, metadata: CropMetadata, min_face_px: float) -> str | None:
    """What to tell the user, once, about a face lower than ``min_face_px`` whose crop is therefore an enlargement.

    Returns:
        One sentence, or None when the face is large enough.

    Raises:
        NoFaceError: when the face is lower than ``FACE_FLOOR_PX``.
    """
    seen = track.boxes[track.is_detected]
    height = float(np.median(seen[:, 3] - seen[:, 1])) if len(seen) else 0.0
    if height < FACE_FLOOR_PX:
        raise NoFaceError(
            f"the face is about {height:.0f} px high, at least {FACE_FLOOR_PX:.0f} px are needed: use a larger video"
        )
    if height >= min_face_px:
        return None
    enlarged = metadata.crop_size / float(np.median([region.side for region in metadata.regions]))
    return (
        f"the face is about {height:.0f} px high, below min_face_px {min_face_px:.0f}: its crop is "
        f"enlarged {enlarged:.1f} times, so expect soft detail"
    )


def grow_boxes(boxes: Table, margin: float) -> Table:
    """Boxes ``[T, 4]`` grown by ``margin`` of their width or height on each side."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] - margin * size, boxes[:, 2:] + margin * size], axis=1)


def split_at_shots(pieces: list[NDArray[np.intp]], starts: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Cut pieces of rows further, wherever a shot starts inside one."""
    return [part for piece in pieces for part in np.split(piece, np.searchsorted(piece, starts)) if len(part)]


def piece_bounds(pieces: list[NDArray[np.intp]], starts: NDArray[np.int64], count: int) -> list[tuple[int, int]]:
    """The rows each piece's square serves: from its shot's start, or its own first row within a shot, to the next."""
    bounds = [0]
    for before, piece in zip(pieces[:-1], pieces[1:], strict=True):
        between = starts[(starts > before[-1]) & (starts <= piece[0])]
        bounds.append(int(between.max()) if len(between) else int(piece[0]))
    return list(zip(bounds, [*bounds[1:], count], strict=True))


def _squares(
    reach: _Reach,
    rows: NDArray[np.intp],
    pieces: list[NDArray[np.intp]],
    bounds: list[tuple[int, int]],
    frame_rate: float,
) -> Table:
    """Centre x, centre y, side, angle of every row: ``[T, 4]``."""
    fixed = _fixed_square(reach.rows(rows))
    if fixed is not None:
        return np.tile(fixed, (len(reach.angle), 1))
    squares = np.empty((len(reach.angle), 4))
    for piece, (start, stop) in zip(pieces, bounds, strict=True):
        fixed = _fixed_square(reach.rows(piece))
        moving = None if fixed is not None else _follow(reach.filled(piece, start, stop), frame_rate)
        squares[start:stop] = fixed if moving is None else moving
    return squares


def _fixed_square(reach: _Reach) -> Table | None:
    """One square ``[4]`` for all rows, or None when the head moves or rolls too much for it."""
    angle = float(reach.angle[0])
    if not (reach.angle == angle).all():
        return None
    center = _turned(reach.center, reach.angle)
    low, high = (center + reach.low).min(axis=0), (center + reach.high).max(axis=0)
    side = float((high - low).max())
    if side > FIXED_LIMIT * float(np.median(reach.size)):
        return None
    return np.array([*_turned((low + high)[None] / 2, -reach.angle[:1])[0], side, angle])


def _follow(reach: _Reach, frame_rate: float) -> Table:
    """Smooth squares ``[T, 4]`` that cover what must be seen.

    The side is a moving maximum averaged over the same window, so the average never falls below what a frame needs.
    """
    frames = max(3, round(REACH_S * frame_rate))
    center = gaussian_filter1d(reach.middle, frames * 0.75, axis=0, mode="nearest")
    shift = _turned(center - reach.center, reach.angle)
    need = 2 * np.maximum(reach.high - shift, shift - reach.low).max(axis=1)
    window = hann(2 * frames + 3)[1:-1]
    widest = maximum_filter1d(need, len(window), mode="nearest")
    side = convolve1d(widest, window / window.sum(), mode="nearest")
    return np.column_stack([center, side * (1 + 1e-9), reach.angle])


def _box_reach(boxes: Table, margin: float, angle: Table) -> _Reach:
    grown = grow_boxes(boxes, margin)
    half = (grown[:, 2:] - grown[:, :2]) / 2
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    half = np.column_stack([cos * half[:, 0] + sin * half[:, 1], sin * half[:, 0] + cos * half[:, 1]])
    return _Reach((boxes[:, :2] + boxes[:, 2:]) / 2, -half, half, angle)


def _with_landmarks(reach: _Reach, points: NDArray[np.floating], rows: NDArray[np.intp], margin: float) -> _Reach:
    """Widen ``reach`` so that it holds the landmarks of ``rows``, their margins and the sunken jaw.

    In a turned square the landmarks with ``margin`` take the box's place, whose corners would ask for far too much.
    """
    low, high = reach.low.copy(), reach.high.copy()
    jaw, (top, chin), grown = list(JAW_LINE), FOREHEAD_CHIN, max(margin, SAFETY)
    for begin in range(0, len(rows), CHUNK):
        chunk = rows[begin : begin + CHUNK]
        face = np.asarray(points[chunk], np.float64) - reach.center[chunk, None]
        kept = np.isfinite(face).all(axis=(1, 2))
        chunk, face = chunk[kept], face[kept]
        turned = _turned(face, reach.angle[chunk, None])
        first, last = turned.min(axis=1), turned.max(axis=1)
        size = last - first
        sunken = turned[:, jaw] + CHIN_ROOM * (turned[:, chin] - turned[:, top])[:, None]
        first, last = np.minimum(first, sunken.min(axis=1)), np.maximum(last, sunken.max(axis=1))
        level = reach.angle[chunk, None] == 0
        forget(points)
        low[chunk] = np.where(level, np.minimum(low[chunk], first - SAFETY * size), first - grown * size)
        high[chunk] = np.where(level, np.maximum(high[chunk], last + SAFETY * size), last + grown * size)
    return _Reach(reach.center, low, high, reach.angle)


def _angles(points: NDArray[np.floating], pieces: list[NDArray[np.intp]], count: int, frame_rate: float) -> Table:
    """Angle of the square in each row ``[T]``, radians: 0, one angle a piece, or the slowly smoothed eye line."""
    left, right = OUTER_EYE_CORNERS
    angle = np.zeros(count)
    for piece in pieces:
        eyes = np.asarray(points[piece, right], np.float64) - np.asarray(points[piece, left], np.float64)
        seen = np.isfinite(eyes).all(axis=1)
        if not seen.any():
            continue
        raw = np.unwrap(np.arctan2(eyes[seen, 1], eyes[seen, 0]))
        middle = float(np.median(raw))
        if np.percentile(np.abs(raw), 95) <= LEVEL_ROLL_RAD:
            continue
        if np.ptp(np.percentile(raw, (1, 99))) <= STEADY_ROLL_RAD:
            angle[piece] = middle
            continue
        weight = np.interp(piece, piece[seen], np.hypot(*eyes[seen].T))  # a foreshortened eye line says little
        weighted = weight * np.interp(piece, piece[seen], raw)
        sigma = 2 * REACH_S * frame_rate
        smooth = gaussian_filter1d(np.stack([weighted, weight]), sigma, axis=1, mode="nearest")
        angle[piece] = smooth[0] / smooth[1]
    return angle


def _turned(vectors: Table, angle: Table) -> Table:
    """Frame-space vectors ``[..., 2]`` along the axes of squares turned by ``angle`` ``[...]`` (as ``CropRegion``)."""
    if not angle.any():
        return vectors
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)
