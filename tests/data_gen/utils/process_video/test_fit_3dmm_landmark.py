"""The fit on made-up clips with known answers, its loss against a loop, and its driver on files."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.fit_3dmm_landmark import (
    FitConfig,
    cal_lan_loss_mp_with_occlusion,
    camera_for_landmarks,
    fit_3dmm,
    fit_3dmm_for_a_video,
)
from data_gen.utils.process_video.fit_solver import LandmarkFit
from data_gen.utils.process_video.landmark_track import track_and_landmark
from modules.commons.errors import FitDivergedError, GeneFaceError
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.model import FaceModel
from modules.face_model.projection import project, rotation_from_euler
from modules.structures.cameras import CameraIntrinsics
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.face_coeffs import FaceModelCoeffs, FittedPerson
from modules.structures.frame_index import FrameIndex
from modules.structures.landmarks import (
    EYES,
    FACE_OVAL,
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
from tests.data_gen.utils.process_video.fit_cases import PlainModel, bump_model, made_clip
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
    euler = torch.from_numpy(coeffs.euler)
    shape = model.landmarks(torch.from_numpy(coeffs.identity), torch.from_numpy(coeffs.expression))
    shape[:, list(FACE_OVAL)] += model.outline_slide.at(euler[:, 1])
    return project(shape, euler, torch.from_numpy(coeffs.translation), coeffs.camera)[0].numpy()


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
    assert coeffs.expression.min() >= -0.03 and coeffs.expression.max() <= 1.03


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


def test_chunks_leave_no_seam(model, monkeypatch):
    """A clip solved in chunks is the clip solved at once."""
    case = made_clip(model, 75, noise_px=0.5)
    fits = []
    for size in (1000, 32):
        monkeypatch.setattr(LandmarkFit, "chunk", size)
        fits.append(fit_3dmm(case.landmarks, case.camera, model, FitConfig(identity_frames=30)))
    np.testing.assert_allclose(fits[0].euler, fits[1].euler, atol=1e-4)
    np.testing.assert_allclose(fits[0].expression, fits[1].expression, atol=1e-3)


def test_a_shot_cut_is_not_smoothed_over(model):
    case = made_clip(model, 40, noise_px=0.3)
    euler, translation = case.euler.clone(), case.translation.clone()
    euler[20:, 1] += 0.6
    translation[20:, 0] += 1.2
    points, _ = project(model.landmarks(case.identity, case.expression), euler, translation, case.camera)
    coeffs = fit_3dmm(replace(case.landmarks, points=points.numpy()), case.camera, model)
    assert angles_between_deg(coeffs.euler, euler.numpy())[18:22].max() < 2.0


def test_a_known_person_is_kept(model):
    case = made_clip(model, 40)
    person = FittedPerson(case.identity.numpy(), case.camera)
    coeffs = fit_3dmm(case.landmarks, None, model, person=person)
    np.testing.assert_array_equal(coeffs.identity, person.identity)
    assert coeffs.camera == case.camera and coeffs.correction is None
    assert np.mean(angle_errors_deg(coeffs, case)) < 0.5
    assert np.abs(coeffs.expression - case.expression.numpy()).mean() < 0.06


def test_a_persons_correction_reaches_the_fit(model):
    """Seen with the person's own units, the same coefficients come out."""
    case = made_clip(model, 30, noise_px=0.2)
    correction = np.zeros((80, 52), np.float32)
    correction[:20, model.unit("jawOpen")] = 2.0
    own = model.corrected(correction)
    points, _ = project(own.landmarks(case.identity, case.expression), case.euler, case.translation, case.camera)
    landmarks = replace(case.landmarks, points=points.numpy())
    person = FittedPerson(case.identity.numpy(), case.camera, correction)
    errors = [
        np.nanmean(fit_3dmm(landmarks, None, model, person=p).residual)
        for p in (person, replace(person, correction=None))
    ]
    assert errors[0] < 0.6 * errors[1]
    assert fit_3dmm(landmarks, None, model, person=person).correction is correction


@pytest.mark.parametrize("focal_scale", [0.9, 1.8])
def test_an_unknown_focal_length_is_found(focal_scale):
    speaker = SyntheticSpeaker(3, size_hw=(720, 1280), face_px=200)
    truth = speaker.coeffs(50, yaw_rad=0.7)
    camera = CameraIntrinsics.for_frame(1280, 720, focal_scale)
    depth = (10 - truth.translation[:, 2]) * focal_scale / 1.2
    translation = np.column_stack([truth.translation[:, :2], 10 - depth]).astype(np.float32)
    points = fitted_points(speaker.model, replace(truth, camera=camera, translation=translation))
    points += np.random.default_rng(0).normal(size=points.shape).astype(np.float32)
    seen = replace(speaker.landmarks(truth), points=points)
    coeffs = fit_3dmm(seen, None, speaker.model, size_wh=(1280, 720))
    assert coeffs.camera.fx == coeffs.camera.fy == pytest.approx(camera.fx, rel=0.1)
    assert (coeffs.camera.cx, coeffs.camera.cy) == (640, 360)
    assert np.mean((10 - coeffs.translation[:, 2]) / depth) == pytest.approx(1.0, abs=0.12)


