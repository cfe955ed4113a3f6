"""The BFM helper against GeneFace++'s own outputs."""

import numpy as np
import pytest
import scipy.io
import torch

from modules.commons.errors import ModelFileError
from modules.commons.workspace import ROOT
from modules.face_model.bfm import BFM_FILE, FIT_CANVAS, MEDIAPIPE_INDEX_FILE, BfmModel
from modules.face_model.keypoints import (
    condition_windows,
    eye_area_percent,
    idexp_keypoints,
    inject_blinks,
    smooth_features,
)

FIXTURE = ROOT.parent / "shared" / "fixtures" / "geneface" / "face3d_pose.npz"


@pytest.fixture(scope="module")
def golden():
    if not FIXTURE.is_file():
        pytest.skip(f"golden fixtures are not here: {FIXTURE}")
    with np.load(FIXTURE) as data:
        return {name: torch.as_tensor(data[name]) for name in data.files}


def bfm_arrays(golden):
    named = {name: golden[name].numpy() for name in ("meanshape", "idBase", "exBase")}
    return {**named, "keypoints": golden["keypoints_1based"].numpy(), "tri": np.array([[1, 2, 3], [2, 3, 4]])}


@pytest.fixture(scope="module")
def model(golden):
    return BfmModel.from_arrays(bfm_arrays(golden), golden["mp468"].numpy())


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_mean_and_offsets(golden, model):
    assert_close(model.mean[model.mediapipe_vertices], golden["key_mean_shape_mp"])
    idexp = model.idexp_lm3d(golden["id"], golden["exp"])
    assert_close(idexp, golden["idexp_lm3d"])
    assert_close(model.landmarks(golden["id"], golden["exp"]), golden["cano_lm3d"])


def test_vertices_agree_with_landmarks(golden, model):
    vertices = model.vertices(golden["id"], golden["exp"])
    assert_close(vertices[:, model.mediapipe_vertices], golden["cano_lm3d"])


def test_projections(golden, model):
    coefficients = golden["id"], golden["exp"], golden["euler"]
    lm2d = model.reconstruct_lm2d(*coefficients, golden["trans"])
    assert_close(lm2d, golden["lm2d"])
    assert_close(model.reconstruct_lm2d_nerf(*coefficients, golden["trans_ds"]), golden["lm2d_nerf"])
    canvas = lm2d * FIT_CANVAS
    canvas[..., 1] = FIT_CANVAS - canvas[..., 1]
    torch.testing.assert_close(canvas, golden["fit_proj_224"], atol=FIT_CANVAS * 1e-5, rtol=0)


def test_key_points_and_eye_area(golden, model):
    # The original reads its 1-based indices as 0-based for the eye area; the fixture holds that behaviour.
    rows = model.keypoints + 1
    bases = model.identity_basis[rows], model.expression_basis[rows]
    assert_close(model.mean[rows], golden["key_mean_shape_lm68_helper_offby1"])
    idexp = idexp_keypoints(golden["id"], golden["exp"], *bases)
    assert_close(idexp, golden["idexp_lm3d_lm68"])
    points = model.mean[rows] + idexp / 10
    assert_close(eye_area_percent(points), golden["eye_area_percent"])


def test_windows_smoothing_and_blinks(golden):
    assert_close(condition_windows(golden["win_src"], 3), golden["win3"])
    assert_close(condition_windows(golden["win_src"], 5), golden["win5"])
    assert_close(smooth_features(golden["euler"], 7), golden["smooth_euler_k7"])
    points, area = inject_blinks(golden["blink_in"], open_area=0.55, closed_area=0.12)
    assert_close(points, golden["blink_out"])
    assert_close(area, golden["blink_eye_area"])


def test_load_reads_a_user_folder(golden, model, tmp_path):
    scipy.io.savemat(tmp_path / BFM_FILE, bfm_arrays(golden))
    np.save(tmp_path / MEDIAPIPE_INDEX_FILE, golden["mp468"].numpy())
    loaded = BfmModel.load(tmp_path).to("cpu")
    for name in BfmModel.__dataclass_fields__:
        torch.testing.assert_close(getattr(loaded, name), getattr(model, name))


def test_load_names_the_missing_or_foreign_file(tmp_path):
    with pytest.raises(ModelFileError, match=BFM_FILE):
        BfmModel.load(tmp_path)
    scipy.io.savemat(tmp_path / BFM_FILE, {"something": np.zeros(3)})
    np.save(tmp_path / MEDIAPIPE_INDEX_FILE, np.zeros(468, np.int64))
    with pytest.raises(ModelFileError, match="meanshape"):
        BfmModel.load(tmp_path)
