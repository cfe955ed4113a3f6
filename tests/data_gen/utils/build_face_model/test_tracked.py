"""Real clips' frames for the builder: choice, votes, refusal of what is no table."""

import numpy as np
import pytest

from data_gen.utils.build_face_model.tracked import FRAMES_PER_CLIP, _unrelated, fit_samples, read_samples
from modules.commons.errors import GeneFaceError
from modules.face_model.model import FaceModel
from modules.structures.landmarks import Landmarks2D, lip_opening
from tests.data_gen.utils.build_face_model.face_cases import LENS, clip
from tests.support.synthetic_head import FACE_MODEL


@pytest.fixture(scope="module")
def model():
    return FaceModel.load(FACE_MODEL)


@pytest.fixture
def folder(tmp_path, model):
    """Two clips of one person and one of another; the last has many frames, some without a face."""
    for name, frames in (("anna-1", 3), ("anna-2", 3), ("bert", 60)):
        marks = clip(model, 1, frames).sample.landmarks
        valid = np.ones(frames, bool)
        valid[10:20] = False
        Landmarks2D(marks.points, marks.depth, valid, marks.blendshapes).save(tmp_path / f"{name}.npz")
        np.savez(tmp_path / f"{name}.times.npz", times_s=np.arange(frames) / 25, size_wh=np.array([640, 480]))
    return tmp_path


def test_frames_and_votes(folder):
    samples = {s.name: s for s in read_samples(folder, lambda name: name.split("-")[0])}
    assert set(samples) == {"anna-1", "anna-2", "bert"}
    assert samples["anna-1"].vote == pytest.approx(0.5**0.5) and samples["bert"].vote == 1
    bert = samples["bert"]
    assert len(samples["anna-1"].landmarks) == 3 and 10 < len(bert.landmarks) <= FRAMES_PER_CLIP
    assert np.isfinite(bert.landmarks.points).all() and bert.camera == LENS
    # the widest-open mouth is among them
    whole = Landmarks2D.load(folder / "bert.npz")
    widest = lip_opening(whole.points[whole.valid]).max()
    assert lip_opening(bert.landmarks.points).max() == pytest.approx(widest)


def test_frames_are_fitted_each_for_itself(folder, model):
    sample = read_samples(folder, str)[0]
    spread = _unrelated(sample.landmarks)
    assert spread.valid.tolist() == [True, False] * 3 and np.isnan(spread.points[1]).all()
    (fitted,) = fit_samples(model, [sample])
    assert fitted.expression.shape == (3, 52) and fitted.px_per_dm.min() > 0
    truth = clip(model, 1, 3)
    np.testing.assert_allclose(fitted.euler, truth.euler, atol=0.05)


def test_no_tables_and_broken_ones_are_refused(tmp_path):
    with pytest.raises(GeneFaceError, match="holds no landmark tables"):
        read_samples(tmp_path, str)
    (tmp_path / "bad.npz").write_bytes(b"no table")
    with pytest.raises(GeneFaceError, match=r"bad\.npz cannot be used"):
        read_samples(tmp_path, str)
