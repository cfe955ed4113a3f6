"""A small face model and speakers with known coefficients, for tests of the measures."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from data_gen.utils.evaluate_fit.fitter import Clip, Fitter
from data_gen.utils.evaluate_fit.made_up_speakers import MadeUpSpeaker, made_up_truth
from data_gen.utils.process_video.fit_3dmm_landmark import FitConfig
from data_gen.utils.process_video.fitted_points import fitted_points
from modules.face_model.fitting import OutlineSlide
from modules.face_model.model import FaceModel
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import FACE_OVAL, Landmarks2D
from tests.support.synthetic_head import FACE_MODEL


@cache
def real_model() -> FaceModel:
    return FaceModel.load(FACE_MODEL)


@cache
def sliding_model() -> FaceModel:
    """The shipped model with an outline that slides a little."""
    yaw = torch.tensor([-1.0, 0.0, 1.0])
    move = torch.zeros(3, len(FACE_OVAL), 3)
    move[0, :, 0], move[2, :, 0] = 0.1, -0.1
    return replace(real_model(), outline_slide=OutlineSlide(yaw, move))


def truth_of(model: FaceModel, count: int, seed: int = 0) -> FaceModelCoeffs:
    return made_up_truth(model, np.random.default_rng(seed), count)


def speaker_of(model: FaceModel, count: int, seed: int = 0, noise_px: float = 0.5) -> MadeUpSpeaker:
    """Projections with noise; the scores are the true coefficients."""
    truth = truth_of(model, count, seed)
    generator = np.random.default_rng(seed + 1)
    points = fitted_points(truth, model)
    points += (noise_px * generator.standard_normal(points.shape)).astype(np.float32)
    scores = np.concatenate([np.zeros((count, 1), np.float32), truth.expression[:, :51]], axis=1)
    depth = np.zeros(points.shape[:2], np.float32)
    return MadeUpSpeaker(truth, Landmarks2D(points, depth, np.ones(count, bool), scores))


def clip_of(speaker: MadeUpSpeaker, name: str = "made up") -> Clip:
    return Clip(name, speaker.landmarks, np.arange(len(speaker.landmarks)) / 25, speaker.size_wh)


def fitter_of(model: FaceModel) -> Fitter:
    return Fitter(model, FitConfig())
