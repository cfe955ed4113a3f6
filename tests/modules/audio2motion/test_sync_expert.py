"""The sync expert's loss and what it may compare."""

from __future__ import annotations

import pytest
import torch

from modules.audio2motion.sync_expert import SyncExpert, SyncExpertConfig

CONFIG = SyncExpertConfig(hidden=8, embedding=4, layers=1, dropout=0.0, max_lag_rows=8)


@pytest.fixture
def expert():
    torch.manual_seed(0)
    return SyncExpert(3, torch.randn(2, 6), CONFIG).eval()


def test_candidates(expert):
    components, units, weights = torch.randn(2, 20, 3), torch.randn(2, 20, 2), torch.ones(2, 20)
    weights[1, 12:] = 0
    scores = expert.scores(components, units, weights)
    assert CONFIG.lags == (4, -4, 8, -8) and scores.shape == (2, 20, 6)
    assert scores[..., 0].isfinite().all()
    assert not scores[0, 16:, 1].isfinite().any() and scores[0, :16, 1].isfinite().all()
    assert not scores[1, 8:, 1].isfinite().any(), "rows without weight are no candidates"
    assert not scores[0, 12:, 5].isfinite().any() and scores[1, :, 5].isfinite().all()
    sound, motion = expert.sound(components), expert.motion(units @ expert.effect)
    expected = (sound[0, 7] * motion[0, 3]).sum() / CONFIG.temperature
    torch.testing.assert_close(scores[0, 3, 1], expected)
    torch.testing.assert_close(scores[0, 3, 5], (sound[1, 3] * motion[0, 3]).sum() / CONFIG.temperature)


def test_loss_is_finite_differentiable_and_ignores_rows_without_weight(expert):
    components, weights = torch.randn(1, 20, 3), torch.ones(1, 20)
    units = torch.randn(1, 20, 2, requires_grad=True)
    weights[0, 10:] = 0
    loss = expert.loss(components, units, weights)
    loss.backward()
    assert torch.isfinite(loss) and units.grad is not None and torch.isfinite(units.grad).all()
    assert (units.grad[0, 13:] == 0).all() and units.grad[0, :10].abs().max() > 0
    assert expert.loss(components, units, torch.zeros(1, 20)) == 0
    short = expert.loss(components[:, :3], units[:, :3], weights[:, :3])
    assert short == 0, "a window with no other moment to compare proves nothing"


def test_wrong_settings():
    with pytest.raises(ValueError, match="temperature"):
        SyncExpertConfig(temperature=0.0)
    with pytest.raises(ValueError, match="at least 1"):
        SyncExpertConfig(layers=0)
