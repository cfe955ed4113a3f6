"""The gains that give predicted motion its natural size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modules.audio2motion.motion_space import columns_of
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from tasks.audio2motion.dataset_utils import prepare
from tasks.audio2motion.validation import CrossValidation, calibrate, score_predictions
from tests.support.talking_clips import UNITS, talking_clip


@pytest.fixture(scope="module")
def face_model() -> FaceModel:
    return FaceModel.load(FACE_MODEL_FILE)


def shrunk(face_model: FaceModel, jaw: float, corners: float) -> tuple[CrossValidation, torch.Tensor]:
    """Predictions that are the truth, with too little motion of the jaw and of what spreads the mouth."""
    clips = [prepare(talking_clip(face_model, seed)) for seed in range(4)]
    columns = columns_of(face_model.expression_names, UNITS)
    share = np.array([jaw, corners, corners, corners], np.float32)
    deviations = [clip.deviation(columns) for clip in clips]
    predictions = [torch.from_numpy(d.mean(axis=0) + share * (d - d.mean(axis=0))) for d in deviations]
    return CrossValidation(clips, predictions, {}), torch.from_numpy(columns)


@pytest.mark.parametrize(("jaw", "corners"), [(0.6, 0.6), (0.7, 0.4)])
def test_opening_and_width_both_get_their_size_back(face_model: FaceModel, jaw: float, corners: float) -> None:
    validation, columns = shrunk(face_model, jaw, corners)
    calibration = calibrate(validation, columns, face_model, 0.94)
    spreads = np.array([score.spread for score in score_predictions(validation, calibration, columns, face_model)])
    assert np.median(spreads[:, :2], axis=0) == pytest.approx([0.94, 0.94], abs=0.02)


def test_what_moves_too_little_in_width_gets_the_larger_gain_there(face_model: FaceModel) -> None:
    validation, columns = shrunk(face_model, jaw=0.7, corners=0.4)
    gain = dict(zip(UNITS, calibrate(validation, columns, face_model, 0.94).gain.tolist(), strict=True))
    assert gain["jawOpen"] < gain["mouthSmileLeft"]
    assert gain["mouthSmileLeft"] == pytest.approx(gain["mouthSmileRight"], rel=0.1)
