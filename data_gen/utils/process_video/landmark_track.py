"""The landmarks of one face, out of what tracking saw of all of them.

Reads: an observation log and the face table made from it. Writes: one landmark table with a row per frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import Landmarker
from data_gen.utils.process_video.face_table import (
    BeliefConfig,
    Sights,
    build_face_table,
    gather_looks,
    gather_sights,
)
from data_gen.utils.process_video.face_tracker import Detector, FaceTracker
from data_gen.utils.process_video.landmark_smoothing import SmoothingConfig, smooth_landmarks
from data_gen.utils.process_video.look_taker import build_look_taker
from data_gen.utils.process_video.observation_log import Observations
from data_gen.utils.process_video.person_linking import LinkConfig, link_persons
from data_gen.utils.process_video.scene_cuts import marked_shots
from data_gen.utils.process_video.tracker_state import FollowConfig, Sighting
from modules.commons.errors import NoFaceError
from modules.commons.progress import Progress, silent
from modules.structures.faces import FaceTable
from modules.structures.frames import Frame
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, N_MEDIAPIPE, Landmarks2D
from modules.structures.tracks import FaceTrack, FrameStatus

BLOCK = 1024
"""Frames whose landmarks are in memory at once."""
FITTABLE = (FrameStatus.DETECTED, FrameStatus.OCCLUDED, FrameStatus.PROFILE)
"""Statuses in which a face's landmarks are worth fitting to."""
COLUMNS: dict[str, tuple[int, ...]] = {
    "points": (N_MEDIAPIPE, 2),
    "depth": (N_MEDIAPIPE,),
    "blendshapes": (len(MEDIAPIPE_BLENDSHAPES),),
}
WIDTHS = {name: math.prod(shape) for name, shape in COLUMNS.items()}
ROW_WIDTH = sum(WIDTHS.values())
"""float32 numbers that are stored per frame."""


def write_landmarks(table: FaceTable, face: int, segments: Iterable[Observations], path: Path) -> None:
    """Write the smoothed landmarks of one face over the whole video; memory is a block, whatever the length.

    Smoothing restarts at the shots of ``table`` and takes its frame times, so it is as strong at any frame rate.

    Args:
        table: of the video.
        face: number of the face.
        segments: of the log the table was made from.
        path: of the landmark table.
    """
    valid = np.isin(table.track_over_video(face).status, FITTABLE)
    scratch = path.with_name(path.name + ".raw.tmp")
    try:
        with scratch.open("wb") as file:
            for rows, values in _rows_of_face(segments, table.faces[face].tracks):
                for row, value in zip(rows, values, strict=True):
                    file.seek(int(row) * value.nbytes)
                    file.write(value.tobytes())
            file.truncate(len(valid) * ROW_WIDTH * 4)
        with Landmarks2D.writer(path, valid) as writer:
            for start in range(0, len(valid), BLOCK):
                stop = min(start + BLOCK, len(valid))
                block = smoothed_block(scratch, valid, table, (start, stop))
                writer.append(points=block.points, depth=block.depth, blendshapes=block.blendshapes)
    finally:
        scratch.unlink(missing_ok=True)


