"""Drawing rays: shares, frames, repeatability, and the map from pixels to rays."""

from __future__ import annotations

import pytest
import torch

from tasks.radnerfs.ray_table import RayGroup, RayTable, Shares, draw_batch, draw_labelled, gather, patch_map

COUNTS = (40, 0, 25, 60)
"""Rays of four frames; the second shows nothing."""
WIDTH = 10


@pytest.fixture(scope="module")
def table() -> RayTable:
    """Ray i of frame f lies at pixel (i % 10, i // 10), red f, green i; every fifth is mouth, but not in frame 2."""
    starts = torch.tensor([0, *COUNTS]).cumsum(0)
    frame = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    number = torch.cat([torch.arange(count) for count in COUNTS])
    colour = torch.stack([frame, number, torch.zeros_like(frame)], dim=1).to(torch.uint8)
    position = torch.stack([number * 100, frame * 100, frame], dim=1).to(torch.int16)
    direction = torch.tensor([0, 0, -32767], dtype=torch.int16).expand(len(frame), 3)
    pixel = torch.stack([number % WIDTH, number // WIDTH], dim=1).to(torch.int16)
    mouth = RayGroup.where((number % 5 == 0) & (frame != 2), starts)
    eyes = RayGroup.where((number == 7) & (frame == 3), starts)
    nothing = torch.zeros(1, 1, 1, dtype=torch.uint8)
    return RayTable(position, direction, colour, pixel, starts, torch.arange(4), mouth, eyes, nothing)


def colours(batch):
    return (batch.rgb * 255).round().int()


def test_a_batch_holds_its_frames_own_rays_and_the_mouth_first(table):
    batch = draw_batch(table, 50, 8, Shares(0.5), torch.Generator().manual_seed(0))
    shown = colours(batch)
    assert batch.position.shape == batch.direction.shape == batch.rgb.shape == (50, 8, 3)
    assert (shown[..., 0] == batch.frame[:, None]).all()
    assert set(batch.frame.tolist()) == {0, 2, 3}, "the frame without rays is never drawn"
    with_mouth = batch.frame != 2
    assert (shown[with_mouth, :4, 1] % 5 == 0).all()
    assert (shown[~with_mouth, :4, 1] % 5 != 0).any(), "a frame without a mouth gives rays from anywhere"
    assert (shown[:, 4:, 1] % 5 != 0).any()
    torch.testing.assert_close(batch.direction.norm(dim=-1), torch.ones(50, 8))


def test_eyes_are_drawn_where_a_frame_has_them(table):
    batch = draw_batch(table, 60, 10, Shares(0.3, 0.2), torch.Generator().manual_seed(1))
    eyes = colours(batch)[:, 3:5, 1]
    assert (eyes[batch.frame == 3] == 7).all() and (eyes[batch.frame == 0] != 7).any()


def test_frames_come_in_proportion_to_their_rays_and_rays_evenly(table):
    batch = draw_batch(table, 4000, 4, Shares(0.0), torch.Generator().manual_seed(2))
    seen = torch.bincount(batch.frame, minlength=4) / 4000
    torch.testing.assert_close(seen, torch.tensor(COUNTS) / sum(COUNTS), atol=0.03, rtol=0)
    of_last = torch.bincount(colours(batch)[batch.frame == 3][..., 1].flatten(), minlength=60)
    assert of_last.min() > 0.5 * of_last.float().mean()


def test_draws_repeat_with_their_generator(table):
    first, again = (draw_batch(table, 9, 6, Shares(0.5), torch.Generator().manual_seed(5)) for _ in range(2))
    torch.testing.assert_close(first.position, again.position, rtol=0, atol=0)


def test_labels_tell_the_mouth(table):
    batch, mouth = draw_labelled(table, 100, 5, torch.Generator().manual_seed(3))
    shown = colours(batch)
    torch.testing.assert_close(mouth, (shown[..., 1] % 5 == 0) & (shown[..., 0] != 2))
    assert (shown[..., 0] == batch.frame[:, None]).all()


def test_a_table_without_mouths_can_be_drawn_from(table):
    none = RayGroup(torch.zeros(0, dtype=torch.int64), torch.zeros(5, dtype=torch.int64))
    bare = RayTable(*(getattr(table, name) for name in table.__slots__[:6]), none, none, table.best_view)
    batch = draw_batch(bare, 5, 4, Shares(0.5, 0.5), torch.Generator().manual_seed(0))
    assert batch.rgb.shape == (5, 4, 3)
    assert not draw_labelled(bare, 5, 4, torch.Generator())[1].any()


def test_gather_gives_floats_of_the_cube(table):
    batch = gather(table, torch.tensor([[3], [41]]), torch.tensor([0, 2]))
    torch.testing.assert_close(batch.position[0, 0], torch.tensor([300.0, 0, 0]) / 32767)
    torch.testing.assert_close(batch.direction[1, 0], torch.tensor([0.0, 0, -1]))


def test_patch_map_finds_each_pixels_ray(table):
    patches = patch_map(table, room_px=1)
    # mouth rays lie in columns 0 and 5; with a pixel of room the window begins a column and a row before the crop's
    assert patches.size.tolist() == [[6, 8], [0, 0], [0, 0], [8, 8]]
    assert patches.index.shape == (4, 8, 8)
    first = patches.index[3]
    assert first[0].eq(-1).all() and first[:, 0].eq(-1).all()
    start = int(table.starts[3])
    assert first[1, 1] == start and first[3, 2] == start + 2 * WIDTH + 1
    assert (patches.index[1:3] == -1).all()
    assert patches.index[0, 4, 6] == 35 and (patches.index[0, 5:] == -1).all()
