"""Super-resolution: GeneFace++'s own outputs, and what its formulas say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from modules.radnerfs.config import SuperResolutionConfig
from modules.radnerfs.portrait import portrait_names
from modules.radnerfs.super_resolution import SuperResolution, demodulated, double_picture, resampling_filter
from tests.modules.radnerfs import golden

SMALL = SuperResolutionConfig(size=8, channels=(6, 4))


def golden_network(size: int = 256) -> SuperResolution:
    """With the golden weights; of another size without their noise patterns."""
    network = SuperResolution(SuperResolutionConfig(size=size))
    manifest = golden.load_json("manifest_radnerf_head_sr")
    shapes = {key: tuple(entry["shape"]) for key, entry in manifest.items() if key.startswith("sr_net.")}
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    state |= {f"sr_net.{key}": value for key, value in network.state_dict().items() if "filter" in key}
    values = {key.removeprefix("sr_net."): value for key, value in portrait_names(golden.filled(state, {})).items()}
    if size != 256:
        values = {key: value for key, value in values.items() if "noise_const" not in key}
    network.load_state_dict(values, strict=size == 256)
    return network.eval()


def golden_picture(rows: int = 256) -> torch.Tensor:
    """The input of the golden pictures, or the top left corner of it."""
    axis = torch.linspace(0, 1, 256)[:rows]
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, 0.5 + 0.5 * torch.sin(20 * x) * torch.cos(14 * y)])[None]


@torch.no_grad()
def test_a_corner_is_the_originals():
    data = golden.load("radnerf_head_sr")
    corner = golden_network(40)(golden_picture(40), "off")[0, :, :24, :24]
    np.testing.assert_allclose(corner, data["sr_out_corner24"], atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_whole_pictures_are_the_originals():
    data, network = golden.load("radnerf_head_sr"), golden_network()
    out = network(golden_picture(), "fixed")
    np.testing.assert_allclose(out[0, :, ::8, ::8], data["sr_out_sub8"], atol=1e-5)
    np.testing.assert_allclose(out.mean(dim=(2, 3)), data["sr_out_mean"], atol=1e-5)
    layers = (network.block0.conv0, network.block0.conv1, network.block1.conv0, network.block1.conv1)
    for layer, strength in zip(layers, (0.05, 0.1, 0.15, 0.2), strict=True):
        layer.noise_strength.fill_(strength)
    out = network(golden_picture(), "fixed")
    np.testing.assert_allclose(out[0, :, ::8, ::8], data["sr_noiseconst_sub8"], atol=1e-5)


@pytest.fixture
def network() -> SuperResolution:
    torch.manual_seed(0)
    network = SuperResolution(SMALL).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
    return network


@torch.no_grad()
def test_noise_is_off_fixed_or_drawn(network):
    picture = torch.rand(2, 3, 8, 8)
    kinds = {kind: network(picture, kind) for kind in ("off", "fixed")}
    assert torch.equal(network(picture), kinds["fixed"]) and torch.equal(network(picture, "fixed"), kinds["fixed"])
    assert (kinds["off"] - kinds["fixed"]).abs().mean() > 1e-3
    drawn = [network(picture, "random", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and (drawn[0] - drawn[2]).abs().mean() > 1e-3
    assert kinds["off"].shape == (2, 3, 16, 16)


def test_pictures_of_another_size_are_refused(network):
    with pytest.raises(ValueError, match=r"\[B, 3, 8, 8\], got \(1, 3, 9, 8\)"):
        network(torch.zeros(1, 3, 9, 8))


def test_it_can_be_trained(network):
    network(torch.rand(1, 3, 8, 8)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_demodulated_channels_have_unit_norm():
    weight, style = torch.randn(5, 4, 3, 3), torch.rand(4) + 0.5
    norms = demodulated(weight, style).square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(norms, torch.ones(5), atol=1e-5, rtol=0)


def test_doubling_a_picture_is_zero_insertion_and_the_filter():
    picture = torch.rand(1, 2, 5, 4)
    apart = torch.zeros(1, 2, 10, 8)
    apart[:, :, ::2, ::2] = picture
    kernel = (4 * resampling_filter()).expand(2, 1, 4, 4)
    wanted = functional.conv2d(functional.pad(apart, (2, 1, 2, 1)), kernel, groups=2)
    torch.testing.assert_close(double_picture(picture, resampling_filter()), wanted)
    flat = double_picture(torch.full((1, 1, 6, 6), 0.7), resampling_filter())
    torch.testing.assert_close(flat[..., 1:-1, 1:-1], torch.full((1, 1, 10, 10), 0.7))


def test_doubling_convolutions_match_their_definition(network):
    """Zeros between the pixels, the full convolution with the flipped kernel, then the filter."""
    layer, features = network.block1.conv0, torch.randn(1, 6, 8, 8)
    weight = demodulated(layer.weight, layer.affine())
    apart = torch.zeros(1, 6, 15, 15)
    apart[:, :, ::2, ::2] = features
    wide = functional.conv2d(functional.pad(apart, (2, 2, 2, 2)), weight.flip(2, 3))
    kernel = (4 * resampling_filter()).expand(4, 1, 4, 4)
    smooth = functional.conv2d(functional.pad(wide, (1, 1, 1, 1)), kernel, groups=4)
    wanted = functional.leaky_relu(smooth + layer.bias[:, None, None], 0.2) * 2**0.5
    torch.testing.assert_close(layer(features, "off", None), wanted, atol=1e-5, rtol=1e-5)
