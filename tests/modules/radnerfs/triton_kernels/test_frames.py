"""Whole renderings of one field with both backends: pictures to 1e-4 mean, weights' gradients to 2 % of the largest.

The field is random and steep: a last-bit difference of a position moves single pixels at cell walls by up to 5e-3.
"""

from __future__ import annotations

import copy

import pytest
import torch

from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from modules.radnerfs.occupancy_grid import update_occupancy
from modules.radnerfs.radnerf import RADNeRF
from modules.radnerfs.rays import RayBundle, pixel_centres, pixel_rays
from modules.radnerfs.renderer import render_occupancy, render_surface
from modules.radnerfs.surface_sampling import samples_around_surface


def make_field(render: RenderConfig, backend) -> RADNeRF:
    grid = GridConfig(4, 2, 4, 32, 10, "hash")
    config = RADNeRFConfig(
        position_grid=grid,
        ambient_grid=GridConfig(4, 2, 4, 32, 10),
        hidden_dim_ambient=16,
        hidden_dim_sigma=16,
        hidden_dim_color=16,
        geo_feat_dim=7,
        individual_embedding_num=3,
        render=render,
    )
    torch.manual_seed(0)
    field = RADNeRF(config, backend)
    with torch.no_grad():
        for encoder in (field.position_embedder, field.ambient_embedder):
            encoder.embeddings.uniform_(-1, 1)
    return field


def on_both(field: RADNeRF, backend, device: torch.device) -> list[tuple[RADNeRF, torch.device]]:
    """The reference field on the CPU and its twin on the kernels' device."""
    twin = copy.deepcopy(field)
    for module in twin.modules():
        if hasattr(module, "backend"):
            module.backend = backend
    return [(field, torch.device("cpu")), (twin.to(device), device)]


def assert_close_pictures(mine: torch.Tensor, expected: torch.Tensor) -> None:
    difference = (mine.detach().cpu() - expected.detach()).abs()
    assert float(difference.mean()) < 1e-4
    assert float(difference.max()) < 5e-3


def assert_close_gradients(mine: RADNeRF, expected: RADNeRF) -> None:
    theirs = dict(expected.named_parameters())
    for name, parameter in mine.named_parameters():
        if theirs[name].grad is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        scale = float(theirs[name].grad.abs().max())
        assert float((parameter.grad.cpu() - theirs[name].grad).abs().max()) <= 0.02 * scale + 1e-7, name


def camera_rays(size: int) -> RayBundle:
    camera = torch.tensor([[float(size), 0, size / 2], [0, size, size / 2], [0, 0, 1]])
    pose = torch.eye(4)
    pose[2, 3] = -2.5
    return pixel_rays(pixel_centres(size, size), camera, pose)


@pytest.fixture(scope="module")
def picture_size(on_gpu) -> int:
    return 48 if on_gpu else 8


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("filled", ["some", "none", "all"])
def test_occupancy_frames(training, filled, kernel_device, triton_backend, picture_size):
    render = RenderConfig(grid_size=16, density_thresh=0.5, max_steps=8)
    field = make_field(render, get_backend("torch"))
    if filled == "some":
        seen = torch.rand(field.density_grid.shape, generator=torch.Generator().manual_seed(0)) > 0.6
        field.density_bitfield.copy_(field.backend.pack_bits(seen.float().view(-1), 0.5))
    else:
        field.density_bitfield.fill_(255 if filled == "all" else 0)
    size = picture_size
    rays, generator = camera_rays(size), torch.Generator().manual_seed(3)
    condition, background = torch.randn(64, generator=generator), torch.rand(size * size, 3, generator=generator)
    jitter = torch.rand(size * size, generator=generator) if training else None
    pictures = []
    fields = on_both(field, triton_backend, kernel_device)
    for each, device in fields:
        moved = RayBundle(rays.origins.to(device), rays.directions.to(device))
        out = render_occupancy(
            each, moved, condition.to(device), each.individual_embeddings[0], background.to(device),
            training=training, jitter=None if jitter is None else jitter.to(device), t_thresh=1e-3,
        )  # fmt: skip
        pictures.append(out)
        if training and filled != "none":
            (out.rgb.square().sum() + out.ambient.sum()).backward()
    assert (float(pictures[0].opacity.detach().max()) == 0) == (filled == "none")
    for name in ("rgb", "opacity", "depth"):
        assert_close_pictures(getattr(pictures[1], name), getattr(pictures[0], name))
    if training and filled != "none":
        assert_close_gradients(fields[1][0], fields[0][0])


