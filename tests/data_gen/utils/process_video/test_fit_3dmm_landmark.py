"""The fit on made-up clips with known answers, its loss against a loop, and its driver on files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.fit_3dmm_landmark import (
    FitConfig,
    cal_lan_loss_mp_with_occlusion,
    camera_for_landmarks,
    fit_3dmm,
    fit_3dmm_for_a_video,
)
from data_gen.utils.process_video.landmark_track import track_and_landmark
from modules.commons.errors import FitDivergedError, GeneFaceError
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.model import FaceModel
from modules.face_model.projection import project, rotation_from_euler
from modules.structures.cameras import CameraIntrinsics
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import (
    EYES,
    INNER_LIP,
    MOUTH,
    OUTER_LIP,
    UNMATCHED_BFM,
    UPPER_EYELIDS,
    Landmarks2D,
    inter_ocular_px,
    lip_opening,
)
from modules.structures.masks import OcclusionTable
from tests.data_gen.utils.process_video.fit_cases import bump_model, made_clip
from tests.support.real_frames import DEMO_CLIP, read_frames
from tests.support.synthetic_head import SyntheticSpeaker


@pytest.fixture(scope="module")
def model():
    return bump_model()


def angle_errors_deg(coeffs, case):
    return angles_between_deg(coeffs.euler, case.euler.numpy())


def angles_between_deg(fitted, truth):
    relative = rotation_from_euler(torch.from_numpy(fitted)).mT @ rotation_from_euler(torch.from_numpy(truth))
    cosine = (relative.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2
    return torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).numpy()


def true_points(model, case):
    return project(model.landmarks(case.identity, case.expression), case.euler, case.translation, case.camera)[
        0
    ].numpy()


def fitted_points(model, coeffs):
    shape = model.landmarks(torch.from_numpy(coeffs.identity), torch.from_numpy(coeffs.expression))
    return project(shape, torch.from_numpy(coeffs.euler), torch.from_numpy(coeffs.translation), coeffs.camera)[
        0
    ].numpy()


@pytest.mark.parametrize("size_wh", [(640, 360), (540, 960), (512, 512)])
def test_known_clip_is_recovered(model, size_wh):
    case = made_clip(model, 40, size_wh)
    coeffs = fit_3dmm(case.landmarks, case.camera, model)
    assert coeffs.valid.all() and np.isfinite(coeffs.residual).all()
    assert np.mean(angle_errors_deg(coeffs, case)) < 1.5
    assert np.abs(coeffs.expression - case.expression.numpy()).mean() < 0.08
    # The fit lies nearer to the truth than the noisy track it was made from.
    truth = true_points(model, case)
    fitted = np.linalg.norm(fitted_points(model, coeffs) - truth, axis=2).mean()
    assert fitted < 0.7 * np.linalg.norm(case.landmarks.points - truth, axis=2).mean()
    assert coeffs.expression.min() >= 0 and coeffs.expression.max() <= 1


def test_closed_and_open_lips_stay_closed_and_open(model):
    case = made_clip(model, 50, noise_px=0.3)
    coeffs = fit_3dmm(case.landmarks, case.camera, model)
    fitted, truth = fitted_points(model, coeffs), true_points(model, case)
    gap, expected = ((p[:, 13] - p[:, 14])[:, 1] for p in (fitted, truth))
    assert np.abs(gap - expected).max() < 0.08 * np.abs(expected).max()


def test_hidden_points_are_ignored(model):
    case = made_clip(model, 30)
    points = case.landmarks.points.copy()
    weights = np.ones((30, 478), np.float32)
    weights[10:20, list(MOUTH)] = 0
    clean = fit_3dmm(replace(case.landmarks, points=points.copy()), case.camera, model, weights=weights)
    points[10:20, list(MOUTH)] = np.nan
    points[11:19, MOUTH[3]] = 1e6
    lost = fit_3dmm(replace(case.landmarks, points=points), case.camera, model, weights=weights)
    np.testing.assert_allclose(lost.expression, clean.expression, atol=1e-5)
    assert lost.valid.all() and np.isfinite(lost.residual).all()


def test_outliers_are_outvoted(model):
    case = made_clip(model, 30)
    points = case.landmarks.points.copy()
    points[:, ::25] += 60.0
    coeffs = fit_3dmm(replace(case.landmarks, points=points), case.camera, model)
    assert np.mean(angle_errors_deg(coeffs, case)) < 2.5


def test_frames_without_a_face_are_interpolated_and_invalid(model):
    case = made_clip(model, 40)
    points, valid = case.landmarks.points.copy(), np.ones(40, bool)
    valid[[0, 1, 12, 13, 14, 39]] = False
    points[~valid] = np.nan
    points[20] = 5.0
    blendshapes = case.landmarks.blendshapes.copy()
    blendshapes[~valid] = np.nan
    coeffs = fit_3dmm(Landmarks2D(points, case.landmarks.depth, valid, blendshapes), case.camera, model)
    valid[20] = False
    np.testing.assert_array_equal(coeffs.valid, valid)
    assert np.isnan(coeffs.residual[~valid]).all()
    for values in (coeffs.expression, coeffs.euler, coeffs.translation):
        assert np.isfinite(values).all()
    np.testing.assert_allclose(coeffs.euler[13], (coeffs.euler[11] + coeffs.euler[15]) / 2, atol=1e-6)
    np.testing.assert_array_equal(coeffs.translation[0], coeffs.translation[2])
    assert np.mean(angle_errors_deg(coeffs, case)) < 2.0


def test_single_frame(model):
    case = made_clip(model, 1)
    coeffs = fit_3dmm(case.landmarks, case.camera, model)
    assert len(coeffs) == 1 and coeffs.valid.all() and coeffs.residual[0] < 0.05


def test_a_rolled_head_crosses_half_a_turn(model):
    case = made_clip(model, 30)
    euler = case.euler.clone()
    euler[:, 2] = torch.linspace(2.8, 3.5, 30)
    points, _ = project(model.landmarks(case.identity, case.expression), euler, case.translation, case.camera)
    coeffs = fit_3dmm(replace(case.landmarks, points=points.numpy()), case.camera, model)
    assert np.mean(angle_errors_deg(coeffs, replace(case, euler=euler))) < 1.5


@pytest.mark.parametrize("spoil", ["no face", "one point", "few points"])
def test_nothing_to_fit_is_one_clear_error(model, spoil):
    case = made_clip(model, 5)
    points, valid, weights = case.landmarks.points.copy(), np.ones(5, bool), np.ones((5, 478), np.float32)
    if spoil == "no face":
        points[:], valid[:] = np.nan, False
    elif spoil == "one point":
        points[:] = 100.0
    else:
        weights[:, 5:] = 0
    spoiled = replace(case.landmarks, points=points, valid=valid)
    with pytest.raises(FitDivergedError, match="none of 5 frames"):
        fit_3dmm(spoiled, case.camera, model, weights=weights)


def test_noise_is_not_a_face(model):
    points = np.random.default_rng(0).uniform(0, 300, (6, 478, 2)).astype(np.float32)
    case = made_clip(model, 6)
    with pytest.raises(FitDivergedError, match="landmarks of a face"):
        fit_3dmm(replace(case.landmarks, points=points), case.camera, model)


def test_windows_join_smoothly(model):
    """A clip longer than one window fits as well at the seam as elsewhere."""
    case = made_clip(model, 230, noise_px=0.5)
    coeffs = fit_3dmm(case.landmarks, case.camera, model, FitConfig(identity_frames=30))
    acceleration = np.abs(np.diff(coeffs.euler, n=2, axis=0)).max(axis=1)
    assert acceleration[185:200].max() < 2 * np.quantile(acceleration, 0.99)


def test_a_shot_cut_is_not_smoothed_over(model):
    case = made_clip(model, 40, noise_px=0.3)
    euler, translation = case.euler.clone(), case.translation.clone()
    euler[20:, 1] += 0.6
    translation[20:, 0] += 1.2
    points, _ = project(model.landmarks(case.identity, case.expression), euler, translation, case.camera)
    coeffs = fit_3dmm(replace(case.landmarks, points=points.numpy()), case.camera, model)
    assert angles_between_deg(coeffs.euler, euler.numpy())[18:22].max() < 2.0


def naive_loss(proj, gt, mask):
    frames, count, _ = proj.shape
    total = 0.0
    for t in range(frames):
        for k in range(count):
            weight = 1.0
            if k in EYES:
                weight = 3.0
            if k in UPPER_EYELIDS:
                weight = 20.0
            if k in INNER_LIP or k in OUTER_LIP:
                weight = 5.0
            if k in UNMATCHED_BFM:
                weight = 0.0
            for c in range(2):
                total += weight * (1 - mask[t, k]) * (proj[t, k, c] - gt[t, k, c]) ** 2
    return total / (frames * count * 2)


@pytest.mark.parametrize("count", [468, 478])
def test_loss_equals_a_loop(count):
    generator = torch.Generator().manual_seed(count)
    proj, gt = torch.rand(2, 3, count, 2, generator=generator, dtype=torch.float64).unbind()
    mask = torch.rand(3, count, generator=generator, dtype=torch.float64).round(decimals=1)
    assert float(cal_lan_loss_mp_with_occlusion(proj, gt, mask)) == pytest.approx(float(naive_loss(proj, gt, mask)))
    open_view = cal_lan_loss_mp_with_occlusion(proj, gt, None)
    assert float(open_view) == pytest.approx(float(naive_loss(proj, gt, torch.zeros(3, count))))


def test_occlusion_zeroes_gradients_even_of_nan():
    proj, gt = torch.rand(2, 468, 2, requires_grad=True), torch.rand(2, 468, 2)
    mask = torch.zeros(2, 468)
    mask[0, :100] = 1
    gt[0, :50] = torch.nan
    loss = cal_lan_loss_mp_with_occlusion(proj, gt, mask)
    loss.backward()
    assert torch.isfinite(loss)
    assert proj.grad is not None and torch.isfinite(proj.grad).all()
    assert (proj.grad[0, :100] == 0).all() and (proj.grad[1, :90] != 0).any()


@pytest.fixture
def workspace(model, tmp_path):
    case = made_clip(model, 12, (640, 360))
    space = VideoWorkspace("clip", tmp_path)
    space.processed.mkdir(parents=True)
    case.landmarks.save(space.landmarks)
    metadata = CropMetadata((CropRegion(320.0, 180.0, 200.0),), (360, 640), 512)
    space.crop_metadata.write_text(metadata.to_json())
    return space


def test_driver_reads_and_writes_the_workspace(model, workspace):
    coeffs = fit_3dmm_for_a_video(workspace, model)
    assert (coeffs.camera.width, coeffs.camera.height) == (640, 360)
    loaded = FaceModelCoeffs.load(workspace.coeffs)
    np.testing.assert_array_equal(loaded.expression, coeffs.expression)
    assert loaded.face_model_version == model.version


def test_driver_heeds_the_occlusion_table(model, workspace):
    plain = fit_3dmm_for_a_video(workspace, model)
    hidden = np.zeros((12, 478), bool)
    hidden[:, list(MOUTH)] = True
    nothing = np.zeros(0, np.int64), np.zeros((0, 8, 8), np.uint8)
    OcclusionTable(np.zeros(12, np.float32), hidden, *nothing).save(workspace.hands)
    assert not np.allclose(fit_3dmm_for_a_video(workspace, model).expression, plain.expression)
    OcclusionTable(np.zeros(3, np.float32), hidden[:3], *nothing).save(workspace.hands)
    with pytest.raises(GeneFaceError, match="covers 3 frames"):
        fit_3dmm_for_a_video(workspace, model)


@pytest.mark.parametrize("name", ["landmarks", "crop_metadata"])
def test_driver_names_a_missing_or_foreign_file(model, workspace, name):
    path = getattr(workspace, name)
    path.write_bytes(b'{"schema": "something else"}')
    with pytest.raises(GeneFaceError, match=path.name):
        fit_3dmm_for_a_video(workspace, model)
    path.unlink()
    with pytest.raises(GeneFaceError, match=f"{path.name} is missing"):
        fit_3dmm_for_a_video(workspace, model)
    assert not workspace.coeffs.exists()


def test_camera_keeps_close_faces_half_a_metre_away():
    usual = CameraIntrinsics.for_frame(1280, 720)
    speaker = SyntheticSpeaker(1, size_hw=(720, 1280), face_px=300)
    landmarks = speaker.landmarks(speaker.coeffs(3))
    assert camera_for_landmarks(landmarks, 1280, 720) == usual
    close = camera_for_landmarks(replace(landmarks, points=landmarks.points * 3), 1280, 720)
    assert close.fx == close.fy > 1.5 * usual.fx and (close.cx, close.cy) == (640, 360)
    assert camera_for_landmarks(replace(landmarks, valid=np.zeros(3, bool)), 1280, 720) == usual


def test_embedded_model_recovers_a_synthetic_speaker():
    speaker = SyntheticSpeaker(3, size_hw=(360, 640), face_px=200)
    truth = speaker.coeffs(60)
    exact = speaker.landmarks(truth)
    noise = np.random.default_rng(0).normal(size=exact.points.shape).astype(np.float32)
    seen = replace(exact, points=exact.points + noise, blendshapes=np.zeros_like(exact.blendshapes))
    coeffs = fit_3dmm(seen, truth.camera, speaker.model)
    assert np.mean(angles_between_deg(coeffs.euler, truth.euler)) < 1.5
    assert np.abs(coeffs.expression - truth.expression).mean() < 0.06
    assert np.corrcoef(lip_opening(exact.points), lip_opening(fitted_points(speaker.model, coeffs)))[0, 1] > 0.9
    jaw = speaker.model.unit("jawOpen")
    assert np.corrcoef(truth.expression[:, jaw], coeffs.expression[:, jaw])[0, 1] > 0.9


def test_real_clip_end_to_end(demo_dir, tmp_path):
    """Frames of the demo clip, from pixels to coefficients: small errors, and lips that open as the tracked ones do."""
    frames = read_frames(demo_dir / DEMO_CLIP, 228, 288, 2)
    _, landmarks = track_and_landmark(frames, FaceLandmarker(), FaceDetector())
    space = VideoWorkspace("demo", tmp_path)
    space.processed.mkdir(parents=True)
    landmarks.save(space.landmarks)
    space.crop_metadata.write_text(CropMetadata((CropRegion(320.0, 180.0, 300.0),), (360, 640), 512).to_json())
    model = FaceModel.load(FACE_MODEL_FILE)
    coeffs = fit_3dmm_for_a_video(space, model)
    fitted, tracked = fitted_points(model, coeffs), landmarks.points
    errors = np.linalg.norm(fitted - tracked, axis=2) / inter_ocular_px(tracked)[:, None]
    assert coeffs.valid.all()
    assert errors.mean() < 0.03 and errors[:, list(INNER_LIP + OUTER_LIP)].mean() < 0.03
    assert np.nanmean(coeffs.residual) == pytest.approx(errors.mean(), rel=0.1)
    opening = lip_opening(tracked)
    assert np.ptp(opening) > 0.05
    assert np.corrcoef(opening, lip_opening(fitted))[0, 1] > 0.9
    assert np.sqrt(np.mean(coeffs.identity**2)) < 1.5
