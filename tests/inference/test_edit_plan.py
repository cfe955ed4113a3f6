"""The edit plan: who is edited, how strongly, with which expression."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.edit_plan import (
    AFTER_SPEECH,
    EDITED,
    NO_FACE,
    POOR_FIT,
    EditConfig,
    SourceMotion,
    fade_edges,
    plan_edits,
)
from modules.structures.motion import MotionSequence

UNITS = np.array([1, 2])
SMILE = np.array([2])


def source(n=100, fps=25.0, **changes):
    fields = {
        "times_s": np.arange(n) / fps,
        "expression": np.full((n, 4), 0.3, np.float32),
        "opening": np.full(n, 0.1, np.float32),
        "usable": np.ones(n, bool),
        "residual": np.full(n, 0.02, np.float32),
        "rest": np.full(4, 0.1, np.float32),
    }
    return SourceMotion(**{**fields, **changes})


def motion(seconds=4.0, speech=1.0):
    rows = int(seconds * 50)
    return MotionSequence(np.zeros((rows, 4), np.float32), np.full(rows, speech, np.float32), 50.0, "v")


def plan(src, mot, dev=0.2, **config):
    sampled = np.full((len(src.times_s), 4), dev, np.float32)
    return plan_edits(src, mot, sampled, mouth_units=UNITS, smile_units=SMILE, config=EditConfig(**config))


def test_only_mouth_units_change_and_stay_in_range():
    result = plan(source(), motion(), dev=0.2, keep_smile=0.0)
    np.testing.assert_allclose(result.expression[:, [0, 3]], 0.3)
    np.testing.assert_allclose(result.expression[:, 1], 0.3, atol=1e-6)
    assert plan(source(), motion(), dev=5.0).expression.max() <= 1.0


def test_slow_smile_of_the_source_is_kept_in_part():
    result = plan(source(), motion(), dev=0.0, keep_smile=0.5)
    np.testing.assert_allclose(result.expression[:, 2], 0.1 + 0.5 * 0.2, atol=1e-5)
    np.testing.assert_allclose(result.expression[:, 1], 0.1, atol=1e-6)


def test_reasons_name_why_a_frame_passes_through():
    usable = np.ones(100, bool)
    usable[:10] = False
    residual = np.full(100, 0.02, np.float32)
    residual[20:30] = 0.5
    result = plan(source(usable=usable, residual=residual), motion(seconds=2.0))
    assert result.reasons[0] == NO_FACE and result.reasons[25] == POOR_FIT and result.reasons[99] == AFTER_SPEECH
    assert result.reasons[40] == EDITED and result.strength[40] == 1
    assert sum(result.counts().values()) == 100
    assert not result.strength[:10].any() and not result.strength[20:30].any() and not result.strength[50:].any()


def test_nan_residual_is_not_edited():
    residual = np.full(100, np.nan, np.float32)
    assert not plan(source(residual=residual), motion()).edited.any()


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.0, 0.5))
def test_fades_are_zero_outside_and_bounded(flags, fade_s):
    wanted = np.array(flags)
    strength = fade_edges(wanted, np.arange(len(wanted)) / 25, fade_s)
    assert (strength[~wanted] == 0).all() and (strength[wanted] > 0).all() and (strength <= 1).all()


def test_fades_do_not_start_at_the_ends_of_the_clip():
    assert (fade_edges(np.ones(10, bool), np.arange(10) / 25, 0.2) == 1).all()


def test_long_pause_fades_back_only_when_the_source_mouth_rests():
    silent = motion(speech=0.0)
    resting = source(opening=np.full(100, 0.005, np.float32))
    assert not plan(resting, silent).edited.any()
    assert plan(source(), silent).edited.all()


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_clips(n):
    assert len(plan(source(n=n), motion()).reasons) == n
