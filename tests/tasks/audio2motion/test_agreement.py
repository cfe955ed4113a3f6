"""Figures of made-up agreement."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from tasks.audio2motion.agreement import best_lag, ceiling, make_row, silence_figures
from tasks.audio2motion.dataset_utils import prepare
from tasks.audio2motion.evaluation import pearson, speaker_bootstrap
from tasks.audio2motion.held_out import Case
from tasks.audio2motion.measures import MEASURES, cut_to, seen_measures
from tests.support.seen_mouths import seen_of
from tests.support.talking_clips import talking_clip


@pytest.fixture(scope="module")
def cases():
    face_model = FaceModel.load(FACE_MODEL_FILE)
    found = []
    for seed in range(4):
        raw = talking_clip(face_model, seed)
        clip = prepare(raw)
        again = cut_to(seen_of(raw, face_model, noise=0.5), clip) if seed else None
        found.append(Case(clip, cut_to(seen_of(raw, face_model), clip), again, seed % 2, True, True))
    return found


def test_a_perfect_prediction_is_perfect(cases):
    row = make_row("perfect", cases, [seen_measures(case.seen) * 2 + 1 for case in cases])
    for name in MEASURES:
        assert row.figures[name].r_mean == pytest.approx(1.0)
        assert row.figures[name].r_low == pytest.approx(1.0)
        assert row.figures[name].spread_median == pytest.approx(2.0)
    assert row.lag_share == 1.0


def test_a_late_prediction_is_told_by_its_lag(cases):
    truth = seen_measures(cases[0].seen)
    rows = np.ones(len(truth), dtype=bool)
    assert best_lag(np.roll(truth[:, 0], 5), truth[:, 0], rows) == 5
    assert best_lag(np.roll(truth[:, 0], -7), truth[:, 0], rows) == -7
    row = make_row("late", cases, [np.roll(seen_measures(case.seen), 5, axis=0) for case in cases])
    assert row.lag_share == 0.0 and row.figures["opening"].r_mean < 0.9


def test_rows_without_a_face_do_not_count(cases):
    case = cases[1]
    invalid = case.seen.valid.copy()
    invalid[10:40] = False
    hidden = dataclasses.replace(case, seen=dataclasses.replace(case.seen, valid=invalid))
    wrong = seen_measures(case.seen)
    wrong[10:40] = 99.0
    assert make_row("hidden", [hidden], [wrong]).figures["opening"].r_mean == pytest.approx(1.0)
    assert make_row("seen", [case], [wrong]).figures["opening"].r_mean < 0.5


def test_the_ceiling_is_made_of_clips_tracked_twice(cases):
    row = ceiling(cases)
    assert row is not None and [clip.name for clip in row.clips] == ["clip1", "clip2", "clip3"]
    assert 0.8 < row.figures["opening"].r_mean < 0.95
    assert ceiling(cases[:1]) is None


def test_speakers_are_resampled_whole():
    """Nine equal clips of one speaker and one of another: the interval spans both speakers' values."""
    values = np.array([[1.0]] * 9 + [[0.0]])
    low, high = speaker_bootstrap(values, ["a"] * 9 + ["b"], np.random.default_rng(0))
    assert low[0] == 0.0 and high[0] == 1.0


def test_what_does_not_move_agrees_with_nothing():
    assert pearson(np.ones(5), np.arange(5.0)) == 0.0
    assert pearson(np.arange(5.0), np.arange(5.0)) == pytest.approx(1.0)


def test_silence_is_judged_after_its_onset():
    speech = np.ones(100, dtype=bool)
    speech[50:90] = False
    opening = np.abs(np.sin(np.arange(100.0)))
    fading = np.where(speech, opening, 0.0)
    fading[50:58] = np.linspace(1, 0, 8)  # at rest within 0.16 s
    figures = silence_figures([fading], [speech], 50.0, lambda _: 0.1)
    assert figures.count == 1 and figures.shut_share == 1.0 and figures.motion_share == 0.0
    restless = silence_figures([opening], [speech], 50.0, lambda _: -1.0)
    assert restless.motion_share > 0.5 and restless.shut_share == 0.0
