"""How well a table of followed faces agrees with an annotation made by eye.

A face of the table counts in a frame where its status is one of those asked about. Counted faces and annotated ones
are paired frame by frame, best total overlap first. What lies in an ignored region is neither asked for nor punished;
a place marked as a false face (a print, a mask) is punished always.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from modules.structures.boxes import BoundingBox
from modules.structures.faces import FaceTable, TrackedFace
from modules.structures.tracks import FaceTrack, FrameStatus
from tests.support.annotations import DATA_DIR, FaceAnnotation, IgnoredRegion

MIN_IOU = 0.35
"""Least overlap of a table's box with an annotated one to be the same face; boxes of different makers differ in cut."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """A face of the table paired with an annotated person in one frame."""

    frame: int
    face: int
    person: str
    iou: float


@dataclass(frozen=True, slots=True)
class TrackScores:
    """What agreed and what did not, over all frames of a clip.

    Attributes:
        meetings: every pairing of a counted face with an annotated one, by frame.
        missed: (frame, person) of usable faces that no counted face met.
        false: (frame, face) of counted faces that are nobody's and not excused.
        on_false_faces: how many of ``false`` lie on a place marked as a false face.
        shot_starts: frames that begin a shot, 0 first, from the annotation.
        jitter: see ``box_jitter``; NaN when no face is counted three frames on end.
    """

    meetings: tuple[Meeting, ...]
    missed: tuple[tuple[int, str], ...]
    false: tuple[tuple[int, int], ...]
    on_false_faces: int
    shot_starts: tuple[int, ...]
    jitter: float

    @property
    def precision(self) -> float:
        """Share of counted faces that are somebody's, 1 when none is counted."""
        return _share(len(self.meetings), len(self.false))

    @property
    def recall(self) -> float:
        """Share of usable faces that were met, 1 when there is none."""
        return _share(len(self.meetings), len(self.missed))

    @property
    def swaps(self) -> int:
        """How often a table face changes from one person to another, over the whole video."""
        return len(self.swap_meetings)

    @property
    def relinks(self) -> int:
        """How many of the ``swaps`` happened from one shot to another: the face was tied to the wrong person."""
        return sum(self._shot(before.frame) != self._shot(after.frame) for before, after in self.swap_meetings)

    @property
    def swap_meetings(self) -> tuple[tuple[Meeting, Meeting], ...]:
        """The last meeting with the old person and the first with the new one, for every swap."""
        faces = sorted({meeting.face for meeting in self.meetings})
        lives = ([meeting for meeting in self.meetings if meeting.face == face] for face in faces)
        return tuple(pair for life in lives for pair in pairwise(life) if pair[0].person != pair[1].person)

    @property
    def fragments(self) -> dict[str, int]:
        """How many table faces share one person: 1 is perfect; who was never met is not named."""
        faces: dict[str, set[int]] = {}
        for meeting in self.meetings:
            faces.setdefault(meeting.person, set()).add(meeting.face)
        return {person: len(numbers) for person, numbers in sorted(faces.items())}

    @property
    def mean_iou(self) -> float:
        return float(np.mean([meeting.iou for meeting in self.meetings])) if self.meetings else float("nan")

    def _shot(self, frame: int) -> int:
        return int(np.searchsorted(self.shot_starts, frame, side="right"))


def score_table(
    table: FaceTable,
    annotation: FaceAnnotation,
    *,
    counted: Iterable[FrameStatus] = (FrameStatus.DETECTED,),
    false_faces: Sequence[IgnoredRegion] = (),
    min_iou: float = MIN_IOU,
    min_height_px: float = 0.0,
) -> TrackScores:
    """Compare a table with an annotation of the same clip.

    Args:
        table: the faces that were followed.
        annotation: the truth; its people are asked for wherever they have a box, its ignored regions excuse others.
        counted: statuses in which the table claims a face.
        false_faces: regions where a counted face is wrong whatever the annotation ignores.
        min_iou: least overlap of a pair.
        min_height_px: annotated faces below it are neither asked for nor punished.

    Raises:
        ValueError: when table and annotation do not have the same number of frames.
    """
    if len(table.times_s) != annotation.frames:
        raise ValueError(f"{annotation.clip}: the table has {len(table.times_s)} frames, not {annotation.frames}")
    statuses = list(counted)
    tracks = [table.track_over_video(number) for number in range(len(table))]
    claims = [np.isin(track.status, statuses) for track in tracks]
    meetings: list[Meeting] = []
    missed: list[tuple[int, str]] = []
    false: list[tuple[int, int]] = []
    on_false = 0
    for frame in range(annotation.frames):
        found = {n: track.box(frame) for n, track in enumerate(tracks) if claims[n][frame]}
        people = annotation.faces_at(frame)
        small = {name for name, box in people.items() if box.height < min_height_px}
        pairs = _pairs(found, people, min_iou)
        unasked = small if None not in annotation.ignored_at(frame) else set(people)
        meetings += [Meeting(frame, face, name, iou) for face, name, iou in pairs if name not in unasked]
        missed += [(frame, name) for name in people if name not in unasked | {pair[1] for pair in pairs}]
        for face in found.keys() - {pair[0] for pair in pairs}:
            marked = _is_marked(false_faces, frame, found[face])
            if marked or not annotation.is_ignored(frame, found[face]):
                false.append((frame, face))
                on_false += marked
    starts = (0, *annotation.cuts)
    jitter = _table_jitter(tracks, claims, starts)
    return TrackScores(tuple(meetings), tuple(missed), tuple(false), on_false, starts, jitter)


