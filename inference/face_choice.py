"""Which faces of a video are worked on, and which speech each of them gets.

Reads: what the command line says and a ``FaceTable``. Writes: nothing; pure functions, apart from asking whether a
sound file exists.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import AudioReadError, ConfigError, NoFaceError
from modules.structures.faces import FaceTable
from modules.structures.tracks import FrameStatus

Rule = Literal["largest", "left", "right", "center", "all", "speaking", "number", "point"]
NAMED_RULES: tuple[Rule, ...] = ("largest", "left", "right", "center", "all", "speaking")
WORTHWHILE_SHARE = 0.2
"""Left, right and center choose among faces seen for at least this share of the longest-seen one's frames."""
MIN_USABLE_S = 0.4
"""A face that can be worked on for less than this is no choice of its own."""
MIN_CONFIDENCE = 0.4
"""Median confidence over the sights of a face that is believed."""
POINT_REACH_S = 0.25
"""A face counts as there at a time when it was seen this near to it in the same shot."""


@dataclass(frozen=True, slots=True)
class FaceChoice:
    """What ``--face`` or ``--face_at`` asked for.

    Attributes:
        rule: 'number' and 'point' carry more below, the others speak for themselves.
        number: of the face.
        point: (x, y) continuous pixels of the upright frame.
        time_s: seconds after the first frame at which the face is there; None = the face that is there the longest.
    """

    rule: Rule = "largest"
    number: int = 0
    point: tuple[float, float] = (0.0, 0.0)
    time_s: float | None = None

    def __str__(self) -> str:
        if self.rule == "point":
            values = self.point if self.time_s is None else (*self.point, self.time_s)
            return "--face_at " + ",".join(f"{value:g}" for value in values)
        return f"--face {self.number if self.rule == 'number' else self.rule}"


@dataclass(frozen=True, slots=True)
class SpeechFiles:
    """What ``--drv_aud`` named: one sound for every chosen face, or one for each of some faces.

    Attributes:
        shared: for all; None when ``by_face`` says more.
        by_face: (number of the face, its sound), ascending, no number twice.
    """

    shared: Path | None
    by_face: tuple[tuple[int, Path], ...] = ()

    def __post_init__(self) -> None:
        if (self.shared is None) != bool(self.by_face):
            raise ValueError("speech is either shared or given by face")

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every sound once, in the order of the faces."""
        named = (path for _, path in self.by_face)
        return (self.shared,) if self.shared is not None else tuple(dict.fromkeys(named))


def add_face_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that choose faces."""
    parser.add_argument(
        "--face", metavar="WHICH", help="largest (default), left, right, center, all, speaking, or a face's number"
    )
    parser.add_argument("--face_at", metavar="X,Y[,T]", help="the face at these frame pixels, at T seconds")
    parser.add_argument("--list_faces", type=Path, metavar="F", help="only show the faces: a listing, and F.png")


def parse_face(face: str | int | None, face_at: str | None = None) -> FaceChoice | None:
    """What the two flags mean; None when neither is given.

    Args:
        face: 'largest', 'left', 'right', 'center', 'all', 'speaking' or a face's number.
        face_at: 'x,y' or 'x,y,t'.

    Raises:
        ConfigError: a value is none of these, or both flags are given.
    """
    if face is not None and face_at is not None:
        raise ConfigError(f"--face {face} and --face_at {face_at} both choose a face: give one of them")
    if face_at is not None:
        return _parse_point(face_at)
    if face is None:
        return None
    text = str(face).strip().lower()
    if text.isascii() and text.isdigit():
        return FaceChoice("number", number=int(text))
    named: dict[str, Rule] = {"centre": "center"}
    named.update((rule, rule) for rule in NAMED_RULES)
    if text in named:
        return FaceChoice(named[text])
    raise ConfigError(
        f"--face {face}: use {', '.join(NAMED_RULES)}, or a face's number from --list_faces (0 is the largest)"
    )


