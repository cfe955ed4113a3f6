"""Lips that shut: events in frames of 25 a second, met or missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.audio2motion.material import CLOSED_SHARE

FRAME_RATE_HZ = 25.0
MIN_FRAMES = 2
"""A closure lasts at least this many frames: 80 ms, the shorter /p/ and /b/."""
RECALL_GOAL = 0.92
_SHARES = np.linspace(0.02, 0.5, 49)
"""Thresholds tried, as shares of the predicted opening's own range in the clip."""
_RANGE_PERCENTILES = (2.0, 95.0)


@dataclass(frozen=True, slots=True, eq=False)
class OpeningPair:
    """Lip opening of one clip, predicted and seen: ``[F]`` frames each, and where the mouth was seen ``[F]``."""

    predicted: NDArray[np.float64]
    seen: NDArray[np.float64]
    valid: NDArray[np.bool_]

    @classmethod
    def of_rows(
        cls, predicted: NDArray[np.floating], seen: NDArray[np.floating], valid: NDArray[np.bool_], rate_hz: float
    ) -> OpeningPair:
        """Rows ``[T]`` averaged to frames of 1/25 s.

        Raises:
            ValueError: the row rate is no multiple of 25 a second.
        """
        rows = round(rate_hz / FRAME_RATE_HZ)
        if abs(rows * FRAME_RATE_HZ - rate_hz) > 1e-6:
            raise ValueError(f"{rate_hz} rows a second cannot be averaged to {FRAME_RATE_HZ:.0f} frames")
        count = len(valid) // rows * rows
        ours, theirs = (np.asarray(a[:count], np.float64).reshape(-1, rows).mean(axis=1) for a in (predicted, seen))
        return cls(ours, theirs, valid[:count].reshape(-1, rows).min(axis=1))


@dataclass(frozen=True, slots=True)
class EventCounts:
    """Closures over clips: how many there were and were met, how many were shown and meant."""

    true: int
    met: int
    shown: int
    meant: int

    @property
    def recall(self) -> float:
        return self.met / self.true if self.true else float("nan")

    @property
    def precision(self) -> float:
        return self.meant / self.shown if self.shown else float("nan")

    def __add__(self, other: EventCounts) -> EventCounts:
        return EventCounts(
            self.true + other.true, self.met + other.met, self.shown + other.shown, self.meant + other.meant
        )


def events(shut: NDArray[np.bool_]) -> list[slice]:
    """Runs of at least two shut frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], shut.astype(np.int8), [0]])))
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [slice(int(start), int(stop)) for start, stop in pairs if stop - start >= MIN_FRAMES]


def seen_shut(pair: OpeningPair) -> NDArray[np.bool_]:
    """Frames in which the lips seen are shut: below a tenth of the clip's 95th percentile."""
    if not pair.valid.any():
        return np.zeros(len(pair.valid), dtype=bool)
    return pair.valid & (pair.seen < CLOSED_SHARE * np.percentile(pair.seen[pair.valid], 95))


def shown_shut(pair: OpeningPair, share: float) -> NDArray[np.bool_]:
    """Frames in which the predicted lips are within ``share`` of their own range (2nd to 95th percentile) of shut."""
    low, high = np.percentile(pair.predicted, _RANGE_PERCENTILES)
    return pair.valid & (pair.predicted < low + share * (high - low))


def count_events(pair: OpeningPair, share: float) -> EventCounts:
    """An event is met, or meant, when any of its frames is shut on the other side too."""
    truth, shown = seen_shut(pair), shown_shut(pair, share)
    true_events, shown_events = events(truth), events(shown)
    met = sum(bool(shown[event].any()) for event in true_events)
    meant = sum(bool(truth[event].any()) for event in shown_events)
    return EventCounts(len(true_events), met, len(shown_events), meant)


def held_out_counts(
    pairs: Sequence[OpeningPair], folds: Sequence[int], recall_goal: float = RECALL_GOAL
) -> EventCounts:
    """Counts with the threshold of each clip chosen on the clips of the other folds.

    The threshold is the smallest that meets ``recall_goal`` there, so precision is what that recall costs.

    Args:
        pairs: of every clip.
        folds: the fold of each.
        recall_goal: 0..1.
    """
    by_share = [[count_events(pair, float(share)) for pair in pairs] for share in _SHARES]
    total = EventCounts(0, 0, 0, 0)
    for fold in sorted(set(folds)):
        chosen = _share_for(by_share, [f != fold for f in folds], recall_goal)
        for index, own in enumerate(folds):
            if own == fold:
                total += by_share[chosen][index]
    return total


def _share_for(by_share: Sequence[Sequence[EventCounts]], use: Sequence[bool], recall_goal: float) -> int:
    for index, counts in enumerate(by_share):
        total = EventCounts(0, 0, 0, 0)
        for one, wanted in zip(counts, use, strict=True):
            total += one if wanted else EventCounts(0, 0, 0, 0)
        if total.true and total.recall >= recall_goal:
            return index
    return len(by_share) - 1
