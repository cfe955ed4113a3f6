"""A person's expression correction: found where it is planted, absent where nothing shows it, small and still."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from data_gen.utils.process_video.expression_correction import (
    CorrectionConfig,
    PersonalUnits,
    learn_correction,
    speech_directions,
    stillness,
)
from data_gen.utils.process_video.fit_config import INNER_LIP_GAPS, FitConfig, FitTerms
from data_gen.utils.process_video.fit_residuals import POSE_SIZE, LandmarkBasis, Observations
from data_gen.utils.process_video.fit_solver import LandmarkFit
from data_gen.utils.process_video.fit_start import started, view_of
from modules.face_model.fitting import OutlineSlide
from modules.face_model.model import MOUTH_UNITS, FaceModel
from modules.face_model.projection import project
from modules.structures.landmarks import INNER_LIP, OUTER_LIP
from tests.data_gen.utils.process_video.fit_cases import Case, made_clip
from tests.support.synthetic_head import FACE_MODEL

FRAMES = 60


class Fitted(NamedTuple):
    """A clip fitted with the model's own units."""

    fit: LandmarkFit
    identity: torch.Tensor
    params: torch.Tensor
    seen: Observations


@pytest.fixture(scope="module")
def model() -> FaceModel:
    """The model, for made-up faces: their scores are their expression, their outline stays where it is."""
    model = FaceModel.load(FACE_MODEL)
    return replace(
        model,
        score_gain=torch.ones_like(model.score_gain),
        score_offset=torch.zeros_like(model.score_offset),
        outline_slide=OutlineSlide.none(),
    )


@pytest.fixture(scope="module")
def planted(model) -> torch.Tensor:
    """What ``jawOpen`` and a smile bring along in this person: some millimetres about the mouth."""
    generator = torch.Generator().manual_seed(5)
    still = torch.eye(model.n_identity) * 0.02 + stillness(model)
    amount = torch.linalg.solve(
        still, torch.randn(model.n_identity, 2, generator=generator) * still.diagonal()[:, None]
    )
    moved = (model.identity_basis @ amount)[list(model.landmark_triangles[list(INNER_LIP + OUTER_LIP), 0])]
    amount = amount * 0.04 / moved.norm(dim=1).mean(dim=0)  # 4 mm at the lips
    correction = torch.zeros(model.n_identity, model.n_expression)
    correction[:, model.unit("jawOpen")] = amount[:, 0]
    correction[:, model.unit("mouthSmileLeft")] = correction[:, model.unit("mouthSmileRight")] = amount[:, 1] / 2
    return correction


def talking(model: FaceModel, frames: int = FRAMES, **changes) -> Case:
    """A clip in which jaw and smile move freely."""
    case = made_clip(model, frames, noise_px=0.3)
    wave = torch.sin(torch.arange(frames) * 0.37).clamp_min(0)
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        case.expression[:, model.unit(name)] = wave
    return seen_again(model, replace(case, **changes))


def seen_again(model: FaceModel, case: Case) -> Case:
    """The case with the landmarks that its truth gives, and its scores."""
    points, _ = project(model.landmarks(case.identity, case.expression), case.euler, case.translation, case.camera)
    noise = 0.3 * torch.randn(points.shape, generator=torch.Generator().manual_seed(2))
    scores = np.zeros_like(case.landmarks.blendshapes)
    scores[:, 1:] = case.expression[:, :51]
    return replace(case, landmarks=replace(case.landmarks, points=(points + noise).numpy(), blendshapes=scores))


