"""From sightings to faces: which tracks are believed, which of them are one person, and what each frame shows.

Works on tables of a few numbers per sighting; landmarks stay on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from data_gen.utils.process_video.appearance import FaceLook
from data_gen.utils.process_video.box_smoothing import smooth_boxes
from data_gen.utils.process_video.face_geometry import landmark_boxes, yaw_rad
from data_gen.utils.process_video.observation_log import Observations
from modules.structures.faces import FaceTable, TrackedFace
from modules.structures.landmarks import face_height_px, lip_opening
from modules.structures.tracks import FaceTrack, FrameStatus

STEADY_FRAMES = 5.0
"""Standard deviation over which what the detector says, and a face's height, are smoothed."""
LIVELY_FRAMES = 10
"""Seen in fewer frames, nothing can be said about whether a face moves."""


@dataclass(frozen=True, slots=True)
class BeliefConfig:
    """When a track is a face, and when a face is worth working on.

    Attributes:
        min_run: a track seen in fewer frames is not believed (all of a shorter shot do).
        min_support: least share of detector looks at a track that agreed.
        min_score: least mean score of those that did.
        min_face_px: faces lower than this (forehead to chin) are too small.
        max_yaw_rad: faces turned further are profiles.
        max_bridge_s: gaps up to this are bridged by prediction.
        min_liveliness: what moves its face less is a picture of one, and left out beside faces that live.
    """

    min_run: int = 5
    min_support: float = 0.5
    min_score: float = 0.6
    min_face_px: float = 24.0
    max_yaw_rad: float = 1.13
    max_bridge_s: float = 0.2
    min_liveliness: float = 0.009


@dataclass(frozen=True, slots=True, eq=False)
class Sights:
    """A few numbers per sighting, ``[M]`` each, by track and then by frame.

    Attributes:
        rows, tracks: frame and track. boxes: float64 ``[M, 4]`` of the landmarks, px. height: face height, px.
        opening: lip opening, inter-ocular units. yaw: rad. presence, detector_score: see ``Observations``.
        blendshapes: float32 ``[M, 52]``.
    """

    rows: NDArray[np.int64]
    tracks: NDArray[np.int64]
    boxes: NDArray[np.float64]
    height: NDArray[np.float32]
    opening: NDArray[np.float32]
    yaw: NDArray[np.float32]
    presence: NDArray[np.float32]
    detector_score: NDArray[np.float32]
    blendshapes: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: NDArray) -> Sights:
        """The sightings that ``chosen`` (a mask or positions) names."""
        return Sights(*(getattr(self, name)[chosen] for name in self.__slots__))


def gather_sights(segments: Iterable[Observations]) -> Sights:
    """Read a log once, segment by segment, and keep what tables need."""
    parts = [_sights_of(segment) for segment in segments]
    names = Sights.__slots__
    empty = _sights_of(Observations.of([]))
    whole = Sights(*(np.concatenate([getattr(part, name) for part in (empty, *parts)]) for name in names))
    whole = whole.take(np.lexsort((whole.rows, whole.tracks)))
    # looking back may meet a frame in which the face was seen after all: the first sight counts
    repeated = (np.diff(whole.rows) == 0) & (np.diff(whole.tracks) == 0)
    return whole.take(np.concatenate([[True], ~repeated])[: len(whole)])


def _sights_of(seen: Observations) -> Sights:
    return Sights(
        seen.rows,
        seen.tracks,
        landmark_boxes(seen.points),
        face_height_px(seen.points).astype(np.float32),
        lip_opening(seen.points).astype(np.float32),
        yaw_rad(seen.points, seen.depth).astype(np.float32),
        seen.presence,
        seen.detector_score,
        seen.blendshapes,
    )


def gather_looks(segments: Iterable[Observations]) -> dict[int, FaceLook]:
    """What the person of each track looks like, over all looks at it."""
    looks: dict[int, FaceLook] = {}
    for segment in segments:
        for track, look in segment.looks():
            looks[track] = looks[track].merged(look) if track in looks else look
    return looks


def believed(mine: Sights, shots: Sequence[tuple[int, int]], config: BeliefConfig) -> bool:
    """Whether sightings of one person are a face: seen long enough, and the detector mostly agreed."""
    asked = mine.detector_score[np.isfinite(mine.detector_score)]
    agreed = asked[asked > 0]
    shot = next(stop - start for start, stop in shots if start <= mine.rows[0] < stop)
    is_long = len(mine) >= min(config.min_run, shot)
    is_supported = len(agreed) > 0 and len(agreed) / len(asked) >= config.min_support
    return bool(is_long and is_supported and agreed.mean() >= config.min_score)


def liveliness(mine: Sights) -> float:
    """How much an expression changes: mean standard deviation of the blendshape scores; inf when seen too briefly.

    Faces of people measured 0.023 and more, also those who only listen; a bronze statue 0.005.
    """
    return float(mine.blendshapes.std(axis=0).mean()) if len(mine) >= LIVELY_FRAMES else float("inf")


