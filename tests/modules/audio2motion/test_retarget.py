"""Expressions of one face model in another's words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from modules.audio2motion.retarget import retarget_matrix
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.fitting import ExpressionPrior, LandmarkRows, OutlineSlide
from modules.face_model.model import FaceModel
from modules.structures.landmarks import INNER_LIP, OUTER_LIP
from tests.support.small_bfm import small_bfm


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


class Mixed:
    """A model whose coefficients are known mixtures of the embedded model's first units, at 468 landmarks."""

    version = "mixed"
    expression_names = ("a", "b")

    def __init__(self, face_model: FaceModel, mixture: torch.Tensor) -> None:
        rows = face_model.landmark_rows()
        expression = rows.expression[:468] @ mixture
        self._rows = LandmarkRows(rows.mean[:468], rows.identity[:468], expression, OutlineSlide.none())

    def landmark_rows(self) -> LandmarkRows:
        return self._rows

    def expression_prior(self) -> ExpressionPrior:
        return ExpressionPrior.unbounded(torch.ones(2))


def test_a_mixture_of_units_is_found_again(face_model):
    mixture = torch.zeros(face_model.n_expression, 2)
    mixture[face_model.unit("jawOpen"), 0] = 0.5
    mixture[face_model.unit("mouthPucker"), 1] = 0.3
    mixed = Mixed(face_model, mixture)
    matrix = retarget_matrix(face_model, mixed)
    assert matrix.shape == (2, face_model.n_expression)
    moved = torch.from_numpy(matrix) @ face_model.landmark_rows().expression[:468].permute(0, 2, 1)
    error = moved.permute(0, 2, 1) - mixed.landmark_rows().expression
    lips = list(INNER_LIP + OUTER_LIP)
    size = mixed.landmark_rows().expression[lips].norm()
    assert error[lips].norm() < 0.15 * size
    assert matrix[0, face_model.unit("jawOpen")] == np.abs(matrix[0]).max() > 0.3


def test_points_without_a_counterpart_do_not_count(face_model):
    bfm = small_bfm()
    matrix = retarget_matrix(face_model, bfm)
    assert matrix.shape == (64, face_model.n_expression) and np.isfinite(matrix).all()
    unmatched = int(np.flatnonzero(~bfm.matched.numpy())[0])
    vertices = bfm.mediapipe_vertices.clone()
    vertices[unmatched] = vertices[(unmatched + 1) % 468]
    moved = dataclasses.replace(bfm, mediapipe_vertices=vertices)
    np.testing.assert_allclose(retarget_matrix(face_model, moved), matrix, atol=1e-6)
