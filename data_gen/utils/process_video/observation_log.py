"""What tracking saw, on disk in segments: an append-only log that survives being killed at any point.

Each segment holds the sightings made while a stretch of frames passed and what the tracker knew at its end; it
appears by rename, so the last one is where work goes on. Writes: ``<folder>/000000.npz``, ``000001.npz``, …
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.appearance import FaceLook
from data_gen.utils.process_video.tracker_state import Sighting, TrackerState
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, N_MEDIAPIPE

LOG_SCHEMA = "observations/2"


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """Sightings as arrays, ``M`` of them.

    Attributes:
        rows: int64 ``[M]`` frame of each. tracks: int64 ``[M]`` its track.
        points: float32 ``[M, 478, 2]`` frame px. depth: float32 ``[M, 478]``. blendshapes: float32 ``[M, 52]``.
        presence: float32 ``[M]`` landmark presence 0..1.
        detector_score: float32 ``[M]``, see ``Sighting``.
        looked_at: int64 ``[K]`` which of them come with a look; the looks' own arrays ``[K, ...]`` follow.
    """

    rows: NDArray[np.int64]
    tracks: NDArray[np.int64]
    points: NDArray[np.float32]
    depth: NDArray[np.float32]
    blendshapes: NDArray[np.float32]
    presence: NDArray[np.float32]
    detector_score: NDArray[np.float32]
    looked_at: NDArray[np.int64]
    shape_sum: NDArray[np.float64]
    shape_weight: NDArray[np.float64]
    colour_sum: NDArray[np.float64]
    colour_count: NDArray[np.float64]
    embedding_sum: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def looks(self) -> Iterator[tuple[int, FaceLook]]:
        """(track, what its person looks like) of each look."""
        names = FaceLook().to_arrays()
        for number, place in enumerate(self.looked_at.tolist()):
            arrays = {name: getattr(self, name)[number] for name in names}
            yield int(self.tracks[place]), FaceLook.from_arrays(arrays)

    @classmethod
    def of(cls, sightings: Sequence[Sighting]) -> Observations:
        """Sightings as arrays, in the order given."""
        count, results = len(sightings), [sighting.result for sighting in sightings]
        points = np.zeros((count, N_MEDIAPIPE, 2), np.float32)
        depth = np.zeros((count, N_MEDIAPIPE), np.float32)
        blendshapes = np.zeros((count, len(MEDIAPIPE_BLENDSHAPES)), np.float32)
        for number, result in enumerate(results):
            points[number], depth[number], blendshapes[number] = result.points, result.depth, result.blendshapes
        looked_at = [number for number, sighting in enumerate(sightings) if sighting.look is not None]
        looks = [look.to_arrays() for sighting in sightings if (look := sighting.look) is not None]
        empty = FaceLook().to_arrays()
        columns = {
            name: np.stack([look[name] for look in looks]) if looks else np.zeros((0, *array.shape))
            for name, array in empty.items()
        }
        return cls(
            np.array([sighting.row for sighting in sightings], np.int64),
            np.array([sighting.track for sighting in sightings], np.int64),
            points,
            depth,
            blendshapes,
            np.array([result.score for result in results], np.float32),
            np.array([sighting.detector_score for sighting in sightings], np.float32),
            np.array(looked_at, np.int64),
            **columns,
        )


class ObservationLog:
    """The log below ``folder``.

    Args:
        folder: of the segments; made when the first one is written.
        made_from: text that says what the log depends on; segments of anything else count as none.
    """

    def __init__(self, folder: Path, made_from: str = "") -> None:
        self.folder, self._made_from = folder, made_from
        self._count = 0

    def resume(self) -> tuple[int, TrackerState]:
        """Frames done and what the tracker knew then; segments that cannot be used are deleted.

        Returns:
            (0, a fresh state) when nothing usable is there.
        """
        done, state = 0, TrackerState()
        self._count = 0
        for path in sorted(self.folder.glob("*.npz")):
            head = self._head(path, done)
            if head is None:
                break
            done, state = head
            self._count += 1
        for path in sorted(self.folder.glob("*")):
            if path.name not in {self._name(n) for n in range(self._count)}:
                path.unlink()
        return done, state

    def _head(self, path: Path, done: int) -> tuple[int, TrackerState] | None:
        """(frames done after the segment, state then); None when it is not the next segment of this log."""
        try:
            with np.load(path, allow_pickle=False) as data:
                head = json.loads(str(data["head"]))
                if head["schema"] != LOG_SCHEMA or head["made_from"] != self._made_from or head["first"] != done:
                    return None
                return head["stop"], TrackerState.from_dict(head["state"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def append(self, first: int, stop: int, sightings: Sequence[Sighting], state: TrackerState) -> None:
        """Write the segment of frames ``first .. stop``; it is there whole or not at all."""
        head: dict[str, Any] = {
            "schema": LOG_SCHEMA, "made_from": self._made_from, "first": first, "stop": stop, "state": state.to_dict(),
        }  # fmt: skip
        seen = Observations.of(sightings)
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "segment.tmp"
        with temporary.open("wb") as file:
            np.savez(file, head=np.array(json.dumps(head)), **{name: getattr(seen, name) for name in seen.__slots__})
        temporary.replace(self.folder / self._name(self._count))
        self._count += 1

    def segments(self) -> Iterator[Observations]:
        """The segments in order; memory is one of them.

        Raises:
            ValueError: a segment is damaged.
        """
        for path in sorted(self.folder.glob("*.npz")):
            with np.load(path, allow_pickle=False) as data:
                yield Observations(*(data[name] for name in Observations.__slots__))

    def delete(self) -> None:
        """Remove the log."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _name(number: int) -> str:
        return f"{number:06d}.npz"
