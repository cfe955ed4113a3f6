"""Where a result comes from: ``<out>.provenance.json``, to be handed on with the video.

It says that the video is synthesised, which frames of which face, from which inputs and by which models and software,
all named by their hashes. Names of files are given without their folders. How the run went (times, areas, warnings) is
``<out>.json``'s matter, see ``inference.summary``.

Reads: the finished result, its inputs, the checkpoints. Writes: the JSON beside the result.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import av

from modules.commons.errors import OutputError
from modules.commons.hashing import file_sha256
from modules.commons.workspace import ROOT
from modules.structures.spans import SpanKind, SpanTable
from modules.structures.timeline import Timeline
from modules.video.writer import SYNTHESISED

PROVENANCE_SCHEMA = "lipsync-provenance/1"
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a recording that a trained model changed a part of; programs that label media know it."""
_PACKAGES = ("av", "numpy", "opencv-python-headless", "scipy", "torch", "ai-edge-litert")
_CARD = "MODEL_CARD.md"


@dataclass(frozen=True, slots=True)
class Model:
    """A model that took part: what it did, and its folder or file."""

    role: str
    path: Path


@dataclass(frozen=True, slots=True, eq=False)
class EditedFace:
    """What was done to a face: its number, the sound file it speaks, and what happened to each output frame."""

    face: int
    sound: Path
    spans: SpanTable


@dataclass(frozen=True, slots=True, eq=False)
class Provenance:
    """Everything that a result's sidecar tells.

    Attributes:
        output: the finished result.
        source: the video that was edited, and its hash.
        timeline: when the output's frames are shown.
        faces: what was edited.
        models: that took part.
        options: the job, whose fields are told as they are.
        copied_frames: how many frames kept the source's packets.
        watermark: text of the visible mark; None = none.
    """

    output: Path
    source: tuple[Path, str]
    timeline: Timeline
    faces: tuple[EditedFace, ...]
    models: tuple[Model, ...]
    options: object
    copied_frames: int = 0
    watermark: str | None = None

    @property
    def path(self) -> Path:
        """Where it is written."""
        return provenance_path(self.output)

    def to_json(self) -> dict[str, Any]:
        """The record as plain values; hashes what it names."""
        sounds = dict.fromkeys(face.sound for face in self.faces)
        return {
            "schema": PROVENANCE_SCHEMA,
            "statement": SYNTHESISED,
            "digital_source_type": DIGITAL_SOURCE_TYPE,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "output": {"name": self.output.name, "sha256": file_sha256(self.output)},
            "inputs": [
                {"role": "video", "name": self.source[0].name, "sha256": self.source[1]},
                *({"role": "speech", "name": path.name, "sha256": file_sha256(path)} for path in sounds),
            ],
            "frames": len(self.timeline),
            "frames_copied_as_packets": self.copied_frames,
            "edited": [self._face(face) for face in self.faces],
            "watermark": self.watermark,
            "models": [_model(model) for model in self.models],
            "software": software(),
            "flags": plain(self.options),
        }

    def write(self) -> None:
        """Write beside the result, through a temporary name.

        Raises:
            OutputError: it cannot be written.
        """
        temporary = self.path.with_name(self.path.name + ".tmp")
        text = json.dumps(self.to_json(), indent=1) + "\n"
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); check disk and folder") from error

    def _face(self, face: EditedFace) -> dict[str, Any]:
        """The spans of a face that are not the source's own, in frames and seconds of the output."""
        timeline = self.timeline
        ends = [*(int(pts) for pts in timeline.pts[1:]), timeline.end_pts]
        spans = [
            {
                "first": span.first,
                "stop": span.stop,
                "from_s": round(float(timeline.pts[span.first] * timeline.time_base), 6),
                "to_s": round(float(ends[span.stop - 1] * timeline.time_base), 6),
                "kind": str(span.kind),
            }
            for span in face.spans.spans()
            if span.kind is not SpanKind.PASSTHROUGH
        ]
        return {
            "face": face.face,
            "speech": face.sound.name,
            "frames_edited": int(face.spans.edited.sum()),
            "spans": spans,
        }


def provenance_path(output: Path) -> Path:
    """Where the record of a result lies."""
    return output.with_name(output.name + ".provenance.json")


def software() -> dict[str, Any]:
    """The versions of everything that made the result."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # another build of the same library may be in use
            packages[name] = None
    libraries = {name: ".".join(str(part) for part in numbers) for name, numbers in sorted(av.library_versions.items())}
    return {"project_commit": project_commit(), "python": platform.python_version(), **packages, "ffmpeg": libraries}


def project_commit(root: Path = ROOT) -> str | None:
    """The commit that the code in ``root`` is of, with '-dirty' behind it where files differ; None where unknown."""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def plain(value: object) -> Any:
    """A job's options as plain values: paths by their names alone, nested options as mappings."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def _model(model: Model) -> dict[str, Any]:
    """A model by the hashes of its files, and which of them is its card."""
    found = sorted(model.path.glob("*")) if model.path.is_dir() else [model.path]
    files = {path.name: file_sha256(path) for path in found if path.is_file()}
    return {"role": model.role, "name": model.path.name, "card": _CARD if _CARD in files else None, "sha256": files}
