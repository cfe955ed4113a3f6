"""Losses measured on the lips."""

from __future__ import annotations

import pytest
import torch

from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import MOUTH_UNITS, FaceModel
from modules.structures.landmarks import INNER_LIP, LIP_GAP_PAIRS
from tasks.audio2motion.configs import A2MLossConfig
from tasks.audio2motion.losses import LipEffect, LipLoss, lip_effect, opening_effect


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


def test_effect_is_what_the_face_model_does(face_model):
    columns = torch.tensor([face_model.unit(name) for name in MOUTH_UNITS])
    effect = lip_effect(face_model, columns)
    expression = torch.zeros(1, face_model.n_expression)
    expression[0, columns] = torch.rand(len(columns), generator=torch.Generator().manual_seed(0))
    identity = torch.zeros(face_model.n_identity)
    moved = (face_model.landmarks(identity, expression) - face_model.landmarks(identity, 0 * expression))[0]
    units = expression[0, columns]
    contour = (units @ effect.contour).unflatten(-1, (-1, 3))
    torch.testing.assert_close(contour[: len(INNER_LIP)], moved[list(INNER_LIP)], atol=1e-5, rtol=0)
    torch.testing.assert_close(units @ effect.width, moved[61] - moved[291], atol=1e-5, rtol=0)
    torch.testing.assert_close((units @ effect.gap)[:3], moved[13] - moved[14], atol=1e-5, rtol=0)
    gap = torch.stack([moved[a, 1] - moved[b, 1] for a, b in LIP_GAP_PAIRS]).mean()
    torch.testing.assert_close(opening_effect(face_model) @ expression[0], gap, atol=1e-5, rtol=0)


def test_opening_effect_has_the_right_sign(face_model):
    effect = opening_effect(face_model)
    assert effect[face_model.unit("jawOpen")] > 0.05
    assert effect[face_model.unit("mouthClose")] < 0
    assert effect[face_model.unit("eyeBlinkLeft")].abs() < 1e-4


def test_loss_is_one_for_the_mean_and_zero_for_the_truth():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(4, 50, 3, generator=generator) * 0.2
    effect = LipEffect(*(torch.randn(3, n, generator=generator) for n in (9, 6, 3)))
    loss = LipLoss(effect, targets.flatten(0, 1), A2MLossConfig(velocity_weight=0.0, coefficient_weight=0.0))
    weights = torch.ones(4, 50)
    assert loss(targets, targets, weights) == 0
    mean = targets.flatten(0, 1).mean(dim=0).expand_as(targets)
    assert loss(mean, targets, weights) == pytest.approx(1.0, abs=0.02)


def test_rows_of_weight_zero_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(1, 20, 3, generator=generator)
    loss = LipLoss(LipEffect(torch.eye(3), torch.eye(3), torch.eye(3)), targets[0], A2MLossConfig())
    weights = torch.ones(1, 20)
    weights[0, 5:] = 0
    wrong = targets.clone()
    wrong[0, 6:] += 100.0
    assert loss(wrong, targets, weights) == 0
    wrong[0, 2] += 1.0
    assert loss(wrong, targets, weights) > 0