def fitted(model: FaceModel, case: Case, weights: np.ndarray | None = None) -> Fitted:
    """The case fitted with the units of ``model``."""
    rows, prior, config = model.landmark_rows(), model.expression_prior(), FitConfig()
    basis = LandmarkBasis.of(rows, INNER_LIP_GAPS, torch.float32)
    motion = torch.ones(model.n_expression)  # of no use here: frames are unrelated in time
    fit = LandmarkFit(basis, case.camera, FitTerms.of(config, prior, 44.0 * motion, motion))
    nobody = torch.zeros(model.n_identity)
    view, params = started(fit, nobody, view_of(case.landmarks, weights, basis, prior, config, None))
    seen = view.rows(slice(0, len(view)))
    shared = fit.fit_shared(nobody, params, seen, 6)
    return Fitted(fit, shared.identity, shared.params, seen)


def learned(model: FaceModel, found: Fitted, **settings) -> PersonalUnits:
    return learn_correction(*found, model, CorrectionConfig(**settings))


def lip_movement(model: FaceModel, correction: torch.Tensor, expression: torch.Tensor) -> torch.Tensor:
    """``[T, 40, 3]`` dm: how far the correction moves the lips under an expression ``[T, E]``."""
    rows = model.landmark_rows().identity[list(INNER_LIP + OUTER_LIP)]
    return torch.einsum("kci,ie,te->tkc", rows, correction, expression)


@pytest.fixture(scope="module")
def spoken(model, planted) -> tuple[Case, Fitted, PersonalUnits]:
    case = talking(model.corrected(planted))
    found = fitted(model, case)
    return case, found, learned(model, found)


def test_a_planted_correction_is_found(model, planted, spoken):
    case, found, units = spoken
    neutral = found.fit.basis.neutral(units.identity)
    truth = model.corrected(planted).landmarks(case.identity, case.expression)
    uncorrected = model.landmarks(found.identity, found.params[:, POSE_SIZE:])
    corrected = model.corrected(units.correction).landmarks(units.identity, units.params[:, POSE_SIZE:])
    assert neutral.isfinite().all()

    def lip_error(points: torch.Tensor) -> float:
        lips = list(INNER_LIP + OUTER_LIP)
        shown = points[:, lips] - points[:, lips].mean(dim=(0, 1))
        true = truth[:, lips] - truth[:, lips].mean(dim=(0, 1))
        return float((shown - true)[..., :2].norm(dim=-1).mean())

    assert lip_error(corrected) < 0.7 * lip_error(uncorrected)
    is_there = lip_movement(model, planted, case.expression)[..., :2]
    missing = is_there - lip_movement(model, units.correction, case.expression)[..., :2]
    missing = missing - missing.mean(dim=0)  # what never changes is identity
    is_there = is_there - is_there.mean(dim=0)
    assert missing.norm() < 0.7 * is_there.norm()


def test_the_fit_of_frames_it_never_saw_gets_better(model, planted, spoken):
    _, found, units = spoken
    later = talking(model.corrected(planted), 90)
    later = replace(later, expression=later.expression[::2].flip(0), euler=later.euler[::2] * 1.3,
                    translation=later.translation[::2])  # fmt: skip
    short = replace(later.landmarks, **{
        name: getattr(later.landmarks, name)[::2] for name in ("points", "depth", "valid", "blendshapes")
    })  # fmt: skip
    later = seen_again(model.corrected(planted), replace(later, landmarks=short))

    def error(units_of: FaceModel, identity: torch.Tensor) -> float:
        start = fitted(units_of, later)
        _, _, params, seen = start
        solved = start.fit.fit_frames(identity, params, seen, 3)
        return float((start.fit.points_px(identity, solved) - seen.points).norm(dim=-1).mean())

    assert error(model.corrected(units.correction), units.identity) < 0.9 * error(model, found.identity)


def test_the_rest_of_the_head_keeps_still(model, spoken):
    case, _, units = spoken
    lips = lip_movement(model, units.correction, case.expression).norm(dim=-1).mean()
    outside = model.region_weights["lower_face"] == 0
    moved = torch.einsum("vci,ie,te->tvc", model.identity_basis[outside], units.correction, case.expression)
    assert moved.norm(dim=-1).mean() < 0.35 * lips


