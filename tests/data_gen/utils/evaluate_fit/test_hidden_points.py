"""Hidden points: which they are, and figures of masks with a known effect."""

from dataclasses import replace

import numpy as np
import pytest

from data_gen.utils.evaluate_fit.hidden_points import COLUMNS, hidden_points_table, hidden_sets, masked_figures
from modules.structures.landmarks import IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE, MOUTH
from tests.data_gen.utils.evaluate_fit.made_up import clip_of, fitter_of, real_model, speaker_of


def test_forty_percent_are_hidden():
    lower, side = hidden_sets(real_model()).values()
    assert len(set(lower)) == len(set(side)) == 191 == round(0.4 * 478)
    assert set(MOUTH) <= set(lower) and not set(IMAGE_LEFT_EYE + IMAGE_RIGHT_EYE) & set(lower)
    eyes = [len(set(eye) & set(side)) for eye in (IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE)]
    assert eyes == [16, 0]


def test_figures_of_known_changes():
    speaker = speaker_of(real_model(), 12, noise_px=0)
    clip, truth, model = clip_of(speaker), speaker.truth, real_model()
    weights = np.ones((12, 478), np.float32)
    weights[:, hidden_sets(model)["one side"]] = 0
    noisy = replace(clip, landmarks=replace(clip.landmarks, points=clip.landmarks.points + np.float32([3, 0])))
    same = masked_figures(noisy, truth, truth, weights, model)
    assert same["turn"].value == pytest.approx(0, abs=1e-4) and same["change"].value == pytest.approx(0)
    assert same["seen"].value == same["masked"].value == pytest.approx(same["hidden"].value, rel=1e-4)
    rolled = truth.euler + np.float32([0, 0, np.radians(1.5)])
    turned = masked_figures(noisy, truth, replace(truth, euler=rolled), weights, model)
    assert turned["turn"].value == pytest.approx(1.5, abs=1e-3) == turned["worst_turn"].value
    assert turned["change"].value > 5
    lost = truth.valid.copy()
    lost[:3] = False
    assert masked_figures(noisy, truth, replace(truth, valid=lost), weights, model)["lost"].value == 3


def test_the_fit_bears_hidden_points():
    clip = clip_of(speaker_of(real_model(), 24))
    table = hidden_points_table([clip], fitter_of(real_model()))
    assert len(table.rows) == 4 and len({row.variant for row in table.rows}) == 4
    for row in table.rows:
        assert set(row.measures) == {column.key for column in COLUMNS}
        assert row.measures["turn"].value < 4 and row.measures["lost"].value == 0
    given = [row.measures["hidden"].value for row in table.rows if row.variant.endswith("person given")]
    assert min(given) > table.rows[0].measures["seen"].value, "what was hidden cannot be as near"
