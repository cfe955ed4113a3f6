"""Build the set in a folder: base videos, their landmarks, and the sequences made of them. What is there is kept.

Writes below ``folder``: ``base/<source>.mp4`` and ``base/<source>.points.npz``, ``<name>.mp4``, ``<name>.truth.npz``,
and beside each video a ``.made_from`` that says what it depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.evaluate_fit.made_up_speakers import RATE_HZ
from data_gen.utils.evaluate_occlusion.hand_mesh import HandMesh
from data_gen.utils.evaluate_occlusion.painted import painted_base
from data_gen.utils.evaluate_occlusion.specification import PAINTED_PREFIX, SequenceSpec
from data_gen.utils.evaluate_occlusion.truth import SequenceTruth
from data_gen.utils.evaluate_occlusion.writing import write_base, write_sequence
from modules.commons.errors import VideoReadError
from modules.commons.hashing import file_sha256
from modules.commons.progress import Progress
from modules.face_model.model import FaceModel

CLIP_SUFFIXES = (".mp4", ".mkv", ".mov")
SET_SCHEMA = "occluder-set/2"
Landmarker = Callable[[Path], NDArray[np.float32]]
"""Landmarks ``[T, 478, 2]`` px of the most important face of a video."""


@dataclass(frozen=True, slots=True)
class BuiltSequence:
    """A sequence on disk."""

    spec: SequenceSpec
    video: Path
    truth: Path

    def read_truth(self) -> SequenceTruth:
        """The exact answer."""
        return SequenceTruth.load(self.truth)


@dataclass(frozen=True, slots=True, eq=False)
class SetBuilder:
    """Makes sequences.

    Attributes:
        folder: of the set. clips: folder of real clips, or None: painted heads only.
        face_model, hand: what is painted. landmarker: finds the face of a base video.
    """

    folder: Path
    clips: Path | None
    face_model: FaceModel
    hand: HandMesh
    landmarker: Landmarker

    def build(self, specs: Sequence[SequenceSpec], progress: Progress) -> list[BuiltSequence]:
        """Make those sequences that are not there yet; returns all of them.

        Raises:
            VideoReadError: a clip is missing or too short.
        """
        built = []
        contents = {source: self._content(source) for source in {spec.source for spec in specs}}
        for number, spec in enumerate(specs):
            progress("sequences", number, len(specs))
            one = BuiltSequence(spec, self.folder / f"{spec.name}.mp4", self.folder / f"{spec.name}.truth.npz")
            made_from = fingerprint(spec, contents[spec.source])
            if not (one.truth.is_file() and _is_of(one.video, made_from)):
                base, points = self._base(spec, contents[spec.source])
                write_sequence(spec, base, points, self.hand, self.folder)
                _note(one.video).write_text(made_from)
            built.append(one)
        progress("sequences", len(specs), len(specs))
        return built

    def _content(self, source: str) -> str:
        """What stands for the content of a source: the clip's hash, or the version of the painted face model."""
        if source.startswith(PAINTED_PREFIX):
            return self.face_model.version
        return file_sha256(find_clip(self.clips, source))

    def _base(self, spec: SequenceSpec, content: str) -> tuple[Path, NDArray[np.float32]]:
        """The clean video of a sequence and its landmarks, made once for all sequences that share them."""
        part = f"{spec.source.replace(':', '_')}_{spec.start_s:g}_{spec.seconds:g}"
        video, table = self.folder / "base" / f"{part}.mp4", self.folder / "base" / f"{part}.points.npz"
        if not (table.is_file() and _is_of(video, content)):
            video.parent.mkdir(parents=True, exist_ok=True)
            temporary = table.with_name(f".{table.stem}.tmp.npz")
            np.savez(temporary, points=self._made_base(spec, video))
            temporary.replace(table)
            _note(video).write_text(content)
        with np.load(table, allow_pickle=False) as data:
            return video, data["points"]

    def _made_base(self, spec: SequenceSpec, video: Path) -> NDArray[np.float32]:
        if spec.is_painted:
            seed = int(spec.source.removeprefix(PAINTED_PREFIX))
            return painted_base(self.face_model, seed, round(spec.seconds * RATE_HZ), video)
        write_base(find_clip(self.clips, spec.source), spec.start_s, spec.seconds, video)
        return self.landmarker(video)


def find_clip(clips: Path | None, name: str) -> Path:
    """The file of a clip in a folder.

    Raises:
        VideoReadError: when it is not there.
    """
    for suffix in CLIP_SUFFIXES:
        if clips is not None and (clips / f"{name}{suffix}").is_file():
            return clips / f"{name}{suffix}"
    raise VideoReadError(f"{clips}: holds no clip {name}; name the folder of the clips with --clips")


def _note(video: Path) -> Path:
    return video.with_suffix(".made_from")


def _is_of(video: Path, made_from: str) -> bool:
    """Whether a video is there and made of that."""
    note = _note(video)
    return video.is_file() and note.is_file() and note.read_text() == made_from


def fingerprint(spec: SequenceSpec, content: str) -> str:
    """Changes when the sequence would be another one.

    Args:
        spec: of the sequence.
        content: stands for that of its source.
    """
    text = json.dumps([SET_SCHEMA, asdict(spec), content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
