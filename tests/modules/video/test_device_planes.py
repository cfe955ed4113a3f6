"""The torch twin of the planes' conversions gives what the numpy path gives, on every layout and at every border."""

import numpy as np
import pytest
import torch

from modules.structures.device_patch import DevicePatch
from modules.structures.frames import FramePatch
from modules.video.colour import blend_patch, rgb_float_from_planes
from modules.video.device_planes import Windows, blended, pasted, placed, rgb_of_windows, staged
from tests.support.plane_layouts import LAYOUTS, noisy_frame

SIZES = [(96, 128), (97, 131)]
BOXES = [(31, 21, 90, 80), (0, 0, 40, 33), (60, 50, None, None), (0, 10, None, 70), (17, 0, 18, None)]
"""x1 or y1 None = the frame's own border."""


def noisy_patch(bounds, seed):
    """Any colours; alpha with whole and empty parts; colour that is no number where alpha is 0."""
    rng = np.random.default_rng(seed)
    x0, y0, x1, y1 = bounds
    alpha = np.clip(rng.random((y1 - y0, x1 - x0)) * 2 - 0.5, 0, 1).astype(np.float32)
    rgb = rng.random((y1 - y0, x1 - x0, 3)).astype(np.float32)
    rgb[alpha == 0] = np.nan
    return FramePatch(bounds, rgb, alpha)


def on_device(patch, device="cpu"):
    return DevicePatch(patch.bounds, torch.from_numpy(patch.rgb).to(device), torch.from_numpy(patch.alpha).to(device))


def boxes_in(size_hw):
    return [(x0, y0, x1 or size_hw[1], y1 or size_hw[0]) for x0, y0, x1, y1 in BOXES]


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.pixel_format}-{layout.siting}")
def test_windows_give_the_rgb_and_the_blend_of_the_numpy_path(layout, size_hw):
    bounds = boxes_in(size_hw)
    frames = [noisy_frame(layout, size_hw, seed) for seed in range(len(bounds))]
    patches = [noisy_patch(box, seed) for seed, box in enumerate(bounds)]
    windows = Windows.around(bounds, layout)
    flat = staged(frames, windows, pinned=False)
    source = rgb_of_windows(flat, windows)
    rgb, alpha = placed([on_device(patch) for patch in patches], windows)
    result = blended(flat, windows, rgb, alpha, size_hw)
    for number, (frame, patch) in enumerate(zip(frames, patches, strict=True)):
        row, column = windows.offset(number)
        height, width = patch.alpha.shape
        seen = source[number, :, row : row + height, column : column + width].permute(1, 2, 0).numpy()
        assert np.abs(seen - rgb_float_from_planes(frame, patch.bounds)).max() < 2e-6
        expected, made = blend_patch(frame, patch), pasted(frame, windows, number, result)
        for own, one, other in zip(frame.planes, expected.planes, made.planes, strict=True):
            off = np.abs(one.astype(int) - other.astype(int))
            assert off.max() <= 1 and (off > 0).mean() < 1e-3, "only ties of rounding"
            assert np.array_equal(one != own, other != own) or off.any()
        assert made.planes[0].dtype == frame.planes[0].dtype


@pytest.mark.parametrize("layout", LAYOUTS[:2] + LAYOUTS[5:6], ids=lambda layout: layout.pixel_format)
def test_what_alpha_does_not_cover_is_the_sources_own(layout):
    size_hw = (97, 131)
    bounds = [(20, 15, 80, 75)]
    frame, patch = noisy_frame(layout, size_hw, 3), noisy_patch((20, 15, 80, 75), 4)
    patch.alpha[:, 30:] = 0
    windows = Windows.around(bounds, layout)
    flat = staged([frame], windows, pinned=False)
    result = blended(flat, windows, *placed([on_device(patch)], windows), size_hw)
    made = pasted(frame, windows, 0, result)
    assert not np.array_equal(made.planes[0], frame.planes[0])
    for before, after in zip(frame.planes, made.planes, strict=True):
        edge = 51 if before.shape[1] == 131 else 26  # one chroma sample beyond may still be reached by its filter
        assert np.array_equal(before[:, edge:], after[:, edge:])
    assert np.array_equal(result[:, -1:], flat[:, -1:])


def test_windows_of_a_batch_have_one_size_and_hold_their_patches():
    layout = LAYOUTS[0]
    windows = Windows.around([(3, 5, 30, 20), (100, 40, 171, 99)], layout)
    for number, (x0, y0, x1, y1) in enumerate(windows.bounds):
        row, column = windows.offset(number)
        height, width = windows.inner_hw
        assert row >= 0 and column >= 0 and row + y1 - y0 <= height and column + x1 - x0 <= width
    assert windows.samples == np.prod(windows.luma_hw) * 3 // 2
