"""Faces annotated by eye: which person is where in which frame of a clip, and what a fair judge leaves out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modules.structures.boxes import BoundingBox

SCHEMA = "face-annotation/1"
DATA_DIR = Path(__file__).resolve().parents[1] / "data"


@dataclass(frozen=True, slots=True)
class FaceSpan:
    """A usable face over frames ``first .. stop`` (half-open), inside one shot.

    Attributes:
        boxes: forehead to chin, ear to ear, in frame pixels, at key frames in ascending order; linear in between and
            constant outside.
    """

    first: int
    stop: int
    boxes: dict[int, BoundingBox]

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.stop:
            raise ValueError(f"empty span {self.first}..{self.stop}")
        if not self.boxes or not all(self.first <= frame < self.stop for frame in self.boxes):
            raise ValueError(f"span {self.first}..{self.stop} needs key boxes inside it, got {list(self.boxes)}")
        if list(self.boxes) != sorted(self.boxes):
            raise ValueError(f"key boxes of span {self.first}..{self.stop} are out of order: {list(self.boxes)}")

    def box_at(self, frame: int) -> BoundingBox | None:
        """The face in ``frame``, None outside the span."""
        if not self.first <= frame < self.stop:
            return None
        corners = np.array([box.as_array() for box in self.boxes.values()])
        x0, y0, x1, y1 = (float(np.interp(frame, list(self.boxes), column)) for column in corners.T)
        return BoundingBox(x0, y0, x1, y1)


@dataclass(frozen=True, slots=True)
class Person:
    """Everything usable that is seen of one person, over all shots."""

    name: str
    spans: tuple[FaceSpan, ...]

    def box_at(self, frame: int) -> BoundingBox | None:
        """This person's face in ``frame``, None where it is not usable."""
        return next((box for span in self.spans if (box := span.box_at(frame)) is not None), None)


@dataclass(frozen=True, slots=True)
class IgnoredRegion:
    """What is neither asked for nor punished over frames ``first .. stop``; no box means the whole frame."""

    first: int
    stop: int
    box: BoundingBox | None


@dataclass(frozen=True, slots=True)
class FaceAnnotation:
    """The ground truth of one clip.

    Attributes:
        clip: file name of the video.
        frames: shown frames the annotation is about, ``0 .. frames``.
        cuts: first frame of each shot but the first, ascending.
        people: one entry per person over all shots.
        ignore: faces too small, blurred, turned away, cut off or covered to be judged.
    """

    clip: str
    frames: int
    cuts: tuple[int, ...]
    people: tuple[Person, ...]
    ignore: tuple[IgnoredRegion, ...]
    note: str = ""

    def __post_init__(self) -> None:
        if list(self.cuts) != sorted(set(self.cuts)) or not all(0 < cut < self.frames for cut in self.cuts):
            raise ValueError(f"{self.clip}: cuts must ascend inside 1..{self.frames}, got {self.cuts}")
        if len({person.name for person in self.people}) != len(self.people):
            raise ValueError(f"{self.clip}: a person is named twice")
        for person in self.people:
            self._check_spans(person)
        if any(not 0 <= part.first < part.stop <= self.frames for part in self.ignore):
            raise ValueError(f"{self.clip}: an ignored part leaves 0..{self.frames}")

    def _check_spans(self, person: Person) -> None:
        after = 0
        for span in person.spans:
            if span.first < after or span.stop > self.frames:
                raise ValueError(f"{self.clip}: spans of {person.name} overlap or leave 0..{self.frames}")
            if any(span.first < cut < span.stop for cut in self.cuts):
                raise ValueError(f"{self.clip}: span {span.first}..{span.stop} of {person.name} crosses a cut")
            after = span.stop

    def faces_at(self, frame: int) -> dict[str, BoundingBox]:
        """Every usable face of ``frame`` by the person's name."""
        found = ((person.name, person.box_at(frame)) for person in self.people)
        return {name: box for name, box in found if box is not None}

    def ignored_at(self, frame: int) -> list[BoundingBox | None]:
        """The ignored boxes of ``frame``; None among them means all of it."""
        return [part.box for part in self.ignore if part.first <= frame < part.stop]

    def is_ignored(self, frame: int, box: BoundingBox, share: float = 0.3) -> bool:
        """Whether at least ``share`` of ``box`` lies in one ignored region of ``frame``."""
        return any(part is None or _covered(box, part) >= share for part in self.ignored_at(frame))


def load_annotation(path: Path) -> FaceAnnotation:
    """Read an annotation file.

    Raises:
        ValueError: when the file is not of this schema or contradicts itself.
    """
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("schema") != SCHEMA:
        raise ValueError(f"{path} does not hold annotations of schema {SCHEMA}")
    people = tuple(Person(person["name"], tuple(_span(span) for span in person["spans"])) for person in data["people"])
    ignore = tuple(IgnoredRegion(part["first"], part["stop"], _box(part["box"])) for part in data["ignore"])
    return FaceAnnotation(data["clip"], data["frames"], tuple(data["cuts"]), people, ignore, data.get("note", ""))


def annotation_of(clip: str) -> FaceAnnotation:
    """The annotation in ``tests/data`` of the clip with this file name."""
    return load_annotation(DATA_DIR / f"faces_{Path(clip).stem}.json")


def _span(data: dict) -> FaceSpan:
    keys = sorted((int(frame), corners) for frame, corners in data["boxes"].items())
    return FaceSpan(data["first"], data["stop"], {frame: BoundingBox(*corners) for frame, corners in keys})


def _box(corners: list[float] | None) -> BoundingBox | None:
    return None if corners is None else BoundingBox(*corners)


def _covered(box: BoundingBox, region: BoundingBox) -> float:
    width = min(box.x1, region.x1) - max(box.x0, region.x0)
    height = min(box.y1, region.y1) - max(box.y0, region.y0)
    return max(width, 0.0) * max(height, 0.0) / box.area
