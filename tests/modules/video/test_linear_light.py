"""Gains on light: against the published curves, made linear and back."""

import numpy as np
import pytest

from modules.video.linear_light import BT709, LightCurve


def bt709(light):
    return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)


def srgb(light):
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def hlg(light):
    return np.where(
        light <= 1 / 12, np.sqrt(3 * light), 0.17883277 * np.log(np.maximum(12 * light - 0.28466892, 1e-9)) + 0.55991073
    )


def pq(light):
    power = light ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


CASES = [  # transfer number, curve, coded values that count, largest error in coded values
    (1, bt709, (0.12, 0.8), 1e-5),
    (2, bt709, (0.12, 0.8), 1e-5),
    (1, bt709, (0.0, 0.12), 0.011),
    (13, srgb, (0.07, 0.8), 1e-5),
    (18, hlg, (0.2, 0.5), 0.012),
    (16, pq, (0.35, 0.6), 0.003),
]


@pytest.mark.parametrize(("transfer", "curve", "range_", "tolerance"), CASES)
@pytest.mark.parametrize("gain", [0.8, 1.0, 1.25])
def test_a_gain_on_light_is_what_the_curve_says(transfer, curve, range_, tolerance, gain):
    light = np.geomspace(1e-6, 1, 20001)
    light = light[(curve(light) >= range_[0]) & (curve(light) <= range_[1])]
    coded = np.asarray(curve(light), np.float32)[None, :, None].repeat(3, axis=2)
    wanted = np.asarray(curve(np.minimum(light * gain, 1)))
    found = LightCurve.of(transfer).scaled(coded, np.full((4, 4, 3), np.log(gain), np.float32))[0, :, 0]
    assert np.abs(found - wanted).max() <= tolerance


@pytest.mark.parametrize("transfer", [1, 4, 5, 8, 13, 16, 18, 99])
def test_the_log_ratio_is_undone_by_its_own_gain(transfer):
    curve = LightCurve.of(transfer)
    rng = np.random.default_rng(0)
    below, above = rng.uniform(0.05, 0.9, (2, 5, 7, 3)).astype(np.float32)
    assert np.allclose(curve.scaled(below, curve.log_ratio(above, below)), above, atol=2e-5)


def test_unknown_curves_are_the_cameras():
    assert LightCurve.of(99) == LightCurve.of(2) == BT709
    assert LightCurve.of(8).exponent == 1.0
