"""The condition encoder in one kernel, against the field's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modules.radnerfs.backends import get_backend
from modules.radnerfs.packed_condition import PackedCondition
from modules.radnerfs.packed_field import PackedField
from modules.radnerfs.radnerf import RADNeRF
from tests.modules.radnerfs import golden
from tests.modules.radnerfs.packed_fields import CONFIGS

KINDS = {
    "attention": CONFIGS["may"],
    "one item": CONFIGS["cpu"],
    "blink": replace(CONFIGS["may"], smo_win_size=3, eye_blink_dim=2),
    "narrow": replace(CONFIGS["odd"], smo_win_size=8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_terms(kind, kernel_device):
    from modules.radnerfs.backends.triton_kernels.condition import encode_terms

    config = KINDS[kind]
    field = RADNeRF(config, get_backend("torch"))
    golden.fill(field)
    field = field.to(kernel_device)
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(3, config.smo_win_size, 1, config.cond_in_dim, generator=generator).to(kernel_device)
    codes = torch.randn(3, config.individual_embedding_dim, generator=generator).to(kernel_device)
    areas = torch.rand(3, generator=generator).to(kernel_device) if config.eye_blink_dim else None
    packed, condition = PackedField.of(field), PackedCondition.of(field)
    assert condition is not None
    with torch.no_grad():
        expected = packed.terms(field.encode_conditions(windows, areas), codes)
    terms = encode_terms(packed, condition, windows, codes, areas)
    for mine, truth in ((terms.ambient, expected.ambient), (terms.color, expected.color)):
        mine, truth = mine.float().sum(dim=0), truth.float().sum(dim=0)
        assert (mine - truth).abs().max() < 2e-4 * (1 + truth.abs().max())
    assert expected.ambient.float().abs().max() > 0.1
    alone = encode_terms(packed, condition, windows[:1], codes[0], None if areas is None else areas[:1])
    assert torch.equal(alone.color[:, 0], terms.color[:, 0])


def test_windows_of_many_time_steps_are_left_to_torch():
    assert PackedCondition.of(RADNeRF(replace(CONFIGS["cpu"], cond_win_size=2), get_backend("torch"))) is None
