"""One face model's expressions said in another's: both are linear, so a matrix does it.

Official GeneFace++ networks speak BFM's 64 components. The units that move the landmarks most nearly alike let their
motion be rendered on the embedded model.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.face_model.fitting import FittableModel
from modules.structures.landmarks import INNER_LIP, OUTER_LIP

LANDMARK_NOISE_DM = 0.02
"""How well the two models' landmarks stand for the same places: 2 mm."""
LIP_WEIGHT = 4.0
"""Lips weigh more than the rest of the face."""


def retarget_matrix(to_model: FittableModel, from_model: FittableModel) -> NDArray[np.float32]:
    """What each coefficient of ``from_model`` is in coefficients of ``to_model``.

    Least squares over the landmarks that both have, drawn towards 0 by ``to_model``'s own spread of expressions: the
    most likely expression under Gaussian noise of ``LANDMARK_NOISE_DM`` on every landmark.

    Args:
        to_model: gives ``[E]`` coefficients.
        from_model: its ``[F]`` are given.

    Returns:
        ``[F, E]``; ``expression_from @ matrix`` is the expression of ``to_model``.
    """
    to_rows, from_rows = to_model.landmark_rows(), from_model.landmark_rows()
    count = min(len(to_rows.mean), len(from_rows.mean))
    weights = (to_rows.weights[:count] * from_rows.weights[:count]).double()
    weights[list(INNER_LIP + OUTER_LIP)] *= LIP_WEIGHT
    wanted, given = _flat(from_rows.expression[:count]), _flat(to_rows.expression[:count])
    weighted = given * weights.repeat_interleave(3)[:, None]
    prior = (LANDMARK_NOISE_DM / to_model.expression_prior().std.double()).square()
    solved = torch.linalg.solve(weighted.T @ given + torch.diag(prior), weighted.T @ wanted)
    return solved.T.float().numpy()


def _flat(expression: Tensor) -> Tensor:
    """``[K, 3, E]`` to ``[3K, E]``, float64."""
    return expression.double().flatten(0, 1)
