"""What the stages of a portrait's data hand to each other: which pictures are made, and the features of the sound."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.crops import CropMetadata

PLAN_SCHEMA = "portrait-plan/1"
SPEECH_SCHEMA = "portrait-speech/1"
PORTRAIT_SIDE = 512
"""Side of a portrait's pictures, px."""


@dataclass(frozen=True, slots=True, eq=False)
class PortraitPlan:
    """The clip at 25 frames per second, and the square that is cut out of every frame.

    Attributes:
        crops: one square for the whole clip, ``PORTRAIT_SIDE`` px.
        source_rows: int64 ``[T]``, the video's frame that each frame of the clip shows.
        samples: int64 ``[N]``, ascending rows of the clip that pictures are made of.
        is_train: bool ``[N]``; the others are held out.
    """

    crops: CropMetadata
    source_rows: NDArray[np.int64]
    samples: NDArray[np.int64]
    is_train: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if len(self.crops.regions) != 1:
            raise ValueError(f"a portrait has one square, got {len(self.crops.regions)}")
        inside = len(self.samples) and self.samples[0] >= 0 and self.samples[-1] < len(self.source_rows)
        if not inside or not (np.diff(self.samples) > 0).all() or self.is_train.shape != self.samples.shape:
            raise ValueError(f"samples must ascend within the clip's {len(self.source_rows)} frames")

    def __len__(self) -> int:
        return len(self.source_rows)

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            schema=np.array(PLAN_SCHEMA),
            crops=np.array(self.crops.to_json()),
            source_rows=self.source_rows,
            samples=self.samples,
            is_train=self.is_train,
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> PortraitPlan:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            _check_schema(data, PLAN_SCHEMA, path)
            crops = CropMetadata.from_json(str(data["crops"]), path)
            return cls(crops, data["source_rows"], data["samples"], data["is_train"])


@dataclass(frozen=True, slots=True, eq=False)
class PortraitSpeech:
    """Features of the clip's own sound, see ``PortraitDataset``."""

    speech: NDArray[np.float32]
    speech_extractor: str
    mel: NDArray[np.float32]
    f0_hz: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        np.savez(temporary, allow_pickle=False, schema=np.array(SPEECH_SCHEMA), **arrays)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> PortraitSpeech:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            _check_schema(data, SPEECH_SCHEMA, path)
            return cls(data["speech"], str(data["speech_extractor"]), data["mel"], data["f0_hz"])


def _check_schema(data: np.lib.npyio.NpzFile, wanted: str, path: Path) -> None:
    found = str(data["schema"]) if "schema" in data else "none"
    if found != wanted:
        raise ValueError(f"{path} holds schema {found}, expected {wanted}")
