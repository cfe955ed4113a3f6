"""Losses of portraits: GeneFace++'s own values, and where they lead."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modules.structures.landmarks import LM68
from tasks.radnerfs.portrait_data import face_mask, hull_mask
from tasks.radnerfs.portrait_losses import adapted_weight, ambient_loss, opacity_entropy
from tests.modules.radnerfs import golden
from tests.modules.radnerfs.golden import symmetric


def test_entropy_and_ambient_loss_are_the_originals():
    data = golden.load("radnerf_head_train")
    opacity, ambient = (torch.from_numpy(data[key]) for key in ("weights_sum", "ambient_sum"))
    on_face = torch.from_numpy(data["face_mask"])[0]
    assert float(opacity_entropy(opacity)) == pytest.approx(float(data["entropy"]), rel=1e-4)
    assert float(ambient_loss(ambient, on_face)) == pytest.approx(float(data["ambient_loss"]), rel=1e-4)
    mse = float(((data["pred"] - data["gt"]) ** 2).mean())
    loss = mse + 1e-4 * float(opacity_entropy(opacity)) + 0.1 * float(ambient_loss(ambient, on_face))
    assert loss == pytest.approx(float(data["loss"]), rel=1e-4)


def test_the_face_mask_is_the_originals():
    data = golden.load("face3d_pose")
    points = data["mask_lm468_circle"][list(LM68)] * 64
    np.testing.assert_array_equal(hull_mask(points.astype(np.int64), 64), data["mask64"] > 0)
    np.testing.assert_array_equal(face_mask(points, 64), data["mask64_dil3"][0] > 0)


def test_hulls_of_simple_shapes():
    square = hull_mask(np.array([[2, 3], [6, 3], [6, 5], [2, 5], [4, 4]]), 9)
    assert square.sum() == 15 and square[3:6, 2:7].all()
    mirrored = hull_mask(np.array([[2, 5], [6, 5], [6, 3], [2, 3]]), 9)
    assert np.array_equal(square, mirrored)
    beyond = hull_mask(np.array([[-5, -5], [20, -5], [20, 20], [-5, 20]]), 9)
    assert beyond.all()
    assert not hull_mask(np.array([[-9, -9], [-5, -9], [-5, -5]]), 9).any()


def test_entropy_is_least_for_empty_and_full_rays():
    values = [float(opacity_entropy(torch.tensor([v]))) for v in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values[2] == pytest.approx(1.0) and values[0] < 1e-3 > values[4]
    assert values[1] == pytest.approx(values[3]) and values[1] < 1
    assert math.isfinite(values[0])


def test_ambient_on_the_face_is_free():
    ambient = torch.from_numpy(symmetric((6,), "ambient")).requires_grad_()
    on_face = torch.tensor([True, True, True, False, False, True])
    loss = ambient_loss(ambient, on_face)
    assert float(loss.detach()) == pytest.approx(float(ambient[3:5].detach().abs().sum()) / 3)
    loss.backward()
    assert (ambient.grad != 0).tolist() == (~on_face).tolist()
    assert float(ambient_loss(ambient.detach(), torch.ones(6, dtype=torch.bool))) == 0


def test_the_weight_follows_the_loss():
    weight = torch.ones(1)
    assert float(adapted_weight(weight, torch.tensor(1e-6), 1e-8, 0.01)) == pytest.approx(1.02, abs=1e-5)
    assert float(adapted_weight(weight, torch.tensor(1e-9), 1e-8, 0.01)) == pytest.approx(0.99, abs=1e-5)
    assert float(adapted_weight(weight, torch.tensor(0.0), 1e-8, 1.0)) == 0
    assert float(adapted_weight(weight * 999.9, torch.tensor(1.0), 1e-8, 1.0)) == 1000
