import numpy as np

from data_gen.utils.process_video.exposure_match import matched_exposure

SIZE = 96
FLAT = np.full((SIZE, SIZE), 0.02, np.float32)
EVERYWHERE = np.ones((SIZE, SIZE), np.float32)


def face_like(seed=0):
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0.4, 0.8, (6, 6, 3)).astype(np.float32)
    return np.kron(coarse, np.ones((16, 16, 1), np.float32))


def test_a_gain_per_channel_is_found_exactly():
    expected = face_like()
    observed = expected * np.array([1.1, 0.9, 1.0], np.float32)
    assert np.abs(matched_exposure(expected, observed, FLAT, EVERYWHERE) - observed).max() < 0.005


def test_a_gentle_slope_of_light_is_followed():
    expected = face_like()
    observed = expected * np.linspace(0.95, 1.05, SIZE, dtype=np.float32)[None, :, None]
    assert np.abs(matched_exposure(expected, observed, FLAT, EVERYWHERE) - observed).max() < 0.01


def test_what_covers_a_third_of_the_face_does_not_pull_the_match():
    expected = face_like()
    observed = expected * np.float32(0.92)
    covered = observed.copy()
    covered[60:, :] = (0.05, 0.3, 0.9)
    matched = matched_exposure(expected, covered, FLAT, EVERYWHERE)
    assert np.abs(matched - observed)[:55].max() < 0.02
    assert np.abs(matched - observed)[60:].mean() < 0.04


def test_places_without_weight_say_nothing():
    expected, weight = face_like(), EVERYWHERE.copy()
    observed = expected.copy()
    observed[48:] *= 0.5
    weight[48:] = 0
    assert np.abs(matched_exposure(expected, observed, FLAT, weight) - expected)[:48].max() < 0.01


def test_too_little_to_go_by_leaves_the_expectation_alone():
    expected = face_like()
    nothing = np.zeros((SIZE, SIZE), np.float32)
    assert matched_exposure(expected, expected * np.float32(0.5), FLAT, nothing) is expected
