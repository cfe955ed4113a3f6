"""When two corrections of a face model's expression units are the same."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor

SAME_CORRECTION = 0.01
"""Corrections that differ by less, in standard deviations of the identity per unit, come from the same fit on another
machine: a hundredth moves the skin by some hundredths of a millimetre."""


def same_correction(one: Tensor | NDArray | None, other: Tensor | NDArray | None) -> bool:
    """Whether two corrections ``[I, E]`` are one; None = the face model's own units."""
    present = [torch.as_tensor(value).cpu() for value in (one, other) if value is not None]
    if not present:
        return True
    if len({value.shape for value in present}) > 1:
        return False
    change = present[0] if len(present) == 1 else present[0] - present[1]
    return bool(change.abs().max() <= SAME_CORRECTION)
