"""Rest, deviation and the speech gate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.audio2motion.motion_space import apply_deviation, columns_of, rest_expression, speech_envelope


def test_rest_is_the_mean_of_the_most_closed_frames():
    opening = np.array([0.5, 0.1, 0.4, 0.0, 0.3, 0.2, 0.9, 0.8, 0.7, 0.6])
    expression = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.testing.assert_allclose(rest_expression(expression, opening), expression[[3, 1]].mean(axis=0))
    np.testing.assert_allclose(rest_expression(expression, opening, share=1.0), expression.mean(axis=0))


def test_rest_leaves_out_what_is_not_finite():
    opening = np.array([np.nan, 0.2, 0.1, 0.3])
    expression = np.array([[1.0], [2.0], [np.nan], [4.0]], dtype=np.float32)
    np.testing.assert_allclose(rest_expression(expression, opening), [2.0])
    with pytest.raises(ValueError, match="no frame"):
        rest_expression(expression[:1], opening[:1])
    with pytest.raises(ValueError, match="belong together"):
        rest_expression(expression, opening[:2])
    with pytest.raises(ValueError, match="share"):
        rest_expression(expression, opening, share=0.0)


@given(st.integers(1, 40), st.floats(0.01, 1.0), st.integers(0, 1000))
def test_rest_deviation_round_trip(count, share, seed):
    rng = np.random.default_rng(seed)
    expression = rng.standard_normal((count, 3)).astype(np.float32)
    rest = rest_expression(expression, rng.random(count), share)
    assert (rest >= expression.min(axis=0) - 1e-6).all() and (rest <= expression.max(axis=0) + 1e-6).all()
    np.testing.assert_allclose(apply_deviation(rest, expression - rest), expression, atol=1e-5)
    np.testing.assert_allclose(apply_deviation(rest, expression - rest, 0.0), np.tile(rest, (count, 1)), atol=1e-6)


def test_columns():
    assert columns_of(("a", "b", "c"), ("c", "a")).tolist() == [2, 0]
    with pytest.raises(ValueError, match="'d'"):
        columns_of(("a",), ("d",))


def naive_envelope(active, rate_hz, lead_s, release_s):
    voiced = active.copy()
    for row in range(1, len(active)):
        if active[row] and not active[row - 1]:
            for lead in range(row, min(row + round(lead_s * rate_hz), len(active))):
                last_of_run = active[lead] and (lead + 1 == len(active) or not active[lead + 1])
                voiced[lead] = last_of_run
    out = []
    for row in range(len(active)):
        best = 0.0
        for other in np.flatnonzero(voiced):
            reach = release_s if other <= row else lead_s
            best = max(best, 1.0 - abs(row - other) / rate_hz / reach)
        out.append(0.5 - 0.5 * np.cos(np.pi * best))
    return np.array(out)


@given(st.lists(st.booleans(), max_size=40), st.floats(0.02, 0.3), st.floats(0.02, 0.3))
def test_envelope_equals_the_loop(active, lead_s, release_s):
    flags = np.array(active, dtype=bool)
    expected = naive_envelope(flags, 50.0, lead_s, release_s) if flags.any() else np.zeros(len(flags))
    np.testing.assert_allclose(speech_envelope(flags, 50.0, lead_s, release_s), expected, atol=1e-5)


def test_envelope_is_open_when_the_voice_starts_and_closed_in_silence():
    flags = np.zeros(100, dtype=bool)
    flags[30:60] = True
    envelope = speech_envelope(flags, 50.0)
    assert (envelope[35:60] == 1.0).all() and (envelope[:31] == 0.0).all() and (envelope[68:] == 0.0).all()
    assert np.abs(np.diff(envelope)).max() <= 0.35
    assert (speech_envelope(np.ones(10), 50.0) == 1.0).all(), "a file may begin in the middle of a word"
    assert speech_envelope(np.arange(20) == 8, 50.0).max() == 1.0, "no burst is too short to be shown"
