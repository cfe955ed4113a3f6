"""Broken values: bridged where few, silent where many."""

from __future__ import annotations

import numpy as np

from data_gen.utils.process_audio.bad_values import LONGEST_BRIDGE, count_bad, mended


def test_short_gaps_are_bridged_and_long_ones_silent():
    samples = np.linspace(0.0, 0.5, 1_000).astype(np.float32)
    broken = samples.copy()
    broken[100], broken[200:210], broken[400 : 401 + LONGEST_BRIDGE] = np.nan, np.inf, 1e9
    broken[:3] = broken[-2:] = np.nan
    found = mended(broken)
    assert count_bad(broken) == 1 + 10 + 1 + LONGEST_BRIDGE + 5 and count_bad(found) == 0
    np.testing.assert_allclose(found[3:400], samples[3:400], atol=1e-6)
    assert (found[400 : 401 + LONGEST_BRIDGE] == 0).all() and (found[:3] == 0).all() and (found[-2:] == 0).all()
    assert found.dtype == np.float32 and np.isnan(broken[100])


def test_nothing_good():
    assert (mended(np.full(5, np.nan, np.float32)) == 0).all()
    assert mended(np.zeros(0, np.float32)).shape == (0,)
