"""The torso: GeneFace++'s own values, and where its occupancy lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import TorsoConfig
from modules.radnerfs.radnerf_torso import OCCUPANCY_DECAY, TorsoCues, TorsoField, updated_torso_grid
from modules.radnerfs.rays import background_coordinates
from tests.modules.radnerfs import golden
from tests.support.official_portraits import GRID

SMALL = TorsoConfig(GRID, individual_embedding_num=2, hidden_dim_deform=8, hidden_dim_color=8, grid_size=8)
POSE = torch.linspace(-0.3, 0.3, 6)


def golden_torso(config: TorsoConfig) -> TorsoField:
    golden.load_json("manifest_radnerf_torso")
    torso = TorsoField(config, get_backend("torch"))
    golden.fill(torso)
    return torso.eval()


@torch.no_grad()
def assert_originals(torso: TorsoField, data, head: torch.Tensor | None, tag: str = "") -> None:
    landmarks = torch.from_numpy(data["t_lm68"]).view(68, 2)
    cues = TorsoCues(torch.from_numpy(data["t_pose"])[0], landmarks, torso.torso_individual_codes[0])
    out = torso(torch.from_numpy(data["t_x"]), cues, head)
    for mine, name in ((out.alpha[:, None], "t_alpha"), (out.rgb, "t_color"), (out.shift, "t_dx")):
        np.testing.assert_allclose(mine, data[name + tag], atol=1e-3)


def test_a_torso_that_bends_with_the_pose_is_the_originals():
    data = golden.load("radnerf_torso")
    assert_originals(golden_torso(TorsoConfig()), data, None)


def test_a_torso_that_sees_the_head_is_the_originals():
    data = golden.load("radnerf_torso_sr")
    torso = golden_torso(TorsoConfig(cue="landmarks", head_aware=True))
    assert_originals(torso, data, torch.from_numpy(np.concatenate([data["t_img"], data["t_w"]], axis=1)))
    assert_originals(torso, data, None, "_nohead")


@pytest.fixture
def torso() -> TorsoField:
    torch.manual_seed(0)
    return TorsoField(SMALL, get_backend("torch"))


def cues(torso: TorsoField) -> TorsoCues:
    return TorsoCues(POSE, None, torso.torso_individual_codes[0])


def test_the_cue_it_bends_with_must_be_given(torso):
    chin = TorsoField(replace(SMALL, cue="landmarks"), get_backend("torch"))
    with pytest.raises(ValueError, match="bends with the landmarks; none were given"):
        chin(torch.zeros(1, 2), cues(chin))
    with pytest.raises(ValueError, match="bends with the pose"):
        torso(torch.zeros(1, 2), TorsoCues(None, torch.rand(68, 2), torso.torso_individual_codes[0]))


def test_it_moves_with_the_head_and_can_be_trained(torso):
    points = torch.rand(50, 2) * 2 - 1
    here = torso(points, cues(torso))
    moved = torso(points, replace(cues(torso), pose6=POSE + 0.2))
    assert (here.shift - moved.shift).abs().max() > 1e-3
    (here.alpha.sum() + here.rgb.sum()).backward()
    names = {name for name, parameter in torso.named_parameters() if parameter.grad is not None}
    assert names == {name for name, _ in torso.named_parameters()}


def test_occupied_pixels_lie_where_their_cells_do(torso):
    """Columns of the picture are rows of the grid: the row coordinate runs fastest."""
    torso.density_grid_torso.zero_()
    torso.density_grid_torso.view(8, 8)[5, 2] = 0.5  # column 5, row 2
    found = torso.occupied(background_coordinates(8, 8)).view(8, 8)
    assert found.nonzero().tolist() == [[2, 5]]
    wide = torso.occupied(background_coordinates(15, 15)).view(15, 15)
    assert wide.nonzero().float().mean(dim=0).tolist() == [4, 10]
    assert not torso.occupied(background_coordinates(8, 8), 0.6).any()


def test_an_update_spreads_what_it_sees_and_forgets_slowly(torso):
    torso.density_grid_torso.copy_(torch.rand(64))
    old = torso.density_grid_torso.clone()
    grid = updated_torso_grid(torso, cues(torso), None)
    axis = torch.linspace(-1, 1, 8) * (1 - 1 / 8)
    alpha = torch.zeros(8, 8)
    with torch.no_grad():
        for column in range(8):
            for row in range(8):
                alpha[column, row] = torso(torch.stack([axis[row], axis[column]])[None], cues(torso)).alpha[0]
    for column in range(8):
        for row in range(8):
            near = alpha[max(0, column - 2) : column + 3, max(0, row - 2) : row + 3]
            wanted = max(float(near.max()), OCCUPANCY_DECAY * float(old[column * 8 + row]))
            assert float(grid[column * 8 + row]) == pytest.approx(wanted, abs=1e-5)
    assert torch.equal(torso.density_grid_torso, old)
    jittered = updated_torso_grid(torso, cues(torso), torch.Generator().manual_seed(0))
    assert not torch.equal(jittered, grid)
    torch.testing.assert_close(jittered, updated_torso_grid(torso, cues(torso), torch.Generator().manual_seed(0)))
