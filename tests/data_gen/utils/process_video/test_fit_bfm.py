"""BFM2009 fitted in the crop: against GeneFace++'s own fit, and with planted coefficients of a made-up model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_gen.utils.process_video.fit_3dmm_landmark import cal_lan_loss_mp_with_occlusion
from data_gen.utils.process_video.fit_bfm import (
    dataset_coefficients,
    fit_bfm_for_a_video,
    fit_bfm_in_crop,
    landmarks_in_crop,
)
from modules.commons.errors import GeneFaceError
from modules.commons.workspace import ROOT, VideoWorkspace
from modules.face_model.bfm import FIT_CANVAS, BfmModel
from modules.face_model.projection import project
from modules.structures.cameras import CameraIntrinsics
from modules.structures.crops import CropMetadata, CropRegion, transform_points
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import EYES, INNER_LIP, MOUTH, OUTER_LIP, UNMATCHED_BFM, UPPER_EYELIDS, Landmarks2D
from modules.structures.masks import OcclusionTable
from tests.support.small_bfm import small_bfm

FIXTURES = ROOT.parent / "shared" / "fixtures" / "geneface"
WHOLE_FRAME = CropMetadata((CropRegion(256.0, 256.0, 512.0),), (512, 512), 512)


def projected(model, identity, expression, euler, translation, size=512):
    """The model's points in a crop of ``size`` px, ``[T, 468, 2]``."""
    tensors = (torch.as_tensor(values) for values in (identity, expression, euler, translation))
    identity, expression, euler, translation = tensors
    points, _ = project(model.landmarks(identity, expression), euler, translation, CameraIntrinsics.geneface(size))
    return points.numpy()


def points_of(model, coeffs, size=512):
    return projected(model, coeffs.identity, coeffs.expression, coeffs.euler, coeffs.translation, size)


def landmarks_of(points):
    """468 points as landmarks; the irises are nowhere."""
    count = len(points)
    whole = np.concatenate([points, np.zeros((count, 10, 2))], axis=1).astype(np.float32)
    scores = np.full((count, 52), 0.5, np.float32)
    return Landmarks2D(whole, np.ones((count, 478), np.float32), np.ones(count, bool), scores)


# --- GeneFace++'s own fit ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden():
    files = [FIXTURES / name for name in ("face3d_pose.npz", "fit3dmm.npz")]
    if not all(path.is_file() for path in files):
        pytest.skip(f"golden fixtures are not here: {FIXTURES}")
    model, fit = (dict(np.load(path)) for path in files)
    arrays = {name: model[name] for name in ("meanshape", "idBase", "exBase")}
    arrays |= {"keypoints": model["keypoints_1based"], "tri": np.array([[1, 2, 3]])}
    return BfmModel.from_arrays(arrays, model["mp468"]), fit


@pytest.fixture(scope="module")
def refitted(golden):
    model, fit = golden
    return fit_bfm_in_crop(landmarks_of(fit["lms_2d"][:, :468]), WHOLE_FRAME, model)


def original_points(model, fit, size=512):
    return projected(model, fit["out_id"][0], fit["out_exp"], fit["out_euler"], fit["out_trans"], size)


def test_it_reprojects_as_well_as_the_original(golden, refitted):
    model, fit = golden
    tracked = fit["lms_2d"][:, :468]

    def error(points):
        return np.abs(points - tracked).mean() / 512 * FIT_CANVAS

    assert error(original_points(model, fit)) == pytest.approx(fit["reproj_l1_224"], rel=1e-4)
    assert error(points_of(model, refitted)) <= fit["reproj_l1_224"]
    assert refitted.valid.all()


def test_its_coefficients_are_the_originals(golden, refitted):
    """Both are near the minimum of one cost, so they agree far below the fixture's tolerance of 1e-2."""
    _, fit = golden
    ours = dataset_coefficients(refitted)
    for name, tolerance in (("id", 2e-3), ("exp", 2e-3), ("euler", 1e-4)):
        np.testing.assert_allclose(ours[name], fit[f"out_{name}"], atol=tolerance)
    np.testing.assert_allclose(refitted.translation, fit["out_trans"], atol=1e-3)
    np.testing.assert_allclose(ours["trans"], fit["out_trans"] - [0, 0, 10], atol=1e-3)


