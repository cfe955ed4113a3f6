"""BFM2009 as GeneFace++ uses it (80 identity + 64 expression coefficients), for its official checkpoints.

The model's licence forbids shipping it: users who have it name the folder that holds ``BFM_model_front.mat`` and
``index_mp468_from_mesh35709.npy``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.commons.errors import ModelFileError
from modules.face_model.keypoints import idexp_keypoints
from modules.face_model.projection import project
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics

BFM_FILE = "BFM_model_front.mat"
MEDIAPIPE_INDEX_FILE = "index_mp468_from_mesh35709.npy"
FIT_CANVAS = 224
"""GeneFace++ fits on a square canvas of this side."""


@dataclass(frozen=True, slots=True, eq=False)
class BfmModel:
    """Mean, identity and expression bases of a BFM-type mesh, with its 468 MediaPipe vertices.

    Attributes:
        mean: ``[V, 3]`` head units (x right, y up, z towards the camera), centred on the mean of all vertices.
        identity_basis: ``[V, 3, 80]``. expression_basis: ``[V, 3, 64]``.
        triangles: ``[F, 3]`` vertex ids, 0-based.
        keypoints: ``[68]`` vertex ids of the 68-point layout, 0-based.
        mediapipe_vertices: ``[468]`` vertex ids; points without a counterpart stand at vertex 0.
    """

    mean: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    triangles: Tensor
    keypoints: Tensor
    mediapipe_vertices: Tensor

    @classmethod
    def load(cls, folder: Path) -> BfmModel:
        """Read the two files GeneFace++ reads.

        Raises:
            ModelFileError: when a file is missing or is not a BFM.
        """
        for name in (BFM_FILE, MEDIAPIPE_INDEX_FILE):
            if not (folder / name).is_file():
                raise ModelFileError(f"{folder / name} is missing; put the BFM files of GeneFace++ into {folder}")
        try:
            arrays = scipy.io.loadmat(str(folder / BFM_FILE))
            return cls.from_arrays(arrays, np.load(folder / MEDIAPIPE_INDEX_FILE, allow_pickle=False))
        except (KeyError, ValueError, TypeError) as error:
            raise ModelFileError(f"{folder} does not hold a BFM as GeneFace++ uses it: {error}") from error

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray], mediapipe_index: NDArray) -> BfmModel:
        """Build from the arrays of ``BFM_model_front.mat`` (1-based indices) and the 468 vertex ids."""
        mean = torch.as_tensor(np.asarray(arrays["meanshape"], np.float32)).reshape(-1, 3)
        count = len(mean)
        index = torch.as_tensor(np.asarray(mediapipe_index, np.int64)).reshape(-1)
        if index.shape != (468,) or int(index.max()) >= count:
            raise ValueError(f"the MediaPipe index must name 468 of the {count} vertices")
        return cls(
            mean=mean - mean.mean(dim=0, keepdim=True),
            identity_basis=torch.as_tensor(np.asarray(arrays["idBase"], np.float32)).reshape(count, 3, -1),
            expression_basis=torch.as_tensor(np.asarray(arrays["exBase"], np.float32)).reshape(count, 3, -1),
            triangles=torch.as_tensor(np.asarray(arrays["tri"], np.int64)).reshape(-1, 3) - 1,
            keypoints=torch.as_tensor(np.asarray(arrays["keypoints"], np.int64)).reshape(-1) - 1,
            mediapipe_vertices=index.clamp_min(0),
        )

    def to(self, device: torch.device | str) -> BfmModel:
        return BfmModel(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def vertices(self, identity: Tensor, expression: Tensor) -> Tensor:
        """``[T, V, 3]`` of identity ``[I]`` or ``[T, I]`` and expression ``[T, E]``."""
        return self.mean + idexp_keypoints(identity, expression, self.identity_basis, self.expression_basis) / 10

    def landmarks(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Canonical 468 MediaPipe points (``cano_lm3d``), ``[T, 468, 3]``."""
        rows = self.mediapipe_vertices
        return self.mean[rows] + self.idexp_lm3d(identity, expression) / 10

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
        """``reconstruct_lm2d`` of translations as GeneFace++'s datasets store them (z already minus 10)."""
        away = dataset_translation.new_tensor([0.0, 0.0, CAMERA_DISTANCE])
        return self.reconstruct_lm2d(identity, expression, euler, dataset_translation + away)
