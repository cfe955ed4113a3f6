"""The BFM helper against GeneFace++'s own outputs, and on a made-up small BFM."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modules.commons.errors import ModelFileError
from modules.commons.workspace import FACE_MODEL_FILE, ROOT
from modules.face_model import choice
from modules.face_model.bfm import BFM_FILE, FIT_CANVAS, MEDIAPIPE_INDEX_FILE, BfmModel
from modules.face_model.choice import load_face_model
from modules.face_model.fitting import FittableModel
from modules.face_model.keypoints import (
    condition_windows,
    eye_area_percent,
    idexp_keypoints,
    inject_blinks,
    smooth_features,
)
from modules.face_model.model import FaceModel
from modules.structures.landmarks import UNMATCHED_BFM
from tests.support.small_bfm import small_bfm, small_bfm_arrays, write_bfm

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
    loaded = BfmModel.load(write_bfm(tmp_path, bfm_arrays(golden), golden["mp468"].numpy()))
    assert_same(loaded.to("cpu"), model)


# --- a made-up small BFM ----------------------------------------------------------------------------------------------


def assert_same(one, other):
    assert one.version == other.version
    for field in fields(BfmModel)[1:]:
        torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name), atol=0, rtol=0)


def test_a_saved_folder_gives_the_model_of_its_arrays(tmp_path):
    arrays, index = small_bfm_arrays()
    loaded = BfmModel.load(write_bfm(tmp_path, arrays, index))
    assert_same(loaded, small_bfm())
    assert_same(loaded.to("cpu"), loaded)
    assert repr(loaded) == f"BfmModel({loaded.version}: 600 vertices, cpu)"
    mean = arrays["meanshape"].reshape(-1, 3)
    np.testing.assert_allclose(loaded.mean.numpy(), mean - mean.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(loaded.triangles.numpy(), arrays["tri"] - 1)
    np.testing.assert_array_equal(loaded.keypoints.numpy(), arrays["keypoints"][0] - 1)


def test_it_can_be_fitted():
    """The rows are the model at its landmarks; points without a counterpart are not usable."""
    model: FittableModel = small_bfm()
    rows, names, prior = model.landmark_rows(), model.expression_names, model.expression_prior()
    assert (names[0], names[-1], len(set(names))) == ("exp_00", "exp_63", 64)
    assert rows.usable is not None and set(np.flatnonzero(~rows.usable.numpy())) == set(UNMATCHED_BFM)
    np.testing.assert_array_equal(rows.weights.numpy(), rows.usable.numpy())
    generator = torch.Generator().manual_seed(0)
    identity, expression = torch.randn(80, generator=generator), torch.randn(5, 64, generator=generator)
    points = rows.mean + rows.identity @ identity + torch.einsum("kce,te->tkc", rows.expression, expression)
    assert_close(points, small_bfm().landmarks(identity, expression))
    assert (rows.slide.move == 0).all()
    assert (prior.std == 1).all() and prior.from_scores.shape == (64, 52) and torch.isinf(prior.upper).all()


def test_any_negative_index_is_a_point_without_a_counterpart():
    arrays, index = small_bfm_arrays()
    index[[5, 100]] = -1, -7
    model = BfmModel.from_arrays(arrays, index)
    usable = model.landmark_rows().usable
    assert usable is not None and set(np.flatnonzero(~usable.numpy())) == {5, 100, *UNMATCHED_BFM}
    assert (model.mediapipe_vertices[[5, 100]] == 0).all()


def test_points_on_the_mesh_that_geneface_leaves_out_are_left_out():
    arrays, index = small_bfm_arrays()
    usable = BfmModel.from_arrays(arrays, np.maximum(index, 3)).landmark_rows().usable
    assert usable is not None and set(np.flatnonzero(~usable.numpy())) == set(UNMATCHED_BFM)


@pytest.mark.parametrize("name", ["meanshape", "idBase", "exBase", "tri", "keypoints", "index"])
def test_the_version_follows_the_content(name):
    arrays, index = small_bfm_arrays()
    before = BfmModel.from_arrays(arrays, index).version
    assert re.fullmatch("bfm-[0-9a-f]{12}", before)
    assert BfmModel.from_arrays({**arrays, "texBase": np.ones(3)}, index.astype(np.int32)).version == before
    changed = {**arrays, "index": index}
    values = changed[name].copy()
    values.flat[10] = values.flat[10] + 1 if values.flat[10] < 500 else 1
    changed[name] = values
    assert BfmModel.from_arrays(changed, changed.pop("index")).version != before


ARRAYS = ("meanshape", "idBase", "exBase", "tri", "keypoints")


@pytest.mark.parametrize("lost", ARRAYS)
def test_a_missing_array_is_named(tmp_path, lost):
    arrays, index = small_bfm_arrays()
    del arrays[lost]
    with pytest.raises(ModelFileError, match=f"does not hold a BFM .*has no '{lost}'"):
        BfmModel.load(write_bfm(tmp_path, arrays, index))


@given(st.sampled_from([*ARRAYS, "index"]), st.integers(0, 2), st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_wrong_shapes_are_refused(name, axis, less):
    arrays, index = small_bfm_arrays()
    given_arrays = {**arrays, "index": index}
    values = given_arrays[name]
    axis %= values.ndim
    if name == "tri":
        axis, less = 1, 1 + less % 2
    if name == "keypoints":
        axis = 1
    if name == "meanshape":
        axis, less = 1, less if less % 3 else less + 1
    given_arrays[name] = np.delete(values, np.s_[:less], axis=axis)
    with pytest.raises(ValueError, match=MEDIAPIPE_INDEX_FILE if name == "index" else "cannot be read as"):
        BfmModel.from_arrays(given_arrays, given_arrays.pop("index"))


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("tri", 0, "tri counts vertices from 1, but names 0"),
        ("tri", 601, "tri names vertex 601, the last one is 600"),
        ("keypoints", 0, "keypoints counts vertices from 1"),
        ("keypoints", 601, "keypoints names vertex 601"),
        ("index", 600, "names vertex 600, the last one is 599"),
        ("tri", 1.5, "tri must hold whole numbers"),
        ("tri", np.nan, "tri must hold whole numbers"),
        ("meanshape", np.nan, "meanshape holds numbers that are not finite"),
        ("exBase", np.inf, "exBase holds numbers that are not finite"),
    ],
)
def test_indices_that_count_otherwise_and_odd_numbers_are_refused(tmp_path, name, value, complaint):
    arrays, index = small_bfm_arrays()
    (index if name == "index" else arrays[name]).flat[7] = value
    with pytest.raises(ModelFileError, match=complaint):
        BfmModel.load(write_bfm(tmp_path, arrays, index))


def test_an_index_of_nothing_is_refused():
    with pytest.raises(ValueError, match="names no vertex at all"):
        BfmModel.from_arrays(small_bfm_arrays()[0], np.full(468, -1))


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    folder = write_bfm(tmp_path / "bfm", *small_bfm_arrays())
    np.save(folder / MEDIAPIPE_INDEX_FILE, np.array([Trap()] * 468, object), allow_pickle=True)
    with pytest.raises(ModelFileError, match="does not hold a BFM"):
        BfmModel.load(folder)
    assert not (tmp_path / "sprung").exists()


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    return write_bfm(tmp_path_factory.mktemp("bfm"), *small_bfm_arrays())


@given(st.sampled_from([BFM_FILE, MEDIAPIPE_INDEX_FILE]), st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_refused_or_are_a_whole_model(small_folder, tmp_path, name, data):
    content = {file: bytearray((small_folder / file).read_bytes()) for file in (BFM_FILE, MEDIAPIPE_INDEX_FILE)}
    for place in data.draw(st.lists(st.integers(0, 250), max_size=3)):
        content[name][place] = data.draw(st.integers(0, 255))
    whole = len(content[name])
    cut = data.draw(st.integers(0, whole) | st.just(whole))
    content[name] = content[name][:cut]
    for file, written in content.items():
        (tmp_path / file).write_bytes(written)
    try:
        model = BfmModel.load(tmp_path)
    except ModelFileError as error:
        assert str(tmp_path) in str(error) and "\n" not in str(error)
    else:
        assert cut == whole and len(model.mean) == 600
        assert all(torch.isfinite(getattr(model, f.name)).all() for f in fields(BfmModel)[1:])
        assert int(model.mediapipe_vertices.min()) >= 0 and int(model.mediapipe_vertices.max()) < 600


@pytest.mark.parametrize("name", [BFM_FILE, MEDIAPIPE_INDEX_FILE])
def test_a_missing_file_is_one_sentence_with_folder_and_names(tmp_path, name):
    folder = write_bfm(tmp_path / "bfm2009", *small_bfm_arrays())
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=f"{folder} lacks {re.escape(name)}; .*{BFM_FILE} and .* there"):
        BfmModel.load(folder)
    with pytest.raises(ModelFileError, match=f"nowhere lacks {BFM_FILE} and {MEDIAPIPE_INDEX_FILE}"):
        BfmModel.load(tmp_path / "nowhere")


def test_a_configuration_names_its_model(tmp_path, monkeypatch):
    assert load_face_model("embedded").version == FaceModel.load(FACE_MODEL_FILE).version
    monkeypatch.setattr(choice, "BFM2009_DIR", tmp_path)
    with pytest.raises(ModelFileError, match=str(tmp_path)):
        load_face_model("bfm2009")
    write_bfm(tmp_path, *small_bfm_arrays())
    assert load_face_model("bfm2009").version == small_bfm().version
