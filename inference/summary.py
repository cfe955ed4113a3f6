"""The JSON record of a run: what was edited, what passed through and why, and where the time went."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SUMMARY_SCHEMA = "lipsync-summary/3"


class _WarningCollector(logging.Handler):
    """Keeps the text of each warning once, in order."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self.texts:
            self.texts.append(text)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """What is warned of meanwhile, for the record of the run."""
    collector = _WarningCollector()
    root = logging.getLogger()
    root.addHandler(collector)
    try:
        yield collector.texts
    finally:
        root.removeHandler(collector)


@dataclass(slots=True)
class AreaMeter:
    """Running mean and maximum of the edited area, in pixels of alpha."""

    frames: int = 0
    total_px: float = 0.0
    largest_px: float = 0.0

    def add(self, area_px: float) -> None:
        self.frames += 1
        self.total_px += area_px
        self.largest_px = max(self.largest_px, area_px)

    @property
    def mean_px(self) -> float:
        return self.total_px / self.frames if self.frames else 0.0


@dataclass(frozen=True, slots=True)
class FaceSummary:
    """What was done to one face.

    ``adaptation`` says whether the person's own way of speaking was learnt, and why;
    ``frames_judged_by`` counts the clip's frames by what told what is in front of the face: where only hands did, too
    little of the clip shows the clean face, and frames with something near the mouth pass through;
    ``spans`` are the runs of output frames that were edited, faded or passed through, with the reason.
    """

    face: int
    drv_aud: str
    identity: str
    identity_trained_now: bool
    adaptation: str
    frames_edited: int
    frames_judged_by: dict[str, int]
    frames_passed_through: dict[str, int]
    face_height_px: float
    edited_area_mean_px: float
    edited_area_share: float
    landmark_error_percent: float
    spans: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Everything worth knowing about one finished job.

    ``frames_copied`` kept the source's packets (``--smart_copy``); ``provenance`` names the file that is handed on with
    the result, see ``inference.provenance``.
    """

    src_video: str
    output: str
    frame_size: tuple[int, int]
    frames: int
    frames_edited: int
    frames_with_hand: int
    faces: list[FaceSummary]
    seconds_per_stage: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    frames_copied: int = 0
    provenance: str = ""

    def write(self, path: Path) -> None:
        """Write beside the output, through a temporary name."""
        data = {"schema": SUMMARY_SCHEMA, **asdict(self), "machine": platform.processor() or platform.machine()}
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(data, indent=1, sort_keys=False) + "\n", encoding="utf-8")
        temporary.replace(path)
