"""What ``--list_faces`` shows: every face of a video in numbers, and as a contact sheet.

Reads: the video once, up to the last picture that is shown. Writes: one PNG.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.face_choice import faces_in_words, frame_seconds, median_center
from inference.face_sheet_picture import Sheet, SheetRow, Thumbnail, draw_sheet, thumbnail_plan
from modules.commons.errors import NoFaceError, VideoReadError
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion, sample_region
from modules.structures.faces import FaceTable
from modules.structures.frames import Frame, RgbImage
from modules.structures.tracks import FrameStatus
from modules.video.colour import rgb_from_planes
from modules.video.png import write_png
from modules.video.reader import VideoReader

logger = logging.getLogger(__name__)

MAX_ROWS = 30
"""Faces beyond these are in the listing only."""
SURROUNDINGS = 1.9
"""A thumbnail's side over the longer side of the face box."""
OVERVIEW_PX = (500, 300)
"""Largest width and height of the picture that shows who is where."""


@dataclass(frozen=True, slots=True)
class FaceFacts:
    """One face in numbers.

    Attributes:
        number: of the face.
        first_s: time of the first frame it is seen in. last_s: and of the last.
        seen_share: of the video's time, 0..1.
        workable_share: of the video's time in which it can be edited, 0..1.
        height_px: 5th and 95th percentile of its height, px.
        confidence: median over the frames it is seen in, 0..1.
        center: median x and y, px.
    """

    number: int
    first_s: float
    last_s: float
    seen_share: float
    workable_share: float
    height_px: tuple[float, float]
    confidence: float
    center: tuple[float, float]

    @property
    def lines(self) -> tuple[str, ...]:
        """The same in words."""
        low, high = (round(value) for value in self.height_px)
        size = f"{low} px high" if low == high else f"{low} to {high} px high"
        return (
            f"{self.first_s:.1f} to {self.last_s:.1f} s, seen {percent(self.seen_share)}",
            f"{percent(self.workable_share)} of the time editable",
            f"{size}, about {self.center[0]:.0f},{self.center[1]:.0f}",
            f"confidence {self.confidence:.2f}",
        )


def percent(share: float) -> str:
    """0.004 is '<1 %', so that what was seen never reads as nothing."""
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def facts_of(table: FaceTable, number: int) -> FaceFacts:
    """What can be said of a face; it must have been seen at least once."""
    track, seconds = table.track_over_video(number), frame_seconds(table)
    seen = track.is_detected
    rows = np.flatnonzero(seen)
    low, high = np.percentile(track.boxes[seen][:, 3] - track.boxes[seen][:, 1], [5, 95])
    return FaceFacts(
        number=number,
        first_s=float(table.times_s[rows[0]]),
        last_s=float(table.times_s[rows[-1]]),
        seen_share=float(seconds[seen].sum() / seconds.sum()),
        workable_share=float(seconds[track.status == FrameStatus.DETECTED].sum() / seconds.sum()),
        height_px=(float(low), float(high)),
        confidence=float(np.median(track.confidence[seen])),
        center=median_center(table, number),
    )


def list_faces(video: Path, table: FaceTable, target: Path, chosen: Sequence[int] = (0,)) -> tuple[FaceFacts, ...]:
    """Log every face of a video and draw them on one sheet.

    Args:
        video: the video.
        table: its faces.
        target: the PNG; appears by renaming.
        chosen: the faces that a job with the same flags would work on.

    Returns:
        The facts, by number.

    Raises:
        NoFaceError: there is no face.
        VideoReadError: the video is not the one the table was made of, or damaged.
    """
    numbers = [n for n in range(len(table)) if table.faces[n].track.is_detected.any()]
    if not numbers:
        raise NoFaceError(f"{video}: no face was found in any of its {len(table.times_s)} frames")
    facts = tuple(facts_of(table, number) for number in numbers)
    logger.info("%s: %s", video, faces_in_words(len(facts)))
    for fact in facts:
        mark = " (chosen)" if fact.number in chosen else ""
        logger.info("face %d%s: %s", fact.number, mark, "; ".join(fact.lines))
    write_png(draw_sheet(_sheet(video, table, facts, chosen)), target)
    return facts


