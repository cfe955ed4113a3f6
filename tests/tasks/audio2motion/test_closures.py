"""Closure events counted by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tasks.audio2motion.closures import EventCounts, OpeningPair, count_events, events, held_out_counts, seen_shut


def pair_of(predicted: Sequence[float], seen: Sequence[float]) -> OpeningPair:
    return OpeningPair(np.array(predicted, float), np.array(seen, float), np.ones(len(seen), dtype=bool))


def test_events_are_runs_of_two():
    shut = np.array([1, 1, 0, 1, 0, 1, 1, 1], dtype=bool)
    assert events(shut) == [slice(0, 2), slice(5, 8)]
    assert events(np.zeros(3, dtype=bool)) == []


def test_met_missed_and_invented():
    seen = [9, 0, 0, 9, 9, 0, 0, 9, 9, 9, 9, 0, 9]  # two events; one frame alone is none
    predicted = [9, 9, 0, 0, 9, 9, 9, 9, 0, 0, 9, 9, 9]  # meets the first, misses the second, invents one
    counts = count_events(pair_of(predicted, seen), 0.1)
    assert counts == EventCounts(true=2, met=1, shown=2, meant=1)
    assert counts.recall == 0.5 and counts.precision == 0.5


def test_frames_without_a_face_count_nowhere():
    pair = OpeningPair(np.zeros(6), np.array([9.0, 0, 0, 9, 9, 9]), np.array([1, 0, 0, 1, 1, 1], dtype=bool))
    assert not seen_shut(pair).any()
    assert count_events(pair, 0.1).true == 0
    assert np.isnan(EventCounts(0, 0, 0, 0).recall) and np.isnan(EventCounts(0, 0, 0, 0).precision)


def test_rows_become_frames():
    rows = np.arange(9.0)
    valid = np.ones(9, dtype=bool)
    valid[3] = False
    pair = OpeningPair.of_rows(rows, rows + 1, valid, 50.0)
    assert pair.predicted.tolist() == [0.5, 2.5, 4.5, 6.5] and pair.valid.tolist() == [True, False, True, True]
    with pytest.raises(ValueError, match="cannot be averaged"):
        OpeningPair.of_rows(rows, rows, valid, 30.0)


def test_thresholds_come_from_other_folds():
    """Fold 0 shuts to 30 % of its range only; a threshold chosen on it would meet fold 1's everything."""
    rng = np.random.default_rng(0)
    seen = np.tile([9.0, 9, 9, 0, 0, 9, 9, 9], 20)
    shallow = np.where(seen > 0, 10.0, 3.5)
    shallow[[0, 1, 2, 8, 9, 10]] = 0.0  # its lowest values, beside closures of the truth
    deep = np.where(seen > 0, 10.0, 0.1) + 0.05 * rng.random(len(seen))
    pairs = [pair_of(shallow.tolist(), seen.tolist()), pair_of(deep.tolist(), seen.tolist())]
    both = held_out_counts(pairs, [0, 1])
    alone = held_out_counts([pairs[1], pairs[1]], [0, 1])
    assert alone.recall == 1.0 and alone.precision == 1.0
    assert both.met == 20  # the deep one's threshold misses all of the shallow one's