def chosen_faces(choice: FaceChoice | None, table: FaceTable) -> tuple[int, ...]:
    """Numbers of the faces that a choice means, ascending.

    'largest' (and no choice) is number 0; 'left', 'right' and 'center' go by the median position of the usable faces
    that are there for a worthwhile share of the video; 'all' is every usable face. For 'speaking' these are the
    faces to look among: ``inference.speaking_face`` says which of them when.

    Raises:
        NoFaceError: the video has no face, or none that can be worked on.
        ConfigError: the face asked for is not there.
    """
    choice = choice or FaceChoice()
    if len(table) == 0:
        raise NoFaceError(f"{choice}: no face was found in the video")
    if choice.rule == "number":
        check_number(choice.number, table, str(choice))
        return (choice.number,)
    if choice.rule == "point":
        return (_face_at(choice, table),)
    if choice.rule == "largest":
        return (0,)
    usable = usable_faces(table)
    if not usable:
        raise NoFaceError(
            f"{choice}: none of the {faces_in_words(len(table))} is large and frontal enough to be worked on; look "
            "with --list_faces"
        )
    return usable if choice.rule in ("all", "speaking") else (_face_by_place(choice.rule, usable, table),)


def usable_faces(table: FaceTable) -> tuple[int, ...]:
    """Numbers of the faces that are believed and can be worked on for at least ``MIN_USABLE_S``."""
    seconds = frame_seconds(table)
    usable: list[int] = []
    for number in range(len(table)):
        track = table.faces[number].track
        rows = slice(track.first_frame, track.first_frame + len(track))
        worked_s = float(seconds[rows][track.status == FrameStatus.DETECTED].sum())
        seen = track.is_detected
        if worked_s >= MIN_USABLE_S - 1e-9 and float(np.median(track.confidence[seen])) >= MIN_CONFIDENCE:
            usable.append(number)
    return tuple(usable)


def frame_seconds(table: FaceTable) -> NDArray[np.float64]:
    """``[N]`` how long each frame is shown, seconds; the last one as long as usual."""
    steps = np.diff(table.times_s)
    usual = float(np.median(steps)) if len(steps) else 0.04
    return np.append(steps, usual)[: len(table.times_s)]


def parse_drv_aud(values: str | Path | Sequence[str | Path] | Mapping[int, str | Path]) -> SpeechFiles:
    """What one or several ``--drv_aud`` mean.

    ``a.wav`` is for every chosen face, ``0=a.wav`` for face 0. Only digits before the first '=' are a face's number,
    so other paths may hold a '='. A file that is literally called '0=a.wav' is taken for the shared sound where there
    is no 'a.wav'; where both exist, './0=a.wav' and '0=./a.wav' say which is meant.

    Args:
        values: one value, several, or numbers and paths (for callers in Python).

    Raises:
        ConfigError: the values do not go together.
        AudioReadError: a file is not there.
    """
    if isinstance(values, Mapping):
        named: list[tuple[int | None, Path]] = [(int(number), Path(path)) for number, path in values.items()]
    else:
        named = [_parse_speech(value) for value in ([values] if isinstance(values, str | Path) else values)]
    if not named:
        raise ConfigError("--drv_aud is missing: name a sound or video file with the new speech")
    for number, path in named:
        if not path.is_file():
            raise AudioReadError(f"{path}: there is no such sound file; check --drv_aud{_for_face(number)}")
    by_face = _without_repetition([(number, path) for number, path in named if number is not None])
    shared = [path for number, path in named if number is None]
    if by_face and shared:
        raise ConfigError(
            f"--drv_aud {shared[0]} is for all faces and --drv_aud {by_face[0][0]}={by_face[0][1]} for one: give a "
            "face's number with each, or a single file"
        )
    if len(shared) > 1:
        raise ConfigError(
            f"--drv_aud names {shared[0]} and {shared[1]}: say which face gets which, as in --drv_aud 0={shared[0]} "
            f"--drv_aud 1={shared[1]}"
        )
    return SpeechFiles(shared[0] if shared else None, by_face)


