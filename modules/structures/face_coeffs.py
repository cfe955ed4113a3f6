"""3DMM coefficients of one person over a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.cameras import CameraIntrinsics

COEFFS_SCHEMA = "face-coeffs/1"


@dataclass(frozen=True, slots=True, eq=False)
class FaceModelCoeffs:
    """Identity, expression and pose, in GeneFace++'s conventions.

    A vertex X (row vector, head space, dm) goes to ``X' = X · R(euler) + translation``; the camera looks along
    -z from z = 10: ``depth = 10 - z'``, ``u = cx + fx·x'/depth``, ``v = cy - fy·y'/depth``.

    Attributes:
        identity: ``[I]``. expression: ``[T, E]``. euler: ``[T, 3]`` rad. translation: ``[T, 3]`` dm.
        valid: ``[T]`` bool; False rows hold interpolated values and are not evidence.
        residual: ``[T]`` mean landmark error, fraction of the inter-ocular distance (NaN where not valid).
        camera: intrinsics of the whole frame (principal point at the frame's centre).
        face_model_version: version of the model the coefficients belong to.
    """

    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    euler: NDArray[np.float32]
    translation: NDArray[np.float32]
    valid: NDArray[np.bool_]
    residual: NDArray[np.float32]
    camera: CameraIntrinsics
    face_model_version: str

    def __post_init__(self) -> None:
        count = len(self.valid)
        shapes = (self.expression.shape[0], self.euler.shape, self.translation.shape, self.residual.shape)
        if shapes != (count, (count, 3), (count, 3), (count,)) or self.identity.ndim != 1:
            raise ValueError(f"coefficient arrays disagree: {count} frames, got {shapes}")

    def __len__(self) -> int:
        return len(self.valid)

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
            )
