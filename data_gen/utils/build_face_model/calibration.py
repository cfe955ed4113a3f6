"""What real clips say of the face model's coefficients: their spread, and what MediaPipe's scores tell of them.

Fits are regularised, so their coefficients lean towards the prior they were fitted with. Therefore each clip's evidence
is kept as a Gaussian (precision and pull, see ``Evidence``), and mean and spread of the prior are re-estimated from
posterior means and variances (expectation maximisation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from data_gen.utils.build_face_model.linear_views import linearize_clip
from data_gen.utils.build_face_model.refine import FRAMES_OF_EVIDENCE
from data_gen.utils.build_face_model.tracked import FittedClip
from modules.face_model.model import FaceModel
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES

ROUNDS = 15
SCALE_RANGE = (0.4, 2.5)
GAIN_RANGE, LARGEST_OFFSET = (0.0, 1.5), 0.1
STD_RANGE = (0.03, 0.35)
ASSUMED_STD = 0.3
"""Spread of an expression around MediaPipe's score while nothing is known of it."""
POOLED_CLIPS = 10.0
"""As many votes as each identity column borrows from all columns together."""
LARGEST_SHIFT = 1.0
"""Farthest the mean moves along one column; beyond it the landmarks' own habits speak, not people's shapes."""
_GAIN_EVIDENCE = 0.002
"""Mean squared score that the assumed gain of 1 is worth."""
_HUBER = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What landmarks say of coefficients x without any prior: ``precision @ x = pull`` where they say enough.

    Attributes:
        precision: ``[N, C, C]``. pull: ``[N, C]``. weight: ``[N]`` votes.
    """

    precision: NDArray[np.float64]
    pull: NDArray[np.float64]
    weight: NDArray[np.float64]

    def posterior(
        self, mean: NDArray[np.float64], std: NDArray[np.float64]
    ) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Means and variances ``[N, C]`` under a prior of ``mean [C]`` or ``[N, C]`` and ``std [C]``."""
        own = np.diag(std**-2.0)
        covariance = np.linalg.inv(self.precision + own)
        means = (covariance @ (self.pull + mean * std**-2.0)[..., None])[..., 0]
        return means, np.diagonal(covariance, axis1=1, axis2=2)


def gather(model: FaceModel, clips: list[FittedClip]) -> tuple[Evidence, Evidence, NDArray[np.float64]]:
    """Evidence of the clips' identities, of all frames' expressions, and those frames' scores ``[N, E]``.

    MediaPipe has no score for ``tongueOut``; it stays 0.
    """
    identities, expressions, scores = [], [], []
    for clip in clips:
        person, frames = _clip_evidence(model, clip)
        identities.append((*person, clip.sample.vote))
        share = clip.sample.vote / len(frames)
        expressions += [(*frame, share) for frame in frames]
        scores.append(unit_scores(model, clip))
    return _stacked(identities), _stacked(expressions), np.concatenate(scores)


def _stacked(rows: list[tuple[NDArray[np.float64], NDArray[np.float64], float]]) -> Evidence:
    precision, pull, weight = zip(*rows, strict=True)
    return Evidence(np.stack(precision), np.stack(pull), np.array(weight))


def unit_scores(model: FaceModel, clip: FittedClip) -> NDArray[np.float64]:
    """MediaPipe's score of every unit, ``[F, E]``."""
    scores = np.zeros(clip.expression.shape)
    for unit, name in enumerate(model.expression_names):
        if name in MEDIAPIPE_BLENDSHAPES:
            scores[:, unit] = clip.sample.landmarks.blendshapes[:, MEDIAPIPE_BLENDSHAPES.index(name)]
    return np.nan_to_num(scores)


