import numpy as np
import pytest

from data_gen.utils.process_video.occlusion_evidence import (
    LEAST_LOG_ODDS,
    MOST_LOG_ODDS,
    EvidenceConfig,
    OccluderColours,
    photometric_log_odds,
    ycc,
)
from modules.structures.expected_face import ExpectedFace

SIZE = 64
SKIN = np.array([0.75, 0.55, 0.47], np.float32)
THING = (slice(20, 44), slice(20, 44))
CORE = (slice(24, 40), slice(24, 40))


def face(spread=0.015):
    line = np.linspace(0.9, 1.1, SIZE, dtype=np.float32)
    rgb = SKIN * (line[:, None, None] * np.ones((1, SIZE, 1), np.float32))
    flat = np.full((SIZE, SIZE), spread, np.float32)
    return ExpectedFace(rgb.astype(np.float32), flat, np.ones((SIZE, SIZE), np.float32))


def seen(expected, seed=0, noise=0.006):
    generator = np.random.default_rng(seed)
    return (expected.rgb + generator.normal(0, noise, expected.rgb.shape)).astype(np.float32)


def judged(observed, expected, **kwargs):
    return photometric_log_odds(observed, expected, EvidenceConfig(), **kwargs)


def test_luma_and_colour_differences_of_known_colours():
    colours = np.array([[[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]], np.float32)
    assert ycc(colours)[0] == pytest.approx(
        np.array([[1, 0, 0], [0, 0, 0], [0.299, -0.168736, 0.5], [0.114, 0.5, -0.081312]]), abs=1e-6
    )


def test_the_face_itself_speaks_for_the_face():
    expected = face()
    odds = judged(seen(expected), expected)
    assert (odds < -1).mean() > 0.99
    assert odds.min() >= LEAST_LOG_ODDS


@pytest.mark.parametrize("colour", [(0.1, 0.1, 0.1), (0.2, 0.4, 0.8), (0.95, 0.95, 0.93), (0.85, 0.55, 0.40)])
def test_things_of_other_colours_are_seen_and_the_rest_stays_the_face(colour):
    expected = face()
    observed = seen(expected)
    observed[THING] = colour
    odds = judged(observed, expected)
    assert (odds[CORE] > 2).mean() > 0.95
    assert odds.max() <= MOST_LOG_ODDS
    odds[16:48, 16:48] = -9
    assert (odds > 0).mean() < 0.002


def test_a_soft_shadow_is_no_thing_but_the_same_darkness_with_a_sharp_edge_is():
    expected = face()
    observed = seen(expected, noise=0.003)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    away = np.hypot(rows - 32, columns - 32)
    soft = (1 - 0.2 * np.clip((34 - away) / 34, 0, 1)).astype(np.float32)
    sharp = np.where(away < 8, 0.8, 1).astype(np.float32)
    assert (judged(observed * soft[..., None], expected) > 0).mean() < 0.01
    assert (judged(observed * sharp[..., None], expected)[away < 6] > 0).mean() > 0.8


def test_beside_a_hand_sharp_shadows_are_believed():
    expected = face()
    observed = seen(expected, noise=0.003)
    narrow = (slice(26, 38), slice(26, 38))
    observed[narrow] *= 0.75
    plain = judged(observed, expected)[narrow].mean()
    beside = judged(observed, expected, near_hand=np.ones((SIZE, SIZE), np.float32))[narrow].mean()
    assert plain > 0 > beside


def test_a_pixel_of_misfit_at_an_edge_is_forgiven():
    expected = face()
    expected.rgb[:, 32:] *= 0.5
    shifted = np.roll(expected.rgb, 1, axis=1)
    shifted[:, 0] = expected.rgb[:, 0]
    assert (judged(shifted, expected) > 0).sum() == 0


def test_a_wide_spread_takes_more_to_contradict():
    observed = seen(face())
    observed[THING] *= np.array([0.95, 0.85, 0.85], np.float32)
    assert judged(observed, face(0.012))[CORE].mean() > judged(observed, face(0.12))[CORE].mean() + 2


def test_where_nothing_is_known_nothing_is_said():
    expected = face()
    expected.known[:32] = 0
    observed = seen(expected)
    observed[:] = 0
    odds = judged(observed, expected)
    assert (odds[:32] == 0).all()
    assert (odds[32:] > 2).all()
    expected.known[:] = 0
    assert (judged(observed, expected) == 0).all()


def test_colours_seen_before_speak_where_their_like_is_seen_again():
    expected = face()
    observed = seen(expected)
    observed[THING] = SKIN * np.array([1.0, 0.94, 0.92], np.float32)
    where = np.zeros((SIZE, SIZE), bool)
    where[CORE] = True
    colours = OccluderColours().updated(ycc(observed), where)
    assert judged(observed, expected, colours=colours)[CORE].mean() > judged(observed, expected)[CORE].mean() + 0.5


def test_a_colour_histogram_is_a_density_and_is_trusted_with_its_pixels():
    generator = np.random.default_rng(0)
    colours = OccluderColours()
    assert colours.trust == 0
    picture = generator.normal((0.5, 0.0, 0.0), (0.1, 0.05, 0.05), (100, 100, 3)).astype(np.float32)
    colours = colours.updated(picture, np.ones((100, 100), bool))
    assert 0.6 < colours.trust <= 0.7
    grid = np.stack(np.meshgrid(*[(np.arange(24) + 0.5) / 24 - shift for shift in (0, 0.5, 0.5)], indexing="ij"), -1)
    density = colours.density(grid.reshape(24, -1, 3).astype(np.float32))
    assert density.mean() == pytest.approx(1, abs=0.02)
    older = colours.updated(picture, np.zeros((100, 100), bool))
    assert older.trust < colours.trust
