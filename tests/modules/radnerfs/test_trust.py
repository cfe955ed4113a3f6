"""Cells that training saw: trusted by error, learnt from the views that show them best."""

from __future__ import annotations

import numpy as np
import torch

from modules.radnerfs.trust import CELLS, GOOD_SHARE, best_view_cells, cell_index, good_views, read_cells, trust_cells

PLACES = torch.tensor([[-0.6, 0.0, 0.0], [0.0, 0.0, 0.0], [0.6, 0.0, 0.0]])


def test_trust_follows_errors_except_where_exempt():
    counts = torch.tensor([80, 20, 20])
    error = torch.tensor([0.01, 0.1, 0.1]).repeat_interleave(counts) ** 2
    exempt = torch.tensor([False, False, True]).repeat_interleave(counts)
    trust = trust_cells(PLACES.repeat_interleave(counts, dim=0), error, exempt)
    points = torch.cat([PLACES, torch.tensor([[0.0, 0.8, 0.0], [5.0, 0.0, 0.0]])]).numpy()
    np.testing.assert_allclose(read_cells(trust, points), [1, 0, 1, 0, 0], atol=1e-6)


def test_cells_are_numbered_z_y_x():
    low, high = -1 + 1 / CELLS, 1 - 1 / CELLS
    corners = torch.tensor([[low, low, low], [high, low, low], [low, high, low], [low, low, high], [2.0, 2.0, 2.0]])
    wanted = [0, CELLS - 1, (CELLS - 1) * CELLS, (CELLS - 1) * CELLS**2, CELLS**3 - 1]
    assert cell_index(corners).tolist() == wanted


def test_each_place_is_learnt_from_its_best_views_only():
    generator = torch.Generator().manual_seed(3)
    which = torch.randint(3, (600,), generator=generator)
    quality = torch.rand(600, generator=generator) * torch.tensor([1.0, 0.5, 0.1])[which]
    kept = good_views(PLACES[which], quality, best_view_cells(PLACES[which], quality))
    for place in range(3):
        mine = which == place
        limit = GOOD_SHARE * float(quality[mine].max())
        clear = mine & ((quality - limit).abs() > 0.005)  # the best is kept in 255 steps
        assert torch.equal(kept[clear], quality[clear] >= limit)
