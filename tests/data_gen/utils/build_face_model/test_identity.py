"""Identity space: sliders, covariance of target weights, rigid motion."""

import numpy as np
import pytest

from data_gen.utils.build_face_model.identity import (
    N_SAMPLES,
    _components,
    _sample_macro,
    _sliders,
    _three_way,
    _without_rigid_motion,
)


def test_components_equal_a_plain_principal_component_analysis():
    generator = np.random.default_rng(0)
    targets = generator.normal(size=(6, 20, 3))
    weights = generator.normal(size=(4000, 6)) @ generator.normal(size=(6, 6))
    importance = generator.uniform(0.2, 1, 20)
    basis, explained = _components(targets, np.cov(weights, rowvar=False), importance, 6)
    shapes = np.tensordot(weights, targets, axes=1) * np.sqrt(importance)[:, None]
    shapes = (shapes - shapes.mean(axis=0)).reshape(len(weights), -1)
    _, singular, vectors = np.linalg.svd(shapes, full_matrices=False)
    variances = singular[:6] ** 2 / (len(weights) - 1)
    np.testing.assert_allclose(explained, variances / variances.sum(), rtol=1e-6)
    for k in range(6):  # unit-variance columns: length = standard deviation, direction = principal axis
        column = (basis[..., k] * np.sqrt(importance)[:, None]).ravel()
        assert np.linalg.norm(column) == pytest.approx(np.sqrt(variances[k]), rel=1e-6)
        assert abs(column @ vectors[k]) == pytest.approx(np.linalg.norm(column), rel=1e-6)


def test_rigid_motion_is_removed_and_scale_kept():
    generator = np.random.default_rng(1)
    shape, importance = generator.normal(size=(30, 3)), generator.uniform(0.1, 1, 30)
    center = np.average(shape, axis=0, weights=importance)
    turned = np.cross([0.1, -0.3, 0.2], shape - center) + np.array([1.0, 2.0, -1.0])
    scaled = 0.1 * (shape - center)
    left = _without_rigid_motion(np.stack([turned, scaled, turned + scaled]), shape, importance)
    np.testing.assert_allclose(left[0], 0, atol=1e-12)
    np.testing.assert_allclose(left[1], scaled, atol=1e-12)
    np.testing.assert_allclose(left[2], scaled, atol=1e-12)


def test_sliders_pair_opposites_and_skip_right_twins():
    names = ["eyes/l-eye-bag-decr", "eyes/l-eye-bag-incr", "eyes/r-eye-bag-decr", "eyes/r-eye-bag-incr",
             "head/head-oval", "head/head-trans-in", "nose/nose-base-down", "nose/nose-base-up", "asym/asym-jaw-1-l",
             "asym/asym-jaw-1-r"]  # fmt: skip
    assert _sliders(names) == [
        ["eyes/l-eye-bag-decr", "eyes/l-eye-bag-incr"],
        ["head/head-oval"],
        ["nose/nose-base-down", "nose/nose-base-up"],
        ["asym/asym-jaw-1-l", "asym/asym-jaw-1-r"],
    ]


def test_macro_weights_are_shares():
    names, weights = _sample_macro(np.random.default_rng(2))
    assert weights.shape == (N_SAMPLES, len(names)) and len(set(names)) == 18 + 54
    assert weights.min() >= 0
    np.testing.assert_allclose(weights[:, :18].sum(axis=1), 1, atol=1e-9)  # race · sex · age
    np.testing.assert_allclose(weights[:, 18:].sum(axis=1), 1, atol=1e-9)  # sex · age · muscle · weight


def test_three_way_slider():
    np.testing.assert_allclose(
        _three_way(np.array([0.0, 0.25, 0.5, 0.75, 1.0])),
        [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]],
    )
