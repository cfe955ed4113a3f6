"""Grain: as strong as the source's, none where there is none, the same for a seed and a frame."""

import cv2
import numpy as np
import pytest

from modules.metrics.picture import noise_sigma
from modules.structures.frames import PlaneLayout
from modules.video.grain import BANDS, NO_GRAIN, Grain, GrainMatcher, code_step

SIZE = (150, 200)
EVERYWHERE = np.ones(SIZE, bool)
ONES = np.ones(SIZE, np.float32)
LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", full_range=False, matrix="bt709")


def skin():
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32) / 100
    return np.stack([0.6 + 0.05 * np.sin(2 * x), 0.45 + 0.04 * y, 0.4 + 0.02 * x], 2).astype(np.float32)


def noisy(sigma, seed=0, soft=0.0):
    noise = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    if soft:
        noise = cv2.GaussianBlur(noise, (0, 0), soft)
    return np.clip(skin() + sigma * (noise / noise.std())[..., None], 0, 1).astype(np.float32)


def sigma_of(rgb):
    return noise_sigma(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), EVERYWHERE)


@pytest.mark.parametrize(("sigma", "soft"), [(0.01, 0.0), (0.02, 0.0), (0.01, 0.5), (0.015, 0.7)])
def test_a_smooth_render_gets_the_grain_of_its_source(sigma, soft):
    source = noisy(sigma, soft=soft)
    strengths = GrainMatcher(0.0).update(source, skin(), EVERYWHERE, 0.0)
    grainy = Grain(3).add(skin(), ONES, ONES, strengths, frame=7)
    assert 0.85 < (sigma_of(grainy) / sigma_of(source)) ** 2 < 1.15
    assert abs(float((grainy - skin()).mean())) < 1e-3


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9, 1.0])
def test_blending_leaves_as_much_grain_as_the_source_has(alpha):
    source = noisy(0.015)
    strengths = GrainMatcher(0.0).update(source, skin(), EVERYWHERE, 0.0)
    patch = Grain(1).add(skin(), alpha * ONES, ONES, strengths, frame=0)
    blended = source + np.float32(alpha) * (patch - source)
    assert 0.85 < (sigma_of(blended) / sigma_of(source)) ** 2 < 1.15


def test_what_was_carried_over_gets_none():
    strengths = GrainMatcher(0.0).update(noisy(0.02), skin(), EVERYWHERE, 0.0)
    rendered = ONES.copy()
    rendered[:, :100] = 0
    grainy = Grain().add(skin(), ONES, rendered, strengths, frame=0)
    assert np.array_equal(grainy[:, :100], skin()[:, :100]) and not np.allclose(grainy[:, 100:], skin()[:, 100:])


def test_a_clean_source_and_the_rounding_of_its_codes_give_none():
    codes = np.rint(skin() * 219) / np.float32(219)
    assert GrainMatcher(code_step(LAYOUT)).update(codes, skin(), EVERYWHERE, 0.0) == pytest.approx(NO_GRAIN, abs=5e-4)
    assert code_step(LAYOUT) == pytest.approx(1 / 219, rel=1e-6)
    render = skin()
    assert Grain().add(render, ONES, ONES, NO_GRAIN, 0) is render


def test_texture_that_is_no_grain_gives_none():
    pores = np.clip(skin() + 0.04 * np.sin(np.arange(200) * 0.8)[None, :, None], 0, 1).astype(np.float32)
    assert max(GrainMatcher(0.0).update(pores, skin(), EVERYWHERE, 0.0)) < 1e-3


def test_a_render_as_noisy_as_the_source_gets_none():
    assert max(GrainMatcher(0.0).update(noisy(0.01, 1), noisy(0.0101, 2), EVERYWHERE, 0.0)) < 0.002


def test_colour_grain_keeps_luma():
    field = Grain(0).field(SIZE, (0.0, 0.0, 0.02, 0.01), 5)
    assert np.abs(cv2.cvtColor(field, cv2.COLOR_RGB2GRAY)).max() < 1e-3 and field.std() > 0.005


def test_the_same_seed_and_frame_give_the_same_grain_and_others_other():
    strengths = (0.01,) * BANDS
    fields = [Grain(seed).field(SIZE, strengths, frame) for seed, frame in ((4, 9), (4, 9), (4, 10), (5, 9))]
    assert np.array_equal(fields[0], fields[1])
    for other in fields[2:]:
        assert abs(np.corrcoef(fields[0].ravel(), other.ravel())[0, 1]) < 0.1


def test_states_cuts_and_little_skin():
    matcher, other = GrainMatcher(0.0), GrainMatcher(0.0)
    first = matcher.update(noisy(0.02), skin(), EVERYWHERE, 0.0)
    other.resume(matcher.state())
    nowhere = np.zeros(SIZE, bool)
    assert other.update(skin(), skin(), nowhere, 0.04) == first
    assert other.update(skin(), skin(), EVERYWHERE, 0.08) == first  # too soon to measure again
    calmer = other.update(skin(), skin(), EVERYWHERE, 0.4)[0]
    assert 0.8 * first[0] < calmer < first[0]
    assert other.update(skin(), skin(), nowhere, 9.0) == NO_GRAIN
    matcher.reset()
    assert matcher.state() == {}
    for wrong in ({"step": -1.0}, {"step": 0.0, "memory_s": 0.0}):
        with pytest.raises(ValueError, match="memory_s"):
            GrainMatcher(**wrong)