def speech_of_faces(choice: FaceChoice | None, speech: SpeechFiles, table: FaceTable) -> tuple[tuple[int, Path], ...]:
    """(number, sound) of every face that is to speak anew, ascending.

    Without a choice the faces that ``--drv_aud`` names are the chosen ones. A chosen face without speech of its own,
    where others have it, keeps its lips.

    Raises:
        ConfigError: speech is for a face that is not there or not chosen, or as ``chosen_faces``.
        NoFaceError: as ``chosen_faces``.
    """
    if speech.shared is not None:
        return tuple((number, speech.shared) for number in chosen_faces(choice, table))
    if len(table) == 0:
        raise NoFaceError(f"--drv_aud {speech.by_face[0][0]}=...: no face was found in the video")
    for number, path in speech.by_face:
        check_number(number, table, f"--drv_aud {number}={path}")
    if choice is None:
        return speech.by_face
    chosen = chosen_faces(choice, table)
    for number, path in speech.by_face:
        if number not in chosen:
            raise ConfigError(
                f"--drv_aud {number}={path}: {choice} does not choose face {number} but "
                f"{', '.join(map(str, chosen))}; leave the flag out or give --face {number}"
            )
    return speech.by_face


def check_number(number: int, table: FaceTable, flag: str) -> None:
    """Refuse a face that is not there.

    Raises:
        ConfigError: with one sentence that begins with ``flag``.
    """
    if number >= len(table):
        there = "its number is 0" if len(table) == 1 else f"numbered 0 to {len(table) - 1}"
        raise ConfigError(f"{flag}: the video has {faces_in_words(len(table))}, {there}; look with --list_faces")


def faces_in_words(count: int) -> str:
    """'1 face', '2 faces'."""
    return "1 face" if count == 1 else f"{count} faces"


def _parse_point(text: str) -> FaceChoice:
    parts = [part.strip() for part in text.split(",")]
    numbers = [float(part) for part in parts if re.fullmatch(r"\d+(\.\d*)?|\.\d+", part)]
    if len(parts) not in (2, 3) or len(numbers) != len(parts):
        raise ConfigError(
            f"--face_at {text}: use X,Y or X,Y,T, pixels from the upper left corner of the frame and seconds, such as "
            "640,210,1.5"
        )
    return FaceChoice("point", point=(numbers[0], numbers[1]), time_s=numbers[2] if len(numbers) == 3 else None)


def _parse_speech(value: str | Path) -> tuple[int | None, Path]:
    """(face's number or None, path) of one ``--drv_aud``."""
    text = str(value)
    match = re.fullmatch(r"([0-9]+)=(.*)", text, flags=re.DOTALL)
    if match is None:
        return None, Path(text)
    number, rest = int(match[1]), match[2]
    if not rest:
        raise ConfigError(f"--drv_aud {text}: a file is missing after '='")
    if not Path(text).is_file():
        return number, Path(rest)
    if Path(rest).is_file():
        raise ConfigError(
            f"--drv_aud {text}: there are files {text} and {rest}; write ./{text} for the one, {number}=./{rest} for "
            "the other"
        )
    return None, Path(text)


def _without_repetition(by_face: list[tuple[int, Path]]) -> tuple[tuple[int, Path], ...]:
    ordered = sorted(by_face, key=lambda entry: entry[0])
    for (number, path), (other, again) in zip(ordered[:-1], ordered[1:], strict=True):
        if number == other:
            raise ConfigError(f"--drv_aud gives face {number} two sounds, {path} and {again}: keep one")
    return tuple(ordered)


def _for_face(number: int | None) -> str:
    return "" if number is None else f" of face {number}"


def _face_by_place(rule: Rule, usable: tuple[int, ...], table: FaceTable) -> int:
    """The usable face that is furthest left or right, or nearest to the frame's middle, by its median position."""
    seen = {number: int(table.faces[number].track.is_detected.sum()) for number in usable}
    longest = max(seen.values())
    worthwhile = [number for number in usable if seen[number] >= WORTHWHILE_SHARE * longest]
    middle = {number: median_center(table, number)[0] for number in worthwhile}
    if rule == "center":
        return min(worthwhile, key=lambda number: abs(middle[number] - table.size_hw[1] / 2))
    return (min if rule == "left" else max)(worthwhile, key=middle.__getitem__)


