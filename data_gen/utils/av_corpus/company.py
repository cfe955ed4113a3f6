"""A clip's sound amid other speech: what a long file looks like to the speech encoder.

Reads: nothing. Writes: nothing; all randomness comes from the generator that is passed in.

The encoder attends to its whole window. A short clip alone is mostly padding there, a sentence of a long file is not;
the network must answer both alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modules.structures.audio import AudioClip

WINDOW_S = 30.0
"""What the encoder hears at once."""
_GRID_S = 0.02
"""Feature rows: the clip starts on one."""
_PIECE_S = (2.0, 10.0)
_PAUSE_S = (0.1, 0.8)


def in_company(clip: AudioClip, others: Sequence[AudioClip], rng: np.random.Generator) -> tuple[AudioClip, int]:
    """The clip somewhere in a window of 30 s that is otherwise full of pieces of other speech.

    Args:
        clip: the sound that matters; one of 30 s or more comes back as it is.
        others: where the pieces come from, of the same rate; each should hold speech throughout.
        rng: source of all randomness.

    Returns:
        the filled window, and the feature row (50 a second) at which the clip starts in it.

    Raises:
        ValueError: there are no others, or one of another rate.
    """
    rate = clip.sample_rate_hz
    if not others or any(other.sample_rate_hz != rate for other in others):
        raise ValueError(f"company needs other speech of {rate} Hz")
    spare_rows = int((WINDOW_S - clip.duration_s) / _GRID_S)
    if spare_rows <= 0:
        return clip, 0
    row = int(rng.integers(0, spare_rows + 1))
    start, total = round(row * _GRID_S * rate), round(WINDOW_S * rate)
    before = _chatter(start, others, rng)
    after = _chatter(max(0, total - start - len(clip.samples)), others, rng)
    return AudioClip(np.concatenate([before, clip.samples, after]), rate), row


def _chatter(n_samples: int, others: Sequence[AudioClip], rng: np.random.Generator) -> NDArray[np.float32]:
    """``n_samples`` of pieces of other speech with pauses between them and at both ends."""
    filled = np.zeros(n_samples, np.float32)
    rate = others[0].sample_rate_hz
    place = round(rng.uniform(*_PAUSE_S) * rate)
    last_pause = round(_PAUSE_S[0] * rate)
    while place < n_samples - last_pause:
        other = others[int(rng.integers(0, len(others)))].samples
        length = min(round(rng.uniform(*_PIECE_S) * rate), len(other), n_samples - last_pause - place)
        start = int(rng.integers(0, len(other) - length + 1))
        filled[place : place + length] = other[start : start + length]
        place += length + round(rng.uniform(*_PAUSE_S) * rate)
    return filled
