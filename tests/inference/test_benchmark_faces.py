"""The faces part of the GPU benchmark: its material and its counts, and on a GPU the table itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inference.benchmark_gpu.faces import (
    CROP_PX,
    REGION,
    field_flops,
    grid_bytes,
    large_person,
    rows,
    smooth_motion,
)
from modules.commons.progress import silent
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.radnerfs.config import GridConfig, RADNeRFConfig
from modules.radnerfs.patch_renderer import PatchRenderer


def test_operations_are_counted_from_the_layers():
    grid = GridConfig(n_levels=2, features_per_level=2)
    config = RADNeRFConfig(
        position_grid=grid, ambient_grid=grid, ambient_dim=2, hidden_dim_ambient=8, hidden_dim_sigma=16,
        hidden_dim_color=32, num_layers_ambient=2, num_layers_sigma=3, num_layers_color=2, sh_degree=2,
    )  # fmt: skip
    ambient, sigma, color = 4 * 8 + 8 * 2, 8 * 16 + 16 * 16 + 16 * 32, 4 * 32 + 32 * 3
    assert field_flops(config) == 2 * (ambient + sigma + color)
    assert grid_bytes(config) == 4 * (2 * 8 + 2 * 4)


def test_what_is_timed_is_a_face_that_fills_its_crop():
    face_model = FaceModel.load(FACE_MODEL_FILE)
    person = large_person(face_model, torch.device("cpu"))
    frames, windows = smooth_motion(face_model, np.zeros(face_model.n_identity, np.float32), 32, 1)
    assert np.abs(np.diff(frames.euler, axis=0)).max() < 0.02
    assert person.config.hidden_dim_sigma == 128 and person.config.position_grid.n_levels == 12
    (batch,) = PatchRenderer(person, face_model).batches(frames, windows, REGION)
    width, height = (batch.windows.bounds[:, 2:] - batch.windows.bounds[:, :2]).T
    assert width.min() > 0.6 * CROP_PX and height.min() > 0.4 * CROP_PX
    assert (batch.windows.bounds >= 0).all() and (batch.windows.bounds <= CROP_PX).all()
    assert len({tuple(box) for box in batch.windows.bounds.tolist()}) > 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_table_on_this_gpu():
    lines = {row.what: row for row in rows(torch.device("cuda"), silent)}
    assert lines["fast.yaml: batches of 32"].value > lines["fast.yaml: batches of 1"].value > 0
    assert lines["fast.yaml: samples"].value > 10000
    assert lines["fast.yaml: peak memory"].value < 4
