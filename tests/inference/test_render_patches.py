"""Frames of the demo clip rendered in batches: the same pictures as the CPU renderer paints one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.motion_to_frames import IdentityRenderer
from modules.commons.workspace import FACE_MODEL_FILE, IDENTITIES
from modules.face_model.model import FaceModel
from modules.radnerfs.patch_renderer import PatchRenderer
from modules.radnerfs.surface_batch import FaceFrames
from modules.structures.cameras import CameraIntrinsics
from modules.structures.frames import FramePatch

COEFFS = Path(__file__).parents[1] / "data" / "demo_faces.npz"
"""Some frames of the demo clip as they were fitted, with the mouths of other frames as what is to be painted."""
LEVEL = 1 / 255


@pytest.fixture(scope="module")
def faces():
    with np.load(COEFFS) as data:
        camera = CameraIntrinsics.from_array(data["camera"])
        cameras = np.tile(camera.matrix(), (len(data["expression"]), 1, 1))
        poses = data["identity"], data["expression"], data["euler"], data["translation"]
        return FaceFrames(*poses, cameras, (camera.width, camera.height), data["shown"])


@pytest.fixture(scope="module")
def renderer():
    return IdentityRenderer(IDENTITIES / "demo", FaceModel.load(FACE_MODEL_FILE), "cpu", warn_of_size=False)


@pytest.fixture(scope="module")
def painted(renderer, faces):
    """The CPU's pictures, and the conditions."""
    windows = renderer.conditions(faces.expression)
    return [one_by_one(renderer, faces, windows, row) for row in range(len(faces))], windows


def one_by_one(renderer, faces, windows, row) -> FramePatch:
    """The frame by ``render_patch``."""
    matrix = faces.cameras[row]
    camera = CameraIntrinsics(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *faces.size_wh)
    return renderer.render_patch(
        faces.identity, faces.expression[row], faces.euler[row], faces.translation[row], camera, windows[row],
        source_expression=None if faces.shown is None else faces.shown[row],
    )  # fmt: skip


def assert_same_pictures(patches: list[FramePatch], others: list[FramePatch]) -> None:
    """Alpha may differ at a few pixels where a threshold is met to the last bit; colours hardly anywhere."""
    for patch, other in zip(patches, others, strict=True):
        assert patch.bounds == other.bounds
        off = np.abs(patch.alpha - other.alpha) > LEVEL
        assert off.mean() < 0.003, f"{off.mean():.4%} of the alpha differs"
        seen = (patch.alpha > 0.05) & (other.alpha > 0.05)
        assert seen.mean() > 0.3
        difference = np.abs(patch.rgb - other.rgb)[seen]
        assert difference.mean() < 0.2 * LEVEL
        assert np.quantile(difference, 0.9999) <= 2 * LEVEL


def test_a_batch_on_the_cpu_shows_the_same_pictures(renderer, faces, painted):
    batch = renderer.render_patches(faces, painted[1])
    assert_same_pictures(painted[0], [patch.to_patch() for patch in batch])
    assert max(np.ptp(patch.rgb[patch.alpha > 0.5]) for patch in painted[0]) > 0.3


def test_frames_without_a_face_stay_in_their_place(renderer, faces, painted):
    frames = replace(faces.rows(np.arange(2)), shown=None)
    frames.translation[0, 0] += 40
    alone, beside = renderer.render_patches(frames, painted[1][:2])
    assert alone.bounds == (0, 0, 1, 1) and float(alone.alpha) == 0
    assert_same_pictures([one_by_one(renderer, frames, painted[1], 1)], [beside.to_patch()])


@pytest.fixture(scope="module")
def on_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return IdentityRenderer(IDENTITIES / "demo", FaceModel.load(FACE_MODEL_FILE), "cuda", warn_of_size=False)


@pytest.mark.gpu
def test_the_gpu_shows_the_same_pictures(on_gpu, faces, painted):
    for _ in range(4):  # plainly at first, then from a recorded graph
        patches = [patch.to_patch() for patch in on_gpu.render_patches(faces, painted[1])]
        assert_same_pictures(painted[0], patches)
    assert_same_pictures([painted[0][1]], [one_by_one(on_gpu, faces, painted[1], 1)])


@pytest.mark.gpu
def test_recorded_graphs_give_what_plain_runs_give(on_gpu, faces, painted):
    recorded = [on_gpu.render_patches(faces, painted[1]) for _ in range(4)][-1]
    plain = PatchRenderer(on_gpu.person, on_gpu.face_model, graphs=False).render(faces, painted[1], "lower_face")
    for one, other in zip(recorded, plain, strict=True):
        assert torch.equal(one.alpha, other.alpha)
        assert torch.allclose(one.rgb, other.rgb, atol=1e-6)
