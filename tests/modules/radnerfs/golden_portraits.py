"""GeneFace++'s four renderers with golden weights, and its pictures of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import PortraitConfig, RADNeRFConfig, RenderConfig, SuperResolutionConfig, TorsoConfig
from modules.radnerfs.occupancy_grid import grid_cells
from modules.radnerfs.portrait import Portrait, PortraitFrame, PortraitPicture, render_portrait
from modules.radnerfs.rays import background_coordinates, pixel_centres, pixel_rays
from tests.modules.radnerfs import golden

HEAD = RADNeRFConfig(render=RenderConfig(t_thresh=0.01))
CONFIGS = {
    "head": PortraitConfig(HEAD),
    "head_sr": PortraitConfig(
        replace(HEAD, smo_win_size=3, eye_blink_dim=2), None, SuperResolutionConfig(), adaptive_ambient=True
    ),
    "torso": PortraitConfig(HEAD, TorsoConfig()),
    "torso_sr": PortraitConfig(
        replace(HEAD, smo_win_size=3, eye_blink_dim=4),
        TorsoConfig(cue="landmarks", head_aware=True),
        SuperResolutionConfig(),
    ),
}


def golden_portrait(kind: str) -> Portrait:
    """With golden weights and occupancy."""
    golden.load_json(f"manifest_radnerf_{kind}")
    backend = get_backend("torch")
    portrait = Portrait(CONFIGS[kind], backend)
    golden.fill_portrait(portrait)
    cells = grid_cells(128, torch.device("cpu"))
    portrait.head.density_grid[0, backend.morton_encode(cells)] = golden.analytic_density()
    portrait.head.density_bitfield.copy_(backend.pack_bits(portrait.head.density_grid.view(-1), 10.0))
    if portrait.torso is not None:
        alpha = torch.zeros(128, 128)
        alpha[:, 40:] = 0.5
        alpha[64:] *= 0.5
        portrait.torso.density_grid_torso.copy_(alpha.view(-1))
    return portrait.eval()


def golden_picture(portrait: Portrait, pose6: np.ndarray) -> PortraitPicture:
    side = 128 if portrait.sr_net is None else 256
    focal = 1015.0 * (side / 2) / 112
    camera = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1.0]])
    pose = torch.from_numpy(golden.load("raymarching")["pose"][0])
    rays = pixel_rays(pixel_centres(side, side), camera, pose)
    y, x = (background_coordinates(side, side) * 0.5 + 0.5).unbind(1)
    window = golden.symmetric((portrait.config.head.smo_win_size, 1, 204), "nerf.cond", 1.0)
    landmarks = 0.5 + 0.3 * golden.symmetric((136,), "nerf.lm68")
    frame = PortraitFrame(
        window=torch.from_numpy(window),
        background=torch.stack([x, y, (x + y) / 2], dim=1),
        pose6=torch.from_numpy(pose6),
        landmarks68=torch.from_numpy(landmarks).view(68, 2),
        eye_area=0.35,
    )
    return render_portrait(portrait, rays, (side, side), frame)


def assert_golden_picture(kind: str, portrait: Portrait) -> None:
    """A portrait with the golden weights shows GeneFace++'s picture."""
    data = golden.load(f"radnerf_{kind}")
    picture = golden_picture(portrait, data["render.pose6"][0])
    step, channels_last = (2, True) if portrait.sr_net is None else (4, False)
    shown = {"rgb_map": picture.rgb, "torso_rgb_map": picture.torso_rgb}
    compared = 0
    for name, values in shown.items():
        key = f"render.{name}_sub{step}"
        if key in data and values is not None:
            coarse = values[:, ::step, ::step]
            assert_close(coarse.permute(1, 2, 0) if channels_last else coarse, data[key])
            compared += 1
    assert_close(picture.depth[::step, ::step], data[f"render.depth_map_sub{step}"])
    if picture.torso_alpha is not None and picture.torso_shift is not None:
        assert_close(picture.torso_alpha[::step, ::step, None], data[f"render.torso_alpha_map_sub{step}"])
        assert list(picture.torso_shift.shape) == data["render.deform_shape"].tolist()
        assert_close(picture.torso_shift[:256], data["render.deform_head"])
    if picture.sr_rgb is not None:
        assert_close(picture.sr_rgb[:, ::8, ::8], data["render.sr_rgb_map_sub8"])
        np.testing.assert_allclose(picture.sr_rgb.mean(dim=(1, 2)), data["render.sr_rgb_map_mean"], atol=1e-4)
    assert compared == (1 if portrait.torso is None else 2)


def assert_close(actual: Tensor, expected: np.ndarray) -> None:
    """Mean 1e-4, largest 5e-3, as the fixtures ask for."""
    assert tuple(actual.shape) == expected.shape
    difference = np.abs(actual.numpy() - expected)
    assert float(difference.mean()) < 1e-4 and float(difference.max()) < 5e-3
