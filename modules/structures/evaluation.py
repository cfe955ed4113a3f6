"""A trial: one stretch of video shown in several ways, ready to be measured.

What ``inference`` makes and ``tasks/evaluate.py`` judges: the two meet in this folder layout only.
A trial is a folder with ``trial.json``, ``tables.npz`` and lossless videos: per row the pictures inside the trial's
window, and the alpha they were blended with.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from modules.structures.audio import AudioClip
from modules.structures.crops import CropRegion
from modules.structures.landmarks import Landmarks2D

TRIAL_SCHEMA = "trial/1"
TRIALS = "trials"
"""Where, below a report's folder, the trials lie ..."""
DUBBINGS = ("dubbing", *(f"dubbing_{number}" for number in range(2, 10)))
"""Trials of the first, second ... speech."""
TRIAL_NAMES = ("last", "folds", *DUBBINGS, "leakage")
"""... and what their folders are called, in the order of a report."""
Protocol = Literal["self-reenactment", "dubbing", "leakage"]
EDITED = "edited"
"""Outcome of a frame that was repainted; any other says why it was not."""


@dataclass(frozen=True, slots=True, eq=False)
class SpeechTrack:
    """The speech that a trial's lips should follow; row i stands at ``(i + 0.5) / rate_hz`` s after the first frame.

    Attributes:
        opening: float32 ``[M]`` lip opening predicted from the sound alone, by a model that saw no picture.
        level_db: float32 ``[M]`` loudness, dBFS.
        is_speech: bool ``[M]``.
        rate_hz: rows per second.
        sound: the speech itself, mono; sample 0 stands at the first frame.
    """

    opening: NDArray[np.float32]
    level_db: NDArray[np.float32]
    is_speech: NDArray[np.bool_]
    rate_hz: float
    sound: AudioClip

    def __post_init__(self) -> None:
        if not self.opening.shape == self.level_db.shape == self.is_speech.shape or self.opening.ndim != 1:
            shapes = [a.shape for a in (self.opening, self.level_db, self.is_speech)]
            raise ValueError(f"speech arrays disagree: {shapes}")

    @property
    def times_s(self) -> NDArray[np.float64]:
        return (np.arange(len(self.opening), dtype=np.float64) + 0.5) / self.rate_hz


