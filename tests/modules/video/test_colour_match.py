"""Colour match: the membrane against a direct solve, known casts undone, outliers ignored."""

import numpy as np
import pytest
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve

from modules.video.colour_match import MAX_LOG_GAIN, RingConfig, apply_field, estimate_field, membrane


def direct_membrane(values, mass, stiffness):
    """The same least-squares problem, assembled link by link and solved exactly."""
    height, width = mass.shape
    index = np.arange(height * width).reshape(height, width)
    pairs = np.concatenate(
        [
            np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], 1),
            np.stack([index[:-1].ravel(), index[1:].ravel()], 1),
        ]
    )
    ones = np.ones(len(pairs))
    adjacency = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(index.size, index.size)).tocsr()
    adjacency = adjacency + adjacency.T
    laplacian = diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
    data = mass.ravel().astype(float) * (1e6 if stiffness == 0 else 1.0)
    matrix = (max(stiffness, 1.0) if stiffness == 0 else stiffness) * laplacian + diags(data)
    right = data[:, None] * values.reshape(index.size, -1)
    return np.stack([spsolve(matrix.tocsc(), column) for column in right.T], 1).reshape(values.shape)


def ring_mass(height, width):
    y, x = np.mgrid[:height, :width]
    radius = np.hypot((x + 0.5 - width / 2) / (width / 2), (y + 0.5 - height / 2) / (height / 2))
    return ((radius > 0.75) & (radius < 0.95)).astype(np.float32)


@pytest.mark.parametrize("stiffness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [(40, 40), (17, 40), (40, 9), (1, 30), (12, 1)])
def test_membrane_agrees_with_a_direct_solve(stiffness, size):
    y, x = np.mgrid[: size[0], : size[1]] / 40
    values = np.stack([np.sin(4 * x + 3 * y), x - y, 0.5 + 0 * x], 2).astype(np.float32)
    mass = ring_mass(*size)
    mass[: size[0] // 3] = 0  # an open ring
    mass[-1, -1] = 0.5
    noise = np.random.default_rng(0).normal(size=values.shape).astype(np.float32)
    poisoned = np.where(mass[..., None] > 0, values, 1e3 * noise)
    found, exact = membrane(poisoned, mass, stiffness), direct_membrane(values, mass, stiffness)
    assert np.abs(found - exact).max() < 1e-3
    if stiffness == 0:
        assert np.allclose(found[mass > 0], values[mass > 0], atol=1e-4)


def test_membrane_of_nothing_known_is_zero_and_of_a_constant_is_the_constant():
    values = np.full((20, 31, 3), 0.4, np.float32)
    assert not membrane(values, np.zeros((20, 31), np.float32), 1.0).any()
    assert np.allclose(membrane(values, ring_mass(20, 31), 1.0), 0.4, atol=1e-4)


def face_and_alpha(height=120, width=160):
    """A smooth skin-like picture with a dark mouth, and an elliptic alpha with a soft edge."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot((x - width / 2) / (width / 2), (y - height / 2) / (height / 2))
    alpha = np.clip((0.95 - radius) / 0.25, 0, 1).astype(np.float32)
    skin = np.stack([0.65 + 0.1 * x / width, 0.5 - 0.1 * y / height, 0.4 + 0 * x], 2).astype(np.float32)
    skin[radius < 0.25] = 0.05
    return skin, alpha


CAST = np.array([1.2, 1.0, 0.85], np.float32)


def error(patch, truth, alpha):
    return float(np.abs(patch - truth)[alpha > 0.5].mean())


@pytest.mark.parametrize("ring", [RingConfig(), RingConfig(high=0.2, stiffness=0.0, outlier=3.0, screen=0.0)])
def test_a_colour_cast_is_undone(ring):
    truth, alpha = face_and_alpha()
    slope = 1 + 0.15 * (np.arange(160, dtype=np.float32) / 80 - 1)[None, :, None]
    patch = np.clip(truth * CAST * slope, 0, 1).astype(np.float32)
    field = estimate_field(truth, patch, alpha, np.ones_like(alpha), ring)
    assert field is not None and np.abs(field).max() <= MAX_LOG_GAIN
    assert error(apply_field(patch, field), truth, alpha) < 0.2 * error(patch, truth, alpha)
    assert apply_field(patch, field)[60, 80].max() < 0.09  # the dark of the mouth is not lifted


def test_garbage_over_a_quarter_of_the_ring_is_ignored():
    truth, alpha = face_and_alpha()
    patch = np.clip(truth * CAST, 0, 1).astype(np.float32)
    source = truth.copy()
    source[:, :25] = 0.03  # dark hair where the patch has skin
    field = estimate_field(source, patch, alpha, np.ones_like(alpha), RingConfig())
    assert error(apply_field(patch, field)[:, 30:], truth[:, 30:], alpha[:, 30:]) < 0.012


def test_occluded_pixels_are_not_compared_and_too_few_give_nothing():
    truth, alpha = face_and_alpha()
    patch = np.clip(truth * CAST, 0, 1).astype(np.float32)
    hand = np.zeros_like(alpha)
    hand[:, :70] = 1
    source = np.where(hand[..., None] > 0, np.float32(0.9), truth)
    field = estimate_field(source, patch, alpha, 1 - hand, RingConfig())
    assert error(apply_field(patch, field), truth, alpha) < 0.012
    assert estimate_field(source, patch, alpha, np.zeros_like(alpha), RingConfig()) is None
    assert estimate_field(source, patch, np.ones_like(alpha), np.ones_like(alpha), RingConfig()) is None


def test_what_the_patch_holds_outside_the_ring_is_not_read():
    truth, alpha = face_and_alpha()
    patch = np.clip(truth * CAST, 0, 1).astype(np.float32)
    poisoned = np.where(alpha[..., None] > 0.02, patch, np.float32(np.nan))
    whole = np.ones_like(alpha)
    clean, same = (estimate_field(truth, p, alpha, whole, RingConfig()) for p in (patch, poisoned))
    assert np.array_equal(clean, same)
