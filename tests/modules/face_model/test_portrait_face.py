"""The 68 points of both face models, and where they are seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from modules.commons.errors import CheckpointError
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.bfm import BfmModel
from modules.face_model.model import FaceModel
from modules.face_model.portrait_face import PortraitFace, is_bfm, portrait_face
from modules.face_model.projection import project
from modules.structures.cameras import CameraIntrinsics
from modules.structures.landmarks import LM68
from tests.support.portrait_clips import write_own_clip
from tests.support.small_bfm import small_bfm


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_own_clip(tmp_path_factory.mktemp("ann"), 11, 16)


def test_own_points_are_the_models_landmarks(clip):
    model = FaceModel.load(FACE_MODEL_FILE)
    rng = np.random.default_rng(1)
    correction = rng.normal(0, 0.1, (model.n_identity, model.n_expression)).astype(np.float32)
    corrected = replace(clip, correction=correction)
    identity, expression = torch.from_numpy(clip.identity), torch.from_numpy(clip.expression)
    euler, translation = torch.from_numpy(clip.euler), torch.from_numpy(clip.translation)
    seen = {}
    for one in (clip, corrected):
        points = model.corrected(one.correction).landmarks(identity[0], expression)[:, list(LM68)]
        wanted, _ = project(points, euler, translation, clip.camera)
        seen[id(one)] = portrait_face(one).seen(identity, expression, euler, translation, clip.camera)
        torch.testing.assert_close(seen[id(one)], wanted / 16, atol=1e-5, rtol=0)
    assert not torch.equal(*seen.values())
    assert not is_bfm(clip)


def test_bfms_points_are_geneface_pp_s(clip, monkeypatch):
    bfm = small_bfm()
    monkeypatch.setattr(BfmModel, "load", lambda: bfm)
    face = portrait_face(replace(clip, face_model_version="bfm-"))
    rng = np.random.default_rng(2)
    identity, expression, euler, translation = (
        torch.from_numpy(rng.normal(0, spread, shape).astype(np.float32))
        for spread, shape in ((1, (3, 80)), (1, (3, 64)), (0.1, (3, 3)), (0.2, (3, 3)))
    )
    points = list(LM68)
    torch.testing.assert_close(face.offsets(identity, expression), bfm.idexp_lm3d(identity, expression)[:, points])
    seen = face.seen(identity, expression, euler, translation, CameraIntrinsics.geneface(512))
    torch.testing.assert_close(seen, bfm.reconstruct_lm2d(identity, expression, euler, translation)[:, points])
    one = face.seen(identity[:1], expression, euler, translation, CameraIntrinsics.geneface(512))
    torch.testing.assert_close(one[0], seen[0])
    assert isinstance(face, PortraitFace)


def test_another_face_model_is_refused(clip):
    with pytest.raises(CheckpointError, match=r"Ann was prepared with the face model mh-0, but mh-\w+ is in use"):
        portrait_face(replace(clip, face_model_version="mh-0"))
