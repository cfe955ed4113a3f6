"""A driven mouth opens about as wide as its person was ever seen to open it, and smaller ones stay as they are."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from inference.driving import MOUTH_ROWS
from inference.evaluation.motion import model_opening
from inference.seen_mouths import KNEE, LEAST_LIMIT, compressed, within_seen
from modules.face_model.model import ARKIT_NAMES
from modules.video.rgb_video import rgb_video_info
from tests.support.made_up_source import made_up_source

JAW, BLINK = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("eyeBlinkLeft")


def test_small_openings_stay_and_wide_ones_keep_their_order_below_the_limit():
    opening = np.linspace(0, 1, 1001)
    made = compressed(opening, 0.2)
    still = opening <= KNEE * 0.2
    assert np.allclose(made[still], opening[still], rtol=0, atol=1e-15)
    assert (np.diff(made) >= 0).all() and np.diff(made).max() <= 1.0001e-3 and 0.19 < made.max() <= 0.2


@pytest.fixture(scope="module")
def source():
    return made_up_source(rgb_video_info(Path("clip.mp4"), 96, 96, Fraction(25)), 40)


def asked(source, jaw):
    expression = np.zeros((len(jaw), source.coeffs.expression.shape[1]), np.float32)
    expression[:, JAW], expression[:, BLINK] = jaw, 0.7
    return expression


def who_opens(source, jaw):
    expression = source.coeffs.expression.copy()
    expression[:, MOUTH_ROWS] = 0
    expression[:, JAW] = np.linspace(0, jaw, len(expression))
    return replace(source, coeffs=replace(source.coeffs, expression=expression))


def test_a_mouth_is_asked_for_what_its_person_shows(source):
    rest = np.zeros(source.coeffs.expression.shape[1], np.float32)
    wanted = asked(source, np.linspace(0, 0.9, 10, dtype=np.float32))
    limits = []
    for jaw in (0.3, 0.6):
        person = who_opens(source, jaw)
        seen = np.quantile(model_opening(person, person.coeffs.expression[person.coeffs.valid]), 0.99)
        made = within_seen(person, wanted, rest, MOUTH_ROWS)
        opening, before = model_opening(person, made), model_opening(person, wanted)
        limits.append(opening.max())
        assert opening.max() <= 1.05 * max(seen, LEAST_LIMIT) and (np.diff(opening) > -1e-3).all()
        small = before < KNEE * max(seen, LEAST_LIMIT)
        assert small.any() and np.array_equal(made[small], wanted[small])
        assert np.array_equal(np.delete(made, MOUTH_ROWS, axis=1), np.delete(wanted, MOUTH_ROWS, axis=1))
    assert limits[1] > 1.3 * limits[0]


def test_somebody_silent_may_speak_all_the_same(source):
    rest = np.zeros(source.coeffs.expression.shape[1], np.float32)
    made = within_seen(who_opens(source, 0.0), asked(source, np.array([0.9], np.float32)), rest, MOUTH_ROWS)
    assert 0.8 * LEAST_LIMIT < model_opening(source, made)[0] < 1.1 * LEAST_LIMIT


def test_a_face_never_seen_limits_nothing(source):
    unseen = replace(source, coeffs=replace(source.coeffs, valid=np.zeros(len(source), bool)))
    wanted = asked(source, np.array([0.9], np.float32))
    assert within_seen(unseen, wanted, wanted[0], MOUTH_ROWS) is wanted
