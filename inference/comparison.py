"""Source and result side by side: as a video, and as a strip of mouths enlarged.

Reads: the source, the finished result. Writes: ``--compare``'s video (through its writer) and the strip's PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.frames import Frame, RgbImage, VideoInfo
from modules.structures.landmarks import Landmarks2D, mouth_bounds
from modules.structures.timeline import Timeline
from modules.video.colour import rgb_from_planes
from modules.video.encoders import EncodeConfig
from modules.video.reader import VideoReader

ENLARGED = 3
"""The strip shows pixels as squares of so many."""
MOST_MOUTHS = 12
_WIDEST_PX = 9600
_SHOWN, _LOWER = (1.5, 1.3), 0.2
"""Width and height of what is shown in widths of the mouth, and how far its middle lies below the mouth's: chin and
cheeks are where an edit ends."""
_GAP_PX = 6
_GREY = 96

Bounds = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ShownMouth:
    """Where a face's mouth lies, one row per frame of the source.

    Attributes:
        landmarks: of the face.
        edited: bool ``[N]``: output frames in which it is edited.
    """

    landmarks: Landmarks2D
    edited: NDArray[np.bool_]


QUALITY = EncodeConfig(crf=16, preset="veryfast")
"""Of the comparison: for looking."""


def beside_info(info: VideoInfo) -> VideoInfo:
    """The video that shows two pictures of ``info`` side by side, upright and of even size."""
    turned = info.rotation_deg % 180 != 0
    shape = info.sample_aspect_ratio
    return replace(
        info,
        width=2 * (info.width - info.width % 2),
        height=info.height - info.height % 2,
        rotation_deg=0,
        sample_aspect_ratio=1 / shape if shape and turned else shape,
        field_order="progressive",
    )


def beside(before: Frame, after: Frame) -> Frame:
    """The two pictures of one time, source on the left, sample by sample; odd last rows and columns are left out."""
    height, width = (side - side % 2 for side in before.size_hw)
    shift_x, shift_y = before.layout.chroma_shift
    sizes = ((height, width), *((height >> shift_y, width >> shift_x),) * 2)
    luma, blue, red = (
        np.hstack([old[:rows, :columns], new[:rows, :columns]])
        for old, new, (rows, columns) in zip(before.planes, after.planes, sizes, strict=True)
    )
    return replace(after, planes=(luma, blue, red))


def mouth_strip(source: Path, result: Path, timeline: Timeline, mouths: Sequence[ShownMouth]) -> RgbImage | None:
    """Mouths of the source over those of the result, frames evenly spread over the edited ones, enlarged.

    Args:
        source: the video that was edited.
        result: the finished one.
        timeline: which source frame each output frame shows.
        mouths: of every face; each gets two rows.

    Returns:
        The picture; None where no frame was edited.
    """
    rows = [_two_rows(source, result, timeline, mouth) for mouth in mouths]
    shown = [row for row in rows if row is not None]
    if not shown:
        return None
    width = max(row.shape[1] for row in shown)
    return np.vstack([_padded(row, width) for row in shown])


def _two_rows(source: Path, result: Path, timeline: Timeline, mouth: ShownMouth) -> RgbImage | None:
    """One face's mouths: the source's above, the result's below."""
    possible = np.flatnonzero(mouth.edited & mouth.landmarks.valid[timeline.rows])
    if not len(possible):
        return None
    boxes = [mouth_bounds(mouth.landmarks.points[int(row)]) for row in timeline.rows[possible]]
    mouth_px = int(max(high[0] - low[0] for low, high in boxes))
    size = np.round(np.array(_SHOWN) * mouth_px).astype(np.int64)
    enlarged = max(min(ENLARGED, _WIDEST_PX // (4 * int(size[0]))), 1)
    count = int(np.clip(_WIDEST_PX // (enlarged * int(size[0])), 1, min(MOST_MOUTHS, len(possible))))
    chosen = np.unique(np.linspace(0, len(possible) - 1, count).round().astype(int))
    columns = []
    with VideoReader(source) as old, VideoReader(result) as new:
        for place in chosen:
            number, (low, high) = int(possible[place]), boxes[place]
            row = int(timeline.rows[number])
            centre = (low + high) / 2 + (0.0, _LOWER * mouth_px)
            window = _window(centre, size, (old.info.width, old.info.height))
            before = _tile(_frame_at(old, row, timeline.pts[row] * timeline.time_base), window, enlarged)
            after = _tile(_frame_at(new, number, timeline.pts[number] * timeline.time_base), window, enlarged)
            columns.append(np.vstack([before, np.full((_GAP_PX, before.shape[1], 3), _GREY, np.uint8), after]))
    gap = np.full((columns[0].shape[0], _GAP_PX, 3), _GREY, np.uint8)
    parts = [part for column in columns for part in (column, gap)]
    return np.hstack(parts[:-1])


def _window(centre: NDArray[np.float64], size: NDArray[np.int64], frame_wh: tuple[int, int]) -> Bounds:
    """A window of one size around a mouth, inside the frame."""
    width, height = (min(int(side), whole) for side, whole in zip(size, frame_wh, strict=True))
    x = int(np.clip(round(centre[0] - width / 2), 0, frame_wh[0] - width))
    y = int(np.clip(round(centre[1] - height / 2), 0, frame_wh[1] - height))
    return x, y, x + width, y + height


def _frame_at(reader: VideoReader, number: int, time_s: Fraction) -> Frame:
    """Frame ``number``, which is shown at ``time_s``; where the file rounds times, by decoding all before it."""
    pts = time_s / reader.info.time_base
    return next(reader.frames(number, int(pts) if pts.denominator == 1 else None))


def _tile(frame: Frame, window: Bounds, enlarged: int) -> RgbImage:
    part = rgb_from_planes(frame, window)
    return np.asarray(cv2.resize(part, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_NEAREST), np.uint8)


def _padded(row: RgbImage, width: int) -> RgbImage:
    """A face's rows on a common width, with a gap below."""
    return np.asarray(
        cv2.copyMakeBorder(
            row, 0, _GAP_PX, 0, width - row.shape[1], cv2.BORDER_CONSTANT, value=(_GREY, _GREY, _GREY)
        ),
        np.uint8,
    )  # fmt: skip
