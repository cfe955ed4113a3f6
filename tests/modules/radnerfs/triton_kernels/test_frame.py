"""Fused frames against ``render_occupancy`` in plain torch: same rays, same samples, half precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modules.commons.errors import BackendUnavailableError
from modules.radnerfs.frame_renderer import FrameBatch, FrameRenderer
from modules.radnerfs.occupancy_grid import grid_cells
from modules.radnerfs.radnerf import RADNeRF
from modules.radnerfs.rays import RayBundle, background_coordinates, pixel_centres, pixel_rays
from modules.radnerfs.renderer import render_occupancy
from tests.modules.radnerfs import golden
from tests.modules.radnerfs.packed_fields import golden_field, occupy, smooth_field

UNFINISHED = 1


def views(count: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Camera matrices and poses ``[F]`` around the origin, looking at it."""
    generator = torch.Generator().manual_seed(3)
    camera = torch.tensor([[2.4 * size, 3.0, size / 2], [0, 2.2 * size, size / 2 - 1], [0, 0, 1]])
    poses = torch.eye(4).repeat(count, 1, 1)
    for index in range(count):
        backward = torch.tensor([0.4 * index, -1.0, 0.2 * index]) + 0.1 * torch.rand(3, generator=generator)
        forward = -torch.nn.functional.normalize(backward, dim=0)
        right = torch.nn.functional.normalize(torch.linalg.cross(forward, torch.tensor([0.0, 0, 1])), dim=0)
        down = torch.linalg.cross(forward, right)
        poses[index, :3, :3] = torch.stack([right, down, forward], dim=1)
        poses[index, :3, 3] = -3.3 * forward
    return camera.repeat(count, 1, 1), poses


def conditions(field: RADNeRF, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    config, device = field.config, field.individual_embeddings.device
    windows = torch.randn(count, config.smo_win_size, config.cond_win_size, config.cond_in_dim, generator=generator)
    return windows.to(device), field.individual_embeddings[1 : 1 + count].detach()


def reference(field: RADNeRF, batch: FrameBatch, index: int, height: int, width: int, t_thresh: float):
    """Frame ``index`` of a batch of cameras in plain torch."""
    device = batch.windows.device
    assert batch.image_from_camera is not None
    assert batch.world_from_camera is not None
    rays = pixel_rays(
        pixel_centres(height, width, device), batch.image_from_camera[index].to(device), batch.world_from_camera[index]
    )
    background = batch.background
    background = background[index] if background.ndim == 4 else background
    flat = background.expand(height, width, 3).reshape(-1, 3)
    chosen = slice(None) if batch.mask is None else batch.mask[index].reshape(-1)
    with torch.no_grad():
        feature = field.encode_condition(batch.windows[index])
        out = render_occupancy(
            field, RayBundle(rays.origins[chosen], rays.directions[chosen]), feature, batch.codes[index],
            flat[chosen], training=False, t_thresh=t_thresh,
        )  # fmt: skip
    rgb, opacity, depth = flat.clone(), torch.zeros_like(flat[:, 0]), torch.zeros_like(flat[:, 0])
    rgb[chosen], opacity[chosen], depth[chosen] = out.rgb, out.opacity, out.depth
    return rgb.view(height, width, 3), opacity.view(height, width), depth.view(height, width)


FAR_OFF = 2e-2


def assert_same_frames(field, batch, rendered, t_thresh, most=5e-2) -> float:
    """Every frame as near to float32 as plain torch in half precision is, times 1.5; returns the mean opacity."""
    total = 0.0
    for index in range(len(batch.windows)):
        height, width = rendered.depth.shape[1:]
        exact = reference(field, batch, index, height, width, t_thresh)
        with torch.autocast(batch.windows.device.type, torch.float16):
            half = reference(field, batch, index, height, width, t_thresh)
        # depth is divided by the way through the box, which is short at its corners
        for mine, coarse, truth, largest in zip(
            (rendered.rgb, rendered.opacity, rendered.depth), half, exact, (most, most, 2 * most), strict=True
        ):
            error, usual = (mine[index] - truth).abs(), (coarse - truth).abs()
            assert error.mean() < max(1e-3, 1.5 * float(usual.mean()))
            assert (error > FAR_OFF).sum() <= 2 + max(1e-3 * error.numel(), 1.5 * float((usual > FAR_OFF).sum()))
            assert error.max() < max(largest, 1.5 * float(usual.max()))
        total += float(exact[1].mean())
    return total / len(batch.windows)


def batch_of(field, count, height, width, **changes) -> FrameBatch:
    device = field.individual_embeddings.device
    cameras, poses = (part.to(device) for part in views(count, width))
    windows, codes = conditions(field, count)
    generator = torch.Generator().manual_seed(1)
    background = torch.rand(height, width, 3, generator=generator).to(device)
    return FrameBatch(**(dict(windows=windows, codes=codes, background=background, image_from_camera=cameras,
                              world_from_camera=poses) | changes))  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "thresh", "bound", "radius", "max_steps"),
    [
        (30.0, 0.01, 1.0, 0.3, 12),
        (2.0, 0.01, 1.0, 0.45, 3),
        (30.0, 1e-4, 2.0, 0.9, 12),
        (8.0, 0.05, 1.0, float("inf"), 12),
    ],
    ids=["opaque", "long rays", "two cascades", "full grid"],
)
def test_frames_are_the_references(scale, thresh, bound, radius, max_steps, kernel_device, on_gpu):
    field = occupy(smooth_field(kernel_device, bound, density_scale=scale, max_steps=max_steps), radius)
    height, width = (150, 203) if on_gpu else (10, 12)
    batch = batch_of(field, 3 if on_gpu else 1, height, width)
    rendered = FrameRenderer(field, height, width, t_thresh=thresh).render(batch)
    assert assert_same_frames(field, batch, rendered, thresh) > 0.02
    assert rendered.n_samples() > 0
    assert int(rendered.counters[UNFINISHED]) > 0 or max_steps > 3  # 3 steps are too few: rays had to be resumed


