"""Which frames of a clip to learn from, when it has more than can be stored.

Half of them cover what the person does, however rarely (an open mouth, a turned head); the other half are spread evenly
over time, so that what is shown often is learnt from often. On 200 s of conversation (400 of 4,360 frames; distance of
held-out frames to their nearest stored one, in deviations): even 0.31 on average and 0.88 at worst, covering alone 0.33
and 0.74, both together 0.31 and 0.74. Works on tables only: no frame is decoded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KEPT_VARIANCE = 0.99
"""Directions that hold this share of the variance are kept: a dozen instead of sixty-three, at a fifth of the time."""
LEAST_QUALITY = 0.25
"""A frame seen badly counts at least this much: it may be the only one of its kind."""


def lip_and_pose_features(
    mouth: NDArray[np.floating], euler: NDArray[np.floating], pose_weight: float
) -> NDArray[np.float32]:
    """Lip shape and head pose side by side, each scaled to unit total variance, in their main directions.

    Args:
        mouth: ``[N, D]`` the mouth's part of the condition.
        euler: ``[N, 3]`` rad.
        pose_weight: how much pose counts beside lip shape.

    Returns:
        ``[N, K]``, distances in it are those of all columns but for the variance that was left out.
    """
    blocks = [(mouth, 1.0), (euler, pose_weight)]
    scaled = [b * (w / max(float(np.sqrt(b.var(axis=0).sum())), 1e-6)) for b, w in blocks]
    features = np.concatenate(scaled, axis=1).astype(np.float64)
    features -= features.mean(axis=0)
    variance, directions = np.linalg.eigh(features.T @ features)
    order = np.argsort(variance)[::-1]
    held = np.cumsum(variance[order]) / max(float(variance.sum()), 1e-12)
    kept = order[: int(np.searchsorted(held, KEPT_VARIANCE)) + 1]
    return (features @ directions[:, kept]).astype(np.float32)


def frame_quality(
    residual: NDArray[np.floating], coverage: NDArray[np.floating], max_residual: float
) -> NDArray[np.float32]:
    """How well frames ``[N]`` are fitted and seen, ``LEAST_QUALITY`` to 1.

    Args:
        residual: landmark misfit, share of the inter-ocular distance.
        coverage: share of the lower face that something covers, 0..1.
        max_residual: at this misfit a frame is worth nothing.
    """
    fit = 1 - np.nan_to_num(residual, nan=np.inf) / max_residual
    return np.clip(fit * (1 - coverage), LEAST_QUALITY, 1.0).astype(np.float32)


def choose_frames(
    features: NDArray[np.floating], quality: NDArray[np.floating], count: int, cover_share: float
) -> NDArray[np.int64]:
    """Choose ``count`` of ``N`` frames; the same ones every time.

    Args:
        features: ``[N, K]`` what frames differ in.
        quality: ``[N]`` above 0; of two frames equally far from those chosen the better one is taken.
        count: at most ``N``.
        cover_share: share of them that covers ``features``; the rest are spread evenly over the other frames.

    Returns:
        Ascending row numbers ``[count]``.

    Raises:
        ValueError: more frames are asked for than there are.
    """
    if count > len(features):
        raise ValueError(f"{count} of {len(features)} frames cannot be chosen")
    covering = farthest_points(features, round(count * cover_share), quality)
    others = np.setdiff1d(np.arange(len(features)), covering)
    places = (np.arange(count - len(covering)) + 0.5) * len(others) / max(count - len(covering), 1)
    return np.sort(np.concatenate([covering, others[places.astype(np.int64)]])).astype(np.int64)


def farthest_points(
    features: NDArray[np.floating], count: int, quality: NDArray[np.floating] | None = None
) -> NDArray[np.int64]:
    """Greedy cover of rows ``[N, K]``: start nearest the mean, then always the row farthest from all chosen ones.

    Args:
        features: ``[N, K]``.
        count: at most ``N``.
        quality: ``[N]`` factor on a row's distance; None = 1.

    Returns:
        ``count`` distinct row numbers, in the order they were chosen.
    """
    chosen = np.empty(count, dtype=np.int64)
    if count == 0:
        return chosen
    weight = np.ones(len(features), np.float32) if quality is None else np.square(quality).astype(np.float32)
    rows = np.ascontiguousarray(features, dtype=np.float32)
    distance = np.full(len(rows), np.inf, np.float32)
    latest = int(np.argmin(np.square(rows - rows.mean(axis=0)).sum(axis=1)))
    for step in range(count):
        chosen[step] = latest
        offset = rows - rows[latest]
        np.minimum(distance, np.einsum("nk,nk->n", offset, offset), out=distance)
        distance[latest] = -1.0  # a duplicate of a chosen row may still be chosen, the row itself never
        latest = int(np.argmax(np.where(distance < 0, distance, distance * weight)))
    return chosen
