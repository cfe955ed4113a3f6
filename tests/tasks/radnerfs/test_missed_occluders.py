"""Rays that show something else than the head weigh little, at places whose usual error is known."""

import pytest
import torch

from tasks.radnerfs.missed_occluders import CELLS, RATE, UNKNOWN, UsualErrors, cell_of


def at(*places):
    return torch.tensor([[x, 0.1, -0.2] for x in places])


def taught(limit, errors, steps=400):
    """Places and what is usual there, learnt over some steps."""
    usual = UsualErrors(limit, torch.device("cpu"))
    for _ in range(steps):
        usual.learn(at(*errors), torch.tensor(list(errors.values())))
    return usual


def test_cells_are_numbered_as_a_loop_numbers_them():
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for point, number in zip(points, cell_of(points).tolist(), strict=True):
        x, y, z = (min(int((float(value) + 1) / 2 * CELLS), CELLS - 1) for value in point)
        assert number == (x * CELLS + y) * CELLS + z
    assert cell_of(torch.tensor([[-1.5, 0, 0], [1.0, 1.0, 1.0]])).tolist()[1] == CELLS**3 - 1


def test_what_is_usual_at_teeth_is_unusual_at_the_chin():
    usual = taught(5.0, {-0.5: 0.01, 0.5: 0.06})
    weights = usual.weights(at(-0.5, 0.5, -0.5), torch.tensor([0.1, 0.1, 0.02]))
    assert weights[0] == pytest.approx((0.05 / 0.1) ** 2, rel=0.02)
    assert weights[1] == 1 and weights[2] == 1


def test_nothing_is_unusual_at_first_or_where_nobody_looked():
    fresh = UsualErrors(5.0, torch.device("cpu"))
    assert (fresh.weights(at(-0.5, 0.5), torch.tensor([1.0, 0.7])) == 1).all() and UNKNOWN * 5 > 1
    assert (taught(5.0, {-0.5: 0.01}).weights(at(0.5), torch.tensor([1.0])) == 1).all()


def test_an_occluder_in_every_tenth_ray_does_not_become_usual():
    usual, place = UsualErrors(5.0, torch.device("cpu")), at(*[0.3] * 10)
    errors = torch.tensor([0.012] * 9 + [0.4])
    for _ in range(600):
        usual.learn(place, errors)
    weights = usual.weights(place, errors)
    assert (weights[:9] == 1).all() and weights[9] < 0.1


def test_one_step_moves_by_its_rate_alone():
    usual = taught(5.0, {0.3: 0.2}, steps=1)
    assert float(usual.usual[cell_of(at(0.3))]) == pytest.approx(UNKNOWN + RATE * (0.2 - UNKNOWN))


def test_switched_off_every_ray_counts():
    usual = taught(0.0, {0.3: 0.01})
    assert (usual.weights(at(0.3), torch.tensor([1.0])) == 1).all() and (usual.usual == UNKNOWN).all()
