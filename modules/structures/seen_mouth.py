"""What a video shows of a talking mouth, on its sound's clock: what predictions are judged by."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES

SEEN_MOUTH_SCHEMA = "seen-mouth/1"


@dataclass(frozen=True, slots=True, eq=False)
class SeenMouth:
    """Rows at ``rate_hz``; row i stands at ``(i + 0.5) / rate_hz`` s of the sound, sync errors already taken out.

    Attributes:
        name: the clip. speaker: who talks.
        opening: ``[T]`` tracked lip opening, in distances between the outer eye corners. width: ``[T]`` likewise.
        scores: ``[T, 52]`` MediaPipe's scores 0..1 (``MEDIAPIPE_BLENDSHAPES``).
        valid: ``[T]`` bool, the mouth was seen there. is_speech: ``[T]`` bool.
        level_db: ``[T]`` loudness of the sound, dBFS.
        rate_hz: rows per second.
    """

    name: str
    speaker: str
    opening: NDArray[np.float32]
    width: NDArray[np.float32]
    scores: NDArray[np.float32]
    valid: NDArray[np.bool_]
    is_speech: NDArray[np.bool_]
    level_db: NDArray[np.float32]
    rate_hz: float

    def __post_init__(self) -> None:
        count = len(self.valid)
        rows = {len(a) for a in (self.opening, self.width, self.is_speech, self.level_db)}
        if rows != {count} or self.scores.shape != (count, len(MEDIAPIPE_BLENDSHAPES)):
            raise ValueError(f"mouth {self.name}: arrays disagree, {count} rows but {sorted(rows)}")

    def __len__(self) -> int:
        return len(self.valid)

    def score(self, unit: str) -> NDArray[np.float32]:
        """``[T]`` score of one of MediaPipe's units."""
        return self.scores[:, MEDIAPIPE_BLENDSHAPES.index(unit)]

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, schema=np.array(SEEN_MOUTH_SCHEMA), **{f.name: getattr(self, f.name) for f in _FIELDS})
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> SeenMouth:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            if "schema" not in data or str(data["schema"]) != SEEN_MOUTH_SCHEMA:
                raise ValueError(f"{path} does not hold a seen mouth of schema {SEEN_MOUTH_SCHEMA}")
            values = {field.name: data[field.name] for field in _FIELDS}
        text = {key: str(values[key]) for key in ("name", "speaker")}
        return cls(**{**values, **text, "rate_hz": float(values["rate_hz"])})


_FIELDS = fields(SeenMouth)