def box_jitter(boxes: NDArray[np.float64], starts: Iterable[int] = ()) -> NDArray[np.float64]:
    """``[J]`` squared second differences of a box path, in shares of the face: centre x, centre y and side together.

    Args:
        boxes: ``[T, 4]`` px; rows of NaN and rows in ``starts`` break the path.
        starts: rows that begin a new shot.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    path = np.column_stack([centre, side])
    second = (path[2:] - 2 * path[1:-1] + path[:-2]) / side[1:-1, None]
    broken = np.zeros(len(boxes), bool)
    broken[[start for start in starts if 0 < start < len(boxes)]] = True
    keep = ~(broken[2:] | broken[1:-1]) & np.isfinite(second).all(axis=1)
    return (second[keep] ** 2).sum(axis=1)


def table_of_tracks(
    tracks: Sequence[FaceTrack], size_hw: tuple[int, int], times_s: NDArray[np.float64], cuts: Sequence[int] = ()
) -> FaceTable:
    """A table of tracks that know nothing of the mouth, most face area first."""
    faces = [TrackedFace(track, np.full(len(track), np.nan, np.float32)) for track in tracks]
    faces.sort(key=lambda face: -face.area)
    return FaceTable(size_hw, times_s, np.array([0, *cuts], np.int64), tuple(faces))


def false_faces_of(clip: str) -> tuple[IgnoredRegion, ...]:
    """The places of a clip that look like a face and are none, as marked beside its annotation."""
    path = DATA_DIR / f"faces_{Path(clip).stem}.json"
    parts = json.loads(path.read_text(encoding="utf-8")).get("false_faces", [])
    return tuple(IgnoredRegion(part["first"], part["stop"], BoundingBox(*part["box"])) for part in parts)


def text_table(scores: Mapping[str, TrackScores]) -> str:
    """One line per clip; ``frag`` is the most table faces that one person is spread over."""
    names = ("asked", "prec", "recall", "false", "print", "swaps", "relinks", "frag", "IoU", "jitter")
    lines = [f"{'clip':<32}" + "".join(f"{name:>8}" for name in names)]
    for clip, score in scores.items():
        fragments = max(score.fragments.values(), default=0)
        counts = (len(score.false), score.on_false_faces, score.swaps, score.relinks, fragments)
        lines.append(
            f"{clip[:31]:<32}{len(score.meetings) + len(score.missed):>8}{score.precision:>8.3f}{score.recall:>8.3f}"
            + "".join(f"{count:>8}" for count in counts)
            + f"{score.mean_iou:>8.2f}{score.jitter:>8.4f}"
        )
    return "\n".join(lines)


def failures(scores: TrackScores) -> str:
    """Where it failed, as frame ranges: what to look at first."""
    people = sorted({name for _, name in scores.missed})
    faces = sorted({face for _, face in scores.false})
    lines = [f"missed {name}: {_ranges([f for f, n in scores.missed if n == name])}" for name in people]
    lines += [f"false, face {face}: {_ranges([f for f, n in scores.false if n == face])}" for face in faces]
    lines += [
        f"swap, face {old.face}: {old.person} at {old.frame} to {new.person} at {new.frame}"
        for old, new in scores.swap_meetings
    ]
    return "\n".join(lines)


def _pairs(
    found: Mapping[int, BoundingBox], people: Mapping[str, BoundingBox], min_iou: float
) -> list[tuple[int, str, float]]:
    """(face, person, IoU) of the assignment with the most overlap, pairs under ``min_iou`` left out."""
    if not found or not people:
        return []
    faces, names = list(found), list(people)
    overlap = np.array([[found[face].iou(people[name]) for name in names] for face in faces])
    overlap[overlap < min_iou] = 0.0
    rows, columns = linear_sum_assignment(-overlap)
    return [
        (faces[r], names[c], float(overlap[r, c])) for r, c in zip(rows, columns, strict=True) if overlap[r, c] > 0.0
    ]


def _is_marked(false_faces: Sequence[IgnoredRegion], frame: int, box: BoundingBox) -> bool:
    """Whether the centre of ``box`` lies on a marked false face."""
    x, y = box.center
    return any(
        part.first <= frame < part.stop and part.box is not None and _holds(part.box, x, y) for part in false_faces
    )


def _holds(box: BoundingBox, x: float, y: float) -> bool:
    return box.x0 <= x < box.x1 and box.y0 <= y < box.y1


def _table_jitter(tracks: Sequence[FaceTrack], claims: Sequence[NDArray[np.bool_]], starts: Iterable[int]) -> float:
    paths = [np.where(claim[:, None], track.boxes, np.nan) for track, claim in zip(tracks, claims, strict=True)]
    squares = np.concatenate([box_jitter(path, starts) for path in paths] or [np.zeros(0)])
    return float(np.sqrt(squares.mean())) if len(squares) else float("nan")


def _share(right: int, wrong: int) -> float:
    return right / (right + wrong) if right + wrong else 1.0


def _ranges(frames: Iterable[int]) -> str:
    """``3-5 9`` for 3, 4, 5, 9."""
    parts: list[list[int]] = []
    for frame in sorted(set(frames)):
        if parts and frame == parts[-1][1] + 1:
            parts[-1][1] = frame
        else:
            parts.append([frame, frame])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
