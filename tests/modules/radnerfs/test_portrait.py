"""The four renderers as one: GeneFace++'s names and pictures, and how the parts go together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from modules.radnerfs.portrait import (
    Portrait,
    PortraitFrame,
    PortraitOptions,
    official_names,
    portrait_names,
    render_portrait,
)
from modules.radnerfs.rays import RayBundle, pixel_centres, pixel_rays
from tests.modules.radnerfs import golden, golden_portraits
from tests.support.official_portraits import SIDE, small_portrait

KINDS = ("head", "head_sr", "torso", "torso_sr")


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_shapes_are_the_official_ones(kind):
    manifest = golden.load_json(f"manifest_radnerf_{kind}")
    portrait = Portrait(golden_portraits.CONFIGS[kind])
    assert portrait.kind == kind
    mine = official_names(portrait.state_dict())
    assert {k: {"shape": list(v.shape), "dtype": str(v.dtype)[6:]} for k, v in mine.items()} == manifest
    assert portrait_names(mine).keys() == portrait.state_dict().keys()


def test_a_torso_before_a_background_is_the_originals():
    golden_portraits.assert_golden_picture("torso", golden_portraits.golden_portrait("torso"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["head_sr", "torso_sr"])
def test_pictures_of_full_size_are_the_originals(kind):
    golden_portraits.assert_golden_picture(kind, golden_portraits.golden_portrait(kind))


def rays(side: int = SIDE) -> RayBundle:
    """Of a camera that looks at the head's cube."""
    camera = torch.tensor([[2.0 * side, 0, side / 2], [0, 2.0 * side, side / 2], [0, 0, 1]])
    pose = torch.eye(4)
    pose[2, 3] = -4.0
    return pixel_rays(pixel_centres(side, side), camera, pose)


def frame(portrait: Portrait, **changes) -> PortraitFrame:
    window = torch.zeros(portrait.config.head.smo_win_size, 1, 204)
    made = PortraitFrame(window, torch.tensor([0.1, 0.5, 0.9]), torch.zeros(6), torch.full((68, 2), 0.5), 0.3)
    return replace(made, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_lie_one_over_the_other(kind):
    portrait = small_portrait(kind)
    picture = render_portrait(portrait, rays(), (SIDE, SIDE), frame(portrait))
    behind = torch.tensor([0.1, 0.5, 0.9])[:, None, None].expand(3, SIDE, SIDE)
    if picture.torso_alpha is not None:
        assert float(picture.torso_alpha.min()) > 0 and float(picture.torso_alpha.max()) < 1
        behind = picture.torso_rgb
    alone = render_portrait(portrait, rays(), (SIDE, SIDE), frame(portrait, background=torch.zeros(3)))
    head = alone.rgb - (1 - alone.opacity) * (0 if alone.torso_rgb is None else alone.torso_rgb)
    torch.testing.assert_close(picture.rgb, head + (1 - picture.opacity) * behind, atol=1e-5, rtol=0)
    assert float(picture.opacity.std()) > 1e-3
    doubled = kind.endswith("_sr")
    assert picture.finest.shape == (3, 2 * SIDE, 2 * SIDE) if doubled else picture.finest is picture.rgb
    assert float(picture.finest.min()) >= 0 and float(picture.finest.max()) <= 1


def test_pixels_without_torso_show_the_background():
    portrait = small_portrait("torso")
    portrait.torso.density_grid_torso.view(8, 8)[:, :4] = 0  # the upper rows
    picture = render_portrait(portrait, rays(), (SIDE, SIDE), frame(portrait))
    assert float(picture.torso_alpha[:6].max()) == 0 and float(picture.torso_alpha[10:].min()) > 0
    torch.testing.assert_close(picture.torso_rgb[:, 0, 0], torch.tensor([0.1, 0.5, 0.9]))
    assert len(picture.torso_shift) == int((picture.torso_alpha > 0).sum())
    high = render_portrait(portrait, rays(), (SIDE, SIDE), frame(portrait), PortraitOptions(torso_threshold=0.9))
    assert float(high.torso_alpha.max()) == 0


def test_a_torso_that_sees_the_head_depends_on_it():
    portrait = small_portrait("torso_sr")
    first = render_portrait(portrait, rays(), (SIDE, SIDE), frame(portrait))
    with torch.no_grad():
        portrait.head.color_net.net[-1].weight.neg_()
    second = render_portrait(portrait, rays(), (SIDE, SIDE), frame(portrait))
    assert (first.torso_alpha - second.torso_alpha).abs().max() > 1e-5


def test_noise_of_super_resolution_can_be_chosen():
    portrait = small_portrait("head_sr")
    with torch.no_grad():
        portrait.sr_net.block1.conv1.noise_strength.fill_(1.0)
    pictures = {
        noise: render_portrait(
            portrait, rays(), (SIDE, SIDE), frame(portrait), PortraitOptions(noise=noise), torch.Generator()
        ).sr_rgb
        for noise in (None, "off", "fixed", "random")
    }
    assert torch.equal(pictures[None], pictures["fixed"])
    assert not any(torch.equal(pictures["fixed"], pictures[other]) for other in ("off", "random"))


def test_rays_and_size_must_agree():
    portrait = small_portrait("head")
    with pytest.raises(ValueError, match="as many rays, got 256"):
        render_portrait(portrait, rays(), (SIDE, 15), frame(portrait))
    doubling = small_portrait("head_sr")
    with pytest.raises(ValueError, match="super-resolution takes pictures"):
        render_portrait(doubling, rays(8), (8, 8), frame(doubling))


def test_a_portrait_marches_through_occupancy():
    config = golden_portraits.CONFIGS["head"]
    with pytest.raises(ValueError, match="sampler: occupancy"):
        replace(config, head=replace(config.head, render=replace(config.head.render, sampler="surface")))
    assert np.isclose(config.camera_scale, 4.0)
