"""Principal components and ridge regression against textbook forms."""

from __future__ import annotations

import numpy as np
import pytest

from modules.audio2motion.closed_form import RidgeRows, principal_components, ridge_filter, window_rows


def test_components_are_uncorrelated_and_of_mean_square_one():
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((400, 6)) @ rng.standard_normal((6, 6)) + 3.0).repeat(2, axis=1)
    mean, matrix = principal_components(rows, 2, 3)
    assert mean.shape == (2, 6) and matrix.shape == (2, 6, 3)
    for block in range(2):
        components = (rows[:, 6 * block : 6 * block + 6] - mean[block].numpy()) @ matrix[block].numpy()
        covariance = components.T @ components / len(rows)
        assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-4
        assert np.diag(covariance).mean() == pytest.approx(1.0, abs=1e-4)
        assert (np.diff(np.diag(covariance)) < 1e-6).all()


def test_window_rows_repeat_the_edges():
    rows = np.arange(5.0)[:, None]
    assert window_rows(rows, 1, 2).tolist() == [[0, 0, 2], [0, 1, 3], [0, 2, 4], [1, 3, 4], [2, 4, 4]]


def test_ridge_equals_augmented_least_squares():
    rng = np.random.default_rng(0)
    clips = [RidgeRows(rng.standard_normal((n, 3)), rng.standard_normal((n, 2)), rng.random(n)) for n in (30, 50)]
    kernel, bias = ridge_filter(clips, 1, 2, 0.1)
    inputs = np.concatenate([window_rows(c.inputs, 1, 2) for c in clips])
    targets, weights = np.concatenate([c.targets for c in clips]), np.concatenate([c.weights for c in clips])
    strength = 0.1 * np.mean((inputs**2 * weights[:, None]).sum(axis=0))
    stacked = np.concatenate([np.append(inputs, np.ones((80, 1)), axis=1) * np.sqrt(weights)[:, None]])
    penalty = np.append(np.sqrt(strength) * np.eye(9), np.zeros((9, 1)), axis=1)
    solution, *_ = np.linalg.lstsq(
        np.concatenate([stacked, penalty]),
        np.concatenate([targets * np.sqrt(weights)[:, None], np.zeros((9, 2))]),
        rcond=None,
    )
    np.testing.assert_allclose(kernel.reshape(9, 2), solution[:9], atol=1e-6)
    np.testing.assert_allclose(bias, solution[9], atol=1e-6)
