"""Similarities, head paths in other axes, and angles, against what they were made from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from data_gen.utils.evaluate_fit.alignment import CAMERA_PLACE, HeadPath, Similarity, angles_between, scale_to
from modules.structures.cameras import euler_from_rotation

SEEDS = st.integers(0, 2**31)


@given(SEEDS, st.floats(0.2, 5))
def test_a_similarity_is_found_again(seed, scale):
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(20, 3))
    made = Similarity(scale, Rotation.random(random_state=seed).as_matrix(), generator.normal(size=3))
    found = Similarity.between(points, made.apply(points))
    assert found.scale == pytest.approx(scale)
    assert np.allclose(found.rotation, made.rotation) and np.allclose(found.shift, made.shift)


def test_a_mirror_image_is_not_a_turn():
    points = np.random.default_rng(0).normal(size=(20, 3))
    found = Similarity.between(points, points * [-1, 1, 1])
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    assert np.linalg.norm(found.apply(points) - points * [-1, 1, 1]) > 1


def test_no_other_similarity_is_nearer():
    generator = np.random.default_rng(3)
    source, target = generator.normal(size=(2, 30, 3))
    best = Similarity.between(source, target)

    def cost(one: Similarity) -> float:
        return float(((one.apply(source) - target) ** 2).sum())

    for _ in range(200):
        turn = Rotation.from_rotvec(generator.normal(0, 0.05, 3)).as_matrix()
        near = Similarity(
            best.scale * (1 + generator.normal(0, 0.02)),
            best.rotation @ turn,
            best.shift + generator.normal(0, 0.02, 3),
        )
        assert cost(near) >= cost(best)


@given(SEEDS)
def test_other_axes_show_the_same_head(seed):
    """A head described in other axes and another size, at the size's distance, is the same path after alignment."""
    generator = np.random.default_rng(seed)
    turns = Rotation.from_euler("xyz", generator.uniform(-0.6, 0.6, (5, 3))).as_matrix()
    true = HeadPath(turns, generator.normal(size=(5, 3)) - [0, 0, 6])
    shape = generator.normal(size=(30, 3))
    to_true = Similarity(1.3, Rotation.from_rotvec(generator.normal(0, 0.1, 3)).as_matrix(), generator.normal(size=3))
    other_shape = (shape - to_true.shift) @ to_true.rotation.T / to_true.scale
    # the other head must be seen where the true one is, all lengths over the scale
    other_turns = to_true.rotation @ true.rotation
    other_place = (true.place + to_true.shift @ true.rotation) / to_true.scale
    seen = shape @ true.rotation + true.place[:, None]
    also_seen = other_shape @ other_turns + other_place[:, None]
    assert np.allclose(also_seen * to_true.scale, seen)
    found = HeadPath(other_turns, other_place).in_axes_of(Similarity.between(other_shape, shape))
    assert np.allclose(found.rotation, true.rotation) and np.allclose(found.place, true.place)


def test_paths_follow_the_conventions_of_the_coefficients():
    euler, translation = np.array([[0.1, -0.2, 0.3]]), np.array([[1.0, 2.0, 4.0]])
    path = HeadPath.of(euler, translation)
    assert np.allclose(euler_from_rotation(path.rotation), euler)
    assert np.allclose(path.place + CAMERA_PLACE, translation) and path.place[0, 2] == -6


@given(SEEDS, st.floats(0, 3.1))
def test_the_angle_of_a_turn(seed, angle):
    generator = np.random.default_rng(seed)
    axis = generator.normal(size=3)
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    first = Rotation.random(4, random_state=seed).as_matrix()
    assert angles_between(first, first @ turn) == pytest.approx(np.degrees(angle), abs=1e-5)


def test_the_best_scale():
    points = np.random.default_rng(0).normal(size=(9, 3))
    assert scale_to(points, 2.5 * points) == pytest.approx(2.5)
    assert scale_to(0 * points, points) == 0
