"""The motion VAE with a flow prior, and the member made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from modules.audio2motion.config import Audio2MotionConfig
from modules.audio2motion.flow import PriorFlow
from modules.audio2motion.members import VariationalMember, trained_members
from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.take import Take
from modules.audio2motion.vae import FlowVAE, FlowVAEConfig, standard_normal
from modules.audio2motion.wavenet import GatedConvolutions, NormalisedConv1d

TINY = FlowVAEConfig(
    hidden=8, latent=4, kernel=3, encoder_layers=2, decoder_layers=2, flow_hidden=6, flow_layers=1, n_flows=2
)
CONFIG = Audio2MotionConfig(
    block_width=12,
    bottleneck=4,
    units=("a", "b", "c"),
    hidden=8,
    convolutional=0,
    recurrent=0,
    variational=2,
    linear_reach=-1,
    vae=TINY,
)


def randomised(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Nothing starts at 0, where errors would hide."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def test_weight_normalisation():
    layer = randomised(NormalisedConv1d(3, 5, 3))
    norms = layer.weight().flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, layer.weight_g[:, 0, 0].abs())
    fresh = NormalisedConv1d(3, 5, 3)
    torch.testing.assert_close(fresh.weight(), fresh.weight_v.detach())  # it starts as an ordinary convolution


def test_gated_convolutions_keep_out_of_the_mask():
    layers = randomised(GatedConvolutions(4, 3, 2, 5))
    generator = torch.Generator().manual_seed(0)
    x, condition = (torch.randn(1, n, 12, generator=generator) for n in (4, 5))
    mask = torch.ones(1, 1, 12)
    mask[..., 8:] = 0
    out = layers(x * mask, condition, mask)
    assert (out[..., 8:] == 0).all()
    changed = condition.clone()
    changed[..., 8:] += 5.0
    torch.testing.assert_close(layers(x * mask, changed, mask)[..., :8], out[..., :8])
    with pytest.raises(ValueError, match="odd kernel"):
        GatedConvolutions(4, 2, 1, 5)


def test_flow_is_invertible_and_keeps_volume():
    flow = randomised(PriorFlow(4, 6, 3, 1, 2, 5))
    codes, condition, mask = torch.randn(2, 4, 7), torch.randn(2, 5, 7), torch.ones(2, 1, 7)
    noise = flow(codes, condition, mask)
    assert (noise - codes).abs().max() > 0.1
    torch.testing.assert_close(flow.inverse(noise, condition, mask), codes, atol=1e-5, rtol=1e-5)
    jacobian = torch.autograd.functional.jacobian(
        lambda c: flow(c[None], condition[:1], mask[:1])[0].flatten(), codes[0]
    )
    assert float(torch.linalg.det(jacobian.flatten(1)).abs()) == pytest.approx(1.0, abs=1e-4)


def test_divergence_is_that_of_the_densities():
    vae = randomised(FlowVAE(3, 5, TINY))
    generator = torch.Generator().manual_seed(0)
    motion, condition = (torch.randn(2, n, 16, generator=generator) for n in (3, 5))
    mask = torch.ones(2, 1, 16)
    mask[1, :, 8:] = 0
    posterior = vae.posterior(motion, condition, mask)
    codes = posterior.sample(torch.randn(posterior.mean.shape, generator=generator))
    small = mask[..., ::4]
    log_q = Normal(posterior.mean, posterior.log_std.exp()).log_prob(codes)
    log_p = Normal(0.0, 1.0).log_prob(vae.prior_flow(codes, vae.shrink(condition), small))
    expected = ((log_q - log_p) * small).sum() / small.sum() / TINY.latent
    torch.testing.assert_close(vae.divergence(posterior, codes, condition, mask), expected)


def test_noise():
    assert (standard_normal((2, 3), None, 0.0, torch.device("cpu")) == 0).all()
    drawn = standard_normal((4000,), torch.Generator().manual_seed(0), 0.5, torch.device("cpu"))
    assert float(drawn.std()) == pytest.approx(0.5, rel=0.05)
    with pytest.raises(ValueError, match="0 or more"):
        standard_normal((1,), None, float("nan"), torch.device("cpu"))


@pytest.mark.parametrize("rows", [1, 3, 8, 30])
def test_member_takes_any_length(rows):
    member = randomised(VariationalMember(CONFIG))
    assert member(torch.randn(2, rows, 12)).shape == (2, rows, 3)
    made = member.reconstruct(
        torch.randn(2, rows, 12), torch.randn(2, rows, 3), torch.ones(2, rows), torch.Generator().manual_seed(0)
    )
    assert made.units.shape == (2, rows, 3) and torch.isfinite(made.divergence)


def test_member_sees_no_further_than_it_says():
    member = randomised(VariationalMember(CONFIG))
    components = torch.randn(1, 200, 12)
    changed = components.clone()
    changed[0, 100] += 5.0
    with torch.no_grad():
        difference = (member(changed) - member(components)).abs().amax(dim=-1)[0]
    touched = np.flatnonzero(difference.numpy() > 0)
    reach = TINY.reach_rows
    assert 100 - reach <= touched.min() < 100 < touched.max() <= 100 + reach
    assert touched.max() - touched.min() > reach / 2, "the bound is not far off"


def test_member_starts_at_rest_and_rows_without_weight_do_not_count():
    member = VariationalMember(CONFIG).eval()
    assert (member(torch.randn(1, 9, 12)) == 0).all()
    member = randomised(VariationalMember(CONFIG))
    components, targets, weights = torch.randn(1, 32, 12), torch.randn(1, 32, 3), torch.ones(1, 32)
    weights[:, 16:] = 0

    def divergence(motion, counted):
        return member.reconstruct(components, motion, counted, torch.Generator().manual_seed(0)).divergence

    first_half = divergence(targets, weights)
    assert not torch.isclose(first_half, divergence(targets, torch.ones(1, 32)))
    torch.testing.assert_close(divergence(targets, 0.25 * weights), first_half)


def make_model(seed: int = 0) -> Audio2Motion:
    model = randomised(Audio2Motion(CONFIG, torch.tensor([0, 2, 1]), 4), seed)
    model.projection.matrix.copy_(torch.randn(model.projection.matrix.shape))
    return model


def test_takes_differ_and_repeat():
    model, components = make_model(), torch.randn(1, 40, 12)
    assert len(trained_members(CONFIG)) == model.n_members == 2
    still = model.unit_deviations(components)
    torch.testing.assert_close(model.unit_deviations(components), still, rtol=0, atol=0)

    def said(temperature, seed):
        take = Take.draw(model.n_members, temperature, torch.Generator().manual_seed(seed))
        return model.unit_deviations(components, take)

    torch.testing.assert_close(said(1.0, 3), said(1.0, 3), rtol=0, atol=0)
    assert (said(1.0, 3) - said(1.0, 4)).abs().max() > 1e-2
    assert (said(0.01, 3) - still).abs().max() < 0.1 * (said(1.0, 3) - still).abs().max()
    assert Take.draw(2, 0.0, None) is None
    with pytest.raises(ValueError, match="generator"):
        Take.draw(2, 0.5, None)
    with pytest.raises(ValueError, match="0 or more"):
        Take.draw(2, -0.5, None)


def test_noise_of_a_take_does_not_depend_on_the_cuts():
    take = Take(torch.tensor([1.0]), 1.0, 5)
    whole = take.noise(0, 4, 0, 900)
    torch.testing.assert_close(take.noise(0, 4, 250, 300), whole[..., 250:550], rtol=0, atol=0)
    assert not torch.allclose(take.noise(1, 4, 0, 900), whole)
    assert float(whole.std()) == pytest.approx(1.0, rel=0.05)
