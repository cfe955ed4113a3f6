"""Anchors find back to where clips and painted heads show them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_gen.utils.build_face_model.refine import anchor_places, freedom, solve_moves
from data_gen.utils.build_face_model.tracked import fit_samples
from modules.face_model.model import FaceModel
from modules.structures.landmarks import FACE_OVAL, INNER_LIP, IRISES
from tests.data_gen.utils.build_face_model.face_cases import clip, contours, painting
from tests.support.synthetic_head import FACE_MODEL

DISPLACED = (50, 205, 105)
"""Cheek, beside the nose, brow; all on the image's left."""


@pytest.fixture(scope="module")
def model():
    return FaceModel.load(FACE_MODEL)


@pytest.fixture(scope="module")
def free(model):
    return freedom(model, contours())


@pytest.fixture(scope="module")
def elsewhere(model):
    """The model with some anchors, and their mirror images, moved towards a corner of their triangle."""
    triangles, weights = model.landmark_triangles.clone(), model.landmark_weights.clone()
    for k in DISPLACED:
        corner = int(weights[k].argmin())
        weights[k] = 0.5 * weights[k] + 0.5 * torch.eye(3)[corner]
        twin = int(model.landmark_mirror[k])
        triangles[twin], weights[twin] = model.mirror[triangles[k]], weights[k]
    return replace(model, landmark_triangles=triangles, landmark_weights=weights)


def test_allowed_moves_are_symmetric_and_keep_what_must_stay(model, free):
    pair = model.landmark_mirror.numpy()
    mirrored = free.directions[pair] * np.array([-1.0, 1.0, 1.0])[:, None]
    np.testing.assert_allclose(mirrored, free.directions, atol=1e-12)
    assert not free.directions[[*IRISES, 78, 308, 61, 291, 33, 133, 362, 263, 13, 14]].any()
    assert free.directions[[50, 205, 4, 13 + 50]].any(axis=(1, 2)).all()
    counts = free.directions.any(axis=1).sum(axis=1)
    assert counts.max() == 2 and counts[list(FACE_OVAL)].min() == 0 and counts[4] == 1 and counts[50] == 2
    assert (counts[list(INNER_LIP)] <= 1).all()


def test_facing_lip_points_move_together(free):
    amounts = np.random.default_rng(0).normal(size=free.directions.shape[2])
    moves = free.directions @ amounts
    for i in range(1, 5):
        upper, lower = np.linalg.norm(moves[[INNER_LIP[i], INNER_LIP[-i]]], axis=1)
        assert upper == pytest.approx(lower) and upper > 0


@pytest.mark.parametrize("source", ["clips", "paintings"])
def test_displaced_anchors_are_found(model, free, elsewhere, source):
    # a painted head shows the truth; clips must see through identities and expressions that give way
    samples = [clip(elsewhere, seed).sample for seed in range(4)] if source == "clips" else []
    clips = fit_samples(model, samples) if samples else []
    views = [painting(elsewhere, 0.2 * (seed - 2), seed) for seed in range(5)] if source == "paintings" else []
    wanted = anchor_places(elsewhere) - anchor_places(model)
    moves = solve_moves(model, free, clips, views, painted_share=3.0)
    for k in DISPLACED:
        size = np.linalg.norm(wanted[k])
        assert size > 0.01  # dm, or the test says nothing
        assert np.linalg.norm(moves[k] - wanted[k]) < 0.5 * size
    others = np.delete(np.arange(478), [*DISPLACED, *model.landmark_mirror[list(DISPLACED)].tolist()])
    assert np.linalg.norm(moves[others], axis=1).mean() < 0.002


def test_right_anchors_stay(model, free):
    moves = solve_moves(model, free, [clip(model, 3)], [painting(model, 0.1, 4)])
    assert np.abs(moves).max() < 1e-4
