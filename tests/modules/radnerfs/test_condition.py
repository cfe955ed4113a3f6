"""The condition: a loop over points, statistics with a floor, windows of a clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.radnerfs.condition import (
    STD_FLOOR,
    ConditionStatistics,
    condition_from_expression,
    conditions_of_clip,
)
from modules.structures.landmarks import LM68
from tests.support.synthetic_head import SyntheticSpeaker


@pytest.fixture(scope="module")
def speaker():
    return SyntheticSpeaker(2)


def test_matches_ten_times_the_landmarks_offset(speaker):
    coeffs = speaker.coeffs(4)
    raw = condition_from_expression(speaker.model, coeffs.identity, coeffs.expression)
    model = speaker.model
    moved = model.landmarks(torch.from_numpy(coeffs.identity), torch.from_numpy(coeffs.expression))
    still = model.landmarks(torch.zeros(model.n_identity), torch.zeros(1, model.n_expression))
    for row in range(4):
        for place, point in enumerate(LM68):
            expected = 10 * (moved[row, point] - still[0, point]).numpy()
            np.testing.assert_allclose(raw[row, 3 * place : 3 * place + 3], expected, atol=2e-4)


def test_statistics_are_unbiased_and_floored():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(50, 204)).astype(np.float32)
    raw[:, 7] = 3.0
    statistics = ConditionStatistics.of(raw)
    np.testing.assert_allclose(statistics.mean, raw.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(statistics.std[0], raw[:, 0].std(ddof=1), rtol=1e-5)
    typical = np.sqrt(np.mean(raw.std(axis=0, ddof=1) ** 2))
    np.testing.assert_allclose(statistics.std[7], STD_FLOOR * typical, rtol=1e-5)
    assert np.abs(statistics.normalize(raw)[:, 7]).max() < 1e-4


def test_a_still_clip_gives_zeros_not_noise():
    statistics = ConditionStatistics.of(np.ones((5, 204), np.float32))
    assert np.isfinite(statistics.normalize(np.ones((1, 204), np.float32))).all()
    with pytest.raises(ValueError, match="at least two frames"):
        ConditionStatistics.of(np.ones((1, 204), np.float32))


def test_windows_are_centred_and_zero_outside(speaker):
    coeffs = speaker.coeffs(6)
    raw = condition_from_expression(speaker.model, coeffs.identity, coeffs.expression)
    statistics = ConditionStatistics.of(raw)
    windows = conditions_of_clip(speaker.model, coeffs.identity, coeffs.expression, statistics, 5).numpy()
    assert windows.shape == (6, 5, 204)
    for row in range(6):
        for offset in range(5):
            source = row - 2 + offset
            expected = statistics.normalize(raw[source]) if 0 <= source < 6 else np.zeros(204)
            np.testing.assert_allclose(windows[row, offset], expected, atol=1e-5)