def _rows_of_face(
    segments: Iterable[Observations], tracks: tuple[int, ...]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """(frames, packed landmarks ``[n, width]``) of the sightings of some tracks."""
    for segment in segments:
        # of two sights in one frame the first counts, so it is written last
        mine = np.flatnonzero(np.isin(segment.tracks, tracks))[::-1]
        columns = [getattr(segment, name)[mine].reshape(len(mine), width) for name, width in WIDTHS.items()]
        yield segment.rows[mine], np.ascontiguousarray(np.concatenate(columns, axis=1), np.float32)


def smoothed_block(scratch: Path, valid: NDArray[np.bool_], table: FaceTable, rows: tuple[int, int]) -> Landmarks2D:
    """Smoothed landmarks of frames ``rows`` (half-open), as smoothing the whole clip at once would give them.

    Args:
        scratch: raw landmarks of all frames, ``ROW_WIDTH`` float32 numbers each.
        valid: bool ``[T]``.
        table: of the video: its frame times and shots.
        rows: first and stop; at least one frame.
    """
    start, stop = rows
    first, last = _rows_that_matter(table.times_s, start, stop, SmoothingConfig().reach_s)
    packed = np.fromfile(scratch, np.float32, (last - first) * ROW_WIDTH, offset=first * ROW_WIDTH * 4)
    packed = packed.reshape(-1, ROW_WIDTH)
    packed[~valid[first:last]] = np.nan
    columns = np.split(packed, np.cumsum(list(WIDTHS.values()))[:-1], axis=1)
    points, depth, blendshapes = (
        column.reshape(len(column), *shape) for column, shape in zip(columns, COLUMNS.values(), strict=True)
    )
    raw = Landmarks2D(points, depth, valid[first:last], blendshapes)
    whole = smooth_landmarks(raw, table.times_s[first:last], table.shot_starts - first)
    inside = slice(start - first, stop - first)
    return Landmarks2D(whole.points[inside], whole.depth[inside], whole.valid[inside], whole.blendshapes[inside])


def _rows_that_matter(times_s: NDArray[np.float64], start: int, stop: int, reach_s: float) -> tuple[int, int]:
    """Half-open range of the rows within ``reach_s`` of rows ``start .. stop``, and one more on each side."""
    first = int(np.searchsorted(times_s, times_s[start] - reach_s)) - 1
    last = int(np.searchsorted(times_s, times_s[stop - 1] + reach_s, side="right")) + 1
    return max(first, 0), min(last, len(times_s))


def check_faces(table: FaceTable, sights: Sights, least_px: float) -> None:
    """Refuse a video without a face that can be worked on.

    Raises:
        NoFaceError: with one sentence that says what was found.
    """
    count = len(table.times_s)
    if count == 0:
        raise NoFaceError("no face was found: the video holds no frames")
    if not len(table):
        raise NoFaceError(f"no face was found in any of the {count} frames: the video must show a face")
    tallest = max(float(np.median(sights.height[np.isin(sights.tracks, face.tracks)])) for face in table.faces)
    if tallest < least_px:
        raise NoFaceError(
            f"the face is about {tallest:.0f} px high, at least {least_px:.0f} px are needed: use a larger video"
        )


def track_and_landmark(
    frames: Iterable[Frame],
    landmarker: Landmarker,
    detector: Detector,
    *,
    follow: FollowConfig | None = None,
    believe: BeliefConfig | None = None,
    progress: Progress = silent,
) -> tuple[FaceTrack, Landmarks2D]:
    """Follow the most important face of a short clip, in memory; whole videos go through the stages instead.

    Args:
        frames: upright frames in presentation order.
        landmarker: puts landmarks on a face (``FaceLandmarker``).
        detector: finds faces (``FaceDetector``).
        follow: when a face is followed.
        believe: when a track is believed.
        progress: told ``("track", frames done, 0)``.

    Returns:
        Track and landmarks with one row per frame.

    Raises:
        NoFaceError: when no believable face is found, or it is too small.
    """
    believe = believe or BeliefConfig()
    table, segment, sights = _track_in_memory(frames, landmarker, detector, follow, believe, progress)
    check_faces(table, sights, believe.min_face_px)
    track = table.track_over_video(0)
    valid = np.isin(track.status, FITTABLE)
    arrays = {name: np.full((len(valid), *shape), np.nan, np.float32) for name, shape in COLUMNS.items()}
    mine = np.flatnonzero(np.isin(segment.tracks, table.faces[0].tracks))[::-1]
    for name, array in arrays.items():
        array[segment.rows[mine]] = getattr(segment, name)[mine]
        array[~valid] = np.nan
    raw = Landmarks2D(arrays["points"], arrays["depth"], valid, arrays["blendshapes"])
    return track, smooth_landmarks(raw, table.times_s, table.shot_starts)


def track_in_memory(
    frames: Iterable[Frame], landmarker: Landmarker, detector: Detector, *, follow: FollowConfig | None = None
) -> FaceTable:
    """Every face of a short clip; see ``track_and_landmark``."""
    return _track_in_memory(frames, landmarker, detector, follow, BeliefConfig(), silent)[0]


def _with_ends(marked: Iterable[tuple[Frame, bool]]) -> Iterator[tuple[Frame, bool, bool]]:
    """Frames with whether each starts and ends a shot."""
    before: tuple[Frame, bool] | None = None
    for frame, starts_shot in marked:
        if before is not None:
            yield *before, starts_shot
        before = frame, starts_shot
    if before is not None:
        yield *before, True


def _track_in_memory(
    frames: Iterable[Frame], landmarker: Landmarker, detector: Detector, follow: FollowConfig | None,
    believe: BeliefConfig, progress: Progress,
) -> tuple[FaceTable, Observations, Sights]:  # fmt: skip
    tracker = FaceTracker(landmarker, detector, follow or FollowConfig(), look_taker=build_look_taker())
    sightings: list[Sighting] = []
    times: list[float] = []
    starts = [0]
    size_hw = (1, 1)
    for row, (frame, starts_shot, ends_shot) in enumerate(_with_ends(marked_shots(frames))):
        if row and starts_shot:
            starts.append(row)
        sightings += tracker.step(frame, starts_shot=starts_shot, ends_shot=ends_shot)
        times.append(float(frame.time_s))
        size_hw = frame.size_hw
        progress("track", row + 1, 0)
    segment = Observations.of(sightings)
    sights = gather_sights([segment])
    times_s, shot_starts = np.array(times) - (times[0] if times else 0), np.array(starts, np.int64)
    empty = FaceTable(size_hw, times_s, shot_starts, ())
    persons = link_persons(sights, gather_looks([segment]), empty.shots, times_s, LinkConfig())
    return build_face_table(sights, persons, times_s, shot_starts, size_hw, believe), segment, sights
