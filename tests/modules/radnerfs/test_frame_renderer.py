"""What of the fused renderer needs no kernels; its pictures are tested beside the kernels."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from modules.commons.errors import BackendUnavailableError
from modules.radnerfs.frame_renderer import FrameBatch, FrameRenderer, occupied_box
from tests.modules.radnerfs.packed_fields import golden_field, occupy, smooth_field


@pytest.mark.parametrize(("bound", "radius"), [(1.0, 0.4), (2.0, 1.5)])
def test_occupied_box(bound, radius):
    field = occupy(smooth_field("cpu", bound), radius)
    box = occupied_box(field)
    assert torch.allclose(box, torch.tensor([-1.0, -1, -1, 1, 1, 1]) * radius, atol=2 * bound / 32)


def test_box_of_an_empty_grid_is_never_entered():
    low, high = occupied_box(occupy(smooth_field("cpu"), None)).split(3)
    assert (low > high).all()


def test_fields_and_pictures_that_do_not_fit():
    with pytest.raises(ValueError, match="sampler: surface"):
        FrameRenderer(golden_field("cpu"), 8, 8)
    with pytest.raises(ValueError, match="float64"):
        FrameRenderer(smooth_field("cpu"), 8, 8, dtype=torch.float64)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter runs on the CPU")
def test_without_a_gpu_it_says_so():
    wanted = "NVIDIA GPU" if importlib.util.find_spec("triton") else "triton"
    with pytest.raises(BackendUnavailableError, match=wanted):
        FrameRenderer(smooth_field("cpu"), 8, 8)


def test_batches_that_do_not_fit():
    windows = torch.zeros(9, 5, 1, 204)
    with pytest.raises(ValueError, match="1 to 8"):
        FrameBatch(windows, torch.zeros(4), torch.zeros(3), torch.eye(3), torch.eye(4))
    with pytest.raises(ValueError, match="cameras"):
        FrameBatch(windows[:1], torch.zeros(4), torch.zeros(3), torch.eye(3))