@dataclass(frozen=True, slots=True, eq=False)
class TrialRow:
    """One way of showing the trial's frames.

    Attributes:
        name: how reports call it.
        is_result: made by the system under test; the others are references that say what a figure is worth.
        pictures: video of the window, one frame per trial frame; None = the source's own pictures.
        landmarks: ``N`` rows, re-detected in these pictures, frame pixels.
        frames_late: with ``pictures`` None, the source is shown this many frames late.
        alpha: grey video of the window, luma / 255 = alpha; None = nothing was blended.
        driving_opening: float32 ``[N]`` lip opening that the driving motion asked for; None where nothing was driven.
        tracked_opening: float32 ``[N]`` that of what is tracked in the untouched source, likewise.
        lower_face_px: float32 ``[N]`` area of the projected lower face of the old and the new pose together, px.
        jaw_gap_px: float32 ``[N]`` largest distance between the jaw contours of the old and the new pose, px.
        is_whole: pictures and alpha are whole frames numbered as the source's, not the window's.
        speech_late_s: the speech of the trial is heard this much later for this row's sync figures.
        about: one sentence for the reader.
    """

    name: str
    is_result: bool
    pictures: Path | None
    landmarks: Landmarks2D
    frames_late: int = 0
    alpha: Path | None = None
    driving_opening: NDArray[np.float32] | None = None
    tracked_opening: NDArray[np.float32] | None = None
    lower_face_px: NDArray[np.float32] | None = None
    jaw_gap_px: NDArray[np.float32] | None = None
    is_whole: bool = False
    speech_late_s: float = 0.0
    about: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Frames ``N`` of one video shown in several ways.

    Attributes:
        name: folder name and title. protocol: what the figures mean.
        source: the video.
        window: integer half-open x0, y0, x1, y1 of the frame; the rows' videos show only this, and nothing outside it
            was edited.
        frames: int64 ``[N]`` ascending frame indices of the source.
        times_s: float64 ``[N]`` seconds after the source's first frame.
        block: int64 ``[N]`` number of the unbroken stretch a frame belongs to; nothing temporal is measured across.
        outcomes: ``N`` times ``EDITED``, or why the frame was left alone.
        crops: ``N`` squares of the stable crop, frame pixels.
        speech: None when there is none.
        rows: the first is the untouched source.
        notes: what was left out, and why.
    """

    name: str
    protocol: Protocol
    source: Path
    window: tuple[int, int, int, int]
    frames: NDArray[np.int64]
    times_s: NDArray[np.float64]
    block: NDArray[np.int64]
    outcomes: tuple[str, ...]
    crops: tuple[CropRegion, ...]
    speech: SpeechTrack | None
    rows: tuple[TrialRow, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.frames)
        columns = (self.times_s, self.block, self.outcomes, self.crops)
        if count == 0 or any(len(column) != count for column in columns):
            raise ValueError(f"trial {self.name}: arrays disagree, {count} frames, {[len(c) for c in columns]}")
        if any(len(row.landmarks) != count for row in self.rows):
            raise ValueError(f"trial {self.name}: a row's landmarks do not belong to its {count} frames")
        for row in self.rows:
            wrong = [name for name in _ROW_ARRAYS if (a := getattr(row, name)) is not None and a.shape != (count,)]
            if wrong:
                raise ValueError(
                    f"trial {self.name}: {wrong[0]} of row {row.name} does not belong to its {count} frames"
                )
        if (np.diff(self.frames) <= 0).any():
            raise ValueError(f"trial {self.name}: frames must ascend")

    def __len__(self) -> int:
        return len(self.frames)

    def save(self, folder: Path) -> None:
        """Write the tables; the videos of the rows lie in ``folder`` already. ``trial.json`` comes last."""
        (folder / "trial.json").unlink(missing_ok=True)  # of a trial that was here before
        speech = self.speech
        arrays: dict[str, NDArray] = {"frames": self.frames, "times_s": self.times_s, "block": self.block}
        arrays["crops"] = np.array([(c.center_x, c.center_y, c.side, c.angle_rad) for c in self.crops])
        if speech is not None:
            arrays |= {name: getattr(speech, name) for name in _SPEECH_ARRAYS}
            arrays["samples"] = np.round(np.clip(speech.sound.samples, -1, 1) * _PCM).astype(np.int16)
        for number, row in enumerate(self.rows):
            arrays |= {f"{name}{number}": a for name in _ROW_ARRAYS if (a := getattr(row, name)) is not None}
            row.landmarks.save(folder / f"landmarks{number}.npz")
        np.savez(folder / "tables.npz", **arrays)  # type: ignore[arg-type]
        record = {
            "schema": TRIAL_SCHEMA,
            "name": self.name,
            "protocol": self.protocol,
            "source": str(self.source.resolve()),
            "window": list(self.window),
            "outcomes": list(self.outcomes),
            "speech_rate_hz": speech.rate_hz if speech else None,
            "sound_rate_hz": speech.sound.sample_rate_hz if speech else None,
            "notes": list(self.notes),
            "rows": [_row_record(row, folder) for row in self.rows],
        }
        temporary = folder / "trial.tmp.json"
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / "trial.json")

    @classmethod
    def load(cls, folder: Path) -> Trial:
        """Read what ``save`` wrote.

        Raises:
            ValueError: the folder holds no finished trial of this schema.
        """
        try:
            record = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no finished trial ({error})") from error
        schema = record.get("schema") if isinstance(record, dict) else None
        if schema != TRIAL_SCHEMA:
            raise ValueError(f"{folder} holds schema {schema!r}, expected {TRIAL_SCHEMA}")
        with np.load(folder / "tables.npz", allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        speech = None
        if record["speech_rate_hz"] is not None:
            sound = AudioClip(arrays["samples"].astype(np.float32) / np.float32(_PCM), record["sound_rate_hz"])
            columns = (arrays[name] for name in _SPEECH_ARRAYS)
            speech = SpeechTrack(*columns, rate_hz=record["speech_rate_hz"], sound=sound)
        return cls(
            name=record["name"],
            protocol=record["protocol"],
            source=Path(record["source"]),
            window=tuple(record["window"]),
            frames=arrays["frames"],
            times_s=arrays["times_s"],
            block=arrays["block"],
            outcomes=tuple(record["outcomes"]),
            crops=tuple(CropRegion(*map(float, row)) for row in arrays["crops"]),
            speech=speech,
            rows=tuple(_row_from(record, number, arrays, folder) for number, record in enumerate(record["rows"])),
            notes=tuple(record["notes"]),
        )


_SPEECH_ARRAYS = ("opening", "level_db", "is_speech")
_ROW_ARRAYS = ("driving_opening", "tracked_opening", "lower_face_px", "jaw_gap_px")
_PCM = 32767


def _row_record(row: TrialRow, folder: Path) -> dict[str, Any]:
    paths = {"pictures": row.pictures, "alpha": row.alpha}
    plain = ("name", "is_result", "frames_late", "is_whole", "speech_late_s", "about")
    folder = folder.resolve()  # ".." leads elsewhere from behind a link
    return {name: getattr(row, name) for name in plain} | {
        key: None if path is None else os.path.relpath(path.resolve(), folder) for key, path in paths.items()
    }


def _row_from(record: dict[str, Any], number: int, arrays: dict[str, NDArray], folder: Path) -> TrialRow:
    paths = {key: None if record[key] is None else folder / record[key] for key in ("pictures", "alpha")}
    columns = {name: arrays.get(f"{name}{number}") for name in _ROW_ARRAYS}
    landmarks = Landmarks2D.load(folder / f"landmarks{number}.npz")
    return TrialRow(**{**record, **paths, **columns}, landmarks=landmarks)
