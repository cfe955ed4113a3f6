"""Every face of a video: who is where in which frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.frame_index import shot_ranges
from modules.structures.tracks import FaceTrack

FACES_SCHEMA = "faces/1"


@dataclass(frozen=True, slots=True, eq=False)
class TrackedFace:
    """One person over a video, across its shots.

    Attributes:
        track: from the first frame the person is seen in to the last.
        opening: float32 ``[T]`` lip opening in inter-ocular units, NaN where the face is not seen.
        tracks: numbers of the tracker's tracks that were found to be this person.
    """

    track: FaceTrack
    opening: NDArray[np.float32]
    tracks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.opening.shape != (len(self.track),):
            raise ValueError(f"opening {self.opening.shape} does not belong to a track of {len(self.track)} frames")

    @property
    def area(self) -> float:
        """Face area over time, px² × frames: the more, the more important."""
        boxes = self.track.boxes[self.track.is_detected]
        return float(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum())


@dataclass(frozen=True, slots=True, eq=False)
class FaceTable:
    """The faces of a video of N frames; a face's number is its place in ``faces``, most face area over time first.

    Attributes:
        size_hw: of the upright frames.
        times_s: float64 ``[N]`` frame times after the first frame, seconds.
        shot_starts: int64 ``[S]``, ascending, 0 first: the frames that begin a shot.
        faces: see ``TrackedFace``.
    """

    size_hw: tuple[int, int]
    times_s: NDArray[np.float64]
    shot_starts: NDArray[np.int64]
    faces: tuple[TrackedFace, ...]

    def __post_init__(self) -> None:
        if len(self.shot_starts) == 0 or self.shot_starts[0] != 0 or not (np.diff(self.shot_starts) > 0).all():
            raise ValueError(f"shots must start at frame 0 and ascend, got {self.shot_starts}")
        for face in self.faces:
            stop = face.track.first_frame + len(face.track)
            if face.track.first_frame < 0 or stop > len(self.times_s):
                raise ValueError(f"a track up to frame {stop} does not fit a video of {len(self.times_s)} frames")

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def shots(self) -> list[tuple[int, int]]:
        """Half-open frame ranges of the shots."""
        return shot_ranges(self.shot_starts, len(self.times_s))

    def track_over_video(self, number: int) -> FaceTrack:
        """The track of face ``number`` with one row per frame of the video; NaN boxes and LOST outside its life."""
        track = self.faces[number].track
        count, rows = len(self.times_s), slice(track.first_frame, track.first_frame + len(track))
        boxes = np.full((count, 4), np.nan)
        status, confidence = np.zeros(count, np.uint8), np.zeros(count, np.float32)
        boxes[rows], status[rows], confidence[rows] = track.boxes, track.status, track.confidence
        return FaceTrack(boxes, status, confidence)

    def opening_over_video(self, number: int) -> NDArray[np.float32]:
        """float32 ``[N]`` lip opening of face ``number``, NaN where it is not seen."""
        face = self.faces[number]
        opening = np.full(len(self.times_s), np.nan, np.float32)
        opening[face.track.first_frame : face.track.first_frame + len(face.track)] = face.opening
        return opening

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        tracks = [face.track for face in self.faces]
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            schema=np.array(FACES_SCHEMA),
            size_hw=np.array(self.size_hw),
            times_s=self.times_s,
            shot_starts=self.shot_starts,
            first_frames=np.array([track.first_frame for track in tracks], np.int64),
            lengths=np.array([len(track) for track in tracks], np.int64),
            boxes=np.concatenate([track.boxes for track in tracks] or [np.zeros((0, 4))]),
            status=np.concatenate([track.status for track in tracks] or [np.zeros(0, np.uint8)]),
            confidence=np.concatenate([track.confidence for track in tracks] or [np.zeros(0, np.float32)]),
            opening=np.concatenate([face.opening for face in self.faces] or [np.zeros(0, np.float32)]),
            track_counts=np.array([len(face.tracks) for face in self.faces], np.int64),
            tracks=np.array([track for face in self.faces for track in face.tracks], np.int64),
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> FaceTable:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            if "schema" not in data or str(data["schema"]) != FACES_SCHEMA:
                raise ValueError(f"{path} does not hold faces of schema {FACES_SCHEMA}")
            rows, groups = _slices(data["lengths"]), _slices(data["track_counts"])
            boxes, status, confidence, opening = (data[k] for k in ("boxes", "status", "confidence", "opening"))
            tracks = data["tracks"]
            faces = tuple(
                TrackedFace(
                    FaceTrack(boxes[r], status[r], confidence[r], int(first)), opening[r], tuple(tracks[g].tolist())
                )
                for r, g, first in zip(rows, groups, data["first_frames"], strict=True)
            )
            size = data["size_hw"]
            return cls((int(size[0]), int(size[1])), data["times_s"], data["shot_starts"], faces)


def _slices(lengths: NDArray[np.int64]) -> list[slice]:
    """Where pieces of these lengths lie in their concatenation."""
    stops = np.cumsum(lengths)
    return [slice(int(stop - length), int(stop)) for stop, length in zip(stops, lengths, strict=True)]
