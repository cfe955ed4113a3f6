"""Intervals cover, blocks stay in their stretch, and chance is what it is said to be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.metrics.statistics import (
    block_bootstrap,
    bootstrap_rows,
    circular_shift_null,
    interval,
    paired_verdict,
    plan_blocks,
    shift_rows,
)


def generator(seed=0):
    return np.random.default_rng(seed)


def smooth_noise(rng, count, memory=0.8):
    """AR(1): neighbours alike, mean 0."""
    values = rng.standard_normal(count)
    for i in range(1, count):
        values[i] = memory * values[i - 1] + math.sqrt(1 - memory**2) * values[i]
    return values


@given(stretches=st.lists(st.integers(1, 12), min_size=1, max_size=5), length=st.integers(1, 9), seed=st.integers(0, 9))
def test_sums_of_blocks_match_a_loop(stretches, length, seed):
    block = np.repeat(np.arange(len(stretches)), stretches)
    values = generator(seed).standard_normal(len(block))
    plan = plan_blocks(block, length)
    naive = []
    for row, number in enumerate(block):
        own = [r for r in range(len(block)) if block[r] == number]
        place = own.index(row)
        naive.append(sum(values[own[(place + k) % len(own)]] for k in range(min(length, len(own)))))
    np.testing.assert_allclose(plan.sums(values), naive, atol=1e-9)


def test_resampled_rows_are_blocks_within_their_stretch():
    block = np.array([5] * 30 + [2] * 4 + [7] * 41)
    for rows in bootstrap_rows(block, 10, generator(), 50):
        assert rows.min() >= 0 and rows.max() < 75 and 40 <= len(rows) <= 80
        breaks = np.flatnonzero(np.diff(rows) != 1)
        jumps_back = {(29, 0), (33, 30), (74, 34)}
        starts = [0]
        for place in breaks:
            if (rows[place], rows[place + 1]) not in jumps_back:
                starts.append(place + 1)
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            assert len(set(block[rows[start:stop]])) == 1


def test_every_row_is_shown_equally_often():
    block = np.repeat([0, 1, 2], [60, 5, 20])
    counts = np.zeros(85)
    for rows in bootstrap_rows(block, 20, generator(), 4000):
        counts += np.bincount(rows, minlength=85)
    np.testing.assert_allclose(counts / counts.mean(), 1, atol=0.15)


def test_mean_interval_is_that_of_the_resampled_rows():
    rng = generator(1)
    values, block = smooth_noise(rng, 300) + 5.0, np.repeat([0, 1], [180, 120])
    fast = block_bootstrap(values, block, 12, generator(2), 4000)
    slow = interval(lambda rows: float(values[rows].mean()), block, 12, generator(3), 4000)
    np.testing.assert_allclose(fast, slow, atol=0.02)
    width = fast[1] - fast[0]
    assert width > 0.1 and fast[0] < values.mean() < fast[1]


def test_interval_covers_the_mean_of_series_whose_neighbours_are_alike():
    """Blocks longer than the memory: about 95 %. Blocks of one frame would be far too sure."""
    rng = generator(4)
    hits = {1: 0, 25: 0}
    for _ in range(120):
        values, block = smooth_noise(rng, 500), np.zeros(500, np.int64)
        for length in hits:
            low, high = block_bootstrap(values, block, length, rng, 150)
            hits[length] += low <= 0 <= high
    assert hits[25] >= 105 and hits[1] < 84


def test_missing_values_are_left_out():
    rng = generator(5)
    values, block = rng.standard_normal(120), np.repeat([0, 1], 60)
    holes = np.insert(values, [10, 60, 100], np.nan)
    holed_block = np.insert(block, [10, 60, 100], [0, 0, 1])
    assert block_bootstrap(values, block, 6, generator(6)) == block_bootstrap(holes, holed_block, 6, generator(6))


@pytest.mark.parametrize(
    ("values", "length"),
    [([], 5), ([1.0], 1), ([np.nan] * 9, 2), ([np.nan, 3.0, np.nan], 1), ([1.0, 2.0, 3.0], 5), ([1.0, np.inf, 2], 1)],
)
def test_no_interval_from_less_than_two_blocks(values, length):
    low, high = block_bootstrap(np.array(values), np.zeros(len(values), np.int64), length, generator())
    assert math.isnan(low) and math.isnan(high)


def test_smallest_sizes_that_do_give_one():
    assert block_bootstrap(np.array([2.0, 2.0]), np.zeros(2, np.int64), 1, generator()) == (2.0, 2.0)
    low, high = block_bootstrap(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]), 50, generator())
    assert (low, high) == (1.0, 3.0)  # two short stretches are the two blocks
    with pytest.raises(ValueError, match="at least one row"):
        block_bootstrap(np.ones(4), np.zeros(4, np.int64), 0, generator())


def test_large_means_keep_their_digits():
    values = 1e9 + np.tile([0.0, 1e-3], 200)
    low, high = block_bootstrap(values, np.zeros(400, np.int64), 3, generator())
    assert 0 <= low - 1e9 < high - 1e9 < 2e-3


def test_interval_without_figures_is_unknown():
    block = np.zeros(40, np.int64)
    assert all(map(math.isnan, interval(lambda rows: math.nan, block, 5, generator(), 20)))
    assert all(map(math.isnan, interval(lambda rows: 1.0, block[:7], 5, generator(), 20)))
    calls = iter(range(20))
    low, high = interval(lambda rows: math.nan if next(calls) % 5 == 0 else 1.0, block, 5, generator(), 20)
    assert (low, high) == (1.0, 1.0)


def test_verdicts():
    rng = generator(7)
    theirs, block = smooth_noise(rng, 400) + 30, np.zeros(400, np.int64)
    noise = 0.2 * smooth_noise(rng, 400)
    assert paired_verdict(theirs + 0.3 + noise, theirs, block, 20, rng, True) == "better"
    assert paired_verdict(theirs + 0.3 + noise, theirs, block, 20, rng, False) == "worse"
    assert paired_verdict(theirs - 0.3 + noise, theirs, block, 20, rng, True) == "worse"
    assert paired_verdict(theirs - 0.3 + noise, theirs, block, 20, rng, False) == "better"
    assert paired_verdict(theirs, theirs, block, 20, rng, True) == "undecided"
    assert paired_verdict(theirs + 9.0, theirs, block, 300, rng, True) == "undecided"  # less than two blocks


def test_pairing_sees_what_the_means_hide():
    """A small but steady gain is plain pair by pair, though each mean is far less sure than the gain is large."""
    rng = generator(8)
    theirs, block = 3 * smooth_noise(rng, 400), np.zeros(400, np.int64)
    ours = theirs + 0.1 + 0.05 * rng.standard_normal(400)
    low, high = block_bootstrap(theirs, block, 20, rng)
    assert high - low > 1.0 and paired_verdict(ours, theirs, block, 20, rng, True) == "better"


def test_verdict_ignores_frames_that_one_side_lacks():
    rng = generator(9)
    theirs, block = rng.standard_normal(200), np.zeros(200, np.int64)
    ours = theirs + 0.2 + 0.1 * rng.standard_normal(200)
    ours[::7], theirs[3::11] = -np.inf, np.nan
    assert paired_verdict(ours, theirs, block, 10, rng, True) == "better"


def test_false_alarms_are_rare():
    rng = generator(10)
    alarms = 0
    for _ in range(200):
        ours, theirs = smooth_noise(rng, 400), smooth_noise(rng, 400)
        alarms += paired_verdict(ours, theirs, np.zeros(400, np.int64), 25, rng, True, 300) != "undecided"
    assert alarms <= 24


def test_chance_by_circular_shifts():
    rng = generator(11)
    a = smooth_noise(rng, 500)

    def correlation(rows):
        return float(np.corrcoef(a, a[rows])[0, 1])

    null = circular_shift_null(correlation, 500, 40, rng, 200)
    assert null.shape == (200,) and np.abs(null).max() < 0.6 and abs(null.mean()) < 0.1
    marks = []
    circular_shift_null(lambda rows: marks.append(int(rows[0])) or 0.0, 50, 12, rng, 200)
    assert sorted(marks) == list(range(12, 39))  # every shift at least 12 rows either way, once


@pytest.mark.parametrize(("n_rows", "min_shift", "expected"), [(0, 5, 0), (1, 0, 0), (9, 5, 0), (10, 5, 1), (3, 0, 2)])
def test_awkward_numbers_of_shifts(n_rows, min_shift, expected):
    assert len(circular_shift_null(lambda rows: 0.0, n_rows, min_shift, generator())) == expected


def test_rows_in_half_a_second():
    assert shift_rows(np.arange(50) / 25) == 13 and shift_rows(np.arange(50) / 30) == 15
    assert shift_rows(np.array([0.0])) == 1 and shift_rows([]) == 1