def test_the_loss_of_the_originals_projections(golden):
    """GeneFace++'s weights written out, in its canvas, with some points hidden."""
    model, fit = golden
    fitted = original_points(model, fit, FIT_CANVAS)
    tracked = fit["lms_2d"][:, :468] / 512 * FIT_CANVAS
    hidden = np.random.default_rng(0).random((60, 468)) < 0.3
    weights = np.ones(468)
    weights[list(EYES)] = 3
    weights[list(UPPER_EYELIDS)] = 20
    weights[list(INNER_LIP + OUTER_LIP)] = 5
    weights[list(UNMATCHED_BFM)] = 0
    expected = (weights[:, None] * (fitted - tracked) ** 2 * ~hidden[..., None]).mean()
    loss = cal_lan_loss_mp_with_occlusion(*(torch.as_tensor(values) for values in (fitted, tracked, hidden)))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


# --- planted coefficients ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return small_bfm()


@pytest.fixture(scope="module")
def planted():
    rng, t = np.random.default_rng(1), np.arange(30)[:, None] / 25
    waves = np.sin(t * (1 + 4 * rng.random(64)) + 6 * rng.random(64)) * 0.7 * rng.random(64)
    euler = np.concatenate([0.1 * np.sin(t), 0.35 * np.sin(2 * t), 0.1 * np.cos(t)], axis=1)
    translation = np.concatenate([0.2 * np.sin(t), 0.1 * np.cos(t), 0.3 * np.sin(t)], axis=1)
    identity = 0.6 * rng.normal(size=80)
    return tuple(values.astype(np.float32) for values in (identity, waves, euler, translation))


def moving_crop(size=512, count=30):
    regions = tuple(CropRegion(700.0 + 4 * i, 350.0 - i, 300.0 + 2 * i, 0.01 * i) for i in range(count))
    return CropMetadata(regions, (720, 1280), size)


def in_frame(points, metadata):
    """Points of the crop in frame pixels."""
    return np.stack([transform_points(metadata.frame_from_crop(row), points[row]) for row in range(len(points))])


def test_planted_coefficients_are_recovered_through_a_moving_crop(model, planted):
    identity, expression, euler, translation = planted
    exact, metadata = projected(model, *planted), moving_crop()
    noise = np.random.default_rng(2).normal(0, 0.2, exact.shape)
    noise[:, list(UNMATCHED_BFM)] = 40.0  # where the mesh has nothing, the track must not matter
    coeffs = fit_bfm_in_crop(landmarks_of(in_frame(exact + noise, metadata)), metadata, model)
    assert coeffs.camera == CameraIntrinsics.geneface(512) and coeffs.face_model_version == model.version
    assert np.abs(coeffs.euler - euler).max() < 0.015
    assert np.abs(coeffs.translation - translation).max() < 0.1
    seen = np.setdiff1d(np.arange(468), UNMATCHED_BFM)
    assert np.abs(points_of(model, coeffs) - exact)[:, seen].mean() < 0.15, "nearer to the truth than the noisy track"
    for fitted, truth in ((coeffs.identity, identity), (coeffs.expression.ravel(), expression.ravel())):
        assert np.corrcoef(fitted, truth)[0, 1] > 0.97
    assert coeffs.valid.all() and np.nanmax(coeffs.residual) < 0.02


def test_the_size_of_the_crop_does_not_matter(model, planted):
    exact, metadata = projected(model, *planted), moving_crop()
    landmarks = landmarks_of(in_frame(exact, metadata))
    large = fit_bfm_in_crop(landmarks, metadata, model)
    small = fit_bfm_in_crop(landmarks, replace(metadata, crop_size=256), model)
    assert small.camera == CameraIntrinsics.geneface(256)
    for name in ("identity", "expression", "euler", "translation"):
        np.testing.assert_allclose(getattr(small, name), getattr(large, name), atol=5e-3)


