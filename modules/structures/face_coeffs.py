"""3DMM coefficients of one person over a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.cameras import CameraIntrinsics

COEFFS_SCHEMA = "face-coeffs/2"


@dataclass(frozen=True, slots=True, eq=False)
class FittedPerson:
    """What stays the same of a person over a clip.

    Attributes:
        identity: ``[I]``.
        camera: intrinsics of the whole frame.
        correction: ``[I, E]``, how much of each identity direction an expression unit brings along in this person:
            its column is added to the unit as ``identity_basis · column``; None = the model's own units.
    """

    identity: NDArray[np.float32]
    camera: CameraIntrinsics
    correction: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FaceModelCoeffs:
    """Identity, expression and pose, in GeneFace++'s conventions.

    A vertex X (row vector, head space, dm) goes to ``X' = X · R(euler) + translation``; the camera looks along
    -z from z = 10: ``depth = 10 - z'``, ``u = cx + fx·x'/depth``, ``v = cy - fy·y'/depth``.

    Attributes:
        identity: ``[I]``. expression: ``[T, E]``. euler: ``[T, 3]`` rad. translation: ``[T, 3]`` dm.
        valid: ``[T]`` bool; False rows hold interpolated values and are not evidence.
        residual: ``[T]`` mean landmark error, fraction of the inter-ocular distance (NaN where not valid).
        camera: intrinsics of the whole frame (principal point at the frame's centre), or of the crop for a model that
            is fitted there (BFM2009).
        face_model_version: version of the model the coefficients belong to.
        correction: ``[I, E]`` of the person's expression units, see ``FittedPerson``; None = none.
    """

    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    euler: NDArray[np.float32]
    translation: NDArray[np.float32]
    valid: NDArray[np.bool_]
    residual: NDArray[np.float32]
    camera: CameraIntrinsics
    face_model_version: str
    correction: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.valid)
        shapes = (self.expression.shape[0], self.euler.shape, self.translation.shape, self.residual.shape)
        if shapes != (count, (count, 3), (count, 3), (count,)) or self.identity.ndim != 1:
            raise ValueError(f"coefficient arrays disagree: {count} frames, got {shapes}")
        wanted = (len(self.identity), self.expression.shape[1])
        if self.correction is not None and self.correction.shape != wanted:
            raise ValueError(f"a correction of these units must be {wanted}, got {self.correction.shape}")

    def __len__(self) -> int:
        return len(self.valid)

    @property
    def person(self) -> FittedPerson:
        """What stays the same over the clip."""
        return FittedPerson(self.identity, self.camera, self.correction)

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            schema=np.array(COEFFS_SCHEMA),
            identity=self.identity,
            expression=self.expression,
            euler=self.euler,
            translation=self.translation,
            valid=self.valid,
            residual=self.residual,
            camera=self.camera.as_array(),
            face_model_version=np.array(self.face_model_version),
            correction=np.zeros((0, 0), np.float32) if self.correction is None else self.correction,
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> FaceModelCoeffs:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            if "schema" not in data or str(data["schema"]) != COEFFS_SCHEMA:
                raise ValueError(f"{path} does not hold face coefficients of schema {COEFFS_SCHEMA}")
            return cls(
                identity=data["identity"],
                expression=data["expression"],
                euler=data["euler"],
                translation=data["translation"],
                valid=data["valid"],
                residual=data["residual"],
                camera=CameraIntrinsics.from_array(data["camera"]),
                face_model_version=str(data["face_model_version"]),
                correction=data["correction"] if data["correction"].size else None,
            )
