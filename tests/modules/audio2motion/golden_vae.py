"""Golden inputs and weights of GeneFace++'s audio → motion networks, see ``tests/modules/radnerfs/golden.py``."""

from __future__ import annotations

import numpy as np
import torch

from tests.modules.radnerfs.golden import symmetric


def golden_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every float tensor of ``state`` with the value that its name and shape fix; others are kept."""
    return {
        key: torch.from_numpy(_value(key, tuple(tensor.shape))) if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }


def _value(key: str, shape: tuple[int, ...]) -> np.ndarray:
    last, values = key.split(".")[-1], symmetric(shape, key)
    if last == "running_var":
        scaled = 1.0 + 0.5 * values
    elif last == "running_mean":
        scaled = 0.1 * values
    elif last == "weight_g":
        scaled = 1.0 + 0.3 * values
    elif last in ("mouth_amp_embed", "eye_amp_embed"):
        scaled = 0.2 * values
    elif len(shape) >= 2:
        scaled = np.float32(np.sqrt(3.0 / np.prod(shape[1:]))) * values
    elif last == "weight":
        scaled = 1.0 + 0.1 * values
    else:
        scaled = 0.1 * values
    return np.ascontiguousarray(scaled, dtype=np.float32)
