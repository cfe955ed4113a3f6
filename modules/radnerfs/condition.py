"""The field's condition: how the 68 landmarks of the head move, z-scored over the person's clip.

Training and inference both come through here, so the network never sees two versions of one face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.face_model.keypoints import condition_windows, idexp_keypoints
from modules.face_model.model import FaceModel
from modules.structures.landmarks import LM68

STD_FLOOR = 0.1
"""A coordinate's deviation counts at least this share of the root mean square deviation of all of them: points that
hardly move must not enter the network as amplified fit noise."""


@dataclass(frozen=True, slots=True, eq=False)
class ConditionStatistics:
    """Mean and floored standard deviation of the raw condition over a clip, float32 ``[204]`` each."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def of(cls, raw: NDArray[np.float32]) -> ConditionStatistics:
        """Statistics of raw conditions ``[T, 204]``, ``T >= 2``, unbiased over time."""
        if len(raw) < 2:
            raise ValueError(f"condition statistics need at least two frames, got {len(raw)}")
        std = raw.std(axis=0, ddof=1)
        floor = max(STD_FLOOR * float(np.sqrt(np.mean(std**2))), 1e-4)
        return cls(raw.mean(axis=0).astype(np.float32), np.maximum(std, floor).astype(np.float32))

    def normalize(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """z-scores ``[T, 204]``."""
        return ((raw - self.mean) / self.std).astype(np.float32)


def condition_from_expression(
    face_model: FaceModel, identity: NDArray[np.float32], expression: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Raw condition: ten times the 68 points' offset from the mean head, point-major xyz.

    Args:
        face_model: CPU model the coefficients belong to.
        identity: ``[I]``.
        expression: ``[T, E]``.

    Returns:
        float32 ``[T, 204]``.
    """
    points = torch.tensor(LM68)
    triangles, weights = face_model.landmark_triangles[points], face_model.landmark_weights[points]
    with torch.no_grad():
        offsets = idexp_keypoints(
            torch.as_tensor(identity),
            torch.as_tensor(expression),
            _at_points(face_model.identity_basis, triangles, weights),
            _at_points(face_model.expression_basis, triangles, weights),
        )
    return offsets.flatten(1).numpy().astype(np.float32)


def conditions_of_clip(
    face_model: FaceModel,
    identity: NDArray[np.float32],
    expression: NDArray[np.float32],
    statistics: ConditionStatistics,
    window: int,
) -> Tensor:
    """z-scored condition windows of every frame: float32 ``[T, window, 204]``, zeros outside the clip."""
    raw = condition_from_expression(face_model, identity, expression)
    return condition_windows(torch.from_numpy(statistics.normalize(raw)), window)


def _at_points(basis: Tensor, triangles: Tensor, weights: Tensor) -> Tensor:
    """A basis ``[V, 3, C]`` read at barycentric points (``[K, 3]`` ids and weights): ``[K, 3, C]``."""
    return torch.einsum("kjxc,kj->kxc", basis[triangles.long()], weights.to(basis.dtype))
