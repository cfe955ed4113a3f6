"""The trained head as what a frame should look like: where it lies in the crop, and what surrounds it."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from data_gen.utils.process_video.canonical_texture import CanonicalTexture
from inference.nerf_expectation import HeadSpread, NerfExpectation, laid_over
from modules.face_model.projection import project
from modules.structures.crops import CropMetadata, CropRegion, transform_points
from modules.structures.expected_face import ExpectedFace
from modules.structures.frames import FramePatch
from modules.video.rgb_video import rgb_video_info
from tests.support.made_up_source import made_up_source

SIZE = 64


def face_around(value: float, known: float) -> ExpectedFace:
    shape = (SIZE, SIZE)
    return ExpectedFace(
        np.full((*shape, 3), value, np.float32), np.full(shape, 0.03, np.float32), np.full(shape, known, np.float32)
    )


def patch_of(value: float, alpha: float) -> FramePatch:
    return FramePatch((10, 20, 30, 50), np.full((30, 20, 3), value, np.float32), np.full((30, 20), alpha, np.float32))


@pytest.mark.parametrize(("known", "alpha", "inside"), [(1.0, 0.5, 0.5), (1.0, 1.0, 0.8), (0.0, 0.5, 0.8)])
def test_a_rendering_mixes_with_what_is_known_and_stands_alone_elsewhere(known, alpha, inside):
    around = face_around(0.2, known)
    made = laid_over(around, patch_of(0.8, alpha))
    assert np.allclose(made.rgb[20:50, 10:30], inside) and np.allclose(made.rgb[:20], 0.2)
    assert np.allclose(made.known[20:50, 10:30], max(known, alpha)) and np.allclose(made.known[:, 30:], known)
    assert np.allclose(around.rgb, 0.2), "the expectation that was given stays as it is"


def clean_frames(value=0.2, known=1.0):
    """Frames that always say the same."""
    return SimpleNamespace(knows=lambda row: row != 4, at=lambda row, size: face_around(value, known))


class Renderer:
    """Notes where it is asked to render, and paints a grey square."""

    def __init__(self) -> None:
        self.config = SimpleNamespace(data=SimpleNamespace(region="lower_face"))
        self.asked = []

    def conditions(self, expression):
        return torch.arange(len(expression))

    def render_view(self, pose, matrix, size_wh, cond_window, *, region):
        self.asked.append((pose, matrix, size_wh, int(cond_window), region))
        return patch_of(0.6, 1.0)


@pytest.fixture
def source():
    made = made_up_source(rgb_video_info(Path("none.mp4"), 160, 120, Fraction(25)), 6, [True] * 5 + [False])
    turned = CropMetadata((CropRegion(82.0, 58.0, 90.0, 0.2),), (120, 160), 256)
    return replace(made, crops=turned)


def test_the_head_is_rendered_where_the_crop_shows_it(source):
    """A point lies in the asked picture where the crop's map takes it from the frame, in a turned crop too."""
    renderer = Renderer()
    expected = NerfExpectation(renderer, source, clean_frames(known=0.0)).at(3, SIZE)
    (pose, matrix, size_wh, window, region), *_ = renderer.asked
    assert (size_wh, window, region) == ((SIZE, SIZE), 3, "lower_face") and expected is not None
    point = torch.tensor([[0.1, -0.4, 0.5]])
    coeffs = source.coeffs
    pose_of = torch.from_numpy(coeffs.euler[3]), torch.from_numpy(coeffs.translation[3])
    in_frame = project(point, *pose_of, coeffs.camera)[0].numpy()[0]
    in_crop = transform_points(source.crops.crop_from_frame(3), in_frame) * SIZE / 256
    seen = matrix @ np.linalg.inv(coeffs.camera.matrix()) @ np.array([*in_frame, 1.0])
    np.testing.assert_allclose(seen[:2] / seen[2], in_crop, atol=1e-6)
    np.testing.assert_array_equal(pose.expression, coeffs.expression[3])
    assert expected.known[30, 15] == 1 and expected.known[0, 0] == 0


def test_frames_without_a_fit_are_unknown(source):
    renderer = Renderer()
    face = NerfExpectation(renderer, source, clean_frames())
    for row in (4, 5):
        assert not face.knows(row) and face.at(row, SIZE) is None and not renderer.asked
    assert face.knows(0) and face.at(0, SIZE) is not None


def test_what_surrounds_the_head_comes_from_the_clean_frames(source):
    made = NerfExpectation(Renderer(), source, clean_frames()).at(0, SIZE)
    assert made is not None and np.allclose(made.spread, 0.03)
    assert np.allclose(made.rgb[0, 0], 0.2) and np.allclose(made.rgb[30, 15], 0.6)


class OffHead:
    """Renders what the views show in the lower half of the crop, off by a chessboard of a known size."""

    def __init__(self, views, off):
        self.views, self.off = views, off

    def rendered(self, row, size):
        board = (np.add.outer(np.arange(size), np.arange(size)) % 2 * 2 - 1).astype(np.float32)[..., None]
        alpha = np.zeros((size, size), np.float32)
        alpha[size // 2 :] = 1
        rgb = self.views[row].astype(np.float32) / 255 + np.float32(self.off) * board
        return FramePatch((0, 0, size, size), rgb.astype(np.float32), alpha)


def test_how_far_frames_stray_from_the_head_is_learnt_where_it_is_rendered(source):
    upright = replace(source, crops=CropMetadata((CropRegion(80.0, 60.0, 90.0),), (120, 160), 256))
    texture = CanonicalTexture(upright.face_model, upright.coeffs, upright.crops)
    views = np.random.default_rng(0).integers(80, 160, (5, 16, 16, 3), np.uint8)
    views = np.stack([cv2.resize(view, (256, 256), interpolation=cv2.INTER_CUBIC) for view in views])
    exemplars = SimpleNamespace(
        rows=np.arange(5), views=views, usable=np.ones((5, *texture.size_hw), bool), certain=np.arange(5)
    )
    learnt = [HeadSpread.learnt(OffHead(views, off), texture, exemplars) for off in (0.02, 0.08)]
    for spread, off in zip(learnt, (0.02, 0.08), strict=True):
        known = np.isfinite(spread.values)
        assert 0.2 < known[texture.covered].mean() < 0.8 and not known[~texture.covered].any()
        assert np.median(spread.values[known]) == pytest.approx(off, rel=0.3)
    around = ExpectedFace(
        np.full((256, 256, 3), 0.5, np.float32), np.full((256, 256), 0.2, np.float32), np.ones((256, 256), np.float32)
    )
    made = laid_over(around, OffHead(views, 0.0).rendered(0, 256))
    spread = learnt[1].laid_over(made, around, 0).spread
    assert (spread[:126] == np.float32(0.2)).all(), "above, the head was not laid over"
    assert (spread[128:] < 0.15).mean() > 0.1 and spread.min() > 0.05