def test_masked_frames_with_their_own_backgrounds(kernel_device, on_gpu):
    field = occupy(smooth_field(kernel_device, density_scale=2.0), 0.4)
    size = 90 if on_gpu else 10
    generator = torch.Generator().manual_seed(2)
    mask = (torch.rand(2, size, size, generator=generator) < 0.5).to(kernel_device)
    background = torch.rand(2, size, size, 3, generator=generator).to(kernel_device)
    batch = batch_of(field, 2, size, size, mask=mask, background=background)
    rendered = FrameRenderer(field, size, size, t_thresh=0.01).render(batch)
    assert_same_frames(field, batch, rendered, 0.01)
    assert torch.equal(rendered.rgb[~mask], background[~mask])


def test_empty_grid_shows_the_background_and_samples_nothing(kernel_device):
    field = occupy(smooth_field(kernel_device), None)
    batch = batch_of(field, 1, 9, 17, background=torch.tensor([0.25, 0.5, 0.75], device=kernel_device))
    rendered = FrameRenderer(field, 9, 17, dtype=torch.uint8).render(batch)
    assert rendered.n_samples() == 0
    assert rendered.rgb.view(-1, 3).unique(dim=0).tolist() == [[64, 128, 191]]
    assert not rendered.opacity.any()


def test_given_rays_are_the_cameras(kernel_device):
    field = occupy(smooth_field(kernel_device, density_scale=30.0), 0.4)
    batch = batch_of(field, 1, 9, 12)
    renderer = FrameRenderer(field, 9, 12, t_thresh=0.01)
    expected = renderer.render(batch).rgb.clone()
    assert batch.image_from_camera is not None
    assert batch.world_from_camera is not None
    rays = pixel_rays(pixel_centres(9, 12, kernel_device), batch.image_from_camera[0], batch.world_from_camera[0])
    given = replace(batch, image_from_camera=None, world_from_camera=None, rays=rays)
    assert (renderer.render(given).rgb - expected).abs().max() < 5e-3


def test_more_samples_than_the_kernels_count(kernel_device):
    with pytest.raises(BackendUnavailableError, match="max_steps"):
        FrameRenderer(smooth_field(kernel_device, max_steps=100), 8, 8)


@pytest.fixture(scope="module")
def golden_head(kernel_device, on_gpu) -> RADNeRF:
    """The original's sizes with golden weights and the golden occupancy."""
    if not on_gpu:
        pytest.skip("whole frames of the original's sizes need a CUDA device")
    field = golden_field("may")
    grid = torch.empty(128**3)
    grid[field.backend.morton_encode(grid_cells(128, torch.device("cpu")))] = golden.analytic_density()
    field.density_bitfield.copy_(field.backend.pack_bits(grid, 10.0))
    return field.to(kernel_device)


@pytest.mark.gpu
@pytest.mark.parametrize("n_frames", [1, 5, 8])
def test_head_of_the_originals_sizes(n_frames, golden_head):
    batch = batch_of(golden_head, n_frames, 200, 256)
    rendered = FrameRenderer(golden_head, 200, 256, t_thresh=0.01).render(batch)
    assert assert_same_frames(golden_head, batch, rendered, 0.01, most=2e-1) > 0.01


@pytest.mark.gpu
def test_golden_picture(golden_head, kernel_device):
    """GeneFace++'s own picture, made in float32, within what half precision loses on its golden weights."""
    expected, scene = golden.load("radnerf_head")["render.rgb_map_sub2"], golden.load("raymarching")
    focal = 1015.0 * 64 / 112
    camera = torch.tensor([[focal, 0, 64], [0, focal, 64], [0, 0, 1.0]], device=kernel_device)
    pose = torch.from_numpy(scene["pose"])[0].to(kernel_device)
    rays = pixel_rays(pixel_centres(128, 128, kernel_device), camera, pose)
    window = torch.from_numpy(golden.symmetric((5, 1, 204), "nerf.cond", 1.0)).to(kernel_device)
    y, x = (background_coordinates(128, 128, kernel_device) * 0.5 + 0.5).unbind(1)
    background = torch.stack([x, y, (x + y) / 2], dim=1).view(128, 128, 3)
    batch = FrameBatch(window[None], golden_head.individual_embeddings[0].detach(), background, rays=rays)
    out = FrameRenderer(golden_head, 128, 128, t_thresh=0.01).render(batch)
    error = (out.rgb[0, ::2, ::2].cpu() - torch.from_numpy(expected).view(64, 64, 3)).abs()
    assert error.mean() < 1e-3
    assert error.max() < 1e-1
