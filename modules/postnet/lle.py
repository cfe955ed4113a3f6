"""Locally linear embedding: pull predicted motion towards what this person's training frames show.

Each feature is rebuilt from its nearest training rows with weights that sum to 1 (Roweis & Saul 2000). The
least-squares system is regularised relative to its size, so duplicate rows, a single query or fewer rows than
neighbours always give finite weights (the smallest ones that fit).
"""

from __future__ import annotations

import torch
from torch import Tensor

REGULARISATION = 1e-9
SMALLEST_RIDGE = 1e-30
"""Keeps the system solvable when all neighbours are one point; the first then gets all the weight."""


def nearest_rows(features: Tensor, database: Tensor, k: int) -> Tensor:
    """Indices int64 ``[T, min(k, R)]`` of the rows of ``database [R, D]`` nearest to ``features [T, D]``, in order.

    Raises:
        ValueError: the database is empty or ``k`` < 1.
    """
    if k < 1 or not len(database):
        raise ValueError(f"nearest rows need k >= 1 and a database with rows, got k={k}, {len(database)} rows")
    distances = torch.cdist(features.double(), database.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.topk(min(k, len(database)), dim=1, largest=False).indices


def reconstruction_weights(features: Tensor, neighbours: Tensor) -> Tensor:
    """Weights ``[T, K]``, summing to 1, that rebuild ``features [T, D]`` from ``neighbours [T, K, D]`` best."""
    origin = neighbours[:, :1].double()
    edges = neighbours[:, 1:].double() - origin  # [T, K-1, D]
    offset = features.double() - origin[:, 0]
    gram = edges @ edges.transpose(1, 2)
    size = gram.diagonal(dim1=1, dim2=2).sum(dim=1)
    ridge = torch.diag_embed((REGULARISATION * size).clamp(min=SMALLEST_RIDGE)[:, None].expand(gram.shape[:2]))
    rest = torch.linalg.solve(gram + ridge, (edges @ offset[..., None])).squeeze(-1)
    return torch.cat([1 - rest.sum(dim=1, keepdim=True), rest], dim=1).to(features.dtype)


def rebuild(features: Tensor, database: Tensor, rows: Tensor) -> Tensor:
    """Features ``[T, D]`` rebuilt from the given ``rows [T, K]`` of ``database [R, D]``."""
    neighbours = database[rows]
    return torch.einsum("tk,tkd->td", reconstruction_weights(features, neighbours), neighbours)


def blend(features: Tensor, database: Tensor, percent: float, k: int = 10) -> Tensor:
    """``percent`` of the rebuilt features and the rest of the original.

    Args:
        features: ``[T, D]``.
        database: ``[R, D]`` training rows.
        percent: 0..1, 0 = unchanged.
        k: neighbours used; all rows when there are fewer.

    Raises:
        ValueError: ``percent`` outside 0..1, an empty database or ``k`` < 1.
    """
    if not 0.0 <= percent <= 1.0:
        raise ValueError(f"the share of the rebuilt motion must be in 0..1, got {percent}")
    if percent == 0.0 or not len(features):
        return features
    fused = rebuild(features, database, nearest_rows(features, database, k))
    return percent * fused + (1 - percent) * features