def test_an_estimated_focal_length_keeps_half_a_metre(model):
    case = made_clip(model, 12)
    near = replace(case.landmarks, points=(case.landmarks.points - [320, 180]) * 6 + [320, 180])
    coeffs = fit_3dmm(replace(near, points=near.points.astype(np.float32)), None, model, size_wh=(640, 360))
    eyes = np.linalg.norm(near.points[:, 33] - near.points[:, 263], axis=1)
    assert coeffs.camera.fx >= 0.99 * np.quantile(eyes, 0.95) / 0.9 * 5.0


@pytest.mark.parametrize("focal", [1.0, 1e7])
def test_an_absurd_lens_is_one_clear_error(model, focal):
    case = made_clip(model, 4)
    camera = replace(case.camera, fx=focal, fy=focal)
    with pytest.raises(FitDivergedError, match="no lens has a focal length"):
        fit_3dmm(case.landmarks, camera, model)
    with pytest.raises(FitDivergedError, match="no lens has a focal length"):
        fit_3dmm(case.landmarks, None, model, person=FittedPerson(case.identity.numpy(), camera))
    with pytest.raises(ValueError, match="size of the frames"):
        fit_3dmm(case.landmarks, None, model)
    with pytest.raises(ValueError, match="positive focal"):
        replace(camera, fx=np.nan)


@settings(max_examples=15)
@example(447580, 1, 0.95, False)  # the only frame cannot be solved
@given(st.integers(0, 2**31), st.integers(1, 6), st.sampled_from([0.0, 0.3, 0.95]), st.booleans())
def test_whatever_is_seen_coefficients_stay_finite(seed, count, lost, wild):
    generator = np.random.default_rng(seed)
    case = made_clip(SHARED_MODEL, 6)
    points, scores = case.landmarks.points[:count].copy(), case.landmarks.blendshapes[:count].copy()
    points[generator.random((count, 478)) < lost] = generator.choice([np.nan, np.inf, 1e5, -3.0])
    scores[generator.random(scores.shape) < lost] = generator.choice([np.nan, np.inf, -7.0])
    if wild:
        points[generator.integers(count)] = generator.normal(0, 500, (478, 2))
    weights = generator.choice([0.0, 1.0, np.nan], (count, 478), p=[0.2, 0.78, 0.02]).astype(np.float32)
    landmarks = Landmarks2D(points, np.zeros((count, 478), np.float32), generator.random(count) < 0.9, scores)
    try:
        coeffs = fit_3dmm(landmarks, None, SHARED_MODEL, FitConfig(identity_iterations=3), weights, size_wh=(640, 360))
    except FitDivergedError:
        return
    for values in (coeffs.identity, coeffs.expression, coeffs.euler, coeffs.translation, coeffs.residual[coeffs.valid]):
        assert np.isfinite(values).all()
    assert np.isfinite(coeffs.camera.fx) and not coeffs.valid[~landmarks.valid].any()


SHARED_MODEL = bump_model()


def test_a_model_without_names_bounds_or_irises_is_fitted(model):
    case = made_clip(model, 30)
    points = case.landmarks.points.copy()
    points[:, [93, 127]] += 300.0  # points that the model lacks
    coeffs = fit_3dmm(replace(case.landmarks, points=points), case.camera, PlainModel(model))
    assert np.mean(angle_errors_deg(coeffs, case)) < 2.0 and np.nanmean(coeffs.residual) < 0.06
    assert coeffs.expression.min() < -0.1 and coeffs.face_model_version == "plain"
    with pytest.raises(GeneFaceError, match="cannot be corrected"):
        fit_3dmm(case.landmarks, case.camera, PlainModel(model), FitConfig(correct_expression=True))


