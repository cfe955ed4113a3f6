"""BFM2009 as GeneFace++ uses it (80 identity + 64 expression coefficients), for its official checkpoints.

The model's licence forbids shipping it: users who have it put ``BFM_model_front.mat`` and
``index_mp468_from_mesh35709.npy`` into ``checkpoints/bfm2009/``, or name another folder that holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.commons.errors import ModelFileError
from modules.commons.workspace import BFM2009_DIR
from modules.face_model.fitting import ExpressionPrior, LandmarkRows, OutlineSlide
from modules.face_model.keypoints import IDEXP_SCALE, idexp_keypoints
from modules.face_model.mat_file import read_mat_arrays
from modules.face_model.model import content_version
from modules.face_model.projection import project
from modules.structures.cameras import CAMERA_POSITION, CameraIntrinsics
from modules.structures.landmarks import N_MESH, UNMATCHED_BFM

BFM_FILE = "BFM_model_front.mat"
MEDIAPIPE_INDEX_FILE = "index_mp468_from_mesh35709.npy"
FIT_CANVAS = 224
"""GeneFace++ fits on a square canvas of this side."""
BFM_VERSION_PREFIX = "bfm-"
N_BFM_IDENTITY, N_BFM_EXPRESSION, N_KEYPOINTS = 80, 64, 68

_ARRAYS = ("meanshape", "idBase", "exBase", "tri", "keypoints")
_DAMAGE = (KeyError, ValueError, TypeError, EOFError, OSError, OverflowError, MemoryError, SyntaxError, TokenError)
"""What reading bytes that are not a model's raises; the last two come out of NumPy's header."""


@dataclass(frozen=True, slots=True, eq=False)
class BfmModel:
    """Mean, identity and expression bases of a BFM-type mesh, with its 468 MediaPipe vertices.

    Both coefficients have unit variance over people and faces; there are no limits to them.

    Attributes:
        version: what artefacts made with this model record; it follows the content.
        mean: ``[V, 3]`` head units (x right, y up, z towards the camera), centred on the mean of all vertices.
        identity_basis: ``[V, 3, 80]``. expression_basis: ``[V, 3, 64]``.
        triangles: ``[F, 3]`` vertex ids, 0-based.
        keypoints: ``[68]`` vertex ids of the 68-point layout, 0-based.
        mediapipe_vertices: ``[468]`` vertex ids; points without a counterpart stand at vertex 0.
        matched: bool ``[468]``, False where a point has no counterpart.
    """

    version: str
    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    triangles: Tensor
    keypoints: Tensor
    mediapipe_vertices: Tensor
    matched: Tensor

    @classmethod
    def load(cls, folder: Path = BFM2009_DIR) -> BfmModel:
        """Read the two files GeneFace++ reads. Nothing in them is run.

        Raises:
            ModelFileError: when a file is missing or is not a BFM.
        """
        missing = [name for name in (BFM_FILE, MEDIAPIPE_INDEX_FILE) if not (folder / name).is_file()]
        if missing:
            raise ModelFileError(
                f"{folder} lacks {' and '.join(missing)}; BFM2009 may not be shipped, so put GeneFace++'s {BFM_FILE} "
                f"and {MEDIAPIPE_INDEX_FILE} there (checkpoints/README.md says how)"
            )
        try:
            arrays = read_mat_arrays(folder / BFM_FILE, _ARRAYS)
            return cls.from_arrays(arrays, np.load(folder / MEDIAPIPE_INDEX_FILE, allow_pickle=False))
        except _DAMAGE as error:
            reason = f"{BFM_FILE} has no {error}" if isinstance(error, KeyError) else error
            raise ModelFileError(f"{folder} does not hold a BFM as GeneFace++ uses it: {reason}") from error

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray], mediapipe_index: NDArray) -> BfmModel:
        """Build from the arrays of ``BFM_model_front.mat`` (1-based indices) and the 468 vertex ids (0-based).

        Raises:
            KeyError, ValueError: an array is missing, or is not what GeneFace++'s files hold.
        """
        mean = _real(arrays["meanshape"], "meanshape", (-1, 3))
        count = len(mean)
        identity = _real(arrays["idBase"], "idBase", (count, 3, N_BFM_IDENTITY))
        expression = _real(arrays["exBase"], "exBase", (count, 3, N_BFM_EXPRESSION))
        triangles = _ids(arrays["tri"], "tri", (-1, 3), 1, count)
        keypoints = _ids(arrays["keypoints"], "keypoints", (N_KEYPOINTS,), 1, count)
        index = _ids(mediapipe_index, MEDIAPIPE_INDEX_FILE, (N_MESH,), None, count - 1)
        if not (index >= 0).any():
            raise ValueError(f"{MEDIAPIPE_INDEX_FILE} names no vertex at all")
        content = {
            "meanshape": mean, "idBase": identity, "exBase": expression,
            "tri": triangles, "keypoints": keypoints, "mediapipe": index,
        }  # fmt: skip
        shape = torch.from_numpy(mean)
        return cls(
            version=BFM_VERSION_PREFIX + content_version(content).rpartition("-")[2],
            mean=shape - shape.mean(dim=0, keepdim=True),
            identity_basis=torch.from_numpy(identity),
            expression_basis=torch.from_numpy(expression),
            triangles=torch.from_numpy(triangles) - 1,
            keypoints=torch.from_numpy(keypoints) - 1,
            mediapipe_vertices=torch.from_numpy(index).clamp_min(0),
            matched=torch.from_numpy(index >= 0),
        )

    def __repr__(self) -> str:
        return f"BfmModel({self.version}: {len(self.mean)} vertices, {self.mean.device})"

    def to(self, device: torch.device | str) -> BfmModel:
        """The model with its tensors on ``device``."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self) if f.type == "Tensor"})

    @property
    def expression_names(self) -> tuple[str, ...]:
        """``[64]``: principal components have no meaning of their own, so ``exp_00`` to ``exp_63``."""
        return tuple(f"exp_{unit:02d}" for unit in range(self.expression_basis.shape[2]))

    def landmark_rows(self) -> LandmarkRows:
        """The model at its 468 landmarks; those without a counterpart on the mesh are not usable.

        The outline does not slide: GeneFace++ fits it to fixed vertices, and official checkpoints expect that.
        """
        usable = self.matched.clone()
        usable[list(UNMATCHED_BFM)] = False
        rows = self.mediapipe_vertices
        slide = OutlineSlide.none().to(self.mean.device)
        return LandmarkRows(self.mean[rows], self.identity_basis[rows], self.expression_basis[rows], slide, usable)

    def expression_prior(self) -> ExpressionPrior:
        """Unit variance around the neutral face: the basis is scaled by the spread of its training faces."""
        return ExpressionPrior.unbounded(self.mean.new_ones(self.expression_basis.shape[2]))

    def vertices(self, identity: Tensor, expression: Tensor) -> Tensor:
        """``[T, V, 3]`` of identity ``[I]`` or ``[T, I]`` and expression ``[T, E]``."""
        return (
            self.mean + idexp_keypoints(identity, expression, self.identity_basis, self.expression_basis) / IDEXP_SCALE
        )

    def landmarks(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Canonical 468 MediaPipe points (``cano_lm3d``), ``[T, 468, 3]``."""
        rows = self.mediapipe_vertices
        return self.mean[rows] + self.idexp_lm3d(identity, expression) / IDEXP_SCALE

    def idexp_lm3d(self, identity: Tensor, expression: Tensor) -> Tensor:
        """``10 · (id · B_id + exp · B_exp)`` at the 468 points, without the mean: ``[T, 468, 3]``."""
        rows = self.mediapipe_vertices
        return idexp_keypoints(identity, expression, self.identity_basis[rows], self.expression_basis[rows])

    def reconstruct_lm2d(self, identity: Tensor, expression: Tensor, euler: Tensor, translation: Tensor) -> Tensor:
        """The 468 points in GeneFace++'s canvas, 0..1, y down: ``[T, 468, 2]``; ``translation`` as fitted."""
        camera = CameraIntrinsics.geneface(FIT_CANVAS)
        pixels, _ = project(self.landmarks(identity, expression), euler, translation, camera)
        return pixels / FIT_CANVAS

    def reconstruct_lm2d_nerf(
        self, identity: Tensor, expression: Tensor, euler: Tensor, dataset_translation: Tensor
    ) -> Tensor:
        """``reconstruct_lm2d`` of translations in datasets, see ``cameras.dataset_translation``."""
        camera = dataset_translation.new_tensor(CAMERA_POSITION)
        return self.reconstruct_lm2d(identity, expression, euler, dataset_translation + camera)


def _real(values: NDArray, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Finite numbers in the shape wanted (-1: any length)."""
    array = _shaped(values, name, shape)
    with np.errstate(over="ignore"):
        real = array.astype(np.float32)
    if not np.isfinite(real).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return real


def _ids(values: NDArray, name: str, shape: tuple[int, ...], lowest: int | None, highest: int) -> NDArray[np.int64]:
    """Whole numbers within ``lowest`` and ``highest`` in the shape wanted; MATLAB files may store them as floats."""
    array = _shaped(values, name, shape)
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    if not np.array_equal(whole, array):
        raise ValueError(f"{name} must hold whole numbers")
    if lowest is not None and whole.min() < lowest:
        raise ValueError(f"{name} counts vertices from {lowest}, but names {whole.min()}")
    if whole.max() > highest:
        raise ValueError(f"{name} names vertex {whole.max()}, the last one is {highest}")
    return whole


def _shaped(values: NDArray, name: str, shape: tuple[int, ...]) -> NDArray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold numbers, it holds {array.dtype}")
    wanted = int(np.prod([size for size in shape if size > 0]))
    fits = array.size % wanted == 0 if -1 in shape else array.size == wanted
    if array.size == 0 or not fits:
        raise ValueError(f"{name} of shape {array.shape} cannot be read as {list(shape)}")
    return array.reshape(shape)
