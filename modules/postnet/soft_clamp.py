"""Keep motion near what this person showed, without flattening visemes.

GeneFace++ clamps every coordinate to the 3rd to 97th percentile of the training motion, which cuts off just the widest
vowels and the firmest closures, for they are rare. Here everything within the range of the training motion passes
unchanged, and what lies beyond is drawn in smoothly: larger stays larger, and nothing ends at an edge.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_clamp(features: Tensor, low: Tensor, high: Tensor, margin: float | Tensor) -> Tensor:
    """``features`` within ``low .. high``, else ``high + margin · tanh((features - high) / margin)``; so for ``low``.

    Args:
        features: ``[..., D]``.
        low: ``[D]``.
        high: ``[D]``, not below ``low``.
        margin: how far the result may leave that range; above 0.

    Returns:
        ``[..., D]``, strictly rising in ``features`` (until float rounding) and once continuously differentiable.

    Raises:
        ValueError: ``low`` above ``high``, or a margin that is not above 0.
    """
    room = torch.as_tensor(margin, dtype=features.dtype, device=features.device)
    if bool((low > high).any()) or not bool((room > 0).all()):
        raise ValueError("a soft clamp needs low <= high and a margin above 0")
    inside = features.clamp(low, high)
    return inside + room * torch.tanh((features - inside) / room)