@pytest.mark.parametrize("n_samples", [1, 3])
def test_surface_frames(n_samples, kernel_device, triton_backend, on_gpu):
    count = 3000 if on_gpu else 40
    field = make_field(RenderConfig(sampler="surface", density_scale=20.0), get_backend("torch"))
    generator = torch.Generator().manual_seed(4)
    position = torch.rand(count, 3, generator=generator) * 1.6 - 0.8
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    positions, deltas = samples_around_surface(position, direction, n_samples, 0.05, generator)
    conditions = torch.randn(count, 64, generator=generator)
    pictures = []
    fields = on_both(field, triton_backend, kernel_device)
    for each, device in fields:
        parts = (part.to(device) for part in (positions, deltas, direction, conditions))
        out = render_surface(each, *parts, each.individual_embeddings[1])
        pictures.append(out)
        (out.rgb.square().sum() + out.depth.sum() + out.ambient.sum()).backward()
    for name in ("rgb", "depth", "weights"):
        assert_close_pictures(getattr(pictures[1], name), getattr(pictures[0], name))
    assert_close_gradients(fields[1][0], fields[0][0])


def test_occupancy_updates(kernel_device, triton_backend, on_gpu):
    size = 16 if on_gpu else 4
    field = make_field(RenderConfig(grid_size=size, density_thresh=0.5), get_backend("torch"))
    condition = torch.randn(64, generator=torch.Generator().manual_seed(0))
    (expected, mine) = (
        update_occupancy(each, condition.to(device), None)
        for each, device in on_both(field, triton_backend, kernel_device)
    )
    assert torch.allclose(mine.density_grid.cpu(), expected.density_grid, rtol=1e-3, atol=1e-4)
    assert mine.mean_density == pytest.approx(expected.mean_density, rel=1e-4)
    wrong_bits = (mine.bitfield.cpu() ^ expected.bitfield).to(torch.int32)
    assert int((wrong_bits != 0).sum()) <= 1 + size**3 // 2000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_training_stays_finite(dtype, kernel_device, triton_backend, on_gpu):
    if not on_gpu and dtype == torch.float16:
        pytest.skip("torch has no float16 autocast for these layers on the CPU")
    field = make_field(RenderConfig(sampler="surface", density_scale=20.0), triton_backend).to(kernel_device)
    generator = torch.Generator().manual_seed(4)
    count = 2000 if on_gpu else 40
    position = (torch.rand(count, 3, generator=generator) - 0.5).to(kernel_device)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1).to(kernel_device)
    condition = torch.randn(64, generator=generator).to(kernel_device)
    positions, deltas = samples_around_surface(position, direction, 2, 0.05)
    plain = render_surface(field, positions, deltas, direction, condition, field.individual_embeddings[1])
    scaler = torch.amp.GradScaler(kernel_device.type, enabled=on_gpu)
    with torch.autocast(kernel_device.type, dtype=dtype):
        out = render_surface(field, positions, deltas, direction, condition, field.individual_embeddings[1])
        loss = out.rgb.square().mean()
    scaler.scale(loss).backward()
    assert out.rgb.dtype == torch.float32
    assert float((out.rgb - plain.rgb).detach().abs().mean()) < 0.02
    assert all(p.grad is None or p.grad.isfinite().all() for p in field.parameters())
    assert field.position_embedder.embeddings.grad.any()
