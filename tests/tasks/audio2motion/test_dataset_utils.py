"""Targets, folds and windows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modules.commons.errors import ConfigError
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from tasks.audio2motion.dataset_utils import load_clips, prepare, speaker_folds
from tests.support.talking_clips import talking_clip


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


def test_clips_are_cut_to_the_face_and_measured_from_rest(face_model):
    raw = talking_clip(face_model, 1)
    clip = prepare(raw)
    assert len(clip) == len(raw) - 3 and clip.clip.features.shape[1] == len(clip)
    columns = np.arange(face_model.n_expression)
    np.testing.assert_allclose(clip.deviation(columns) + clip.rest, raw.expression[3:], atol=1e-6)
    shut = np.argsort(clip.clip.opening)[: round(0.2 * len(clip))]
    np.testing.assert_allclose(clip.deviation(columns)[shut].mean(axis=0), 0.0, atol=1e-5)


def test_folder_errors(face_model, tmp_path):
    with pytest.raises(ConfigError, match=r"build_av_corpus\.py"):
        load_clips(tmp_path)
    clip = talking_clip(face_model, 1)
    clip.save(tmp_path / "a.npz")
    dataclasses.replace(clip, face_model_version="other").save(tmp_path / "b.npz")
    with pytest.raises(ConfigError, match="different face models"):
        load_clips(tmp_path)
    np.savez(tmp_path / "b.npz", x=np.zeros(2))
    with pytest.raises(ConfigError, match="schema"):
        load_clips(tmp_path)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_folds_hold_whole_speakers_and_are_balanced(face_model, seed):
    clips = [prepare(talking_clip(face_model, i, speaker=f"s{i % 7}")) for i in range(14)]
    folds = speaker_folds(clips, 3, seed)
    assert set(folds) == {f"s{i}" for i in range(7)} and set(folds.values()) == {0, 1, 2}
    sizes = [sum(folds[clip.speaker] == fold for clip in clips) for fold in range(3)]
    assert max(sizes) - min(sizes) <= 2
