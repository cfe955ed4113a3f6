"""LPIPS: the formula against a loop on a stand-in for torchvision, the real thing where it can be imported."""

import math
import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from modules.commons.errors import BackendUnavailableError, CheckpointError
from modules.metrics.perceptual import ALEXNET_FILE, load_lpips

WIDTHS = (3, 64, 192, 384, 256, 256)
PLACES = (0, 3, 6, 8, 10)
KERNELS = (11, 5, 3, 3, 3)


def stand_in_alexnet(weights=None):
    """The convolutional stack of AlexNet (one tower, Krizhevsky 2014), made here."""
    assert weights is None, "weights come from the file"
    stride_and_padding = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
    layers = []
    for layer, (stride, padding) in enumerate(stride_and_padding):
        layers += [nn.Conv2d(WIDTHS[layer], WIDTHS[layer + 1], KERNELS[layer], stride, padding), nn.ReLU(inplace=True)]
        if layer in (0, 1, 4):
            layers.append(nn.MaxPool2d(3, 2))
    return SimpleNamespace(features=nn.Sequential(*layers))


@pytest.fixture
def stand_in(monkeypatch):
    """``torchvision.models`` that holds ``stand_in_alexnet``."""
    package, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    models.alexnet = stand_in_alexnet
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


def random_state():
    """Weights of AlexNet's stack that keep the signal's strength from layer to layer."""
    generator, state = torch.Generator().manual_seed(0), {}
    for layer, place in enumerate(PLACES):
        shape = (WIDTHS[layer + 1], WIDTHS[layer], KERNELS[layer], KERNELS[layer])
        scale = math.sqrt(2 / math.prod(shape[1:]))
        state[f"features.{place}.weight"] = torch.randn(shape, generator=generator) * scale
        state[f"features.{place}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    file = tmp_path_factory.mktemp("lpips") / ALEXNET_FILE
    torch.save({**random_state(), "classifier.1.weight": torch.zeros(2, 2)}, file)
    return file


def pictures(height, width, strength=30, seed=0):
    rng = np.random.default_rng(seed)
    target = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 2)
    image = np.clip(target + rng.normal(0, strength, target.shape), 0, 255).astype(np.uint8)
    return image, target


def tapped(picture, state):
    """Outputs of the five rectifiers for one picture, written out."""
    x = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].double() / 255 * 2 - 1
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, taps = (x - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1), []
    for layer, place in enumerate(PLACES):
        if layer in (1, 2):
            x = F.max_pool2d(x, 3, 2)
        weight, bias = (state[f"features.{place}.{kind}"].double() for kind in ("weight", "bias"))
        x = F.conv2d(x, weight, bias, stride=4 if layer == 0 else 1, padding=(2, 2, 1, 1, 1)[layer]).clamp(min=0)
        taps.append(x[0].numpy())
    return taps


def loop_lpips(image, target, lpips):
    total, state = 0.0, random_state()
    for first, second, weight in zip(tapped(image, state), tapped(target, state), lpips.linear, strict=True):
        weight, distances = weight.double().flatten().numpy(), []
        for r, c in np.ndindex(first.shape[1:]):
            x, y = first[:, r, c], second[:, r, c]
            difference = x / (np.linalg.norm(x) + 1e-10) - y / (np.linalg.norm(y) + 1e-10)
            distances.append((weight * difference**2).sum())
        total += np.mean(distances)
    return total


@pytest.mark.parametrize("size", [(64, 64), (71, 98)])
def test_distance_is_that_of_a_loop(stand_in, weights, size):
    lpips = load_lpips(weights)
    image, target = pictures(*size)
    assert lpips.distance(image, target) == pytest.approx(loop_lpips(image, target, lpips), rel=1e-4)
    assert lpips.distance(image, target) > 0.01


def test_five_learned_layers_come_with_torchmetrics(stand_in, weights):
    lpips = load_lpips(weights)
    assert [tuple(layer.shape) for layer in lpips.linear] == [(1, width, 1, 1) for width in WIDTHS[1:]]
    assert all((layer >= 0).all() and layer.dtype == torch.float32 for layer in lpips.linear)
    assert not any(parameter.requires_grad for parameter in lpips.features.parameters())


def test_distance_grows_with_the_difference_and_is_the_same_both_ways(stand_in, weights):
    lpips = load_lpips(weights)
    found = [lpips.distance(*pictures(80, 90, strength)) for strength in (5, 15, 45)]
    assert 0 < found[0] < found[1] < found[2]
    image, target = pictures(80, 90)
    assert lpips.distance(target, image) == pytest.approx(lpips.distance(image, target), rel=1e-5)
    assert lpips.distance(target, target.copy()) == 0