def test_no_correction_is_found_where_there_is_none(model, planted, spoken):
    case = talking(model)
    units = learned(model, fitted(model, case))
    wrong = lip_movement(model, units.correction, case.expression)
    wrong = (wrong - wrong.mean(dim=0)).norm()
    is_there = lip_movement(model, planted, case.expression)
    assert wrong < 0.2 * (is_there - is_there.mean(dim=0)).norm()


def test_a_face_that_hardly_speaks_teaches_next_to_nothing(model, planted, spoken):
    case = talking(model)
    quiet = case.expression.clone()
    quiet[:, [name in MOUTH_UNITS for name in model.expression_names]] *= 0.02
    quiet = seen_again(model.corrected(planted), replace(case, expression=quiet))
    units = learned(model, fitted(model, quiet))
    would_move, moves = (
        lip_movement(model, correction, case.expression).norm(dim=-1).mean()
        for correction in (units.correction, spoken[2].correction)
    )
    assert would_move < 0.07 * moves  # if it spoke after all: a tenth of a millimetre


def test_evidence_grows_with_the_frames(model, spoken):
    _, found, whole = spoken
    some = torch.arange(0, FRAMES, 3)
    part = found._replace(params=found.params[some], seen=found.seen.rows(some))
    assert learned(model, part).correction.norm() < 0.98 * whole.correction.norm()
    few = learned(model, part, least_frames=len(some) + 1)
    assert not few.correction.any() and few.identity is found.identity and few.params is part.params


def test_hidden_lips_teach_nothing_about_themselves(model, planted, spoken):
    """With the lower face hidden, what the lips show must not matter at all."""
    case = talking(model.corrected(planted))
    weights = np.ones(case.landmarks.depth.shape, np.float32)
    lips = list(INNER_LIP + OUTER_LIP)
    weights[:, lips] = 0.0
    torn = case.landmarks.points.copy()
    torn[:, lips] += 30.0
    seen = learned(model, fitted(model, case, weights)).correction
    unseen = learned(model, fitted(model, replace(case, landmarks=replace(case.landmarks, points=torn)), weights))
    torch.testing.assert_close(unseen.correction, seen)


def test_a_stronger_prior_gives_a_smaller_correction(model, spoken):
    _, found, usual = spoken
    sizes = [usual.correction.norm()]
    for factor in (10, 1e6):
        held = learned(model, found, identity_weight=0.003 * factor, still_weight=0.3 * factor)
        sizes.append(held.correction.norm())
    assert sizes[0] > sizes[1] > sizes[2] and sizes[2] < 1e-2


def test_directions_are_orthonormal_and_of_the_mouth(model):
    expression = torch.rand(40, model.n_expression)
    directions = speech_directions(expression, model.expression_names, 6)
    torch.testing.assert_close(directions.T @ directions, torch.eye(7), atol=1e-5, rtol=0)
    assert directions[model.unit("jawOpen")].tolist() == [1.0] + [0.0] * 6
    upper = [name not in MOUTH_UNITS for name in model.expression_names]
    assert not directions[upper].any()
    assert speech_directions(expression[:3], model.expression_names, 6).shape[1] == 4


def test_only_directions_of_the_clip_are_corrected(model, spoken):
    _, found, units = spoken
    directions = speech_directions(found.params[:, POSE_SIZE:], model.expression_names, 6)
    outside = torch.eye(model.n_expression) - directions @ directions.T
    assert (units.correction @ outside).abs().max() < 1e-5 * units.correction.abs().max()


def test_stillness_is_the_mean_square_movement_in_mm(model):
    identity = torch.randn(model.n_identity, generator=torch.Generator().manual_seed(0))
    weight = 1 - model.region_weights["lower_face"]
    square = ((model.identity_basis @ identity).norm(dim=1) * 100).square()
    mean = (weight * square).sum() / weight.sum()
    torch.testing.assert_close(identity @ stillness(model) @ identity, mean, rtol=1e-4, atol=0)
