"""Which landmarks can be seen: on surfaces whose answer is known, and on real faces turned away or cut off."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker, region_of_face, region_of_landmarks
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.face_geometry import yaw_rad
from data_gen.utils.process_video.landmark_visibility import FaceSurface, inside_frame, landmark_visibility
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.landmarks import EYES, FACE_OVAL, IRISES, MOUTH, inter_ocular_px
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import read_frame

SIZE = (400, 300)
LEFT_SIDE, RIGHT_SIDE = (234, 93, 132, 127), (454, 323, 361, 356)
"""Points before the ears, image left and right of a face seen from the front."""


@pytest.fixture(scope="module")
def places():
    return FaceModel.load(FACE_MODEL_FILE).landmark_rows().mean.numpy().astype(np.float64)


@pytest.fixture(scope="module")
def surface(places):
    return FaceSurface.of(places)


def seen_from(places, yaw=0.0, pitch=0.0, px_per_dm=80.0, center=(200.0, 150.0)):
    """Landmarks ``[1, 478, 2]`` and depth of the face turned by ``yaw`` (towards image-right) and ``pitch`` (down)."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turned = places @ (about_x @ about_y).T * px_per_dm
    points = np.stack([turned[:, 0] + center[0], center[1] - turned[:, 1]], axis=1)
    return points[None].astype(np.float32), (-turned[:, 2])[None].astype(np.float32)


# --- inside the picture -----------------------------------------------------------------------------------------------


def test_outside_is_nought_well_inside_is_one_and_the_edge_is_between(places):
    points, _ = seen_from(places)
    eyes = float(inter_ocular_px(points)[0])
    points[0, :6] = (-3, 100), (200, -0.1), (401, 100), (200, 300.5), (0.05 * eyes, 100), (200, 300 - 0.2 * eyes)
    made = inside_frame(points, SIZE)
    assert made.dtype == np.float32
    assert made[0, :4].tolist() == [0, 0, 0, 0]
    assert made[0, 4] == pytest.approx(0.5, abs=0.02)
    assert made[0, 5] == 1
    assert inside_frame(seen_from(places)[0], SIZE).min() == 1


def test_nan_is_unseen_and_does_not_spread(places, surface):
    points, depth = (np.repeat(a, 3, axis=0) for a in seen_from(places))
    points[1], depth[2, 4] = np.nan, np.nan
    inside, seen = inside_frame(points, SIZE), landmark_visibility(points, depth, SIZE, surface)
    assert (inside[1] == 0).all()
    assert (seen[1] == 0).all()
    assert seen[2, 4] == 0
    assert np.isfinite(seen).all()
    np.testing.assert_array_equal(seen[2, list(MOUTH)], seen[0, list(MOUTH)])
    points[0, 33] = np.nan
    assert inside_frame(points, SIZE)[0, 33] == 0
    assert inside_frame(points, SIZE)[0, 1] == 1


@given(x=st.floats(-800, 800), y=st.floats(-800, 800), size=st.floats(1e-3, 500))
@settings(max_examples=40)
def test_shares_stay_between_nought_and_one_wherever_the_face_is(places, surface, x, y, size):
    points, depth = seen_from(places, 0.4, 0.1, size, (x, y))
    seen = landmark_visibility(points, depth, SIZE, surface)
    assert ((seen >= 0) & (seen <= 1)).all()
    beyond = (points < 0).any(axis=2) | (points > np.array(SIZE)).any(axis=2)
    assert (seen[beyond] == 0).all()


# --- facing the camera ------------------------------------------------------------------------------------------------


def test_a_cylinder_faces_the_camera_by_the_angle_around_it(places):
    """Points of a face laid on an upright cylinder: the normal of each is its angle."""
    angle = np.clip(places[:, 0] / 0.72, -1, 1) * np.radians(75)
    laid = np.stack([0.8 * np.sin(angle), places[:, 1], 0.8 * np.cos(angle)], axis=1)
    surface = FaceSurface.of(laid)
    for yaw in (-0.7, 0.0, 0.5):
        points, depth = seen_from(laid, yaw)
        away = np.setdiff1d(np.arange(478), FACE_OVAL + IRISES)
        np.testing.assert_allclose(surface.facing(points, depth)[0, away], np.cos(angle + yaw)[away], atol=0.12)


def test_triangles_cover_every_point_and_look_outwards(places, surface):
    points, depth = seen_from(places)
    facing = surface.facing(points, depth)[0]
    assert np.isfinite(facing).all()
    assert facing[[1, 4, 10, 50, 280]].min() > 0.6
    assert (np.asarray(surface.gather.sum(axis=1)).ravel() > 0).all()
    mirrored = points * (-1, 1)
    assert surface.facing(mirrored, depth)[0, 4] < -0.6, "inside out"


