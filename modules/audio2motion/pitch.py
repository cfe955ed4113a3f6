"""Pitch as a row of a table: GeneFace++'s 255 steps of equal width on the mel scale."""

from __future__ import annotations

import torch
from torch import Tensor

N_PITCH_BINS = 255
LOWEST_HZ, HIGHEST_HZ = 50.0, 1100.0


def mel_of_hz(frequency: Tensor) -> Tensor:
    """Mel scale, ``1127 · ln(1 + f / 700)`` (O'Shaughnessy 1987)."""
    return 1127.0 * torch.log1p(frequency / 700.0)


def f0_to_coarse(f0_hz: Tensor) -> Tensor:
    """Fundamental frequency, Hz (0 where nothing is voiced), to int64 steps 1 .. 255; any shape.

    Unvoiced rows and all below 50 Hz get 1, all from 1100 Hz on 255.

    Raises:
        ValueError: a value is negative or not finite.
    """
    if not bool(torch.isfinite(f0_hz).all()) or bool((f0_hz < 0).any()):
        raise ValueError("f0 must be finite and not negative, 0 where nothing is voiced")
    lowest, highest = mel_of_hz(torch.tensor([LOWEST_HZ, HIGHEST_HZ], dtype=torch.float64)).tolist()
    mel = mel_of_hz(f0_hz)
    steps = (mel - lowest) * (N_PITCH_BINS - 1) / (highest - lowest) + 1.0
    return torch.floor(steps.clamp(1.0, N_PITCH_BINS) + 0.5).to(torch.int64)
