"""Facial motion for other programs: ARKit's units and the head's pose at exact times."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.arkit import LIVE_LINK_UNITS, eye_angles, head_angles, unit_name
from modules.structures.cameras import CameraIntrinsics

FACE_MOTION_SCHEMA = "face-motion/1"


@dataclass(frozen=True, slots=True, eq=False)
class FaceMotion:
    """What a face does, row by row.

    Attributes:
        times_s: float64 ``[T]``, rising, seconds after the first row, which is 0.
        names: ``[52]`` ARKit's units in the order of ``expression``'s columns.
        expression: float32 ``[T, 52]``, 0..1.
        euler: float32 ``[T, 3]`` rad. translation: float32 ``[T, 3]`` dm. Both as in ``FaceModelCoeffs``; 0 where the
            motion has no head of its own.
        valid: bool ``[T]``: a face was seen there, or speech says what it does; other rows hold the last one.
        rate: nominal rows per second; ``times_s`` are what counts.
        face_model_version: of the model the units belong to.
        camera: that filmed the head; None where the motion has no head of its own.
    """

    times_s: NDArray[np.float64]
    names: tuple[str, ...]
    expression: NDArray[np.float32]
    euler: NDArray[np.float32]
    translation: NDArray[np.float32]
    valid: NDArray[np.bool_]
    rate: Fraction
    face_model_version: str
    camera: CameraIntrinsics | None = None

    def __post_init__(self) -> None:
        count = len(self.times_s)
        shapes = (self.expression.shape, self.euler.shape, self.translation.shape, self.valid.shape)
        if shapes != ((count, len(self.names)), (count, 3), (count, 3), (count,)) or not count:
            raise ValueError(f"motion of {count} rows and {len(self.names)} units, got {shapes}")
        if sorted(self.names) != sorted(map(unit_name, LIVE_LINK_UNITS)):
            raise ValueError(f"motion needs the {len(LIVE_LINK_UNITS)} units of ARKit, got {len(self.names)} others")
        if self.times_s[0] != 0 or not (np.diff(self.times_s) > 0).all():
            raise ValueError("the times of a motion must begin at 0 and rise")
        if not ((self.expression >= 0) & (self.expression <= 1)).all():  # NaN is refused too
            raise ValueError("units must lie in 0..1")
        if not (np.isfinite(self.euler).all() and np.isfinite(self.translation).all()):
            raise ValueError("the pose of a head must be finite")

    def __len__(self) -> int:
        return len(self.times_s)

    def live_link_values(self) -> NDArray[np.float64]:
        """``[T, 61]`` in the order of ``LIVE_LINK_VALUES``."""
        order = [self.names.index(unit_name(column)) for column in LIVE_LINK_UNITS]
        units = self.expression[:, order].astype(np.float64)
        return np.concatenate([units, head_angles(self.euler), eye_angles(units)], axis=1)

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle; ``rate`` is numerator and denominator, ``camera`` is empty for None."""
        with path.open("wb") as file:  # savez would add a suffix to a name without one
            np.savez(
                file,
                schema=np.array(FACE_MOTION_SCHEMA),
                times_s=self.times_s,
                names=np.array(self.names),
                expression=self.expression,
                euler=self.euler,
                translation=self.translation,
                valid=self.valid,
                rate=np.array([self.rate.numerator, self.rate.denominator], np.int64),
                face_model_version=np.array(self.face_model_version),
                camera=np.zeros(0) if self.camera is None else self.camera.as_array(),
            )

    @classmethod
    def load(cls, path: Path) -> FaceMotion:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            if "schema" not in data or str(data["schema"]) != FACE_MOTION_SCHEMA:
                raise ValueError(f"{path} does not hold facial motion of schema {FACE_MOTION_SCHEMA}")
            numerator, denominator = data["rate"].tolist()
            return cls(
                times_s=data["times_s"],
                names=tuple(data["names"].tolist()),
                expression=data["expression"],
                euler=data["euler"],
                translation=data["translation"],
                valid=data["valid"],
                rate=Fraction(numerator, denominator),
                face_model_version=str(data["face_model_version"]),
                camera=CameraIntrinsics.from_array(data["camera"]) if data["camera"].size else None,
            )


def hold_rows(known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Row to show in each of ``[T]`` rows: itself where known, else the last known one, else the first known one.

    Raises:
        ValueError: none is known.
    """
    if not known.any():
        raise ValueError("no row is known, so there is nothing to hold")
    rows = np.where(known, np.arange(len(known)), -1)
    return np.maximum(np.maximum.accumulate(rows), int(np.argmax(known)))
