"""The synthetic speaker: known truth, repeatable, seen as a face by the landmarker."""

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.face_landmarker import TASK_FILE, FaceLandmarker, region_of_landmarks
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.face_model.mesh_renderer import vertex_normals
from modules.structures.boxes import BoundingBox
from modules.structures.landmarks import INNER_LIP, MEDIAPIPE_BLENDSHAPES, inter_ocular_px, lip_opening
from tests.support.synthetic_head import Occluder, SyntheticSpeaker


def test_equal_seeds_paint_equal_frames():
    frames = [SyntheticSpeaker(5, size_hw=(96, 128), face_px=50) for _ in range(2)]
    first, second = (speaker.frame(speaker.coeffs(4), 3) for speaker in frames)
    np.testing.assert_array_equal(first.rgb, second.rgb)
    other = SyntheticSpeaker(6, size_hw=(96, 128), face_px=50)
    assert (other.frame(other.coeffs(4), 3).rgb != first.rgb).any()


def test_place_and_size_are_as_asked():
    speaker = SyntheticSpeaker(1, size_hw=(240, 400), face_px=90, center=(0.3, 0.6))
    points = speaker.landmarks(speaker.coeffs(1)).points[0]
    assert abs(points[152, 1] - points[10, 1]) == pytest.approx(90, rel=0.2)
    assert points.mean(axis=0) == pytest.approx([120, 144], abs=20)


def test_truth_is_consistent():
    speaker = SyntheticSpeaker(2, size_hw=(144, 192), face_px=80)
    coeffs = speaker.coeffs(50)
    frame, landmarks = speaker.frame(coeffs, 20), speaker.landmarks(coeffs)
    np.testing.assert_allclose(frame.landmarks, landmarks.points[20], atol=1e-4)
    opening = lip_opening(landmarks.points)
    jaw = coeffs.expression[:, speaker.model.unit("jawOpen")]
    assert opening.max() > 0.1 and np.corrcoef(opening, jaw)[0, 1] > 0.7
    np.testing.assert_allclose(landmarks.blendshapes[:, MEDIAPIPE_BLENDSHAPES.index("jawOpen")], jaw)
    # all but the outline's points lie on the painted head, the lips inside the face region
    rows, columns = np.floor(frame.landmarks[list(INNER_LIP)][:, ::-1]).astype(int).T
    assert (frame.face_mask[rows, columns] > 0.95).all()
    assert (frame.face_mask <= frame.head_mask + 1e-5).all() and frame.face_mask.max() <= 1
    assert not frame.occlusion.any() and coeffs.face_model_version == speaker.model.version


def test_motion_is_smooth_and_within_limits():
    coeffs = SyntheticSpeaker(3, size_hw=(96, 128), face_px=50).coeffs(120, yaw_rad=0.4)
    assert np.abs(coeffs.euler[:, 1]).max() <= 0.4 and np.abs(np.diff(coeffs.euler, axis=0)).max() < 0.08
    assert coeffs.expression.min() >= 0 and coeffs.expression.max() <= 1
    jaw = coeffs.expression[:, 24]
    assert (jaw == 0).mean() > 0.2 and jaw.max() > 0.2  # lips shut at times, open at others


def test_occluder_covers_only_its_mask():
    speaker = SyntheticSpeaker(4, size_hw=(144, 192), face_px=90)
    coeffs = speaker.coeffs(1)
    mouth = speaker.landmarks(coeffs).points[0, list(INNER_LIP)].mean(axis=0)
    occluder = Occluder((float(mouth[0]), float(mouth[1])), (24.0, 12.0), 0.3)
    plain, covered = speaker.frame(coeffs, 0), speaker.frame(coeffs, 0, occluder)
    changed = (plain.rgb != covered.rgb).any(axis=2)
    assert not changed[covered.occlusion == 0].any()
    assert changed[covered.occlusion == 1].mean() > 0.95
    assert covered.occlusion.sum() == pytest.approx(np.pi * 24 * 12, rel=0.03)
    np.testing.assert_array_equal(plain.face_mask, covered.face_mask)


def test_vertex_normals_of_a_cube_point_outwards():
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    from scipy.spatial import ConvexHull

    hull = ConvexHull(corners)
    triangles = hull.simplices.copy()
    for k, (a, b, c) in enumerate(triangles):
        if np.cross(corners[b] - corners[a], corners[c] - corners[a]) @ corners[[a, b, c]].mean(axis=0) < 0:
            triangles[k] = a, c, b
    normals = vertex_normals(corners, triangles)
    assert ((normals * corners).sum(axis=1) > 0.9).all()


@pytest.mark.skipif(not (MEDIAPIPE_DIR / TASK_FILE).exists(), reason=f"{TASK_FILE} is not there: run scripts/setup.sh")
def test_the_landmarker_sees_a_face_where_it_is():
    landmarker = FaceLandmarker(blendshapes=False)
    found, errors = 0, []
    for seed in range(20):
        speaker = SyntheticSpeaker(seed, size_hw=(216, 288), face_px=110)
        frame = speaker.frame(speaker.coeffs(seed + 1), seed)
        (x0, y0), (x1, y1) = frame.landmarks.min(axis=0), frame.landmarks.max(axis=0)
        result = landmarker.detect(frame.rgb, BoundingBox(x0, y0, x1, y1))
        result = landmarker.detect(frame.rgb, region_of_landmarks(result.points))
        found += result.score > 0.5
        errors.append(np.linalg.norm(result.points - frame.landmarks, axis=1).mean() / inter_ocular_px(frame.landmarks))
    assert found >= 18
    assert np.median(errors) < 0.03