def test_a_face_from_the_front_is_seen_whole(places, surface):
    seen = landmark_visibility(*seen_from(places), SIZE, surface)[0]
    assert seen[list(EYES + MOUTH + IRISES)].min() > 0.9
    assert seen[list(FACE_OVAL)].mean() > 0.6
    assert seen.mean() > 0.9


@pytest.mark.parametrize("degrees", [30, 50, 70])
def test_the_far_side_of_a_turned_face_fades_and_the_near_one_stays(places, surface, degrees):
    for sign, far, near in ((1, RIGHT_SIDE, LEFT_SIDE), (-1, LEFT_SIDE, RIGHT_SIDE)):
        seen = landmark_visibility(*seen_from(places, sign * np.radians(degrees)), SIZE, surface)[0]
        assert seen[list(far)].max() == 0
        assert seen[list(near)].min() == 1
    shares = [landmark_visibility(*seen_from(places, np.radians(d)), SIZE, surface).mean() for d in (0, 20, 40, 60, 80)]
    assert (np.diff(shares) < 0).all(), "ever less is seen"


def test_size_place_and_roll_do_not_matter(places, surface):
    points, depth = seen_from(places, 0.5)
    facing = surface.facing(points, depth)
    turned = (points - 100) @ np.array([[0.0, 3.0], [-3.0, 0.0]]) + 70
    np.testing.assert_allclose(surface.facing(turned, depth * 3), facing, atol=1e-4)


# --- real faces -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker(blendshapes=False)


def settled(landmarker, rgb, region):
    """Landmarks seen through the square that two looks before gave."""
    for _ in range(2):
        region = region_of_landmarks(landmarker.detect(rgb, region).points)
    return landmarker.detect(rgb, region)


def test_a_real_profile_loses_its_far_side(shared_clips, landmarker, surface):
    clip = shared_clips / "lectern_profile_editlist_640x360_30fps.mp4"
    rgb = rgb_from_planes(read_frame(clip, 295))
    seen = settled(landmarker, rgb, region_of_face(FaceDetector().detect_face_bbox(rgb)[0]))
    assert abs(np.degrees(yaw_rad(seen.points, seen.depth))) > 30
    weights = landmark_visibility(seen.points[None], seen.depth[None], (640, 360), surface)[0]
    assert weights[list(RIGHT_SIDE)].max() < 0.1
    assert weights[list(LEFT_SIDE)].min() > 0.9
    assert 0.5 < weights.mean() < 0.9


def test_points_of_a_cut_off_face_that_lie_beyond_the_edge_are_wrong_and_weigh_nothing(demo_dir, landmarker):
    """The right third of a face is cut away: what MediaPipe puts there is far off; what weighs in full is not."""
    rgb = rgb_from_planes(read_frame(demo_dir / "WolfgangLanger_Pexels.mp4", 10))
    whole = settled(landmarker, rgb, region_of_face(FaceDetector().detect_face_bbox(rgb)[0]))
    x0, x1 = whole.points[:, 0].min(), whole.points[:, 0].max()
    width = int(x1 - (x1 - x0) / 3)
    cut = np.ascontiguousarray(rgb[:, :width])
    part = settled(landmarker, cut, region_of_landmarks(whole.points))
    weights = inside_frame(part.points[None], (width, rgb.shape[0]))[0]
    error = np.linalg.norm(part.points - whole.points, axis=1) / inter_ocular_px(whole.points)
    assert (weights == 0).mean() > 0.15
    assert error[weights == 0].mean() > 2 * error[weights == 1].mean()
    assert error[weights == 1].mean() < 0.04


# --- bad input --------------------------------------------------------------------------------------------------------


def test_no_frames_and_single_frames(places, surface):
    none = np.zeros((0, 478, 2), np.float32), np.zeros((0, 478), np.float32)
    assert landmark_visibility(*none, SIZE, surface).shape == (0, 478)
    assert inside_frame(none[0], SIZE).shape == (0, 478)
    assert landmark_visibility(*seen_from(places), SIZE, surface).shape == (1, 478)


def test_points_that_all_lie_in_one_place_are_no_surface(surface):
    points, depth = np.full((1, 478, 2), 50.0), np.zeros((1, 478))
    assert (landmark_visibility(points, depth, SIZE, surface) == 0).all()


def test_wrong_shapes_are_refused(places, surface):
    points, depth = seen_from(places)
    with pytest.raises(ValueError, match=r"landmarks must be \[T, 478, 2\]"):
        inside_frame(points[0], SIZE)
    with pytest.raises(ValueError, match="depth must be"):
        landmark_visibility(points, depth[:, :5], SIZE, surface)
    with pytest.raises(ValueError, match="shows no landmarks"):
        inside_frame(points, (0, 10))
    with pytest.raises(ValueError, match="places must be"):
        FaceSurface.of(places[:10])
    with pytest.raises(ValueError, match="places must be"):
        FaceSurface.of(places * np.nan)
