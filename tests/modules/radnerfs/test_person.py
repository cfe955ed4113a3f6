"""PersonField: same colours whole or in pieces, motion kept near the training's, and what was seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.face_model.mesh_renderer import Fragments
from modules.postnet.config import PostNetConfig
from modules.postnet.postnet import LandmarkPostNet
from modules.radnerfs.condition import condition_from_expression
from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from modules.radnerfs.person import BANK_MARGIN, PersonField, render_hits, single_code
from modules.radnerfs.surface import SurfaceHits
from modules.radnerfs.trust import GOOD_SHARE, UNSEEN_SHARE
from tests.support.synthetic_head import SyntheticSpeaker

GRID = GridConfig(n_levels=3, desired_resolution=64, log2_table_size=10, grid_type="hash")


def small_config(n_samples=1) -> RADNeRFConfig:
    return RADNeRFConfig(
        position_grid=GRID, ambient_grid=GRID, ambient_dim=2, hidden_dim_ambient=16, hidden_dim_sigma=16,
        hidden_dim_color=16, geo_feat_dim=8, cond_out_dim=8, sh_degree=2, individual_embedding_num=3,
        individual_embedding_dim=2, render=RenderConfig(sampler="surface", n_samples=n_samples),
    )  # fmt: skip


@pytest.fixture(params=[1, 3])
def person(request):
    torch.manual_seed(0)
    field = PersonField(small_config(request.param), 80, 4)
    with torch.no_grad():
        field.radnerf.position_embedder.embeddings.uniform_(-1, 1)
        field.box_scale.fill_(1.2)
        field.motion_bank.copy_(torch.randn(4, 204))
    return field


def window(height=9, width=7):
    rng = np.random.default_rng(0)
    shape = (height, width)
    direction = np.broadcast_to(np.array([0, 0, -1], np.float32), (*shape, 3))
    fragments = Fragments(
        np.zeros(shape, np.int32), np.zeros((*shape, 3), np.float32), np.ones(shape, np.float32), (0, 0, width, height)
    )
    canonical = rng.uniform(-0.5, 0.5, (*shape, 3)).astype(np.float32)
    return SurfaceHits(
        (0, 0, width, height), rng.random(shape) > 0.2, canonical, direction, np.ones(shape, np.float32), fragments
    )


def test_rendering_in_pieces_changes_nothing(person):
    hits = window()
    condition = person.encode(torch.randn(1, 5, 204))[0]
    whole = render_hits(person, hits, np.ones_like(hits.mask), condition)
    pieces = render_hits(person, hits, np.ones_like(hits.mask), condition, chunk=5)
    np.testing.assert_allclose(pieces, whole, atol=1e-6)
    assert (whole[~hits.mask] == 0).all() and whole[hits.mask].std() > 0
    assert whole.min() >= 0 and whole.max() <= 1


def test_pixels_not_wanted_stay_black(person):
    hits = window()
    image = render_hits(person, hits, np.zeros_like(hits.mask), person.encode(torch.zeros(1, 5, 204))[0])
    assert not image.any()


def test_one_condition_for_all_or_one_per_ray(person):
    position, direction = torch.rand(6, 3) - 0.5, torch.tensor([[0.0, 0, -1]]).expand(6, 3)
    condition = person.encode(torch.randn(1, 5, 204))
    single = person.shade(position, direction, condition[0]).rgb
    each = person.shade(position, direction, condition.expand(6, -1)).rgb
    torch.testing.assert_close(single, each)


def test_colours_are_differentiable_in_everything_that_learns(person):
    position, direction = torch.rand(64, 3) - 0.5, torch.tensor([[0.0, 0, -1]]).expand(64, 3)
    condition = person.encode(torch.randn(64, 5, 204))
    code = person.radnerf.individual_embeddings[torch.randint(3, (64,))]
    person.shade(position, direction, condition, code, torch.Generator().manual_seed(0)).rgb.square().mean().backward()
    missing = [name for name, p in person.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert missing == []


def test_motion_stays_near_what_the_person_showed(person):
    speaker = SyntheticSpeaker(1)
    wild = np.full((3, speaker.model.n_expression), 5.0, np.float32)
    windows = person.condition_windows(speaker.model, wild)
    low, high = person.motion_bank.amin(dim=0) - BANK_MARGIN, person.motion_bank.amax(dim=0) + BANK_MARGIN
    assert windows.shape == (3, 5, 204)
    assert (windows[1, 1:4] >= low - 1e-5).all() and (windows[1, 1:4] <= high + 1e-5).all()
    assert not windows[0, :2].any() and not windows[2, 3:].any()


def test_motion_the_person_showed_passes_unchanged(person):
    """No clamp to percentiles: the rarest of the training motion comes through as it is."""
    speaker = SyntheticSpeaker(1)
    raw = condition_from_expression(speaker.model, person.identity.numpy(), speaker.coeffs(4).expression)
    scored = torch.from_numpy(person.statistics.normalize(raw))
    with torch.no_grad():
        person.motion_bank[:2] = torch.stack([scored.amin(dim=0), scored.amax(dim=0)])
    windows = person.condition_windows(speaker.model, speaker.coeffs(4).expression)
    torch.testing.assert_close(windows[:, 2], scored)


def test_a_post_net_refines_the_raw_landmarks(person):
    speaker = SyntheticSpeaker(1)
    motion = speaker.coeffs(4).expression
    with torch.no_grad():
        person.motion_bank[0], person.motion_bank[1] = -1e3, 1e3  # clamps nothing
    net = LandmarkPostNet(PostNetConfig()).eval()
    plain = person.condition_windows(speaker.model, motion)
    assert torch.equal(person.condition_windows(speaker.model, motion, postnet=net), plain)
    with torch.no_grad():
        net.leave.bias.fill_(2.0)
    moved = person.condition_windows(speaker.model, motion, postnet=net)
    expected = plain[:, 2] + 2.0 / person.condition_std
    torch.testing.assert_close(moved[:, 2], expected, atol=1e-4, rtol=1e-4)


def test_full_lle_gives_affine_combinations_of_the_bank(person):
    speaker = SyntheticSpeaker(1)
    motion = speaker.coeffs(4).expression
    rebuilt = person.condition_windows(speaker.model, motion, lle_percent=1.0)[:, 2]
    bank = torch.cat([person.motion_bank, torch.ones(4, 1)], dim=1).double()
    low, high = person.motion_bank.amin(0), person.motion_bank.amax(0)
    free = ((rebuilt >= low) & (rebuilt <= high)).all(dim=0)  # what lies beyond is drawn in
    assert free.sum() > 50
    wanted = torch.cat([rebuilt[:, free], torch.ones(4, 1)], dim=1).double()
    basis = bank[:, torch.cat([free, torch.tensor([True])])]
    weights = torch.linalg.lstsq(basis.T, wanted.T).solution
    torch.testing.assert_close(weights.T @ basis, wanted, atol=1e-3, rtol=1e-3)


def test_views_much_worse_than_the_best_are_left_alone(person):
    with torch.no_grad():
        person.trust.fill_(255)
        person.best_view.fill_(204)  # 0.8
    quality = np.array([1.0, 0.8 * GOOD_SHARE, 0.8 * (GOOD_SHARE + UNSEEN_SHARE) / 2, 0.8 * UNSEEN_SHARE, 0.0])
    known = person.known(np.zeros((5, 3), np.float32), quality.astype(np.float32))
    np.testing.assert_allclose(known, [1, 1, 0.5, 0, 0], atol=1e-3)


def test_single_code_changes_nothing_else():
    config = small_config()
    assert single_code(config).individual_embedding_num == 1
    assert single_code(config).position_grid == config.position_grid


def test_conditions_are_the_persons_own_whoevers_head_is_rendered_onto():
    model = SyntheticSpeaker(0).model
    generator = torch.Generator().manual_seed(1)
    own = 0.2 * torch.randn(model.n_identity, model.n_expression, generator=generator)
    field = PersonField(small_config(), model.n_identity, 4, own)
    plain = PersonField(small_config(), model.n_identity, 4)
    for person in (field, plain):
        person.motion_bank[0], person.motion_bank[1] = -1e3, 1e3  # clamps nothing
    expression = torch.rand(6, model.n_expression, generator=generator).numpy()
    onto_self = field.condition_windows(model.corrected(own), expression)
    torch.testing.assert_close(field.condition_windows(model, expression), onto_self, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        field.condition_windows(model.corrected(3 * own), expression), onto_self, atol=1e-4, rtol=0
    )
    generic = plain.condition_windows(model, expression)
    torch.testing.assert_close(plain.condition_windows(model.corrected(own), expression), generic, atol=1e-4, rtol=0)
    assert (generic - onto_self).abs().max() > 0.1
    own.zero_()
    assert field.correction is not None and field.correction.abs().max() > 0, "a person keeps its own copy"
