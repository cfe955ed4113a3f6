"""Jitter and quick energy of series whose answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_gen.utils.evaluate_fit.fitter import cut
from data_gen.utils.evaluate_fit.stability import (
    COLUMNS,
    place_jitter,
    quick_correlation,
    quick_energy,
    quick_part,
    stability_figures,
    stability_table,
    turn_jitter_deg,
    unbroken_runs,
)
from modules.structures.cameras import CAMERA_DISTANCE, euler_from_rotation
from tests.data_gen.utils.evaluate_fit.made_up import clip_of, fitter_of, real_model, speaker_of

WHOLE = [(0, 100)]


def test_an_even_turn_does_not_jitter():
    axis = np.array([0.3, 1.0, -0.2]) / np.linalg.norm([0.3, 1.0, -0.2])
    turns = Rotation.from_rotvec(np.linspace(-0.6, 0.6, 100)[:, None] * axis).as_matrix()
    assert turn_jitter_deg(euler_from_rotation(turns), WHOLE) < 1e-6


@pytest.mark.parametrize("column", [0, 1, 2])
def test_shaking_by_a_degree_is_four_degrees_of_second_difference(column):
    euler = np.zeros((100, 3))
    euler[:, column] = np.radians(0.5) * (-1.0) ** np.arange(100)
    assert turn_jitter_deg(euler, WHOLE) == pytest.approx(2.0, rel=1e-6)
    assert math.isnan(turn_jitter_deg(euler, []))


def test_noise_is_told_by_its_root_mean_square():
    noise = np.radians(0.1) * np.random.default_rng(0).standard_normal((20_000, 3))
    assert turn_jitter_deg(noise, [(0, 20_000)]) == pytest.approx(0.1 * math.sqrt(6 * 3), rel=0.03)


def test_jitter_of_place_is_relative_to_the_distance():
    place = np.zeros((100, 3))
    place[:, 0] = 0.01 * (-1.0) ** np.arange(100)
    near, far = (place + np.array([0, 0, CAMERA_DISTANCE - distance]) for distance in (5.0, 10.0))
    assert place_jitter(near, WHOLE) == pytest.approx(0.04 / 5, rel=1e-3)
    assert place_jitter(far, WHOLE) == pytest.approx(0.04 / 10, rel=1e-3)
    assert place_jitter(np.arange(300.0).reshape(100, 3) * 0.001, WHOLE) < 1e-9


def test_only_what_is_quick_counts():
    time = np.arange(250) / 25
    slow, quick = np.sin(2 * np.pi * 1.5 * time), np.sin(2 * np.pi * 8 * time)
    runs = [(0, 250)]
    assert quick_energy(slow + 3 + time, runs, 25) < 1e-4 * quick_energy(quick, runs, 25)
    assert quick_energy(5 * slow + 0.5 * quick, runs, 25) == pytest.approx(
        0.25 * quick_energy(quick, runs, 25), rel=1e-2
    )
    assert quick_part(slow + quick, 25).std() == pytest.approx(quick_part(quick, 25).std(), rel=1e-3)
    assert quick_correlation(slow + quick, quick - slow, runs, 25) == pytest.approx(1, abs=1e-3)
    assert quick_correlation(quick, -quick, runs, 25) == pytest.approx(-1)
    assert math.isnan(quick_correlation(np.zeros(250), quick, runs, 25)) and quick_energy(quick, [], 25) == 0


def test_runs_end_at_gaps_and_cuts():
    points = np.tile(np.random.default_rng(0).uniform(0, 100, (478, 2)), (40, 1, 1))
    points[25:] += 500
    valid = np.ones(40, bool)
    valid[[10, 13]] = False
    assert unbroken_runs(points, valid) == [(0, 10), (14, 25), (25, 40)], "two frames alone tell nothing"
    assert unbroken_runs(points[:1], valid[:1]) == []


@pytest.fixture(scope="module")
def speaker():
    return speaker_of(real_model(), 40, noise_px=1.5)


def test_a_smoothed_jaw_loses_energy(speaker):
    model, clip = real_model(), clip_of(speaker)
    same = stability_figures(clip, speaker.truth, speaker.truth, fitter_of(model))
    assert same["turn_ratio"].value == same["lips_alone"].value == same["jaw_alone"].value == pytest.approx(1)
    expression = speaker.truth.expression.copy()
    unit = model.unit("jawOpen")
    expression[2:-2, unit] = np.convolve(expression[:, unit], np.ones(5) / 5, "valid")
    damped = stability_figures(clip, replace(speaker.truth, expression=expression), speaker.truth, fitter_of(model))
    assert damped["jaw_alone"].value < 0.7 and damped["turn_ratio"].value == pytest.approx(1)


def test_the_fit_is_steadier_than_frame_by_frame(speaker):
    table = stability_table([clip_of(speaker)], fitter_of(real_model()))
    figures = table.rows[0].measures
    assert set(figures) == {column.key for column in COLUMNS}
    assert figures["turn"].value < figures["turn_alone"].value and figures["turn_ratio"].value < 0.9
    assert figures["frames"].value == 40 and figures["lips_r"].value > 0.5


def test_frame_by_frame_is_what_fitting_single_frames_gives(speaker):
    """The comparison of the table: every frame alone, by two ways of asking for it."""
    fitter = fitter_of(real_model())
    rows = slice(0, 4)
    landmarks = cut(speaker.landmarks, rows)
    person = speaker.truth.person
    together = fitter.fit(landmarks, speaker.size_wh, person=person, frame_by_frame=True)
    for row in range(4):
        alone = fitter.fit(cut(landmarks, slice(row, row + 1)), speaker.size_wh, person=person)
        assert np.degrees(np.abs(alone.euler[0] - together.euler[row])).max() < 0.3
        assert np.abs(alone.expression[0] - together.expression[row]).max() < 0.1
