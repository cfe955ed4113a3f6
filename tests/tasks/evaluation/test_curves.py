"""Means, correlations, scales and fewer points, against loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.curves import broken, envelope, matching_scale, running_correlation, running_mean, runs_of


def gappy(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_running_mean_is_the_loop(seed: int, n: int):
    rng = np.random.default_rng(seed)
    times, values, block = np.cumsum(rng.uniform(0.01, 0.1, n)), gappy(rng, n), np.sort(rng.integers(0, 3, n))
    found = running_mean(times, values, block, 0.4)
    for i in range(n):
        near = values[(abs(times - times[i]) <= 0.2 + 1e-9) & (block == block[i])]
        want = np.nan if np.isnan(values[i]) else np.nanmean(near)
        assert found[i] == pytest.approx(want, nan_ok=True)


def test_running_correlation_is_the_loop():
    rng = np.random.default_rng(3)
    n, times = 400, np.arange(400) / 25.0
    a, block = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)), np.repeat([0, 1], 200)
    b = a * 0.5 + rng.normal(size=n) * 0.5 + 40.0
    found = running_correlation(times, a, b, block, 2.0)
    assert np.isfinite(found).sum() > 300
    for i in np.flatnonzero(np.isfinite(found)):
        near = (abs(times - times[i]) <= 1.0 + 1e-9) & (block == block[i]) & np.isfinite(a)
        assert found[i] == pytest.approx(np.corrcoef(a[near], b[near])[0, 1], abs=1e-9)
    assert np.isnan(found[np.isnan(a)]).all()


def test_running_correlation_of_what_does_not_move_is_not_measured():
    times, block = np.arange(100) / 25.0, np.zeros(100, int)
    wave = np.sin(times * 9)
    assert running_correlation(times, wave, 2 * wave + 1, block, 2.0) == pytest.approx(1.0)
    assert running_correlation(times, wave, -wave, block, 2.0) == pytest.approx(-1.0)
    assert np.isnan(running_correlation(times, wave, np.full(100, 0.3), block, 2.0)).all()
    assert np.isnan(running_correlation(times, wave, np.full(100, np.nan), block, 2.0)).all()


@given(st.integers(0, 10_000), st.integers(1, 300), st.integers(2, 40).map(lambda k: 2 * k))
def test_envelope_keeps_the_extremes_in_few_points(seed: int, n: int, limit: int):
    rng = np.random.default_rng(seed)
    times, values = np.cumsum(rng.uniform(0.01, 0.1, n)), gappy(rng, n)
    kept_times, kept = envelope(times, values, limit)
    assert len(kept) <= max(limit, n if n <= limit else 0) and (np.diff(kept_times) > 0).all()
    known = np.isfinite(values)
    if known.any():
        assert np.nanmin(kept) == values[known].min() and np.nanmax(kept) == values[known].max()
    pairs = set(zip(times.tolist(), values.tolist(), strict=True))
    assert all((t, v) in pairs for t, v in zip(kept_times.tolist(), kept.tolist(), strict=True) if np.isfinite(v))


def test_envelope_keeps_long_gaps():
    times = np.concatenate([np.arange(0, 10, 0.01), np.arange(50, 60, 0.01)])
    kept_times, kept = envelope(times, np.ones(len(times)), 200)
    inside = (kept_times > 11) & (kept_times < 49)
    assert inside.any() and np.isnan(kept[inside]).all() and np.isfinite(kept[~inside]).mean() > 0.9


def test_blocks_are_not_joined():
    times, values = broken(np.array([0.0, 1.0, 5.0, 6.0]), np.arange(4.0), np.array([0, 0, 1, 1]))
    assert times.tolist() == [0.0, 1.0, 3.0, 5.0, 6.0]
    assert np.isnan(values[2]) and np.delete(values, 2).tolist() == [0.0, 1.0, 2.0, 3.0]


def test_scale_undoes_an_affine_change_and_never_turns_it_over():
    rng = np.random.default_rng(1)
    measured = np.where(rng.random(200) < 0.1, np.nan, rng.random(200))
    scale, offset = matching_scale(4.0 * measured - 3.0, measured)
    assert (scale, offset) == pytest.approx((0.25, 0.75))
    assert matching_scale(-measured, measured)[0] > 0
    assert matching_scale(np.full(200, 0.2), measured)[0] == 0.0
    assert matching_scale(measured, np.full(200, np.nan)) == (1.0, 0.0)


@given(st.lists(st.booleans(), max_size=30))
def test_runs_cover_exactly_the_mask(mask: list[bool]):
    covered = np.zeros(len(mask), bool)
    for start, stop in runs_of(np.array(mask, bool)):
        assert not covered[start:stop].any() and (stop == len(mask) or not mask[stop])
        covered[start:stop] = True
    assert covered.tolist() == mask