def test_mask_and_window(stand_in, weights):
    lpips = load_lpips(weights)
    image, target = pictures(100, 120)
    mask = np.zeros((100, 120), bool)
    mask[30:60, 40:90] = True
    masked = np.where(mask[..., None], image, target)
    assert lpips.distance(image, target, mask) == lpips.distance(masked, target) < lpips.distance(image, target)
    window = (20, 10, 101, 80)
    crop = (masked[10:80, 20:101], target[10:80, 20:101])
    assert lpips.distance(image, target, mask, window) == pytest.approx(lpips.distance(*crop), rel=1e-5)
    assert lpips.distance(image, target, mask, (0, 0, 120, 100)) == lpips.distance(masked, target)
    assert lpips.distance(image, target, ~mask, (40, 30, 104, 94)) > 0
    assert lpips.distance(masked, target, ~mask) == 0


def test_what_cannot_be_measured_is_nan_and_what_makes_no_sense_is_refused(stand_in, weights):
    lpips = load_lpips(weights)
    image, target = pictures(100, 120)
    assert math.isnan(lpips.distance(image[:63], target[:63]))
    assert math.isnan(lpips.distance(image, target, window=(0, 0, 63, 100)))
    assert math.isnan(lpips.distance(image, target, np.zeros((100, 120), bool)))
    assert lpips.distance(image, target, window=(0, 0, 64, 64)) > 0
    with pytest.raises(ValueError, match="one size"):
        lpips.distance(image, target[:, :100])


def test_loading_takes_no_random_numbers(stand_in, weights):
    before = torch.get_rng_state()
    load_lpips(weights)
    assert torch.equal(before, torch.get_rng_state())


# --- one sentence for what is missing or wrong


def is_one_sentence(error):
    text = str(error.value)
    return text.endswith(".") and "\n" not in text and len(text) < 500


def test_without_torchvision(monkeypatch, weights):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(BackendUnavailableError, match=r"needs torchvision.*install the torchvision release") as error:
        load_lpips(weights)
    assert is_one_sentence(error) and torch.__version__ in str(error.value)


def test_with_a_torchvision_for_another_torch(monkeypatch, weights):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", Broken("torchvision.models"))
    with pytest.raises(BackendUnavailableError, match="nms does not exist") as error:
        load_lpips(weights)
    assert is_one_sentence(error)


def test_without_the_file(stand_in, tmp_path):
    missing = tmp_path / "lpips" / ALEXNET_FILE
    with pytest.raises(
        BackendUnavailableError, match=r"is not there; fetch it with: bash scripts/download_models\.sh lpips"
    ) as error:
        load_lpips(missing)
    assert is_one_sentence(error) and str(missing) in str(error.value)


def wrong_files():
    state = random_state()
    no_bias = {name: value for name, value in state.items() if name != "features.8.bias"}
    return {
        "text": b"not found\n",
        "empty": b"",
        "number": 3.0,
        "nested": {"state_dict": state},
        "other network": {"features.0.weight": torch.zeros(64, 3, 3, 3)},
        "lacks a layer": no_bias,
        "other width": {**state, "features.10.weight": torch.zeros(256, 384, 3, 3)},
    }


@pytest.mark.parametrize("kind", list(wrong_files()))
def test_with_a_wrong_file(stand_in, tmp_path, kind):
    file, content = tmp_path / ALEXNET_FILE, wrong_files()[kind]
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(CheckpointError, match=r"scripts/download_models\.sh lpips") as error:
        load_lpips(file)
    assert is_one_sentence(error) and str(file) in str(error.value)


# --- where torchvision imports


@pytest.fixture(scope="module")
def real_weights(tmp_path_factory):
    """A whole AlexNet of random weights, in torchvision's format and at the place where torch.hub keeps it."""
    pytest.importorskip("torchvision", reason="torchvision cannot be imported beside this torch", exc_type=Exception)
    from torchvision.models import alexnet

    state = {**alexnet(weights=None).state_dict(), **random_state()}
    home = tmp_path_factory.mktemp("torch_home")
    file = home / "hub" / "checkpoints" / ALEXNET_FILE
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    return home, file


@pytest.mark.parametrize("size", [(64, 70), (200, 171)])
def test_distance_is_that_of_the_library(real_weights, monkeypatch, size):
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    home, file = real_weights
    monkeypatch.setenv("TORCH_HOME", str(home))
    image, target = pictures(*size)
    planes = [torch.from_numpy(p.transpose(2, 0, 1).copy())[None].float() / 127.5 - 1 for p in (image, target)]
    expected = float(learned_perceptual_image_patch_similarity(*planes, net_type="alex"))
    assert expected > 0.01
    assert load_lpips(file).distance(image, target) == pytest.approx(expected, abs=1e-4, rel=1e-4)


def test_stand_in_is_built_like_the_real_stack(real_weights):
    from torchvision.models import alexnet

    assert str(alexnet(weights=None).features) == str(stand_in_alexnet().features)