def _clip_evidence(
    model: FaceModel, clip: FittedClip
) -> tuple[tuple[NDArray, NDArray], list[tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """(precision, pull) of the identity with poses and expressions eliminated, and of each frame's expression."""
    views, rows = linearize_clip(model, clip), model.landmark_rows()
    identity_rows, unit_rows = rows.identity.double().numpy(), rows.expression.double().numpy()
    prior = model.expression_std.double().numpy() ** -2.0
    expected = unit_scores(model, clip) * model.score_gain.numpy() + model.score_offset.numpy()
    size = model.n_identity
    precision, pull, frames = np.zeros((size, size)), np.zeros(size), []
    for f in range(len(views.residual)):
        root = np.sqrt(np.repeat(views.weight[f], 2))[:, None]
        by_identity, by_unit = (
            (views.by_place[f] @ part).reshape(len(root), -1) * root for part in (identity_rows, unit_rows)
        )
        by_pose = views.by_pose[f].reshape(len(root), -1) * root
        error = views.residual[f].ravel() * root[:, 0]
        steady = np.linalg.qr(by_pose)[0]  # what a change of pose explains says nothing
        units, target = by_unit - steady @ (steady.T @ by_unit), error - steady @ (steady.T @ error)
        own = units.T @ units
        frames.append((own, own @ clip.expression[f] - units.T @ target))
        person = by_identity - steady @ (steady.T @ by_identity)
        mixed = scipy.linalg.solve(own + np.diag(prior), units.T @ person, assume_a="pos")  # [E, I]
        slack = units.T @ target + prior * (clip.expression[f] - expected[f])
        precision += person.T @ person - (units.T @ person).T @ mixed
        pull -= person.T @ target - mixed.T @ slack
    share = FRAMES_OF_EVIDENCE / len(views.residual)
    return (share * precision, share * (precision @ clip.identity + pull)), frames


def identity_statistics(evidence: Evidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and spread ``[I]`` of the clips' identities, in units of the present columns."""
    size = evidence.pull.shape[1]
    mean, std = np.zeros(size), np.ones(size)
    votes = evidence.weight / evidence.weight.sum()
    effective = 1.0 / np.square(votes).sum()
    for _ in range(ROUNDS):
        found, variance = evidence.posterior(mean, std)
        mean = np.clip(effective / (effective + POOLED_CLIPS) * (votes @ found), -LARGEST_SHIFT, LARGEST_SHIFT)
        each = votes @ (np.square(found - mean) + variance)
        std = np.sqrt((effective * each + POOLED_CLIPS * each.mean()) / (effective + POOLED_CLIPS))
        std = np.clip(std, *SCALE_RANGE)
    return mean, std


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMeaning:
    """expression ≈ gain · score + offset ± std, each ``[E]``."""

    gain: NDArray[np.float64]
    offset: NDArray[np.float64]
    std: NDArray[np.float64]

    @classmethod
    def assumed(cls, units: int) -> ScoreMeaning:
        """Scores are taken at their word."""
        return cls(np.ones(units), np.zeros(units), np.full(units, ASSUMED_STD))


def score_meaning(
    evidence: Evidence, scores: NDArray[np.float64], names: tuple[str, ...], start: ScoreMeaning
) -> ScoreMeaning:
    """What MediaPipe's ``scores [N, E]`` say of the expression; left and right units share their figures.

    Units without a score (``tongueOut``) keep what ``start`` says.
    """
    gain, offset, std = start.gain.copy(), start.offset.copy(), start.std.copy()
    for _ in range(ROUNDS):
        found, variance = evidence.posterior(scores * gain + offset, std)
        found = np.clip(found, 0.0, 1.0)
        for units in _twins(names):
            x, y = scores[:, units].ravel(), found[:, units].ravel()
            weight = np.repeat(evidence.weight, len(units))
            gain[units], offset[units] = _robust_line(x, y, weight / weight.sum(), float(std[units[0]]))
            off = np.square(y - gain[units[0]] * x - offset[units[0]]) + variance[:, units].ravel()
            std[units] = np.clip(np.sqrt((weight * off).sum() / weight.sum()), *STD_RANGE)
    return ScoreMeaning(gain, offset, std)


def _twins(names: tuple[str, ...]) -> list[list[int]]:
    """Columns of each scored unit together with its counterpart on the other side."""
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        if name in MEDIAPIPE_BLENDSHAPES:
            groups.setdefault(name.removesuffix("Left").removesuffix("Right"), []).append(column)
    return list(groups.values())


def _robust_line(
    x: NDArray[np.floating], y: NDArray[np.floating], weight: NDArray[np.floating], spread: float
) -> tuple[float, float]:
    """Gain and offset of y over x within their ranges, by iterated least squares with Huber's weights."""
    gain, offset = 1.0, 0.0
    for _ in range(10):
        off = np.abs(y - gain * x - offset)
        w = weight * np.minimum(1.0, _HUBER * spread / np.maximum(off, 1e-9))
        w = w / w.sum()
        center, level = w @ x, w @ y
        slope = (w @ ((x - center) * (y - level)) + _GAIN_EVIDENCE) / (w @ np.square(x - center) + _GAIN_EVIDENCE)
        gain = float(np.clip(slope, *GAIN_RANGE))
        offset = float(np.clip(level - gain * center, -LARGEST_OFFSET, LARGEST_OFFSET))
    return gain, offset
