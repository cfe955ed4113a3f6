"""Whole speakers on one side of every split: nobody is judged by a model that heard them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def deal_speakers(seconds: Mapping[str, float], n_folds: int, seed: int = 0) -> dict[str, int]:
    """Fold of each speaker: longest first, each into the fold that is shortest so far.

    Args:
        seconds: of material per speaker.
        n_folds: how many folds.
        seed: 0 deals by length; any other number shuffles first.
    """
    order = sorted(seconds, key=lambda speaker: (-seconds[speaker], speaker))
    if seed:
        np.random.default_rng(seed).shuffle(order)
    filled = [0.0] * n_folds
    folds: dict[str, int] = {}
    for speaker in order:
        folds[speaker] = int(np.argmin(filled))
        filled[folds[speaker]] += seconds[speaker]
    return folds
