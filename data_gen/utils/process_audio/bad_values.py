"""Values in sound that are no sample values: not finite, or absurdly large.

Reads: nothing. Writes: nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ABSURD = 64.0
"""36 dB over full scale: sound holds nothing above that but broken values."""
LONGEST_BRIDGE = 160
"""Gaps up to this many values (10 ms at 16 kHz) are bridged by a line; a longer one is silence."""


def count_bad(samples: NDArray[np.floating]) -> int:
    """How many values of ``samples`` are bad."""
    with np.errstate(invalid="ignore"):
        return int(samples.size - np.count_nonzero(np.abs(samples) < ABSURD))  # comparison is false for NaN


def mended(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of samples ``[N]`` without bad values: a zero between two good neighbours would be a click."""
    with np.errstate(invalid="ignore"):
        good = np.abs(samples) < ABSURD
    if not good.any():
        return np.zeros_like(samples)
    places = np.arange(len(samples))
    bridged = np.where(good, samples, np.interp(places, places[good], samples[good]))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (~good).astype(np.int8), [0]])))
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - first > LONGEST_BRIDGE or first == 0 or stop == len(samples):
            bridged[first:stop] = 0.0
    return bridged.astype(samples.dtype)
