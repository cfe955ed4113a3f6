"""Losses measured on the lips."""

from __future__ import annotations

import pytest
import torch

from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import MOUTH_UNITS, FaceModel
from modules.structures.landmarks import INNER_LIP, LIP_GAP_PAIRS
from tasks.audio2motion.configs import A2MLossConfig
from tasks.audio2motion.losses import (
    LipEffect,
    LipLoss,
    MotionLoss,
    closure_loss,
    lip_effect,
    opening_effect,
    variance_loss,
)
from tasks.audio2motion.sampling import Batch
from tests.support.small_bfm import small_bfm


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
    loss = LipLoss(
        effect, targets.flatten(0, 1), A2MLossConfig(velocity_weight=0.0, coefficient_weight=0.0, drift_weight=1.0)
    )
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


def test_variance_loss_is_the_spread_that_is_missing():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(3, 40, 2, generator=generator)
    weights, measures = torch.ones(3, 40), torch.eye(2)
    assert variance_loss(targets, targets, weights, measures) == pytest.approx(0.0, abs=1e-6)
    assert variance_loss(0.6 * targets + 0.3, targets, weights, measures) == pytest.approx(0.16, abs=1e-3)
    wild = torch.cat([targets[:, :20], 50.0 * targets[:, 20:]], dim=1)
    weights[:, 20:] = 0
    assert variance_loss(wild, targets, weights, measures) == pytest.approx(0.0, abs=1e-6)


def test_variance_loss_leaves_out_windows_that_hardly_move():
    targets = torch.randn(3, 40, 1, generator=torch.Generator().manual_seed(0))
    targets[2] *= 1e-3
    predicted = targets.clone()
    predicted[2] = torch.randn(40, 1, generator=torch.Generator().manual_seed(1))
    assert variance_loss(predicted, targets, torch.ones(3, 40), torch.eye(1)) == pytest.approx(0.0, abs=1e-6)
    still = torch.zeros(3, 40, 1, requires_grad=True)
    variance_loss(still, targets, torch.ones(3, 40), torch.eye(1)).backward()
    assert still.grad is not None and torch.isfinite(still.grad).all()


def test_closure_loss_wants_shut_lips_shut_and_open_ones_open():
    targets = torch.tensor([[0.0, 0.0, 0.1, 0.1, 0.1, 0.1]])
    border, weights = torch.tensor([0.05]), torch.ones(1, 6)

    def loss(opening, closed_below=border):
        return float(closure_loss(torch.tensor([opening]), targets, closed_below, weights, 0.01))

    right = loss([0.0, 0.0, 0.1, 0.1, 0.1, 0.1])
    assert right < 0.01
    assert loss([0.1, 0.1, 0.1, 0.1, 0.1, 0.1]) == pytest.approx(loss([0.0] * 6), rel=1e-4), "both kinds weigh alike"
    assert loss([0.05] * 6) == pytest.approx(0.6931, abs=1e-3)
    assert loss([0.1] * 6, torch.tensor([-torch.inf])) == 0.0


def test_motion_loss_names_its_terms(face_model):
    columns = torch.tensor([face_model.unit(name) for name in ("jawOpen", "mouthClose", "mouthPucker")])
    effect = lip_effect(face_model, columns)
    torch.testing.assert_close(effect.opening, opening_effect(face_model)[columns])
    targets = 0.2 * torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.zeros(2, 30, 1), targets, torch.ones(2, 30), torch.tensor([0.0, -torch.inf]))
    plain = MotionLoss(effect, targets.flatten(0, 1), A2MLossConfig())(0.5 * targets, batch)
    assert list(plain) == ["lips"]
    config = A2MLossConfig(variance_weight=2.0, closure_weight=0.5)
    terms = MotionLoss(effect, targets.flatten(0, 1), config)(0.5 * targets, batch)
    assert list(terms) == ["lips", "variance", "closure"]
    assert terms["lips"] == plain["lips"] and terms["variance"] == pytest.approx(0.5, abs=0.01)
    made, true = 0.5 * targets @ effect.opening, targets @ effect.opening
    closure = closure_loss(made, true, batch.closed_below, batch.weights, config.closure_softness_dm)
    torch.testing.assert_close(terms["closure"], 0.5 * closure)


def test_bfm_moves_lips_too():
    model = small_bfm()
    effect = lip_effect(model, torch.arange(4))
    rows = model.landmark_rows().expression
    torch.testing.assert_close(effect.width[2], rows[61, :, 2] - rows[291, :, 2])
    assert opening_effect(model).shape == (rows.shape[2],)


def test_bad_weights():
    with pytest.raises(ValueError, match="negative"):
        A2MLossConfig(sync_weight=-1.0)
    with pytest.raises(ValueError, match="softness"):
        A2MLossConfig(closure_softness_dm=0.0)


def test_drift_of_a_window_counts_by_its_weight():
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(2, 30, 3, generator=generator)
    effect = LipEffect(*(torch.randn(3, n, generator=generator) for n in (9, 6, 3)))
    shifted, weights = targets + torch.tensor([0.3, -0.2, 0.1]), torch.ones(2, 30)

    def loss(share):
        return float(LipLoss(effect, targets[0], A2MLossConfig(drift_weight=share))(shifted, targets, weights))

    assert loss(0.0) == pytest.approx(0.0, abs=1e-6)
    assert loss(0.5) == pytest.approx(0.25 * loss(1.0), rel=1e-4)
