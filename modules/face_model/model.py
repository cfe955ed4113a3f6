"""The 3DMM: identity and expression coefficients → vertices and MediaPipe's 478 landmarks.

Reads: ``checkpoints/face_model/face_model.npz`` (``data_gen/runs/build_face_model.py`` writes it).
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.commons.errors import CheckpointError
from modules.face_model.fitting import ExpressionPrior, LandmarkRows, OutlineSlide
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, N_MEDIAPIPE

FACE_MODEL_SCHEMA = "face-model/2"
Region = Literal["mouth", "lower_face", "face"]
REGIONS: tuple[Region, ...] = ("mouth", "lower_face", "face")

ARKIT_NAMES = (*MEDIAPIPE_BLENDSHAPES[1:], "tongueOut")
"""The 52 expression units: MediaPipe's order (alphabetical) without ``_neutral``, then ``tongueOut``.

``Landmarks2D.blendshapes[:, 1:]`` are the scores of the first 51. ``tongueOut`` moves no vertex: there is no tongue.
"""

MOUTH_UNITS = tuple(n for n in ARKIT_NAMES if n.startswith(("jaw", "mouth")) or n == "cheekPuff")
"""The 28 units that speech drives; ``tongueOut`` is left out."""

LABEL_SKIN, LABEL_LIP, LABEL_MEMBRANE, LABEL_EYE, LABEL_EAR = range(5)
"""Vertex labels. The membrane closes the mouth a few mm behind the lips; the eyes are eyeball fronts."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceModel:
    """Linear face model in head space: dm, x towards the image's right (subject's left), y up, z towards the camera.

    ``vertex = mean + identity_basis · identity + expression_basis · expression``. Identity coefficients have unit
    variance over people; expression coefficients are ARKit's, 0..1 (values a little outside are geometry too).

    Attributes:
        version: what artefacts made with this model record.
        mean: ``[V, 3]``, lips shut, eyes open. identity_basis: ``[V, 3, I]``. expression_basis: ``[V, 3, E]``.
        expression_names: ``[E]``, ``ARKIT_NAMES``.
        triangles: int64 ``[F, 3]``, counter-clockwise from outside.
        landmark_triangles: int64 ``[478, 3]`` vertex ids. landmark_weights: ``[478, 3]`` barycentric.
        canonical_vertices: ``[V, 3]``, the mean with its mouth open: every surface of the mouth has area and its own
            place there, so that positions can address a radiance field.
        region_weights: ``[V]`` in 0..1 per region, soft towards its border.
        labels: int64 ``[V]``, ``LABEL_*``.
        inner_lip, outer_lip: int64 ``[R]`` vertex ids of the closed loops where the lips touch and of the vermilion
            border: upper middle → subject's left corner → lower middle → right corner.
        mirror: int64 ``[V]`` counterpart of each vertex across x = 0. landmark_mirror: int64 ``[478]`` likewise.
        outline_slide: how the landmarks of ``FACE_OVAL`` move over the head when it turns.
        score_gain, score_offset: ``[E]``, what MediaPipe's score of a unit says of its coefficient.
        expression_std: ``[E]``, spread of the coefficients around that.
        correction: ``[I, E]`` of one person that ``expression_basis`` already holds, see ``corrected``; None = none.
    """

    version: str
    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    expression_names: tuple[str, ...]
    triangles: Tensor
    landmark_triangles: Tensor
    landmark_weights: Tensor
    canonical_vertices: Tensor
    region_weights: dict[Region, Tensor]
    labels: Tensor
    inner_lip: Tensor
    outer_lip: Tensor
    mirror: Tensor
    landmark_mirror: Tensor
    outline_slide: OutlineSlide
    score_gain: Tensor
    score_offset: Tensor
    expression_std: Tensor
    correction: Tensor | None = None

    def __repr__(self) -> str:
        return (
            f"FaceModel({self.version}: {self.n_vertices} vertices, {len(self.triangles)} triangles, "
            f"{self.n_identity} + {self.n_expression} coefficients, {self.device})"
        )

    @property
    def n_vertices(self) -> int:
        return self.mean.shape[0]

    @property
    def n_identity(self) -> int:
        return self.identity_basis.shape[2]

    @property
    def n_expression(self) -> int:
        return self.expression_basis.shape[2]

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def vertices(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Head-space vertices; differentiable in both arguments.

        Args:
            identity: ``[I]``.
            expression: ``[T, E]``.

        Returns:
            ``[T, V, 3]`` dm.
        """
        neutral = self.mean + self.identity_basis @ identity  # [V, 3]
        moved = expression @ self.expression_basis.flatten(0, 1).T  # [T, V·3]
        return neutral + moved.unflatten(-1, (self.n_vertices, 3))

    def landmarks(self, identity: Tensor, expression: Tensor) -> Tensor:
        """MediaPipe's points in head space; differentiable in both arguments. Makes no full vertex array.

        Args:
            identity: ``[I]``.
            expression: ``[T, E]``.

        Returns:
            ``[T, 478, 3]`` dm.
        """
        neutral = self._at_landmarks(self.mean) + self._at_landmarks(self.identity_basis) @ identity  # [478, 3]
        moved = expression @ self._at_landmarks(self.expression_basis).flatten(0, 1).T
        return neutral + moved.unflatten(-1, (N_MEDIAPIPE, 3))

    def landmark_rows(self) -> LandmarkRows:
        """The model at its 478 landmarks."""
        return LandmarkRows(
            mean=self._at_landmarks(self.mean),
            identity=self._at_landmarks(self.identity_basis),
            expression=self._at_landmarks(self.expression_basis),
            slide=self.outline_slide,
        )

    def expression_prior(self) -> ExpressionPrior:
        """Expressions near MediaPipe's own scores, softly within 0..1."""
        from_scores = torch.zeros(self.n_expression, len(MEDIAPIPE_BLENDSHAPES))
        for unit, name in enumerate(self.expression_names):
            if name in MEDIAPIPE_BLENDSHAPES:
                from_scores[unit, MEDIAPIPE_BLENDSHAPES.index(name)] = self.score_gain[unit]
        bounds = torch.zeros_like(self.score_offset), torch.ones_like(self.score_offset)
        return ExpressionPrior(from_scores.to(self.device), self.score_offset, self.expression_std, *bounds)

    def _at_landmarks(self, values: Tensor) -> Tensor:
        """Anchor per-vertex values ``[V, ...]`` at the landmarks: ``[478, ...]``."""
        weights = self.landmark_weights.reshape(N_MEDIAPIPE, 3, *[1] * (values.ndim - 1))
        return (values[self.landmark_triangles] * weights).sum(dim=1)

    def corrected(self, correction: NDArray | Tensor | None) -> FaceModel:
        """The model with one person's expression units: ``expression_basis + identity_basis · correction``.

        Correcting replaces a correction that the model has, so doing it twice is doing it once; the version stays.

        Args:
            correction: ``[I, E]``, see ``FittedPerson``; None = the model's own units.

        Returns:
            ``self`` where nothing changes.

        Raises:
            CheckpointError: the correction has another shape or is not finite.
        """
        wanted = None if correction is None else torch.as_tensor(correction).to(self.mean)
        if wanted is not None and (wanted.shape != (self.n_identity, self.n_expression) or not wanted.isfinite().all()):
            raise CheckpointError(
                f"a correction of the expression units is {tuple(wanted.shape)} or not finite, the face model needs "
                f"{(self.n_identity, self.n_expression)}; prepare the video again"
            )
        own, new = (torch.zeros(()).to(self.mean) if c is None else c for c in (self.correction, wanted))
        change = (new - own).expand(self.n_identity, self.n_expression)
        if not change.any():
            return self
        return replace(self, expression_basis=self.expression_basis + self.identity_basis @ change, correction=wanted)

    def unit(self, name: str) -> int:
        """Column of an expression unit.

        Raises:
            ValueError: when the model has no such unit.
        """
        return self.expression_names.index(name)

    def to(self, device: torch.device | str) -> FaceModel:
        """The model with its tensors on ``device``."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.type in ("Tensor", "OutlineSlide")}
        if self.correction is not None:
            moved["correction"] = self.correction.to(device)
        return replace(self, **moved, region_weights={k: v.to(device) for k, v in self.region_weights.items()})

    @classmethod
    def load(cls, path: Path) -> FaceModel:
        """Read a face model.

        Raises:
            CheckpointError: when the file is missing, damaged or not a face model.
        """
        arrays, version = _read_arrays(path)
        return from_arrays(arrays, version=version)


def content_version(arrays: Mapping[str, NDArray]) -> str:
    """Version string that follows the content: ``mh-`` and 12 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{value.dtype.str}:{value.shape}".encode())
        digest.update(value.tobytes())
    return f"mh-{digest.hexdigest()[:12]}"


def save_arrays(path: Path, arrays: Mapping[str, NDArray]) -> str:
    """Write the arrays of a face model with schema and version; returns the version."""
    version = content_version(arrays)
    temporary = path.with_suffix(".tmp.npz")
    header = {"schema": np.array(FACE_MODEL_SCHEMA), "version": np.array(version)}
    np.savez_compressed(temporary, allow_pickle=False, **header, **arrays)
    temporary.replace(path)
    return version


def _read_arrays(path: Path) -> tuple[dict[str, NDArray], str]:
    remedy = "restore it with: git checkout -- checkpoints/face_model, or build it with data_gen.runs.build_face_model"
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except FileNotFoundError as error:
        raise CheckpointError(f"the face model {path} is missing; {remedy}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise CheckpointError(f"the face model {path} cannot be read ({error}); {remedy}") from error
    if str(arrays.pop("schema", "")) != FACE_MODEL_SCHEMA:
        raise CheckpointError(f"{path} is not a face model of schema {FACE_MODEL_SCHEMA}; {remedy}")
    version = str(arrays.pop("version", ""))
    found = content_version(arrays)
    if version != found:
        raise CheckpointError(f"the face model {path} says version {version} but holds {found}: damaged; {remedy}")
    return arrays, version


def from_arrays(arrays: Mapping[str, NDArray], *, version: str) -> FaceModel:
    """Make a model of the file's arrays (without ``schema`` and ``version``)."""

    def real(name: str) -> Tensor:
        return torch.from_numpy(arrays[name].astype(np.float32))

    def whole(name: str) -> Tensor:
        return torch.from_numpy(arrays[name].astype(np.int64))

    return FaceModel(
        version=version,
        mean=real("mean"),
        identity_basis=real("identity_basis"),
        expression_basis=real("expression_basis"),
        expression_names=tuple(str(name) for name in arrays["expression_names"]),
        triangles=whole("triangles"),
        landmark_triangles=whole("landmark_triangles"),
        landmark_weights=real("landmark_weights"),
        canonical_vertices=real("canonical_vertices"),
        region_weights={name: real(f"region_{name}") for name in REGIONS},
        labels=whole("labels"),
        inner_lip=whole("inner_lip"),
        outer_lip=whole("outer_lip"),
        mirror=whole("mirror"),
        landmark_mirror=whole("landmark_mirror"),
        **_calibration(arrays),
    )


def _calibration(arrays: Mapping[str, NDArray]) -> dict[str, Any]:
    """What real and painted faces taught."""
    names = ("score_gain", "score_offset", "expression_std", "outline_yaw", "outline_slide")
    real = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in names}
    slide = OutlineSlide(real.pop("outline_yaw"), real.pop("outline_slide"))
    return {**real, "outline_slide": slide}