def median_center(table: FaceTable, number: int) -> tuple[float, float]:
    """(x, y) px, median over the frames in which the face is seen."""
    track = table.faces[number].track
    boxes = track.boxes[track.is_detected]
    return float(np.median((boxes[:, 0] + boxes[:, 2]) / 2)), float(np.median((boxes[:, 1] + boxes[:, 3]) / 2))


def _face_at(choice: FaceChoice, table: FaceTable) -> int:
    (x, y), (height, width) = choice.point, table.size_hw
    if x > width or y > height:
        raise ConfigError(f"{choice}: the point lies outside the frames, which are {width}x{height} px")
    rows = np.ones(len(table.times_s), bool)
    if choice.time_s is not None:
        rows = _rows_about(choice, table)
    faces = range(len(table))
    sights = [np.where(rows, distances_in_faces(table, number, choice.point), np.inf) for number in faces]
    if choice.time_s is not None:
        sights = [_nearest_sight(one, table.times_s - choice.time_s) for one in sights]
    for reach in (0.0, 1.0):  # boxes that hold the point come before boxes near it
        frames = [int((one <= reach).sum()) for one in sights]
        if max(frames) > 0:
            return min(faces, key=lambda number: (-frames[number], _closeness(table, number, sights[number], choice)))
    raise ConfigError(f"{choice}: no face is within a face's size of that point{_whereabouts(choice, table)}")


def _rows_about(choice: FaceChoice, table: FaceTable) -> NDArray[np.bool_]:
    """``[N]`` frames of the same shot near the time asked for."""
    time_s, times = choice.time_s or 0.0, table.times_s
    end_s = float(times[-1] + frame_seconds(table)[-1])
    if time_s > end_s:
        raise ConfigError(f"{choice}: the video ends at {end_s:.2f} s")
    row = max(int(np.searchsorted(times, time_s + 1e-6, side="right")) - 1, 0)
    first, stop = next((first, stop) for first, stop in table.shots if row < stop)
    about = np.abs(times - times[row]) <= POINT_REACH_S + 1e-6
    about[:first] = about[stop:] = False
    return about


def distances_in_faces(table: FaceTable, number: int, point: tuple[float, float]) -> NDArray[np.float64]:
    """``[N]`` distance of a point from the box of a face over the box's longer side; 0 inside, inf where not seen."""
    track = table.track_over_video(number)
    seen = track.is_detected | (track.status == FrameStatus.PREDICTED)
    x0, y0, x1, y1 = track.boxes.T
    across = np.maximum(np.maximum(x0 - point[0], point[0] - x1), 0.0)
    down = np.maximum(np.maximum(y0 - point[1], point[1] - y1), 0.0)
    size = np.maximum(np.maximum(x1 - x0, y1 - y0), 1e-9)
    return np.where(seen & np.isfinite(size), np.hypot(across, down) / size, np.inf)


def _nearest_sight(distance: NDArray[np.float64], apart_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keep of the frames with a sight the one nearest in time."""
    kept = np.full(len(distance), np.inf)
    if np.isfinite(distance).any():
        row = int(np.argmin(np.where(np.isfinite(distance), np.abs(apart_s), np.inf)))
        kept[row] = distance[row]
    return kept


def _closeness(table: FaceTable, number: int, sights: NDArray[np.float64], choice: FaceChoice) -> float:
    """Median distance of the point from the middle of the face, in face sizes: what decides between equals."""
    rows = np.isfinite(sights)
    if not rows.any():
        return math.inf
    boxes = table.track_over_video(number).boxes[rows]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1e-9)
    return float(np.median(np.linalg.norm(middle - np.array(choice.point), axis=1) / size))


def _whereabouts(choice: FaceChoice, table: FaceTable) -> str:
    """Where the faces are instead, for the message."""
    rows = np.ones(len(table.times_s), bool) if choice.time_s is None else _rows_about(choice, table)
    places: list[str] = []
    for number in range(len(table)):
        track = table.track_over_video(number)
        boxes = track.boxes[rows & track.is_detected]
        if len(boxes):
            x, y = np.median((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0)
            places.append(f"face {number} is at {x:.0f},{y:.0f}")
    there = f" ({', '.join(places[:4])})" if places else " (no face is on then)"
    return f"{there}; look with --list_faces"
