"""Keep a driven mouth from opening much wider than its person was ever seen to: what is never seen is not learnt.

Speech is turned into anybody's motion. A person who hardly opens the mouth would be asked for an inside that no frame
shows, and renderings invent noise there. So wide openings are compressed: small ones stay, large ones keep their order
and come near the widest that was seen.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from inference.prepared import PreparedSource
from modules.structures.landmarks import lip_opening

SEEN = 0.99
"""Quantile of the openings of a clip that counts as the widest: single frames may be fitted wrongly."""
LEAST_LIMIT = 0.14
"""A limit is never lower than this (inter-ocular units), or somebody who is silent in the clip could not speak."""
KNEE = 0.7
"""Share of the limit up to which nothing changes."""


def compressed(opening: NDArray[np.floating], limit: float) -> NDArray[np.float64]:
    """Openings that stay up to ``KNEE`` of ``limit``, come near it from there on, and rise with the given ones.

    With k the knee's opening: k + (limit - k) (1 - exp(-(o - k) / (limit - k))), which goes on with slope 1 at k.

    Args:
        opening: any shape, any unit.
        limit: above 0, of the same unit.
    """
    knee = KNEE * limit
    beyond = np.maximum(np.asarray(opening, np.float64) - knee, 0)
    room = limit - knee
    return np.minimum(opening, knee) + room * -np.expm1(-beyond / room)


def within_seen(
    source: PreparedSource, expression: NDArray[np.float32], rest: NDArray[np.float32], units: NDArray[np.int64]
) -> NDArray[np.float32]:
    """New expressions ``[T, E]`` whose mouths open no wider than about the widest that the clip shows.

    Those that do are pulled towards rest as a whole, so that a mouth keeps its shape.

    Args:
        source: the clip.
        expression: ``[T, E]`` driven.
        rest: ``[E]`` the person's lips at rest.
        units: of the mouth, which are pulled.
    """
    valid = source.coeffs.valid
    if not valid.any() or not len(expression):
        return expression
    widest = float(np.quantile(_opening(source, source.coeffs.expression[valid]), SEEN))
    wanted = _opening(source, expression).astype(np.float64)
    closed = float(_opening(source, rest[None])[0])
    allowed = compressed(wanted, max(widest, LEAST_LIMIT))
    # The opening is nearly linear in the units; a mouth no wider than at rest is no wide one.
    share = np.where((allowed < wanted) & (wanted > closed), (allowed - closed) / np.maximum(wanted - closed, 1e-6), 1)
    kept = expression.copy()
    kept[:, units] = rest[units] + np.clip(share, 0, 1)[:, None] * (expression[:, units] - rest[units])
    return kept.astype(np.float32)


def _opening(source: PreparedSource, expression: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[T]`` lip opening of the face model, in inter-ocular units."""
    points = source.face_model.landmarks(torch.from_numpy(source.coeffs.identity), torch.from_numpy(expression))
    return lip_opening(points.numpy()).astype(np.float32)
