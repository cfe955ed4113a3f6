"""The audio → motion network: shapes, members, projection, stretch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from modules.audio2motion.config import Audio2MotionConfig
from modules.audio2motion.model import Audio2Motion, FeatureProjection
from modules.audio2motion.take import Take

SMALL = Audio2MotionConfig(
    block_width=12,
    bottleneck=4,
    units=("a", "b", "c"),
    hidden=8,
    recurrent_hidden=5,
    convolutional=1,
    recurrent=1,
    variational=0,
    window_noise=0.0,
)
COLUMNS = torch.tensor([4, 0, 2])


def make_model(config=SMALL, seed=0):
    torch.manual_seed(seed)
    model = Audio2Motion(config, COLUMNS, 6).eval()
    model.projection.matrix.copy_(torch.randn(model.projection.matrix.shape))
    for network in model.networks:  # last layers start at 0, where nothing could be told apart
        torch.nn.init.normal_(network.leave.weight)
    return model


def test_projection_is_blockwise():
    torch.manual_seed(0)
    projection = FeatureProjection(SMALL)
    projection.mean.copy_(torch.randn(3, 12))
    projection.matrix.copy_(torch.randn(3, 12, 4))
    features = torch.randn(2, 5, 36)
    expected = torch.cat(
        [(features[..., 12 * b : 12 * b + 12] - projection.mean[b]) @ projection.matrix[b] for b in range(3)], dim=-1
    )
    torch.testing.assert_close(projection(features), expected)


def test_output_columns_and_gain():
    model, features = make_model(), torch.randn(2, 9, 36)
    plain = model(features)
    assert plain.shape == (2, 9, 6)
    assert (plain[..., [1, 3, 5]] == 0).all() and (plain[..., [0, 2, 4]] != 0).any()
    model.gain.fill_(2.0)
    model.center.copy_(torch.tensor([0.1, 0.2, 0.3]))
    stretched = model(features)
    expected = model.center + 2.0 * (plain[..., COLUMNS] - model.center)
    torch.testing.assert_close(stretched[..., COLUMNS], expected)


def test_prediction_is_the_mean_of_its_members():
    model, features = make_model(), torch.randn(1, 7, 36)
    components = model.projection(features)
    members = model.member_deviations(components)
    assert len(members) == model.n_members == 3
    torch.testing.assert_close(members[2], model.linear(components))
    torch.testing.assert_close(model.unit_deviations(components), torch.stack(members).mean(dim=0))
    only = Take(torch.tensor([0.0, 1.0, 0.0]), 1.0, 0)
    torch.testing.assert_close(model.unit_deviations(components, only), members[1])


def test_linear_member_is_a_window_of_rows():
    model, components = make_model(), torch.randn(1, 20, 12)
    weight, bias = model.linear.filter.weight, model.linear.filter.bias
    row, taps = 10, range(-3, 4)
    expected = bias + sum(weight[:, :, tap + 3] @ components[0, row + 2 * tap] for tap in taps)
    torch.testing.assert_close(model.linear(components)[0, row], expected)


@pytest.mark.parametrize("rows", [1, 2, 200])
def test_any_length(rows):
    assert make_model()(torch.zeros(1, rows, 36)).shape == (1, rows, 6)


def test_training_noise_is_the_generators():
    model, components = make_model(), torch.randn(1, 7, 12)
    first, again, other = (model.noisy_components(components, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    torch.testing.assert_close(first, again)
    assert not torch.allclose(first, other)
    assert float((first - components).std()) == pytest.approx(SMALL.feature_noise, rel=0.4)
    coloured = make_model(dataclasses.replace(SMALL, feature_noise=0.0, window_noise=0.5))
    shift = coloured.noisy_components(components, torch.Generator().manual_seed(1)) - components
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-6, rtol=1e-5)
    assert 0.2 < float(shift.std()) < 0.9
    quiet = make_model(dataclasses.replace(SMALL, feature_noise=0.0))
    assert quiet.noisy_components(components, torch.Generator()) is components


def test_context_is_local():
    """The convolutional member sees ±0.2 s at most."""
    config = dataclasses.replace(SMALL, recurrent=0, linear_reach=-1)
    model, components = make_model(config), torch.randn(1, 60, 12)
    changed = components.clone()
    changed[0, 30] += 5.0
    difference = (model.unit_deviations(changed) - model.unit_deviations(components)).abs().amax(dim=-1)[0]
    touched = np.flatnonzero(difference.detach().numpy() > 1e-6)
    assert touched.min() >= 20 and touched.max() <= 40 and 30 in touched


def test_default_size_is_small():
    config = Audio2MotionConfig()
    model = Audio2Motion(config, torch.arange(len(config.units)), 52)
    trained = sum(p.numel() for network in model.networks for p in network.parameters())
    assert trained < 1_500_000, "3 MB as half floats"


def test_bad_configurations():
    with pytest.raises(ValueError, match="member"):
        Audio2MotionConfig(convolutional=0, recurrent=0, variational=0, linear_reach=-1)
    with pytest.raises(ValueError, match="dropout"):
        Audio2MotionConfig(dropout=1.0)
    with pytest.raises(ValueError, match="columns"):
        Audio2Motion(SMALL, torch.arange(2), 6)
