"""What the user may change about the mouth and the eyes, and what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from inference.blinks import EYE_ROWS, blink_strength, eyes_open, with_blinks
from inference.command_line import CommandParser, add_shared_arguments
from inference.controls import MotionControls, add_control_arguments
from inference.edit_plan import EditConfig
from modules.commons.errors import CheckpointError, ConfigError
from modules.face_model.keypoints import BLINK_CURVE


def test_flags_become_controls():
    parser = CommandParser(allow_abbrev=False)
    add_control_arguments(parser)
    assert MotionControls.taken_from(vars(parser.parse_args([]))) == MotionControls()
    flags = ["--adapt", "off", "--silence", "keep", "--style", "neutral", "--blink_mode", "period"]
    given = {**vars(parser.parse_args(flags)), "seed": 3}
    assert MotionControls.taken_from(given) == MotionControls("off", "keep", "neutral", "period")
    assert given == {"seed": 3}, "what is no control is left for others"


@pytest.mark.parametrize("name", ["adapt", "silence", "style", "blink_mode"])
def test_other_words_are_refused(name, tmp_path):
    parser = CommandParser(allow_abbrev=False)
    add_shared_arguments(parser)
    with pytest.raises(ConfigError, match=f"--{name}"):
        parser.parse_args([f"--{name}", "sometimes"])
    with pytest.raises(ConfigError, match=f"--{name} 'sometimes': choose one of"):
        MotionControls(**{name: "sometimes"})
    with pytest.raises(CheckpointError, match="--postnet_ckpt"):
        MotionControls(postnet_ckpt=tmp_path / "none")


def test_what_the_plan_is_told():
    usual = EditConfig()
    assert MotionControls().edit_config(usual.fade_s) == usual
    assert MotionControls(silence="close").edit_config(0.1).silence_s == float("inf")
    assert MotionControls(silence="keep").edit_config(0.1).silence_s == float("inf")
    assert MotionControls(style="neutral").edit_config(0.1).keep_smile == 0.0


def test_eyes_nobody_sees_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        MotionControls().warn_of_unseen_eyes("mouth")
        MotionControls(blink_mode="period").warn_of_unseen_eyes("face")
        assert not caplog.records
        MotionControls(blink_mode="period").warn_of_unseen_eyes("lower_face")
    assert "--region face" in caplog.text


def test_the_curve_of_a_blink_is_genefaces_at_its_own_rate():
    shut = blink_strength(np.arange(300) / 25)
    expected = np.zeros(300)
    for start in (75, 175, 275):
        expected[start : start + 7] = BLINK_CURVE
    np.testing.assert_allclose(shut, expected, atol=1e-5)


@pytest.mark.parametrize("rate", [23.976, 30.0, 60.0])
def test_every_rate_sees_the_lids_shut(rate):
    shut = blink_strength(np.arange(-rate, 8 * rate) / rate)
    peaks = np.flatnonzero(shut > 0.7)
    times_s = (peaks - rate) / rate
    assert ((np.abs(times_s - 3.12) < 0.05) | (np.abs(times_s - 7.12) < 0.05)).all() and len(peaks) >= 2
    assert (shut[: round(3.9 * rate)] == 0).all(), "nothing before 2.9 s, nor before the speech begins"


def test_only_the_eyelids_change():
    expression = np.random.default_rng(0).uniform(0, 0.4, (120, 52)).astype(np.float32)
    times_s = np.arange(120) / 25
    assert with_blinks(expression, times_s, "source") is expression
    others = np.setdiff1d(np.arange(52), EYE_ROWS)
    lids = eyes_open(expression)
    for mode in ("none", "period"):
        changed = with_blinks(expression, times_s, mode, lids)
        np.testing.assert_array_equal(changed[:, others], expression[:, others])
        np.testing.assert_allclose(changed[:60, EYE_ROWS], np.tile(lids, (60, 1)))
    assert with_blinks(expression, times_s, "period", lids)[78, EYE_ROWS] == pytest.approx([1.0, 1.0])
    assert eyes_open(expression[:0]).tolist() == [0.0, 0.0]
