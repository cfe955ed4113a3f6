"""The torch twin of the colour match finds the fields that the numpy path finds, for all patches of a batch at once."""

import numpy as np
import pytest
import torch

from modules.structures.frames import PlaneLayout
from modules.video.colour_match import GRID, RingConfig, apply_field, estimate_field, membrane
from modules.video.device_colour_match import Placement, apply_fields, estimate_fields, membranes
from modules.video.device_planes import Windows

LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", full_range=False, matrix="bt709")
RINGS = [RingConfig(), RingConfig(high=0.2, stiffness=0.0, outlier=3.0)]
BOXES = [(31, 21, 131, 101), (0, 0, 37, 30), (10, 3, 65, 170), (40, 40, 42, 160), (50, 60, 54, 64)]
CPU = torch.device("cpu")


def scene(box, seed):
    """Source, cast and partly wrong patch, soft alpha and an occluder's weight on a box."""
    rng = np.random.default_rng(seed)
    width, height = box[2] - box[0], box[3] - box[1]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot((x + 0.5 - width / 2) / (width / 2), (y + 0.5 - height / 2) / (height / 2))
    alpha = np.clip((0.95 - radius) / 0.4, 0, 1).astype(np.float32)
    source = np.stack([0.65 + 0.1 * x / width, 0.5 - 0.1 * y / height, 0.4 + 0 * x], 2)
    source = np.clip(source + rng.normal(0, 0.02, source.shape), 0, 1).astype(np.float32)
    patch = np.clip(source * (1.2, 1.0, 0.85) * (1 + 0.1 * (x / width - 0.5)[..., None]), 0, 1).astype(np.float32)
    patch[: height // 4] = 0.05  # hair
    patch[alpha == 0] = np.nan
    weight = np.ones_like(alpha)
    weight[:, 2 * width // 3 :] = rng.random() * 0.5
    return source, patch, alpha, weight


def in_windows(windows, arrays):
    """``[B, C, H, W]`` of arrays ``[h, w, C]`` placed in the windows' inner parts."""
    channels = arrays[0].shape[2:]
    placed = torch.zeros((len(arrays), *windows.inner_hw, *channels))
    for number, array in enumerate(arrays):
        row, column = windows.offset(number)
        placed[number, row : row + array.shape[0], column : column + array.shape[1]] = torch.from_numpy(array)
    return placed.permute(0, 3, 1, 2).contiguous() if channels else placed


@pytest.mark.parametrize("ring", RINGS, ids=["alpha", "seamless"])
@pytest.mark.parametrize("is_occluded", [False, True])
def test_fields_of_a_batch_are_those_of_each_patch_alone(ring, is_occluded):
    windows = Windows.around(BOXES, LAYOUT)
    source, patch, alpha, weight = zip(*(scene(box, seed) for seed, box in enumerate(BOXES)), strict=True)
    placement = Placement.of(windows, CPU)
    on_device = [in_windows(windows, arrays) for arrays in (source, patch, alpha, weight)]
    if not is_occluded:
        on_device[3], weight = None, [np.ones_like(one) for one in alpha]
    fields, found = estimate_fields(*on_device, placement, ring)
    matched = apply_fields(on_device[1], fields, placement)
    seen = 0
    for number in range(len(BOXES)):
        expected = estimate_field(source[number], patch[number], alpha[number], weight[number], ring)
        assert bool(found[number]) == (expected is not None)
        if expected is None:
            assert not fields[number].any()
            continue
        seen += 1
        assert np.abs(fields[number].permute(1, 2, 0).numpy() - expected).max() < 2e-4
        row, column = windows.offset(number)
        height, width = alpha[number].shape
        made = matched[number, :, row : row + height, column : column + width].permute(1, 2, 0).numpy()
        covered = alpha[number] > 0
        assert np.abs(made - apply_field(patch[number], expected))[covered].max() < 3e-4  # a thirteenth of a code
    assert 3 <= seen < len(BOXES), "one box is too small to learn from"


@pytest.mark.parametrize("stiffness", [0.0, 0.3, 1.0])
def test_membranes_of_all_sizes_agree_with_the_banded_solve(stiffness):
    sizes = [(40, 40), (17, 40), (40, 9), (1, 30), (12, 1), (2, 3), (40, 39)]
    rng = np.random.default_rng(0)
    values = rng.normal(size=(len(sizes), 3, GRID, GRID)).astype(np.float32)
    mass = np.zeros((len(sizes), GRID, GRID), np.float32)
    for number, (height, width) in enumerate(sizes):
        mass[number, :height, :width] = np.where(rng.random((height, width)) < 0.3, rng.random((height, width)), 0)
        mass[number, 0, 0] = 0.5
    cells = torch.tensor(sizes, dtype=torch.float32).T
    solved = membranes(torch.from_numpy(values), torch.from_numpy(mass), stiffness, cells).numpy()
    for number, (height, width) in enumerate(sizes):
        own = values[number, :, :height, :width].transpose(1, 2, 0)
        expected = membrane(own, mass[number, :height, :width], stiffness)
        assert np.abs(solved[number, :, :height, :width].transpose(1, 2, 0) - expected).max() < 2e-5
        assert not solved[number, :, height:].any() and not solved[number, :, :, width:].any()


def test_a_batch_of_which_nothing_can_be_learnt_stays_finite():
    windows = Windows.around(BOXES[:2], LAYOUT)
    placement = Placement.of(windows, CPU)
    shape = (2, 3, *windows.inner_hw)
    alpha = torch.zeros((2, *windows.inner_hw))
    fields, found = estimate_fields(torch.rand(shape), torch.full(shape, torch.nan), alpha, None, placement, RINGS[0])
    assert not found.any() and not fields.any()
