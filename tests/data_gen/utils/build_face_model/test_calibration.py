"""Spread of coefficients and the meaning of scores, from evidence of known origin."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_gen.utils.build_face_model.calibration import (
    LARGEST_OFFSET,
    Evidence,
    ScoreMeaning,
    gather,
    identity_statistics,
    score_meaning,
)
from modules.face_model.model import FaceModel
from tests.data_gen.utils.build_face_model.face_cases import clip
from tests.support.synthetic_head import FACE_MODEL

NAMES = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "tongueOut")


def evidence_of(truth, noise, generator):
    """Each row of ``truth [N, C]`` seen through a random direction-dependent noise."""
    count, size = truth.shape
    precision, pull = np.empty((count, size, size)), np.empty((count, size))
    for n in range(count):
        views = generator.normal(size=(2 * size, size)) / noise / np.sqrt(2 * size)
        precision[n] = views.T @ views
        pull[n] = views.T @ (views @ truth[n] + generator.normal(size=2 * size))
    return Evidence(precision, pull, np.ones(count))


def test_identities_spread_is_found_though_fits_shrink_it():
    generator = np.random.default_rng(0)
    mean, std = np.array([0.6, 0.0, -0.3]), np.array([0.6, 1.0, 1.5])
    evidence = evidence_of(mean + std * generator.normal(size=(400, 3)), 1.0, generator)
    found_mean, found_std = identity_statistics(evidence)
    np.testing.assert_allclose(found_mean, mean, atol=0.15)
    np.testing.assert_allclose(found_std, std, rtol=0.2)
    shrunk, _ = evidence.posterior(np.zeros(3), np.ones(3))
    assert shrunk.std(axis=0)[2] < 0.85 * std[2]  # what a naive estimate would have said


def test_evidence_that_says_nothing_leaves_the_prior():
    nothing = Evidence(np.zeros((20, 4, 4)), np.zeros((20, 4)), np.ones(20))
    mean, std = identity_statistics(nothing)
    np.testing.assert_allclose(mean, 0)
    np.testing.assert_allclose(std, 1)


def test_meaning_of_scores_is_found_and_shared_by_twins():
    generator = np.random.default_rng(1)
    scores = generator.uniform(0, 0.6, (600, 4))
    truth = scores * [0.7, 1.2, 1.2, 0.0] + [0.05, 0.02, 0.02, 0.0] + 0.05 * generator.normal(size=(600, 4))
    evidence = evidence_of(np.clip(truth, 0, 1), 0.05, generator)
    got = score_meaning(evidence, scores, NAMES, ScoreMeaning.assumed(4))
    np.testing.assert_allclose(got.gain[:3], [0.7, 1.2, 1.2], atol=0.08)
    np.testing.assert_allclose(got.offset[:3], [0.05, 0.02, 0.02], atol=0.03)
    assert got.gain[1] == got.gain[2] and got.std[1] == got.std[2]
    assert (got.std[:3] >= 0.03).all() and (got.std[:3] < 0.1).all()
    assert (got.gain[3], got.offset[3], got.std[3]) == (1.0, 0.0, 0.3)  # MediaPipe has no score for the tongue


def test_one_wild_clip_does_not_bend_the_line():
    generator = np.random.default_rng(2)
    scores = generator.uniform(0, 0.6, (300, 4))
    truth = scores.copy()
    truth[:15] = 0.9
    evidence = evidence_of(truth, 0.03, generator)
    got = score_meaning(evidence, scores, NAMES, ScoreMeaning.assumed(4))
    assert got.gain[0] == pytest.approx(1.0, abs=0.1) and -LARGEST_OFFSET < got.offset[0] < 0.05


def test_evidence_of_an_exact_fit_points_at_the_fit():
    units = ScoreMeaning.assumed(52)
    model = replace(
        FaceModel.load(FACE_MODEL),
        score_gain=torch.from_numpy(units.gain),
        score_offset=torch.from_numpy(units.offset),
    )
    neutral = clip(model, 2, frames=3)
    identities, expressions, scores = gather(model, [neutral])
    for evidence, truth in ((identities, neutral.identity[None]), (expressions, neutral.expression)):
        off = (evidence.precision @ truth[..., None])[..., 0] - evidence.pull
        assert np.abs(off).max() < 1e-3 * np.abs(evidence.pull).max()
    np.testing.assert_allclose(scores[:, :51], neutral.expression[:, :51], atol=1e-6)
    assert expressions.weight.sum() == pytest.approx(1.0) and not scores[:, 51].any()
