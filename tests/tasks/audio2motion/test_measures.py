"""Five numbers of a mouth, and scores read off units."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modules.audio2motion.motion_space import columns_of
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES
from tasks.audio2motion.dataset_utils import prepare
from tasks.audio2motion.measures import MEASURES, ScoreReadout, cut_to, lip_distances, seen_measures, z_scores
from tests.support.seen_mouths import seen_of
from tests.support.talking_clips import UNITS, talking_clip


@pytest.fixture(scope="module")
def face_model():
    return FaceModel.load(FACE_MODEL_FILE)


def test_distances_are_those_the_clip_was_made_with(face_model):
    clip = talking_clip(face_model, 1)
    lips = lip_distances(clip.expression, clip.identity, face_model)
    np.testing.assert_allclose(lips, np.stack([clip.opening, clip.width], axis=1), atol=1e-5)


def test_seen_rows_are_cut_like_the_clip(face_model):
    raw = talking_clip(face_model, 2)
    clip = prepare(raw)
    seen = cut_to(seen_of(raw, face_model), clip)
    assert clip.first_row == 3 and len(seen) == len(clip)
    np.testing.assert_array_equal(seen.opening, clip.clip.opening)
    measures = seen_measures(seen)
    assert measures.shape == (len(clip), len(MEASURES))
    np.testing.assert_array_equal(measures[:, 2], seen.scores[:, MEDIAPIPE_BLENDSHAPES.index("jawOpen")])
    with pytest.raises(ValueError, match="is not what was seen of"):
        cut_to(dataclasses.replace(seen, name="other"), clip)
    with pytest.raises(ValueError, match="is not what was seen of"):
        cut_to(seen, clip)  # already cut: too short


def test_scores_are_read_off_units_of_people_never_taught(face_model):
    clips = [prepare(talking_clip(face_model, seed)) for seed in range(5)]
    seen = [cut_to(seen_of(talking_clip(face_model, seed), face_model), clip) for seed, clip in enumerate(clips)]
    columns = columns_of(face_model.expression_names, UNITS)
    readout = ScoreReadout.taught_by(clips[:4], seen[:4], columns)
    read = readout(clips[4].deviation(columns))
    truth = seen_measures(seen[4])[:, 2:]
    for index in range(3):
        assert np.corrcoef(read[:, index], truth[:, index])[0, 1] > 0.97


def test_z_scores_are_cut_off():
    values = np.append(np.zeros(99), 1e6)[:, None]
    assert z_scores(values).max() == 4.0
    assert np.all(z_scores(np.ones((5, 1))) == 0.0)
