"""A driven jaw closes little farther than the shown one, and the lips all the same."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from inference.driving import plan_speech
from inference.evaluation.motion import model_opening
from inference.kept_jaws import MOST_DRAWN_BACK_DM, with_kept_jaws
from inference.seen_mouths import KNEE
from modules.face_model.model import ARKIT_NAMES
from modules.radnerfs.skin_motion import face_ends
from modules.structures.motion import MotionSequence
from modules.video.rgb_video import rgb_video_info
from tests.support.made_up_source import made_up_source

JAW, CLOSE = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("mouthClose")
FRAMES = 40


@pytest.fixture(scope="module")
def source():
    return made_up_source(rgb_video_info(Path("clip.mp4"), 96, 96, Fraction(25)), FRAMES)


def jaws(source, opening):
    expression = np.zeros((FRAMES, source.coeffs.expression.shape[1]), np.float32)
    expression[:, JAW] = opening
    return expression


def lengths(source, expression):
    """From forehead to chin, read off whole heads instead of landmarks."""
    model, ends = source.face_model, face_ends(source.face_model)
    basis = model.expression_basis.numpy()[ends].astype(np.float64)
    still = (model.mean.numpy() + model.identity_basis.numpy() @ source.coeffs.identity)[ends]
    return np.linalg.norm(np.diff(still + np.einsum("vde,te->tvd", basis, expression), axis=1)[:, 0], axis=1)


def test_a_chin_draws_back_so_far_and_no_farther(source):
    shown = jaws(source, np.linspace(0, 0.9, FRAMES))
    new = jaws(source, 0.05)
    new[:, ARKIT_NAMES.index("mouthFunnel")] = 0.2
    made = with_kept_jaws(source, new, shown)
    before, after = (lengths(source, shown) - lengths(source, one) for one in (new, made))
    assert before.max() > 3 * MOST_DRAWN_BACK_DM and after.max() < 1.03 * MOST_DRAWN_BACK_DM
    assert np.diff(after).min() > -1e-4, "who opens the jaw more is still seen to close it more"
    small = before < 0.97 * KNEE * MOST_DRAWN_BACK_DM
    assert small.sum() > 5 and np.array_equal(made[small], new[small])
    assert not np.array_equal(made, new) and np.array_equal(
        np.delete(made, [JAW, CLOSE], 1), np.delete(new, [JAW, CLOSE], 1)
    )


def test_lips_open_as_wide_as_they_were_to(source):
    shown, new = jaws(source, 0.8), jaws(source, np.linspace(0, 0.8, FRAMES))
    made = with_kept_jaws(source, new, shown)
    assert np.abs(made - new).max() > 0.3
    assert model_opening(source, made) == pytest.approx(model_opening(source, new), abs=2e-3)


def test_a_jaw_that_opens_is_left_alone(source):
    shown, new = jaws(source, 0.1), jaws(source, np.linspace(0.1, 1, FRAMES))
    assert np.array_equal(with_kept_jaws(source, new, shown), new)


def test_a_plan_keeps_jaws_where_the_own_neck_stays_in_the_picture(source):
    """A portrait brings its own neck: its jaw closes as far as it likes."""
    wide = replace(source, coeffs=replace(source.coeffs, expression=jaws(source, np.repeat([0.0, 0.9], FRAMES // 2))))
    silence = np.zeros((100, source.coeffs.expression.shape[1]), np.float32)
    motion = MotionSequence(silence, np.ones(100, np.float32), 50.0, "v")
    rows = np.arange(FRAMES)
    kept, free = (plan_speech(wide, motion, rows, rows / 25, keeps_jaws=keeps).expression for keeps in (True, False))
    assert np.array_equal(kept, with_kept_jaws(wide, free, wide.coeffs.expression))
    assert (kept[FRAMES // 2 :, JAW] > free[FRAMES // 2 :, JAW] + 0.2).all()
    assert np.array_equal(kept[: FRAMES // 2], free[: FRAMES // 2])


def test_units_stay_within_their_range(source):
    new = jaws(source, 0.0)
    new[:, CLOSE] = 0.9
    made = with_kept_jaws(source, new, jaws(source, 1.0))
    assert made[:, JAW] == pytest.approx(0.1, abs=1e-6) and made[:, CLOSE].max() <= 1
    assert len(with_kept_jaws(source, new[:0], new[:0])) == 0
