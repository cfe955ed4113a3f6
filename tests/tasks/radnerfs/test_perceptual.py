"""What patches are compared by: blur costs, equals are free, a network where its weights are."""

from __future__ import annotations

import logging
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.commons.errors import BackendUnavailableError, CheckpointError, ConfigError
from modules.metrics.perceptual import VGG_FILE
from tasks.configs import LossConfig
from tasks.radnerfs.perceptual import gradient_loss, make_patch_loss, structure_loss

CPU = torch.device("cpu")
VGG_LAYERS = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


def patches(count: int = 2, size: int = 32) -> Tensor:
    noise = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise, 3, 1, 1).clamp(0, 1)


def blurred(planes: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(planes, (2, 2, 2, 2), mode="reflect"), 5, 1)


def test_structure_is_zero_for_equals_and_grows_with_blur():
    target = patches()
    assert float(structure_loss(target, target)) == pytest.approx(0, abs=1e-6)
    soft = float(structure_loss(blurred(target), target))
    softer = float(structure_loss(blurred(blurred(target)), target))
    assert 0.05 < soft < softer


def test_a_shift_in_brightness_costs_less_than_blur_of_the_same_error():
    target = patches() * 0.5 + 0.2
    soft = blurred(target)
    rms = (soft - target).square().mean().sqrt()
    assert float(structure_loss(target + rms, target)) < 0.3 * float(structure_loss(soft, target))


def test_gradient_loss_of_a_known_step():
    target, rendered = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    rendered[..., 4:] = 0.7  # one step of 0.7 in each row: 1 of 7 differences, and 1 of 3 at half resolution
    assert float(gradient_loss(rendered, target)) == pytest.approx(0.7 * (1 / 7 + 1 / 3) / 2)


def test_descent_sharpens_and_gradients_are_finite_below_autocast():
    target = patches()
    image = blurred(target).requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.02)
    first = structure_loss(image, target).item()
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = structure_loss(image.to(torch.bfloat16), target)
        assert loss.dtype == torch.float32
        loss.backward()
        assert image.grad is not None and image.grad.isfinite().all()
        optimizer.step()
    assert structure_loss(image, target).item() < 0.5 * first
    flat = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    structure_loss(flat, torch.full((1, 3, 16, 16), 0.5)).backward()
    assert flat.grad is not None and flat.grad.isfinite().all()


def stand_in_vgg(weights: None = None) -> SimpleNamespace:
    """The convolutional stack of VGG-16 (Simonyan 2014), made here."""
    assert weights is None, "weights come from the file"
    layers, width = [], 3
    for layer in VGG_LAYERS:
        if isinstance(layer, int):
            layers += [nn.Conv2d(width, layer, 3, padding=1), nn.ReLU(inplace=True)]
            width = layer
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return SimpleNamespace(features=nn.Sequential(*layers))


@pytest.fixture
def stand_in(monkeypatch):
    package, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    models.vgg16 = stand_in_vgg  # type: ignore[attr-defined]
    package.models = models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file in the public format, with random numbers that keep the signal's strength."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, value in stand_in_vgg().features.state_dict().items():
        scale = math.sqrt(2 / math.prod(value.shape[1:])) if value.ndim > 1 else 0.1
        state[f"features.{name}"] = torch.randn(value.shape, generator=generator) * scale
    file = tmp_path_factory.mktemp("lpips") / VGG_FILE
    torch.save({**state, "classifier.0.weight": torch.zeros(2, 2)}, file)
    return file


def test_a_network_is_used_where_its_weights_are(stand_in, weights, caplog):
    with caplog.at_level(logging.INFO):
        loss = make_patch_loss(LossConfig(), CPU, weights)
    assert "LPIPS" in caplog.text
    target = patches()
    image = blurred(target).requires_grad_()
    found = loss(image, target)
    found.backward()
    assert image.grad is not None and image.grad.isfinite().all() and float(image.grad.abs().sum()) > 0
    with torch.no_grad():
        softer = loss(blurred(blurred(target)), target)
    assert float(loss(target, target)) == 0 < found.item() < float(softer)
    with torch.no_grad():
        step = image - 0.5 * image.grad / image.grad.abs().max()
    assert float(loss(step.clamp(0, 1), target)) != found.item()


def test_without_weights_edges_and_structure_are_compared(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert make_patch_loss(LossConfig(), CPU, tmp_path / VGG_FILE) is structure_loss
    assert "edges and structure" in caplog.text


def test_weights_without_torchvision_or_of_something_else_are_said_so(monkeypatch, stand_in, weights, tmp_path):
    wrong = tmp_path / VGG_FILE
    torch.save({"features.0.weight": torch.zeros(2)}, wrong)
    with pytest.raises(CheckpointError, match="VGG-16"):
        make_patch_loss(LossConfig(), CPU, wrong)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(BackendUnavailableError, match="torchvision"):
        make_patch_loss(LossConfig(), CPU, weights)


def test_patches_below_the_window_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="11 px"):
        make_patch_loss(LossConfig(patch_size=8), CPU, tmp_path / VGG_FILE)
