"""The plot of a fit: as large as it is read, gaps shaded and left out, any length and any gap."""

from dataclasses import replace

import numpy as np
import pytest

from inference.fit_plot import LEFT_PX, RIGHT_PX, WIDTH_PX, FitCurves, _limits, plot_fit
from tests.support.synthetic_head import SyntheticSpeaker

SHADE = (0xE9, 0xEC, 0xF0)


@pytest.fixture(scope="module")
def speaker():
    return SyntheticSpeaker(5)


def curves(speaker, count, fits=None, shots=()):
    coeffs = speaker.coeffs(count)
    fits = np.ones(count, bool) if fits is None else fits
    error = np.where(fits, 1.5, np.nan)
    starts = np.array([0, *shots])
    return FitCurves(
        "clip.mp4", np.arange(count) / 25, starts, coeffs, speaker.model.expression_names, fits, error, error
    )


def column(time_s, end_s):
    return round(LEFT_PX + (WIDTH_PX - LEFT_PX - RIGHT_PX) * time_s / end_s)


def test_gaps_are_grey_and_lines_are_broken_there_and_at_cuts(speaker):
    fits = np.ones(100, bool)
    fits[40:60] = False
    picture = plot_fit(curves(speaker, 100, fits, shots=(75,))).astype(int)
    assert picture.shape[1] == WIDTH_PX and 1000 < len(picture) < 1700
    shaded = (np.abs(picture - SHADE).max(axis=2) <= 2).mean(axis=0)
    inside = slice(column(1.6, 4.0) + 2, column(2.4, 4.0) - 2)
    assert np.median(shaded[inside]) > 0.6
    assert shaded[: column(1.6, 4.0) - 2].max() < 0.05 and shaded[column(2.4, 4.0) + 2 :].max() < 0.05
    coloured = (np.ptp(picture, axis=2) > 60).sum(axis=0)
    for first_s, last_s in ((1.6, 2.36), (2.97, 2.99)):
        assert not coloured[column(first_s, 4.0) : column(last_s, 4.0)].any()
    assert (coloured[column(0.1, 4.0) : column(1.5, 4.0)] > 5).all()


@pytest.mark.parametrize("count", [1, 2])
def test_the_shortest_videos_are_plotted(speaker, count):
    assert plot_fit(curves(speaker, count)).std() > 5


def test_nothing_but_gaps_is_plotted(speaker):
    assert plot_fit(curves(speaker, 20, np.zeros(20, bool))).std() > 5


def test_a_long_video_keeps_its_peak(speaker):
    long = curves(speaker, 20_000)
    face = long.face.copy()
    face[9_000] = 9.0
    picture = plot_fit(replace(long, face=face))
    near = slice(column(360.0, 800.0) - 3, column(360.0, 800.0) + 4)
    blue = picture[-200:, near, 2].astype(int) - picture[-200:, near, 0]
    assert ((blue > 60).any(axis=1)).sum() > 80, "one frame among 20 000 is seen"


def test_limits_have_air_and_a_least_height():
    lines = (("a", np.array([1.0, np.nan, 1.2])), ("b", np.array([1.1])))
    low, high = _limits(lines, 4.0, from_zero=False)
    assert high - low >= 4.0 and low < 1.0 and high > 1.2
    assert _limits(lines, 3.0, from_zero=True) == (0.0, 3.0)
    assert _limits((("a", np.array([50.0])),), 3.0, from_zero=True)[1] > 50
    assert _limits((("a", np.array([np.nan])),), 3.0, from_zero=True) == (0.0, pytest.approx(3.24))