def test_half_a_face_is_enough_for_the_pose(model):
    case = made_clip(model, 30)
    clean = fit_3dmm(case.landmarks, case.camera, model)
    mean = model.landmark_rows().mean.numpy()
    for hidden in (np.argsort(mean[:, 1])[:191], np.argsort(mean[:, 0])[:191]):
        weights = np.ones((30, 478), np.float32)
        weights[:, hidden] = 0
        coeffs = fit_3dmm(case.landmarks, None, model, weights=weights, person=clean.person)
        assert angles_between_deg(coeffs.euler, clean.euler).mean() < 2.0
        errors = [np.delete(fitted_points(model, c) - case.landmarks.points, hidden, axis=1) for c in (clean, coeffs)]
        assert np.linalg.norm(errors[1], axis=2).mean() < 1.2 * np.linalg.norm(errors[0], axis=2).mean()


def test_poses_jitter_less_and_lips_as_much_as_frame_by_frame(model):
    case = made_clip(model, 60, noise_px=1.0)
    fits = [
        fit_3dmm(case.landmarks, case.camera, model, shot_starts=starts)
        for starts in (None, np.arange(len(case.euler)))
    ]
    jitter = [np.sqrt(np.mean(np.diff(c.euler, n=2, axis=0) ** 2)) for c in fits]
    truth = np.sqrt(np.mean(np.diff(case.euler.numpy(), n=2, axis=0) ** 2))
    assert jitter[0] < 0.5 * jitter[1] and jitter[0] < 1.5 * truth
    lips = [np.mean(np.diff(lip_opening(fitted_points(model, c)), n=2) ** 2) for c in fits]
    assert lips[0] > 0.9 * lips[1]
    energy = np.mean(np.diff(lip_opening(true_points(model, case)), n=2) ** 2)
    assert lips[0] > 0.95 * energy


def test_shots_that_are_given_are_not_smoothed_over(model):
    """A cut too gentle to be seen in the landmarks is known from the shots."""
    case = made_clip(model, 40, noise_px=0.3)
    euler = case.euler.clone()
    euler[20:, 1] += 0.12
    points, _ = project(model.landmarks(case.identity, case.expression), euler, case.translation, case.camera)
    landmarks = replace(case.landmarks, points=points.numpy())
    person = FittedPerson(case.identity.numpy(), case.camera)
    blind, told = (
        angles_between_deg(fit_3dmm(landmarks, None, model, person=person, shot_starts=s).euler, euler.numpy())[18:22]
        for s in (None, np.array([0, 20]))
    )
    assert told.max() < 0.5 < blind.max()


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
    replace(OcclusionTable.nothing(12, 8), hidden=hidden).save(workspace.occlusion)
    assert not np.allclose(fit_3dmm_for_a_video(workspace, model).expression, plain.expression)
    replace(OcclusionTable.nothing(3, 8), hidden=hidden[:3]).save(workspace.occlusion)
    with pytest.raises(GeneFaceError, match="covers 3 frames"):
        fit_3dmm_for_a_video(workspace, model)


def test_driver_heeds_the_shots(model, workspace):
    plain = fit_3dmm_for_a_video(workspace, model)
    workspace.frame_index.parent.mkdir(parents=True, exist_ok=True)
    FrameIndex(np.arange(12), Fraction(1, 25), np.array([0, 6])).save(workspace.frame_index)
    cut = fit_3dmm_for_a_video(workspace, model)
    assert not np.allclose(cut.euler[4:8], plain.euler[4:8], atol=1e-7)
    np.testing.assert_array_equal(cut.identity, plain.identity)
    workspace.frame_index.write_bytes(b"no index")
    with pytest.raises(GeneFaceError, match="cannot be used"):
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["address_1280x720_25fps", "moustache_480x360_30fps"])
def test_real_faces_half_hidden_keep_their_pose(shared_clips, name):
    """40 % of the points hidden: the pose stays within 2 degrees, the visible points fit as well as before."""
    frames = list(read_frames(shared_clips / f"{name}.mp4", 0, 60, 2))
    _, landmarks = track_and_landmark(frames, FaceLandmarker(), FaceDetector())
    model, (height, width) = FaceModel.load(FACE_MODEL_FILE), frames[0].size_hw
    clean = fit_3dmm(landmarks, None, model, size_wh=(width, height))
    mean = model.landmark_rows().mean.numpy()
    for hidden in (np.argsort(mean[:, 1])[:191], np.argsort(mean[:, 0])[:191]):
        weights = np.ones(landmarks.depth.shape, np.float32)
        weights[:, hidden] = 0
        coeffs = fit_3dmm(landmarks, None, model, weights=weights, person=clean.person)
        assert angles_between_deg(coeffs.euler, clean.euler).mean() < 2.0
        errors = [np.delete(fitted_points(model, c) - landmarks.points, hidden, axis=1) for c in (clean, coeffs)]
        assert np.linalg.norm(errors[1], axis=2).mean() < 1.2 * np.linalg.norm(errors[0], axis=2).mean()
