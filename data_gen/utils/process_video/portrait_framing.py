"""How a portrait is framed: which square of the video is shown, and where in it face and lips lie."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.resample_video_to_25fps_resize_to_512 import nearest_frames
from modules.commons.errors import NoFaceError
from modules.structures.crops import CropRegion
from modules.structures.frame_index import FrameIndex
from modules.structures.landmarks import face_height_px

Framing = Literal["auto", "whole", "face"]
ABOVE, BELOW, BESIDE = 1.1, 1.3, 1.2
"""Face heights around the middle of the face that a portrait shows: hair above, shoulders below."""
MOVES_FROM = 1.6
"""A square this much larger than one frame needs is said to be so."""
FACE_WIDER, FACE_HIGHER, LIPS_WIDER = 1.5, 1.15, 1.2
_NOSE_TOP, _CHIN = 27, 8
_OUTER_LIP_68 = slice(48, 60)


def clip_rows(index: FrameIndex) -> NDArray[np.int64]:
    """The video's frame that each frame of the clip at 25 per second shows, ``[T]``: the nearest in time."""
    moments = [_Moment(row, int(pts) * index.time_base) for row, pts in enumerate(index.pts.tolist())]
    return np.array([moment.row for _, moment in nearest_frames(moments)], np.int64)


@dataclass(frozen=True, slots=True)
class _Moment:
    """A frame's number and time without its picture."""

    row: int
    time_s: Fraction


def portrait_square(
    points: NDArray[np.floating], valid: NDArray[np.bool_], frame_size_hw: tuple[int, int], framing: Framing
) -> tuple[CropRegion, float]:
    """The square of the frame that a portrait shows, the same throughout the clip.

    Args:
        points: landmarks ``[T, 478, 2]`` px.
        valid: ``[T]``, False where no face is seen.
        frame_size_hw: of the video.
        framing: 'whole' shows the middle square of the frame, 'face' head and shoulders, 'auto' the whole of a square
            video and head and shoulders of others.

    Returns:
        The square, inside the frame, and how many times larger it is than one frame alone needs.

    Raises:
        NoFaceError: no frame shows the face.
    """
    height, width = frame_size_hw
    rows = np.flatnonzero(valid)
    if len(rows) == 0:
        raise NoFaceError("no frame shows the face that a portrait is to be made of")
    if framing == "whole" or (framing == "auto" and height == width):
        return CropRegion(width / 2, height / 2, min(height, width)), 1.0
    seen = np.asarray(points[rows], np.float64)
    size = face_height_px(seen)
    middle = (seen.min(axis=1) + seen.max(axis=1)) / 2
    reach = np.stack([size * BESIDE, size * ABOVE], axis=1), np.stack([size * BESIDE, size * BELOW], axis=1)
    low, high = (middle - reach[0]).min(axis=0), (middle + reach[1]).max(axis=0)
    side = float(min((high - low).max(), height, width))
    spread = float((high - low).max() / np.median(size * (ABOVE + BELOW)))
    x, y = (
        float(min(max(center, side / 2), limit - side / 2))
        for center, limit in zip((low + high) / 2, (width, height), strict=True)
    )
    return CropRegion(x, y, side), spread


def face_rect(points68: NDArray[np.floating], size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """GeneFace++'s ``face_rect`` of 68 points ``[68, 2]`` px: left, right, top, bottom (1.10 of the facts)."""
    height, width = size_hw
    x, y = points68[:, 0], points68[:, 1]
    center_x, center_y = int((x.min() + x.max()) / 2), int(y[_NOSE_TOP])
    half_w, half_h = int((x.max() - center_x) * FACE_WIDER), int((y[_CHIN] - center_y) * FACE_HIGHER)
    left, top = max(0, center_x - half_w), max(0, center_y - half_h)
    return left, left + min(width - 1 - left, 2 * half_w), top, top + min(height - 1 - top, 2 * half_h)


def lip_rect(points68: NDArray[np.floating], size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """GeneFace++'s ``lip_rect`` of 68 points ``[68, 2]`` px: left, right, top, bottom of a square in the picture."""
    low, high = points68[_OUTER_LIP_68].min(axis=0), points68[_OUTER_LIP_68].max(axis=0)
    center = [int(value) for value in (low + high) / 2]
    half = max(int(value) for value in (high - low) / 2 * LIPS_WIDER)
    edges = []
    for middle, limit in zip(center, (size_hw[1], size_hw[0]), strict=True):
        start = min(max(0, middle - half), limit - 2 * half)
        edges += [start, start + 2 * half]
    return edges[0], edges[1], edges[2], edges[3]
