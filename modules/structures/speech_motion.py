"""One talking clip as rows of sound features and the mouth that went with them: what audio → motion trains on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPEECH_MOTION_SCHEMA = "speech-motion/1"


@dataclass(frozen=True, slots=True, eq=False)
class SpeechMotionClip:
    """Rows at ``rate_hz``; row i stands at ``(i + 0.5) / rate_hz`` s of the sound, sync errors already taken out.

    Attributes:
        name: the clip. speaker: clips of one person share it and never meet across a split.
        features: ``[K, T, C]`` float16, K renderings of the same sound (the first is the clean one).
        expression: ``[T, E]`` fitted coefficients, absolute.
        identity: ``[I]`` fitted identity.
        opening: ``[T]`` tracked lip opening, in distances between the outer eye corners.
        width: ``[T]`` tracked mouth width, likewise.
        valid: ``[T]`` bool, a face was fitted there.
        is_speech: ``[T]`` bool.
        rate_hz: rows per second.
        extractor: what made the features. face_model_version: model the coefficients belong to.
    """

    name: str
    speaker: str
    features: NDArray[np.float16]
    expression: NDArray[np.float32]
    identity: NDArray[np.float32]
    opening: NDArray[np.float32]
    width: NDArray[np.float32]
    valid: NDArray[np.bool_]
    is_speech: NDArray[np.bool_]
    rate_hz: float
    extractor: str
    face_model_version: str

    def __post_init__(self) -> None:
        count = self.features.shape[1] if self.features.ndim == 3 else -1
        rows = {len(a) for a in (self.expression, self.opening, self.width, self.valid, self.is_speech)}
        if rows != {count} or self.expression.ndim != 2 or self.identity.ndim != 1:
            raise ValueError(f"clip {self.name}: arrays disagree, {count} feature rows but {sorted(rows)}")

    def __len__(self) -> int:
        return len(self.valid)

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, schema=np.array(SPEECH_MOTION_SCHEMA), **{f.name: getattr(self, f.name) for f in _FIELDS})
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> SpeechMotionClip:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            if "schema" not in data or str(data["schema"]) != SPEECH_MOTION_SCHEMA:
                raise ValueError(f"{path} does not hold a talking clip of schema {SPEECH_MOTION_SCHEMA}")
            values = {field.name: data[field.name] for field in _FIELDS}
        text = {key: str(values[key]) for key in ("name", "speaker", "extractor", "face_model_version")}
        return cls(**{**values, **text, "rate_hz": float(values["rate_hz"])})


_FIELDS = fields(SpeechMotionClip)
