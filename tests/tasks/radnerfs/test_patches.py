"""Patches are what the crops show, whole ones only."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.radnerfs.patches import LEAST_COVERED, draw_patches
from tasks.radnerfs.ray_table import PatchMap, RayGroup, RayTable, patch_map


def table_of(masks: list[np.ndarray], pictures: list[np.ndarray], mouths: list[np.ndarray]) -> RayTable:
    """Rays at the set pixels of each frame, row by row."""
    pixels, rgb, mouth, starts = [], [], [], [0]
    for mask, picture, on_mouth in zip(masks, pictures, mouths, strict=True):
        rows, columns = np.nonzero(mask)
        pixels.append(np.stack([columns, rows], axis=1))
        rgb.append(picture[mask])
        mouth.append(on_mouth[mask])
        starts.append(starts[-1] + len(rows))
    count, begin = starts[-1], torch.tensor(starts)
    nothing = torch.zeros(count, dtype=torch.bool)
    return RayTable(
        position=torch.arange(count)[:, None].expand(-1, 3).to(torch.int16),
        direction=torch.full((count, 3), 18918, dtype=torch.int16),
        rgb=torch.from_numpy(np.concatenate(rgb)),
        pixel=torch.from_numpy(np.concatenate(pixels)).to(torch.int16),
        starts=begin,
        row=torch.arange(len(masks)),
        mouth=RayGroup.where(torch.from_numpy(np.concatenate(mouth)), begin),
        eyes=RayGroup.where(nothing, begin),
        best_view=torch.zeros(64, 64, 64, dtype=torch.uint8),
    )


def two_frames(hole: bool = False) -> tuple[RayTable, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (60, 80, 3)).astype(np.uint8) for _ in range(2)]
    masks, mouths = [np.ones((60, 80), bool) for _ in range(2)], [np.zeros((60, 80), bool) for _ in range(2)]
    mouths[0][20:40, 30:60] = True
    mouths[1][10:30, 10:50] = True
    if hole:
        masks[0][:] = False
        masks[0][20:40:2, 30:60] = True  # every other row: nowhere 95 %
    return table_of(masks, pictures, mouths), pictures


def test_a_patch_is_a_square_of_its_frame_near_the_mouth():
    rays, pictures = two_frames()
    batch, known = draw_patches(rays, patch_map(rays), 40, 16, torch.Generator().manual_seed(0))
    assert batch.rgb.shape == (40, 256, 3) and known.shape == (40, 256) and bool((known == 1).all())
    seen = set()
    for frame, rgb in zip(batch.frame.tolist(), (batch.rgb * 255).round().to(torch.uint8).numpy(), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(pictures[frame], (16, 16, 3))[:, :, 0]
        hits = np.argwhere((windows == rgb.reshape(16, 16, 3)).all(axis=(2, 3, 4)))
        assert len(hits) == 1
        y, x = hits[0]
        assert (8 <= y <= 36 and 18 <= x <= 56) if frame == 0 else (0 <= y <= 26 and 0 <= x <= 46)
        seen.add(frame)
    assert seen == {0, 1}


def test_patches_with_holes_are_left_out():
    rays, _ = two_frames(hole=True)
    batch, known = draw_patches(rays, patch_map(rays), 30, 16, torch.Generator().manual_seed(1))
    whole = known.mean(dim=1)
    assert bool(((whole >= LEAST_COVERED) | (whole == 0)).all())
    assert bool((batch.frame[whole > 0] == 1).all()) and bool((whole > 0).any())
    assert batch.rgb.isfinite().all() and batch.direction.isfinite().all()


def test_windows_narrower_than_a_patch_hold_none():
    rays, _ = two_frames()
    narrow = PatchMap(patch_map(rays).index[:, :12], patch_map(rays).size.clamp(max=12))
    _, known = draw_patches(rays, narrow, 8, 16, torch.Generator().manual_seed(0))
    assert not known.any()
    with_one = draw_patches(rays, narrow, 8, 12, torch.Generator().manual_seed(0))[1]
    assert bool((with_one == 1).all())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_drawing_does_not_wait_for_the_device():
    device = torch.device("cuda")
    rays = two_frames()[0].to(device)
    squares, generator = patch_map(rays), torch.Generator(device).manual_seed(0)
    draw_patches(rays, squares, 8, 16, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch, _ = draw_patches(rays, squares, 8, 16, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert batch.rgb.shape == (8, 256, 3)