def test_points_without_a_counterpart_and_hidden_ones_do_not_matter(model, planted):
    points = projected(model, *planted)
    visible = np.ones((30, 478), np.float32)
    visible[5:15, list(MOUTH)] = 0
    before = fit_bfm_in_crop(landmarks_of(points), WHOLE_FRAME, model, visible=visible)
    points[:, list(UNMATCHED_BFM)] = 3.0
    points[5:15, list(MOUTH)] = np.nan
    after = fit_bfm_in_crop(landmarks_of(points), WHOLE_FRAME, model, visible=visible)
    np.testing.assert_allclose(after.expression, before.expression, atol=1e-4)
    np.testing.assert_allclose(after.euler, before.euler, atol=1e-5)
    open_view = fit_bfm_in_crop(landmarks_of(projected(model, *planted)), WHOLE_FRAME, model)
    assert not np.allclose(open_view.expression[5:15], before.expression[5:15], atol=1e-3)


def test_landmarks_in_crop_goes_through_each_frames_square():
    metadata = moving_crop(count=4)
    rng = np.random.default_rng(0)
    landmarks = landmarks_of(rng.uniform(0, 700, (4, 468, 2)))
    moved = landmarks_in_crop(landmarks, metadata)
    for row in range(4):
        homogeneous = np.append(landmarks.points[row, 7], 1.0)
        expected = (metadata.crop_from_frame(row) @ homogeneous)[:2]
        np.testing.assert_allclose(moved.points[row, 7], expected, rtol=1e-5)
        np.testing.assert_allclose(moved.depth[row], 512 / (300 + 2 * row), rtol=1e-6)
    assert (landmarks.depth == 1).all(), "inputs are not touched"


def test_dataset_coefficients_are_seen_from_the_camera(model, planted):
    coeffs = fit_bfm_in_crop(landmarks_of(projected(model, *planted)), WHOLE_FRAME, model)
    stored = {name: torch.from_numpy(values) for name, values in dataset_coefficients(coeffs).items()}
    assert {name: tuple(values.shape) for name, values in stored.items()} == {
        "id": (1, 80),
        "exp": (30, 64),
        "euler": (30, 3),
        "trans": (30, 3),
    }
    seen = model.reconstruct_lm2d_nerf(stored["id"][0], stored["exp"], stored["euler"], stored["trans"])
    np.testing.assert_allclose(seen.numpy(), points_of(model, coeffs) / 512, atol=1e-5)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def workspace(model, planted, tmp_path):
    space = VideoWorkspace("clip", tmp_path)
    space.processed.mkdir(parents=True)
    metadata = moving_crop()
    landmarks_of(in_frame(projected(model, *planted), metadata)).save(space.landmarks)
    space.crop_metadata.write_text(metadata.to_json())
    return space


def test_a_prepared_video_gets_its_coefficients(model, planted, workspace):
    coeffs = fit_bfm_for_a_video(workspace, model)
    loaded = FaceModelCoeffs.load(workspace.coeffs)
    np.testing.assert_array_equal(loaded.expression, coeffs.expression)
    assert loaded.face_model_version == model.version and loaded.camera == CameraIntrinsics.geneface(512)
    assert np.abs(loaded.euler - planted[2]).max() < 0.015
    hidden = np.zeros((30, 478), bool)
    hidden[:, list(MOUTH)] = True
    replace(OcclusionTable.nothing(30, 8), hidden=hidden).save(workspace.occlusion)
    assert not np.allclose(fit_bfm_for_a_video(workspace, model).expression, coeffs.expression, atol=1e-3)
    replace(OcclusionTable.nothing(3, 8), hidden=hidden[:3]).save(workspace.occlusion)
    with pytest.raises(GeneFaceError, match="covers 3 frames"):
        fit_bfm_for_a_video(workspace, model)


@pytest.mark.parametrize("name", ["landmarks", "crop_metadata"])
def test_a_missing_or_foreign_table_is_named(model, workspace, name):
    path = getattr(workspace, name)
    path.write_bytes(b'{"schema": "something else"}')
    with pytest.raises(GeneFaceError, match=path.name):
        fit_bfm_for_a_video(workspace, model)
    path.unlink()
    with pytest.raises(GeneFaceError, match=path.name):
        fit_bfm_for_a_video(workspace, model)
    assert not workspace.coeffs.exists()
