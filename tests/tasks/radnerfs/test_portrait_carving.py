"""Cells beside the head: against geometry that is known."""

from __future__ import annotations

import numpy as np
import torch

from modules.radnerfs.backends.torch_reference import TorchReference
from modules.radnerfs.occupancy_grid import all_cells, cell_centres, mark_untrained
from modules.structures.cameras import camera_pose, ngp_pose
from tasks.radnerfs.portrait_carving import DOUBTS, beside_the_head

GRID, SIDE, RADIUS = 16, 64, 0.3
FRAMES = DOUBTS + 3


def scene():
    """A ball of ``RADIUS`` at the cube's centre, seen from some sides, the principal point off the middle."""
    euler = np.linspace([0, -0.5, 0], [0, 0.5, 0], FRAMES).astype(np.float32)
    poses = torch.from_numpy(ngp_pose(camera_pose(euler, np.zeros((FRAMES, 3), np.float32))))
    camera = torch.tensor([[2.5 * SIDE, 0, SIDE / 2 + 4], [0, 2.5 * SIDE, SIDE / 2 - 3], [0, 0, 1.0]])
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    centre = camera[0, 2], camera[1, 2]
    apparent = 2.5 * SIDE * RADIUS / np.sqrt(4.0**2 - RADIUS**2)
    ball = (columns - float(centre[0])) ** 2 + (rows - float(centre[1])) ** 2 < apparent**2
    return torch.from_numpy(np.stack([ball] * FRAMES)), poses, camera


def test_what_is_carved_is_outside_and_most_of_the_outside_is_carved():
    masks, poses, camera = scene()
    backend = TorchReference()
    beside = beside_the_head(masks, poses, camera, 1.0, GRID, backend)
    centres = cell_centres(all_cells(GRID, beside.device, backend), GRID, 1.0)
    distance = centres.norm(dim=1)
    assert not beside[distance < RADIUS + 1 / GRID].any()
    across = centres[:, [0, 2]].norm(dim=1)  # x and z span the picture, y is depth
    far = (across > 0.58) & (centres[:, [0, 2]].abs().amax(dim=1) < 0.6) & (centres[:, 1].abs() < 0.2)
    assert beside[far].float().mean() > 0.95


def test_frames_that_err_are_outvoted():
    masks, poses, camera = scene()
    wrong = masks.clone()
    wrong[:DOUBTS] = False  # no head found
    backend = TorchReference()
    centres = cell_centres(all_cells(GRID, masks.device, backend), GRID, 1.0)
    beside = beside_the_head(wrong, poses, camera, 1.0, GRID, backend)
    assert not beside[centres.norm(dim=1) < RADIUS].any()
    wrong[: DOUBTS + 1] = False
    assert beside_the_head(wrong, poses, camera, 1.0, GRID, backend)[centres.norm(dim=1) < RADIUS].all()


def test_frustums_of_cameras_whose_axis_is_off_the_middle():
    _, poses, camera = scene()
    backend, empty = TorchReference(), torch.zeros(1, GRID**3)
    narrow = camera.clone()
    narrow[:2, :2] *= 4
    narrow[:2, 2] = torch.tensor([SIDE * 0.9, SIDE / 2])
    marked = mark_untrained(empty, poses[2:3], narrow, 1.0, GRID, backend, side_px=SIDE)[0] == -1
    centres = cell_centres(all_cells(GRID, marked.device, backend), GRID, 1.0)
    seen = (centres - poses[2, :3, 3]) @ poses[2, :3, :3] @ narrow.T
    pixels = seen[:, :2] / seen[:, 2:]
    inside = ((pixels >= 0) & (pixels <= SIDE)).all(dim=1)
    assert not marked[inside].any()
    reach = 2.5 * 10 * SIDE / GRID / seen[:, 2] * 2  # two half cells, generously
    outside = ((pixels < -reach[:, None]) | (pixels > SIDE + reach[:, None])).any(dim=1)
    assert marked[outside].all() and outside.any() and inside.any()