def frame_confidence(mine: Sights) -> NDArray[np.float32]:
    """``[M]`` 0..1: landmark presence times what the detector said around that time (unasked frames interpolate)."""
    asked = np.flatnonzero(np.isfinite(mine.detector_score))
    if len(asked) == 0:
        return np.zeros(len(mine), np.float32)
    nearby = np.interp(mine.rows, mine.rows[asked], mine.detector_score[asked])
    steady = gaussian_filter1d(nearby, STEADY_FRAMES, mode="nearest")
    return np.clip(mine.presence * steady, 0, 1).astype(np.float32)


def frame_status(mine: Sights, config: BeliefConfig) -> NDArray[np.uint8]:
    """``[M]`` ``FrameStatus`` of sightings of one face, in order of frames."""
    status = np.full(len(mine), FrameStatus.DETECTED, np.uint8)
    asked = np.flatnonzero(np.isfinite(mine.detector_score))
    if len(asked):
        nearest = asked[_nearest(mine.rows[asked], mine.rows)]
        status[mine.detector_score[nearest] == 0] = FrameStatus.OCCLUDED
    status[np.abs(mine.yaw) > config.max_yaw_rad] = FrameStatus.PROFILE
    # a face about as high as the limit is not to flicker
    status[gaussian_filter1d(mine.height, STEADY_FRAMES, mode="nearest") < config.min_face_px] = FrameStatus.TOO_SMALL
    return status


def _nearest(known: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions in ``known`` (ascending) of what lies nearest to each row; of two as near, the earlier."""
    after = np.minimum(np.searchsorted(known, rows), len(known) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(rows - known[before] <= np.abs(known[after] - rows), before, after)


def tracked_face(
    mine: Sights, times_s: NDArray[np.float64], shots: Sequence[tuple[int, int]], config: BeliefConfig
) -> TrackedFace:
    """One person's sightings, in order of frames, as a face with a row for every frame of its life."""
    first, stop = int(mine.rows[0]), int(mine.rows[-1]) + 1
    at = mine.rows - first
    boxes = np.full((stop - first, 4), np.nan)
    status = np.zeros(stop - first, np.uint8)
    confidence = np.zeros(stop - first, np.float32)
    opening = np.full(stop - first, np.nan, np.float32)
    boxes[at], status[at], opening[at] = mine.boxes, frame_status(mine, config), mine.opening
    confidence[at] = frame_confidence(mine)
    seen = status != FrameStatus.LOST
    for start, end in shots:
        piece = slice(max(start - first, 0), max(end - first, 0))
        if seen[piece].any():
            boxes[piece] = smooth_boxes(boxes[piece], seen[piece])
    status[_short_gaps(seen, times_s[first:stop], [start - first for start, _ in shots], config.max_bridge_s)] = (
        FrameStatus.PREDICTED
    )
    tracks = tuple(int(track) for track in np.unique(mine.tracks))
    return TrackedFace(FaceTrack(_filled(boxes), status, confidence, first), opening, tracks)


def _short_gaps(
    seen: NDArray[np.bool_], times_s: NDArray[np.float64], cuts: Sequence[int], max_bridge_s: float
) -> NDArray[np.bool_]:
    """``[T]`` unseen frames between two sights of the same shot that are at most ``max_bridge_s`` apart."""
    gaps = np.zeros(len(seen), bool)
    rows = np.flatnonzero(seen)
    for before, after in zip(rows[:-1], rows[1:], strict=True):
        if after - before > 1 and times_s[after] - times_s[before] <= max_bridge_s + 1e-9:
            gaps[before + 1 : after] = not any(before < cut <= after for cut in cuts)
    return gaps


def _filled(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of shots without a sight hold the last box before them; they are ``LOST`` anyway."""
    known = np.flatnonzero(np.isfinite(boxes[:, 0]))
    return boxes[known[np.maximum(np.searchsorted(known, np.arange(len(boxes)), side="right") - 1, 0)]]


def build_face_table(
    sights: Sights,
    persons: Sequence[Sequence[int]],
    times_s: NDArray[np.float64],
    shot_starts: NDArray[np.int64],
    size_hw: tuple[int, int],
    config: BeliefConfig,
) -> FaceTable:
    """The faces of a video.

    Args:
        sights: of all tracks.
        persons: groups of tracks that are one person each; those that are no face are left out.
        times_s: ``[N]`` frame times.
        shot_starts: first frames of the shots.
        size_hw: of the frames.
        config: see ``BeliefConfig``.
    """
    empty = FaceTable(size_hw, times_s, shot_starts, ())
    faces, still, anybody_lives = [], [], False
    for tracks in persons:
        mine = sights.take(np.isin(sights.tracks, tracks))
        mine = mine.take(np.argsort(mine.rows, kind="stable"))
        if not believed(mine, empty.shots, config):
            continue
        lively = liveliness(mine)
        anybody_lives |= config.min_liveliness <= lively < np.inf
        (still if lively < config.min_liveliness else faces).append(tracked_face(mine, times_s, empty.shots, config))
    if not anybody_lives:  # a video of a portrait shows nobody else, or only briefly
        faces += still
    faces.sort(key=lambda face: (-face.area, face.track.first_frame))
    return FaceTable(size_hw, times_s, shot_starts, tuple(faces))
