"""Packing for the fused kernels, against the field itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modules.commons.errors import BackendUnavailableError
from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import GridConfig
from modules.radnerfs.packed_field import PackedField, evaluate_reference
from modules.radnerfs.radnerf import RADNeRF
from tests.modules.radnerfs.packed_fields import CONFIGS, golden_field, samples


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_field_is_the_field(name):
    field = golden_field(name)
    positions, directions, frame, features, codes = samples(field, 1500, 3)
    packed = PackedField.of(field)
    inputs = positions, directions, features[frame.long()], codes[frame.long()]
    with torch.no_grad():
        truth = field(*inputs)
        with torch.autocast("cpu", dtype=torch.float16):
            half = field(*inputs)
        sigma, rgb = evaluate_reference(packed, positions, directions, frame, packed.terms(features, codes))
    # golden weights are rough: the measure is what the original's half precision loses on the same field
    assert (rgb - truth.rgb).abs().mean() < 0.9 * (half.rgb - truth.rgb).abs().mean()
    known = (truth.sigma > 1e-6) & (truth.sigma < 1e6)
    lost, lost_by_half = ((torch.log(s) - torch.log(truth.sigma))[known].abs() for s in (sigma, half.sigma))
    assert lost.mean() < 1.2 * lost_by_half.mean()
    assert truth.rgb.std() > 0.05


def test_one_code_for_all_frames():
    field = golden_field("may")
    _, _, _, features, codes = samples(field, 1, 3)
    packed = PackedField.of(field)
    one, three = packed.terms(features, codes[0]), packed.terms(features, codes[:1].expand(3, -1))
    assert torch.equal(one.color, three.color)
    assert one.n_frames == 3
    exact = features @ field.ambient_net.net[0].weight[:, 32:].T
    assert (one.ambient.float().sum(dim=0) - exact).abs().max() < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        dict(num_layers_color=4),
        dict(hidden_dim_sigma=96),
        dict(ambient_grid=GridConfig(features_per_level=4)),
        dict(position_grid=GridConfig(n_levels=17)),
    ],
)
def test_sizes_without_kernels_are_named(changes):
    field = RADNeRF(replace(CONFIGS["odd"], **changes), get_backend("torch"))
    with pytest.raises(BackendUnavailableError, match="fused field"):
        PackedField.of(field)
