"""Changing a source by what two renderings differ in: exact where nothing differs, carried where skin moves."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from modules.structures.carried_patch import CarriedPatch
from modules.structures.crops import moved_grid
from modules.structures.frames import FramePatch
from modules.video.delta_transfer import CELL_PX, WINDOW_STEP, DeltaTransfer, Part, in_source_light
from modules.video.linear_light import BT709

H, W = 96, 120
EDGE_PX = 3.0


def texture(seed: int, smooth: float = 2.0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 1, (H, W, 3)).astype(np.float32)
    return np.clip(0.5 + 2 * (cv2.GaussianBlur(noise, (0, 0), smooth) - 0.5), 0.1, 0.9)


def full(value: float = 1.0) -> np.ndarray:
    return np.full((H, W), value, np.float32)


def carried(new: np.ndarray, shown: np.ndarray, **maps: np.ndarray) -> CarriedPatch:
    chosen = {
        "flow": np.zeros((H, W, 2), np.float32), "rendered": full(0), "paintable": full(), "compared": full(),
        "matched": full(), "mouth_shown": full(0), **maps,
    }  # fmt: skip
    alpha = chosen.pop("alpha", full())
    return CarriedPatch(FramePatch((0, 0, W, H), new, alpha), shown, edge_px=EDGE_PX, **chosen)


def patch(source: np.ndarray, given: CarriedPatch, free: np.ndarray | None = None) -> FramePatch:
    return DeltaTransfer().patch(source, Part.whole(given, free), 0.0)


def test_equal_motions_change_nothing_at_all():
    source, render = texture(0), texture(1)
    assert not patch(source, carried(render, render.copy())).alpha.any()


def test_where_nothing_moves_the_difference_of_the_renderings_is_added_to_the_sources_own_texture():
    source, shown = texture(0), texture(1, 8)
    new = shown.copy()
    new[30:60, 40:80] += 0.05
    made = patch(source, carried(new, shown))
    assert made.alpha[36:54, 46:74].min() == 1 and not made.alpha[:20].any() and not made.alpha[:, :20].any()
    inner = np.s_[38:52, 48:72]
    np.testing.assert_allclose(made.rgb[inner], source[inner] + 0.05, atol=2e-3)


def test_moving_skin_takes_its_texture_along():
    source, render = texture(0), np.full((H, W, 3), 0.5, np.float32)
    flow = np.zeros((H, W, 2), np.float32)
    flow[..., 0], flow[..., 1] = 3, -2
    made = patch(source, carried(render, render.copy(), flow=flow))
    inner = np.s_[10:80, 10:100]
    np.testing.assert_allclose(made.rgb[inner], source[8:78, 13:103], atol=1e-5)
    assert made.alpha.min() == 1


def test_the_formula_equals_a_loop_over_pixels():
    source, shown, new = texture(0), texture(1, 6), texture(2, 6)
    noise = np.random.default_rng(3).normal(0, 8, (H, W, 2)).astype(np.float32)
    flow = np.asarray(cv2.GaussianBlur(noise, (0, 0), 6), np.float32)
    compared = full(0.7)
    made = patch(source, carried(new, shown, flow=flow, compared=compared))
    sigma = 0.4 * EDGE_PX
    old, fresh = (cv2.GaussianBlur(image, (0, 0), sigma) for image in (shown, new))
    x, y = moved_grid(flow)
    for row, column in ((20, 30), (50, 60), (70, 90)):
        at_x, at_y = (np.full((1, 1), grid[row, column], np.float32) for grid in (x, y))
        kept = cv2.remap(source - 0.7 * old, at_x, at_y, cv2.INTER_CUBIC)[0, 0]
        expected = np.clip(kept + 0.7 * fresh[row, column], 0, 1)
        np.testing.assert_allclose(made.rgb[row, column], expected, atol=1e-4)


def test_the_mouth_is_the_rendering_itself_in_the_sources_light():
    shown = texture(1, 6)
    new = shown.copy()
    mouth = np.zeros((H, W), np.float32)
    mouth[40:56, 45:75] = 1
    new[mouth > 0] = 0.3
    gain, offset = 0.8, BT709.offset
    source = ((shown + offset) * gain - offset).astype(np.float32)  # the same picture under less light
    matched = 1 - mouth
    given = carried(new, shown, rendered=mouth, matched=matched)
    lit = in_source_light(source, Part.whole(given), BT709)
    np.testing.assert_allclose(lit.shown, source, atol=2e-3)
    made = patch(source, lit)
    np.testing.assert_allclose(made.rgb[44:52, 50:70], (0.3 + offset) * gain - offset, atol=2e-3)
    assert not made.alpha[:24].any(), "skin that only looks darker is the source's own"


def test_light_is_not_read_off_what_stands_in_front():
    shown = np.full((H, W, 3), 0.5, np.float32)
    source, free = shown.copy(), full()
    source[:, :60], free[:, :60] = 0.05, 0
    lit = in_source_light(source, Part.whole(carried(shown, shown.copy()), free))
    np.testing.assert_allclose(lit.patch.rgb[:, 60:], 0.5, atol=1e-3)


def test_an_occluder_is_not_carried_along():
    shown = np.full((H, W, 3), 0.5, np.float32)
    source, free = shown.copy(), full()
    source[40:60, 40:60], free[40:60, 40:60] = 0, 0
    flow = np.zeros((H, W, 2), np.float32)
    flow[..., 0] = -20
    painted = patch(source, carried(shown, shown.copy(), flow=flow), free)
    np.testing.assert_allclose(painted.rgb[42:58, 62:78], 0.5, atol=1e-3)
    left = patch(source, carried(shown, shown.copy(), flow=flow, paintable=full(0)), free)
    assert not left.alpha[42:58, 62:78].any(), "where nothing can be rendered the source is left alone"


def test_what_changed_just_before_is_written_once_more():
    source, shown = texture(0), texture(1, 8)
    new = shown.copy()
    new[30:60, 40:60] += 0.1
    other = shown.copy()
    other[30:60, 70:90] += 0.1
    transfer = DeltaTransfer()
    transfer.patch(source, Part.whole(carried(new, shown)), 0.0)
    state = transfer.state()
    second = transfer.patch(source, Part.whole(carried(other, shown)), 0.04)
    assert second.alpha[36:54, 44:56].min() == 1, "its edge would flicker otherwise"
    np.testing.assert_allclose(second.rgb[36:54, 44:56], source[36:54, 44:56], atol=1e-5)
    third = transfer.patch(source, Part.whole(carried(other, shown)), 0.08)
    assert not third.alpha[36:54, 44:54].any()
    again = DeltaTransfer()
    again.resume(state)
    np.testing.assert_array_equal(again.patch(source, Part.whole(carried(other, shown)), 0.04).alpha, second.alpha)
    late = DeltaTransfer()
    late.resume(state)
    assert not late.patch(source, Part.whole(carried(other, shown)), 2.0).alpha[36:54, 44:54].any()
    again.reset()
    assert again.state() == {} and transfer.state()["changed"].shape == (H // CELL_PX, W // CELL_PX)


def test_a_window_that_moved_finds_what_changed_before():
    source, shown = texture(0), texture(1, 8)
    new = shown.copy()
    new[30:60, 40:60] += 0.1
    transfer = DeltaTransfer()
    transfer.patch(source, Part.whole(carried(new, shown)), 0.0)
    small = shown.copy()
    small[80:90, 100:110] += 0.1
    moved = carried(small, shown)
    moved = replace(moved, patch=replace(moved.patch, bounds=(12, 6, 12 + W, 6 + H)))
    alpha = transfer.patch(source, Part.whole(moved), 0.04).alpha
    assert alpha[30:48, 32:44].min() == 1 and not alpha[:16].any()


@pytest.mark.parametrize("seed", range(3))
def test_a_part_of_a_window_is_what_it_is_in_the_whole(seed):
    rng = np.random.default_rng(seed)
    height, width = 8 * WINDOW_STEP, 9 * WINDOW_STEP
    y, x = np.mgrid[:height, :width]
    x0, y0 = rng.integers(60, 150, 2)
    inside = np.clip((30 - np.hypot(x - x0, y - y0)) / 8, 0, 1).astype(np.float32)
    pictures = [cv2.GaussianBlur(rng.random((height, width, 3)), (0, 0), 2).astype(np.float32) for _ in range(3)]
    flow = cv2.GaussianBlur(rng.normal(0, 12, (height, width, 2)), (0, 0), 6).astype(np.float32) * inside[..., None]
    mouth = (inside > 0.9).astype(np.float32)
    patch = FramePatch((5, 7, 5 + width, 7 + height), pictures[0], np.ones((height, width), np.float32))
    given = CarriedPatch(patch, pictures[1], flow, mouth, inside, inside, inside * (1 - mouth), mouth, 3.0)
    transfers = DeltaTransfer(), DeltaTransfer()
    for time_s, moved in ((0.0, given), (0.04, replace(given, flow=0 * flow, rendered=0 * mouth, compared=0 * mouth))):
        parts = transfers[0].part(moved, None), Part.whole(moved)
        assert parts[0].carried.patch.alpha.size < 0.5 * mouth.size and parts[0].window == patch.bounds
        made = []
        for transfer, part in zip(transfers, parts, strict=True):
            source = pictures[2][part.box]
            lit = replace(part, carried=in_source_light(source, part))
            made.append(part.over_window(transfer.patch(source, lit, time_s)))
        np.testing.assert_allclose(made[0].alpha, made[1].alpha, atol=1e-5)
        written = made[1].alpha > 0
        assert time_s > 0 or written.any()
        np.testing.assert_allclose(made[0].rgb[written], made[1].rgb[written], atol=1e-4)
        np.testing.assert_array_equal(transfers[0].state()["changed"], transfers[1].state()["changed"])
    hidden = transfers[0].part(given, 1 - inside)
    assert hidden.is_whole and hidden.free is not None


def test_an_identity_frame_stays_exact_after_a_change():
    source, shown = texture(0), texture(1, 8)
    transfer = DeltaTransfer()
    transfer.patch(source, Part.whole(carried(shown + np.float32(0.1), shown)), 0.0)
    assert not transfer.patch(source, Part.whole(carried(shown, shown.copy())), 0.04).alpha.any()


@pytest.mark.parametrize("name", ["flow", "shown", "rendered"])
def test_maps_of_another_size_are_refused(name):
    given = carried(texture(0), texture(1))
    with pytest.raises(ValueError, match=name):
        replace(given, **{name: getattr(given, name)[1:]})
