"""Keep a driven jaw from closing much farther than the one that the frame shows: lips close on a jaw that stays open.

What lies behind an old chin was never filmed in that frame. The farther a chin draws back, the more of a neck must be
made up, and the easier one sees it. But lips can close over an open jaw, as they do in quick speech; only what they do
is heard. So from a few millimetres on, ``jawOpen`` is traded for ``mouthClose``: together they make a face longer and
leave the opening of its lips as it is.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from inference.prepared import PreparedSource
from inference.seen_mouths import compressed
from modules.face_model.model import FaceModel
from modules.structures.landmarks import face_height_px

MOST_DRAWN_BACK_DM = 0.0375
"""How far a chin may draw back from the shown one. With 5 mm more than a quarter of a lower face's area is touched
beyond it, and necks show that they are drawn out."""
TRADED = ("jawOpen", "mouthClose")
FIRST_STEP, LEAST_STEP, ROUNDS = 0.1, 0.01, 3
"""How much longer a face gets is first found over this step of both units, then over the one that it leads to."""


def with_kept_jaws(
    source: PreparedSource, expression: NDArray[np.float32], shown: NDArray[np.float32]
) -> NDArray[np.float32]:
    """New expressions ``[T, E]`` whose chins draw back less than ``MOST_DRAWN_BACK_DM`` from the shown ones.

    A function of one frame's two expressions alone: as smooth in time as they are.

    Args:
        source: whose face it is.
        expression: ``[T, E]`` driven.
        shown: ``[T, E]`` what the frames show.
    """
    model, identity = source.face_model, source.coeffs.identity
    units = [model.unit(name) for name in TRADED]
    length = _length_dm(model, identity, expression)
    shut = _length_dm(model, identity, shown) - length
    excess = np.where(shut > 0, shut - compressed(shut, MOST_DRAWN_BACK_DM), 0)
    kept, step = expression, np.full(len(expression), FIRST_STEP)
    room = np.maximum(1 - expression[:, units].max(axis=1, initial=0), 0)
    for _ in range(ROUNDS):
        per_unit = (_length_dm(model, identity, _raised(expression, units, step)) - length) / step
        wanted = np.clip(excess / per_unit, 0, room)
        kept, step = _raised(expression, units, wanted), np.maximum(wanted, LEAST_STEP)
    return kept


def _raised(expression: NDArray[np.float32], units: list[int], by: NDArray[np.float64]) -> NDArray[np.float32]:
    raised = expression.copy()
    raised[:, units] += by[:, None].astype(np.float32)
    return raised


def _length_dm(model: FaceModel, identity: NDArray[np.float32], expression: NDArray[np.float32]) -> NDArray[np.float64]:
    """``[T]`` from the top of the forehead to the chin."""
    points = model.landmarks(torch.from_numpy(identity), torch.from_numpy(expression))
    return face_height_px(points.double().numpy())
