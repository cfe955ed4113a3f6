"""Which filmed mouth is chosen: the cheapest path of all, by looks that follow the lips."""

from itertools import product

import numpy as np
import pytest

from modules.radnerfs import mouth_choice
from modules.radnerfs.mouth_choice import (
    NEXT_TO,
    SHUT_DM,
    STEPS,
    TRUST_FRAMES,
    TRUSTED_DM,
    TURN_DM,
    SeenMouths,
    apart,
    cheapest_path,
    choose_mouths,
    detail_ratio,
    distances,
    expected_looks,
    is_ordinary,
    opening,
    smoothed,
    trusted,
)


def ring(height, width=0.5, count=12):
    """Lips ``[count, 2]`` open by ``height`` in their middle."""
    angle = np.arange(count) / count * 2 * np.pi
    return np.column_stack([width / 2 * np.cos(angle), height / 2 * np.sign(np.sin(angle) - 1e-9)]).astype(np.float32)


def cost_of(path, cost, rows, switch):
    """Written out once more."""
    total = sum(cost[step, at] for step, at in enumerate(path))
    for at, to in zip(path[:-1], path[1:], strict=True):
        ways = [share for ahead, share in STEPS if to - at == ahead and abs(rows[to] - rows[at]) <= NEXT_TO]
        total += switch * min([1.0, *ways])
    return total


def test_the_path_is_the_cheapest_of_all():
    rng = np.random.default_rng(0)
    rows = np.array([0, 1, 2, 40])  # no step leads from 2 to 40
    for _ in range(20):
        cost = rng.uniform(0, 1, (5, 4)).astype(np.float32)
        found = cheapest_path(cost, rows, 0.3)
        best = min(cost_of(path, cost, rows, 0.3) for path in product(range(4), repeat=5))
        assert cost_of(found, cost, rows, 0.3) == pytest.approx(best, rel=1e-6)


def test_an_opening_is_read_off_the_middle_of_the_ring():
    lips = np.stack([ring(0.0), ring(0.1), ring(0.3)])
    np.testing.assert_allclose(opening(lips), [0, 0.1, 0.3], atol=1e-6)
    assert np.allclose(opening(lips + np.float32(0.7)), opening(lips), atol=1e-6)


def seen_of(heights, turn=None, looks=None):
    lips = np.stack([ring(height) for height in heights])
    turn = np.zeros((len(lips), 2), np.float32) if turn is None else turn
    looks = np.zeros((len(lips), 5), np.float32) if looks is None else looks
    return SeenMouths(np.arange(len(lips)), looks, lips, turn)


def test_distances_are_those_of_lips_and_turns():
    rng = np.random.default_rng(1)
    turn = rng.normal(0, 0.2, (4, 2)).astype(np.float32)
    seen = seen_of([0, 0.1, 0.2, 0.3], turn)
    found = distances(seen, seen.lips, turn)
    for one, other in product(range(4), repeat=2):
        lips = ((seen.lips[one] - seen.lips[other]) ** 2).sum(1).mean()
        expected = np.sqrt(lips + TURN_DM**2 * ((turn[one] - turn[other]) ** 2).sum())
        assert found[one, other] == pytest.approx(expected, abs=2e-4)


def test_looks_that_depend_on_lips_linearly_are_predicted_between_and_beside_the_seen():
    heights = np.linspace(0.05, 0.35, 60)
    looks = np.outer(heights, [100, -50, 0, 20, 300]).astype(np.float32)
    seen = seen_of(heights, looks=looks)
    asked = np.array([0.1234, 0.2, 0.36])
    lips, turn = np.stack([ring(height) for height in asked]), np.zeros((3, 2), np.float32)
    found = expected_looks(seen, lips, turn, distances(seen, lips, turn))
    # stiff by a little; a mean of neighbours would miss the last by a tenth
    np.testing.assert_allclose(found, np.outer(asked, [100, -50, 0, 20, 300]), rtol=0.03, atol=0.5)


def test_a_mouth_closes_when_it_is_to_close_and_stays_in_a_moment_otherwise(monkeypatch):
    heights = np.concatenate([np.linspace(0.1, 0.2, 30), np.linspace(0, 0.02, 10)])
    seen = seen_of(heights)
    wanted = np.stack([ring(height) for height in [*np.linspace(0.12, 0.15, 9), 0.0, *np.linspace(0.15, 0.12, 9)]])
    turn = np.zeros((len(wanted), 2), np.float32)
    chosen = choose_mouths(seen, wanted, turn)
    assert heights[chosen.numbers[9]] < 0.02 and (heights[np.delete(chosen.numbers, 9)] > 0.1).all()
    assert chosen.trust[9] == 0, "lips that touch are rendered"
    assert (np.delete(chosen.trust, 9) == 1).all()
    monkeypatch.setattr(mouth_choice, "MOST_AT_ONCE", 5)
    assert heights[choose_mouths(seen, wanted, turn).numbers[9]] < 0.02


def test_lips_that_part_are_filmed_more_and_more():
    found = apart(np.array([0.0, SHUT_DM[0], sum(SHUT_DM) / 2, SHUT_DM[1], 1.0], np.float32))
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, 1], atol=1e-5)


def test_what_lies_far_is_not_used_and_fades_in_time():
    low, high = TRUSTED_DM
    np.testing.assert_allclose(trusted(np.array([0, low, (low + high) / 2, high, 1])), [1, 1, 0.5, 0, 0], atol=1e-6)
    values = np.ones(21, np.float32)
    values[10] = 0
    made = smoothed(values, TRUST_FRAMES)
    assert made[10] == 0 and (made <= values).all() and made[0] == made[-1] == 1
    assert np.abs(np.diff(made)).max() <= 1 / (2 * TRUST_FRAMES + 1) + 1e-6
    assert len(smoothed(values[:0], TRUST_FRAMES)) == 0


def test_a_hand_and_a_blurred_frame_are_told_from_mouths():
    rng = np.random.default_rng(2)
    heights = rng.uniform(0.05, 0.35, 120)
    looks = (heights[:, None] * [100, -50, 0, 20, 300] + rng.normal(0, 1, (120, 5))).astype(np.float32)
    looks[30] += 40
    detail = (4 + 10 * heights).astype(np.float32)
    detail[70] *= 0.5
    seen = seen_of(heights, looks=looks)
    found = is_ordinary(seen, detail_ratio(seen, detail))
    assert set(np.flatnonzero(~found)) == {30, 70}
