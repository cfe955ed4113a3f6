import numpy as np
import pytest

from data_gen.utils.process_video.occlusion_filter import (
    FilterConfig,
    TemporalFilter,
    box_mean,
    carried,
    guided_refinement,
    transition,
)

SIZE = 48


def picture(shift=0, seed=0):
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 1, (12, 24, 3)).astype(np.float32)
    fine = np.kron(coarse, np.ones((4, 4, 1), np.float32))
    return np.ascontiguousarray(box_mean(fine, 1)[:, 20 - shift : 20 - shift + SIZE])


def filtered(evidence, frames=None, cuts=()):
    run = TemporalFilter(FilterConfig())
    frames = frames or [picture()] * len(evidence)
    done = []
    for index, (odds, rgb) in enumerate(zip(evidence, frames, strict=True)):
        done += list(run.push(index, odds, rgb, fresh=index in cuts))
    done += list(run.finish())
    assert [index for index, _ in done] == list(range(len(evidence)))
    return [odds for _, odds in done]


def constant(value):
    return np.full((SIZE, SIZE), value, np.float32)


@pytest.mark.parametrize("log_odds", [-9.0, -2.0, 0.0, 1.5, 9.0])
def test_transition_is_the_two_state_chain(log_odds):
    covered = 1 / (1 + np.exp(-log_odds))
    later = covered * 0.97 + (1 - covered) * 0.02
    found = transition(np.full((1, 1), log_odds, np.float32), 0.02, 0.03)
    assert found[0, 0] == pytest.approx(np.log(later / (1 - later)), abs=1e-4)


def test_carried_reads_where_the_flow_points():
    values = np.arange(SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    flow = np.zeros((SIZE, SIZE, 2), np.float32)
    flow[..., 0], flow[..., 1] = 2, -1
    assert np.array_equal(carried(values, flow)[5:-5, 5:-5], values[4:-6, 7:-3])


def test_neighbours_strengthen_what_they_agree_with():
    alone = filtered([constant(1.0)])[0]
    together = filtered([constant(1.0)] * 5)[2]
    assert together.mean() > alone.mean() + 0.5


def test_a_blip_of_one_frame_dies_and_a_thing_that_stays_is_there_from_its_first_frame():
    blip = filtered([constant(-2.0)] * 4 + [constant(3.0)] + [constant(-2.0)] * 4)
    assert max(odds.max() for odds in blip) < 0
    stays = filtered([constant(-2.0)] * 4 + [constant(5.0)] * 5)
    assert [bool(odds.mean() > 0) for odds in stays] == [False] * 4 + [True] * 5


def test_nothing_is_carried_over_a_cut():
    evidence = [constant(4.0)] * 3 + [constant(-1.0)] * 3
    assert np.allclose(filtered(evidence, cuts=(0, 3))[3:], filtered([constant(-1.0)] * 3))


def test_evidence_moves_with_the_picture():
    frames, evidence = [], []
    for index in range(5):
        frames.append(picture(2 * index))
        odds = constant(-0.5)
        odds[16:32, 10 + 2 * index : 26 + 2 * index] = 1.0
        evidence.append(odds)
    evidence[2] = constant(0.0)  # the middle frame saw nothing at all
    middle = filtered(evidence, frames)[2]
    assert middle[20:28, 17:27].min() > 0
    assert middle[2:12].max() < 0


def test_guided_refinement_is_the_textbook_filter_written_out():
    generator = np.random.default_rng(1)
    guide = generator.uniform(0, 1, (14, 14, 3)).astype(np.float32)
    values = generator.uniform(-1, 1, (14, 14)).astype(np.float32)
    found = guided_refinement(values, guide, guide, 2, 0.1)
    slopes, offsets = np.zeros((14, 14, 3)), np.zeros((14, 14))
    for r in range(2, 12):
        for c in range(2, 12):
            colours = guide[r - 2 : r + 3, c - 2 : c + 3].reshape(-1, 3).astype(np.float64)
            here = values[r - 2 : r + 3, c - 2 : c + 3].ravel().astype(np.float64)
            covariance = np.cov(colours.T, bias=True) + 0.1**2 * np.eye(3)
            slopes[r, c] = np.linalg.solve(
                covariance, (colours * here[:, None]).mean(0) - colours.mean(0) * here.mean()
            )
            offsets[r, c] = here.mean() - slopes[r, c] @ colours.mean(0)
    for r in range(4, 10):
        for c in range(4, 10):
            window = slice(r - 2, r + 3), slice(c - 2, c + 3)
            wanted = slopes[window].mean(axis=(0, 1)) @ guide[r, c] + offsets[window].mean()
            assert found[r, c] == pytest.approx(wanted, abs=1e-3)


def test_a_coarse_mask_snaps_to_the_edge_of_the_fine_picture():
    fine = np.zeros((96, 96, 3), np.float32)
    fine[:, 47:] = (0.8, 0.5, 0.4)
    coarse = fine[::2, ::2].copy()
    rough = np.full((48, 48), -4.0, np.float32)
    rough[:, 22:] = 4.0  # two fine pixels too far to the left
    refined = guided_refinement(rough, coarse, fine, 4, 0.05)
    assert np.abs((refined > 0).argmax(axis=1)[10:-10] - 47).max() <= 1