def _sheet(video: Path, table: FaceTable, facts: tuple[FaceFacts, ...], chosen: Sequence[int]) -> Sheet:
    drawn = facts[:MAX_ROWS]
    count, size = thumbnail_plan(len(drawn))
    moments = {fact.number: moments_of(table, fact.number, count) for fact in drawn}
    overview_row = fullest_frame(table, [fact.number for fact in drawn])
    thumbnails, overview = _collect(video, table, moments, overview_row, size)
    boxes = {}
    for fact in drawn:
        track = table.track_over_video(fact.number)
        if track.is_detected[overview_row]:
            boxes[fact.number] = track.box(overview_row)
    rows = tuple(
        SheetRow(
            number=fact.number,
            is_chosen=fact.number in chosen,
            lines=fact.lines,
            thumbnails=tuple(thumbnails[fact.number]),
            status=table.track_over_video(fact.number).status,
        )
        for fact in drawn
    )
    height, width = table.size_hw
    left_out = len(facts) - len(drawn)
    return Sheet(
        title=video.name,
        lines=(
            f"{width}x{height} px, {frame_seconds(table).sum():.1f} s, {len(table.times_s)} frames, {len(table.shots)} "
            + ("shot" if len(table.shots) == 1 else "shots"),
            faces_in_words(len(facts)) + (f"; {left_out} more are in the listing only" if left_out else ""),
        ),
        overview=overview,
        overview_s=float(table.times_s[overview_row]),
        boxes=boxes,
        size_hw=table.size_hw,
        times_s=table.times_s,
        end_s=float(table.times_s[0] + frame_seconds(table).sum()),
        shot_starts=table.shot_starts,
        rows=rows,
    )


def moments_of(table: FaceTable, number: int, count: int) -> list[int]:
    """Up to ``count`` frames spread over the frames a face is seen in, ascending; editable ones where there are some.

    Of each of ``count`` equal parts of its sights the one in the middle.
    """
    track = table.track_over_video(number)
    seen = np.flatnonzero(track.is_detected)
    moments: list[int] = []
    for part in np.array_split(seen, min(count, len(seen))):
        clear = part[track.status[part] == FrameStatus.DETECTED]
        candidates = clear if len(clear) else part
        moments.append(int(candidates[len(candidates) // 2]))
    return moments


def fullest_frame(table: FaceTable, numbers: Sequence[int]) -> int:
    """The frame that shows most of these faces; of several the one where the least confident of them is surest."""
    seen = np.zeros(len(table.times_s))
    surest = np.ones(len(table.times_s))
    for number in numbers:
        track = table.track_over_video(number)
        seen += track.is_detected
        surest = np.where(track.is_detected, np.minimum(surest, track.confidence), surest)
    return int(np.argmax(seen + 0.5 * surest))


def _collect(
    video: Path, table: FaceTable, moments: dict[int, list[int]], overview_row: int, size: int
) -> tuple[dict[int, list[Thumbnail]], RgbImage]:
    """The thumbnails of every face and the overview, in one pass that keeps nothing else."""
    wanted: dict[int, list[int]] = {}
    for number, rows in moments.items():
        for row in rows:
            wanted.setdefault(row, []).append(number)
    last = max(*wanted, overview_row)
    tracks = {number: table.track_over_video(number) for number in moments}
    found: dict[int, list[Thumbnail]] = {number: [] for number in moments}
    overview: RgbImage | None = None
    with VideoReader(video) as reader:
        if (reader.info.height, reader.info.width) != table.size_hw:
            raise VideoReadError(f"{video} is not the video whose faces were found: its frames have another size")
        for frame in reader.frames():
            for number in wanted.get(frame.index, ()):
                track = tracks[number]
                status = FrameStatus(int(track.status[frame.index]))
                time_s = float(table.times_s[frame.index])
                found[number].append(_thumbnail(frame, track.box(frame.index), status, time_s, size))
            if frame.index == overview_row:
                overview = _overview(frame)
            if frame.index >= last:
                break
    if overview is None or any(len(found[number]) != len(rows) for number, rows in moments.items()):
        raise VideoReadError(f"{video} is shorter than when its faces were found: prepare it again")
    return found, overview


def _thumbnail(frame: Frame, box: BoundingBox, status: FrameStatus, time_s: float, size: int) -> Thumbnail:
    region = CropRegion(*box.center, SURROUNDINGS * max(box.width, box.height))
    height, width = frame.size_hw
    bounds = region.bounding_box().pixel_bounds(width, height)
    if bounds is None:  # the face is outside the frame
        return Thumbnail(np.zeros((size, size, 3), np.uint8), box, status, time_s)
    picture = sample_region(rgb_from_planes(frame, bounds), region.shifted(-bounds[0], -bounds[1]), size)
    scale, x, y = size / region.side, region.center_x - region.side / 2, region.center_y - region.side / 2
    inside = BoundingBox((box.x0 - x) * scale, (box.y0 - y) * scale, (box.x1 - x) * scale, (box.y1 - y) * scale)
    return Thumbnail(picture, inside, status, time_s)


def _overview(frame: Frame) -> RgbImage:
    """The whole frame at a handy size: its larger side shrinks through a square region that holds it."""
    height, width = frame.size_hw
    scale = min(OVERVIEW_PX[0] / width, OVERVIEW_PX[1] / height, 2.0)
    side = max(width, height)
    picture = sample_region(rgb_from_planes(frame), CropRegion(side / 2, side / 2, side), max(round(side * scale), 1))
    return np.ascontiguousarray(picture[: max(round(height * scale), 1), : max(round(width * scale), 1)])
