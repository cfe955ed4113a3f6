from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.postnet.lle import blend, nearest_rows, rebuild, reconstruction_weights
from tests.modules.radnerfs import golden


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_golden():
    data = {name: torch.from_numpy(values) for name, values in golden.load("lle").items() if values.ndim}
    features, database, rows = data["feats"], data["db"], data["ind"]
    fused = rebuild(features, database, rows)
    assert torch.allclose(reconstruction_weights(features, database[rows]), data["weights"], atol=1e-4)
    assert torch.allclose(fused, data["feat_fuse"], atol=1e-4)
    assert torch.allclose((fused - features).abs().mean(dim=1), data["errors"], atol=1e-4)
    mine = nearest_rows(features, database, rows.shape[1])
    assert int((mine != rows).sum()) <= 1  # one float32 near-tie at the last rank


def test_weights_solve_the_constrained_least_squares():
    features, neighbours = random(5, 12), random(5, 4, 12, seed=1)
    weights = reconstruction_weights(features, neighbours)
    for feature, rows, weight in zip(features.double(), neighbours.double(), weights, strict=True):
        # Lagrange: [2 B Bᵀ, 1; 1ᵀ, 0] [w; λ] = [2 B f; 1]
        system = torch.zeros(5, 5, dtype=torch.float64)
        system[:4, :4], system[:4, 4], system[4, :4] = 2 * rows @ rows.T, 1, 1
        expected = torch.linalg.solve(system, torch.cat([2 * rows @ feature, torch.ones(1, dtype=torch.float64)]))
        assert torch.allclose(weight.double(), expected[:4], atol=1e-5)


def test_a_training_row_is_rebuilt_exactly():
    database = random(30, 8)
    assert torch.allclose(blend(database[3:6], database, 1.0, 5), database[3:6], atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 4),
    rows=st.integers(1, 12),
    k=st.integers(1, 14),
    distinct=st.integers(1, 3),
    percent=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_duplicates_single_queries_and_few_rows_never_fail(count, rows, k, distinct, percent, seed):
    database = random(distinct, 6, seed=seed)[torch.arange(rows) % distinct]
    features = random(count, 6, seed=seed + 1)
    blended = blend(features, database, percent, k)
    assert blended.shape == features.shape
    assert torch.isfinite(blended).all()
    if count:
        weights = reconstruction_weights(features, database[nearest_rows(features, database, k)])
        assert torch.allclose(weights.sum(dim=1), torch.ones(count), atol=1e-4)
        assert float(weights.abs().max()) < 1e4  # the smallest weights that fit, not the huge ones of a singular system


def test_half_of_the_way():
    features, database = random(3, 6), random(20, 6, seed=1)
    full, half = blend(features, database, 1.0), blend(features, database, 0.5)
    assert torch.allclose(half, (full + features) / 2, atol=1e-6)
    assert blend(features, database, 0.0) is features


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"0\.\.1"):
        blend(random(1, 3), random(4, 3), 1.5)
    with pytest.raises(ValueError, match="0 rows"):
        blend(random(1, 3), random(0, 3), 0.5)
    with pytest.raises(ValueError, match="k=0"):
        blend(random(1, 3), random(4, 3), 0.5, 0)
