"""Projected landmarks of a fit: the model's own projection, with correction and slide on top."""

from dataclasses import replace

import numpy as np
import torch

from data_gen.utils.process_video.fitted_points import fitted_points
from modules.face_model.fitting import OutlineSlide
from modules.face_model.projection import project
from modules.structures.landmarks import FACE_OVAL
from tests.data_gen.utils.evaluate_fit.made_up import sliding_model, truth_of


def test_without_slide_and_correction_it_is_the_models_projection():
    model = replace(sliding_model(), outline_slide=OutlineSlide.none())
    truth = truth_of(model, 300)
    landmarks = model.landmarks(torch.from_numpy(truth.identity), torch.from_numpy(truth.expression))
    pose = (torch.from_numpy(values) for values in (truth.euler, truth.translation))
    wanted, _ = project(landmarks, *pose, truth.camera)
    assert np.allclose(fitted_points(truth, model), wanted.numpy(), atol=2e-3)


def test_the_correction_adds_identity_directions_to_the_units():
    model = replace(sliding_model(), outline_slide=OutlineSlide.none())
    truth = truth_of(model, 3)
    generator = np.random.default_rng(2)
    correction = generator.normal(0, 0.3, (model.n_identity, model.n_expression)).astype(np.float32)
    corrected = fitted_points(replace(truth, correction=correction), model)
    for row in range(3):
        person = truth.identity + correction @ truth.expression[row]
        one = {name: getattr(truth, name)[row : row + 1] for name in ("expression", "euler", "translation", "valid")}
        twin = replace(truth, identity=person, residual=truth.residual[:1], **one)
        assert np.allclose(corrected[row], fitted_points(twin, model)[0], atol=5e-3)


def test_the_outline_slides_with_the_turn():
    model = sliding_model()
    truth = truth_of(model, 40)
    landmarks = model.landmarks(torch.from_numpy(truth.identity), torch.from_numpy(truth.expression))
    yaws, moves = model.outline_slide.yaw_rad.numpy(), model.outline_slide.move.numpy()
    for row, yaw in enumerate(truth.euler[:, 1]):
        for column, point in enumerate(FACE_OVAL):
            move = [np.interp(yaw, yaws, moves[:, column, axis]) for axis in range(3)]
            landmarks[row, point] += torch.tensor(move, dtype=torch.float32)
    pose = (torch.from_numpy(values) for values in (truth.euler, truth.translation))
    wanted, _ = project(landmarks, *pose, truth.camera)
    assert np.allclose(fitted_points(truth, model), wanted.numpy(), atol=2e-3)


def test_chosen_frames_are_rows_of_all():
    model = sliding_model()
    truth = truth_of(model, 300)
    chosen = np.array([299, 7, 7, 260])
    np.testing.assert_allclose(fitted_points(truth, model, chosen), fitted_points(truth, model)[chosen], atol=1e-3)
