"""Errors on made-up speakers: none for the truth, and known ones for known mistakes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_gen.utils.evaluate_fit import speakers
from data_gen.utils.evaluate_fit.alignment import CAMERA_PLACE
from data_gen.utils.evaluate_fit.speakers import (
    KNOWN,
    MEAN_FACE,
    SCORES,
    UNKNOWN,
    score_errors,
    speaker_errors,
    speaker_rows,
    speakers_table,
)
from modules.structures.cameras import euler_from_rotation, rotation_matrices
from tests.data_gen.utils.evaluate_fit.made_up import fitter_of, real_model, speaker_of


@pytest.fixture(scope="module")
def speaker():
    return speaker_of(real_model(), 20)


def test_the_truth_has_no_error(speaker):
    assert max(speaker_errors(speaker, speaker.truth, real_model()).values()) < 1e-4


def test_a_turn_is_counted_in_degrees(speaker):
    turn = Rotation.from_rotvec(np.radians([0, 2.0, 0])).as_matrix()
    euler = euler_from_rotation(rotation_matrices(speaker.truth.euler.astype(np.float64)) @ turn)
    errors = speaker_errors(speaker, replace(speaker.truth, euler=euler.astype(np.float32)), real_model())
    assert errors["rotation"] == pytest.approx(2.0, abs=1e-3) == errors["rotation_raw"]
    assert errors["translation"] == pytest.approx(0, abs=1e-4)


def test_units_are_told_apart(speaker):
    expression = speaker.truth.expression.copy()
    expression[:, real_model().unit("jawOpen")] += 0.1
    errors = speaker_errors(speaker, replace(speaker.truth, expression=expression), real_model())
    assert errors["jaw"] == pytest.approx(0.1, rel=1e-4) and errors["units"] == pytest.approx(0.1 / 52, rel=1e-3)


def test_size_is_free_and_depth_alone_is_not(speaker):
    place = speaker.truth.translation - CAMERA_PLACE
    farther = (1.2 * place + CAMERA_PLACE).astype(np.float32)
    errors = speaker_errors(speaker, replace(speaker.truth, translation=farther), real_model())
    assert errors["translation"] == pytest.approx(0, abs=1e-4)
    assert errors["translation_mesh"] == pytest.approx(20, abs=1e-3)
    wobbling = place * (1 + 0.03 * (-1.0) ** np.arange(len(place)))[:, None]
    moved = (wobbling + CAMERA_PLACE).astype(np.float32)
    errors = speaker_errors(speaker, replace(speaker.truth, translation=moved), real_model())
    assert errors["translation"] == pytest.approx(3, abs=0.1)


def test_another_persons_face_is_millimetres_away(speaker):
    generator = np.random.default_rng(5)
    other = generator.standard_normal(real_model().n_identity).astype(np.float32)
    found = [
        speaker_errors(speaker, replace(speaker.truth, identity=identity), real_model())["identity"]
        for identity in (other, 0 * other, 0.9 * speaker.truth.identity)
    ]
    assert 1 < found[1] < found[0] < 10 and found[2] < 0.2 * found[1]


def test_the_focal_length_is_told_in_percent(speaker):
    camera = replace(speaker.truth.camera, fx=1.1 * speaker.truth.camera.fx)
    assert speaker_errors(speaker, replace(speaker.truth, camera=camera), real_model())["focal"] == pytest.approx(10)


def test_frames_without_a_fit_are_left_out(speaker):
    expression, valid = speaker.truth.expression.copy(), speaker.truth.valid.copy()
    expression[3], valid[3] = 9.0, False
    broken = replace(speaker.truth, expression=expression, valid=valid)
    assert speaker_errors(speaker, broken, real_model())["units"] == 0


def test_scores_taken_for_coefficients(speaker):
    assert score_errors(speaker, real_model()) == {"jaw": 0.0, "units": 0.0}
    scores = speaker.landmarks.blendshapes + np.float32(0.05)
    shifted = replace(speaker, landmarks=replace(speaker.landmarks, blendshapes=scores))
    assert score_errors(shifted, real_model()) == pytest.approx({"jaw": 0.05, "units": 0.05}, rel=1e-4)


def test_real_fits_fill_the_table():
    made = [speaker_of(real_model(), 20)]
    calls = []
    rows = speaker_rows("small", 1, made.__getitem__, fitter_of(real_model()), lambda *done: calls.append(done))
    assert [row.variant for row in rows] == [KNOWN, UNKNOWN, MEAN_FACE, SCORES]
    assert calls == [("speakers, small", 0, 1), ("speakers, small", 1, 1)]
    known, unknown, mean, scores = (row.measures for row in rows)
    assert known["rotation"].value < 1.5 and known["identity"].value < 0.7 * mean["identity"].value
    assert known["focal"].value == 0 < unknown["focal"].value
    assert known["landmarks"].value < mean["landmarks"].value and known["worst_jaw"].value == known["jaw"].value
    assert set(scores) == {"jaw", "units", "worst_jaw", "speakers"} and known["speakers"].value == 1
    table = speakers_table(rows, ("about",))
    assert table.notes[0] == "about" and set(known) == {column.key for column in speakers.COLUMNS}
