"""Contours from four rays: where they are, and that the mean of sub-pixels is what comes out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.radnerfs.antialias import FINER, depth_jumps, finer_hits, render_window, sharpened, smooth_window
from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from modules.radnerfs.person import PersonField, render_hits, render_points
from modules.radnerfs.surface import FacePose, region_weight, surface_hits
from tests.support.synthetic_head import SyntheticSpeaker

GRID = GridConfig(n_levels=4, desired_resolution=64, log2_table_size=12, grid_type="hash")
WINDOW = (110, 110, 210, 190)


@pytest.fixture(scope="module")
def scene():
    speaker = SyntheticSpeaker(1, size_hw=(240, 320), face_px=130.0)
    coeffs = speaker.coeffs(2)
    expression = np.zeros_like(coeffs.expression[0])
    expression[speaker.model.unit("jawOpen")] = 0.6
    pose = FacePose(coeffs.identity, expression, np.zeros(3, np.float32), coeffs.translation[0])
    torch.manual_seed(0)
    config = RADNeRFConfig(
        position_grid=GRID, ambient_grid=GRID, ambient_dim=2, hidden_dim_ambient=16, hidden_dim_sigma=16,
        hidden_dim_color=16, geo_feat_dim=8, cond_out_dim=8, sh_degree=2, individual_embedding_num=1,
        individual_embedding_dim=0, render=RenderConfig(sampler="surface", n_samples=1),
    )  # fmt: skip
    person = PersonField(config, len(coeffs.identity), 2)
    with torch.no_grad():
        person.radnerf.position_embedder.embeddings.uniform_(-3, 3)
        person.box_center.copy_(torch.tensor([0.0, -0.36, 0.24]))
    hits = surface_hits(speaker.model, pose, speaker.camera.matrix(), WINDOW, "lower_face")
    return speaker, pose, person, hits, person.encode(torch.zeros(1, 5, 204))[0].detach()


def test_jumps_match_a_loop(scene):
    hits = scene[3]
    jumps = depth_jumps(hits)
    height, width = hits.mask.shape
    for row in range(0, height, 3):
        for column in range(0, width, 3):
            expected = False
            for other in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if 0 <= other[0] < height and 0 <= other[1] < width and hits.mask[row, column] and hits.mask[other]:
                    expected |= bool((np.abs(hits.canonical[row, column] - hits.canonical[other]) > 0.04).any())
            assert jumps[row, column] == expected


def test_contour_pixels_are_means_of_their_rays_and_others_are_untouched(scene):
    speaker, pose, person, hits, condition = scene
    wanted = hits.weight > 0
    image = smooth_window(person, speaker.model, pose, speaker.camera.matrix(), hits, wanted, condition)
    plain = render_hits(person, hits, wanted, condition)
    contour = depth_jumps(hits) & wanted & (region_weight(speaker.model, hits, "mouth") > 0)
    assert 20 < contour.sum() < 0.2 * wanted.sum()
    np.testing.assert_array_equal(image[~contour], plain[~contour])
    everywhere = np.ones_like(contour)
    fine = finer_hits(speaker.model, pose, speaker.camera.matrix(), WINDOW, everywhere)
    for row, column in np.argwhere(contour)[::7]:
        block = slice(row * FINER, (row + 1) * FINER), slice(column * FINER, (column + 1) * FINER)
        mask = fine.mask[block]
        colours = render_points(person, fine.canonical[block][mask], fine.direction[block][mask], condition)
        np.testing.assert_allclose(image[row, column], colours.mean(axis=0), atol=1e-5)


def test_sharpening_lifts_detail_inside_and_leaves_the_rest():
    image = np.random.default_rng(5).uniform(0.3, 0.7, (24, 30, 3)).astype(np.float32)
    image[:, 15:] += 0.2
    inside = np.zeros((24, 30), bool)
    inside[4:20, 3:27] = True
    half = np.full((24, 30), 0.5, np.float32)
    half[:, 20:] = 0
    lifted = sharpened(image, inside, half)
    np.testing.assert_array_equal(lifted[~inside], image[~inside])
    np.testing.assert_array_equal(lifted[:, 20:], image[:, 20:])
    assert lifted[5:19, 4:14].var() > 1.3 * image[5:19, 4:14].var()
    flat = np.full_like(image, 0.4)
    np.testing.assert_allclose(sharpened(flat, inside, half), flat, atol=1e-6)


def test_a_window_is_sharpened_as_the_person_says(scene):
    speaker, pose, person, hits, condition = scene
    wanted = hits.weight > 0
    arguments = (person, speaker.model, pose, speaker.camera.matrix(), hits, wanted, condition)
    person.sharpen_share.fill_(0.45)
    window = render_window(*arguments)
    share = np.float32(0.45) * region_weight(speaker.model, hits, "mouth")
    person.sharpen_share.fill_(0.0)
    np.testing.assert_array_equal(window, sharpened(smooth_window(*arguments), wanted & hits.mask, share))
    np.testing.assert_array_equal(render_window(*arguments), smooth_window(*arguments))
