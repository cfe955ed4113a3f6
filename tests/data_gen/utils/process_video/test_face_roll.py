import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.face_landmarker import region_of_face
from data_gen.utils.process_video.centerface import CenterFace
from data_gen.utils.process_video.face_roll import RollFinder, faces_in_turned, looks_upright, unturned_from_turned
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropRegion, sample_region, transform_points
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame


class CornerFinder:
    """Takes the one bright pixel for a face one pixel large, and its own corners for key points."""

    def detect(self, rgb, area=None, *, max_side=640):
        (y,), (x,) = np.nonzero(rgb[..., 0])
        points = np.array([(x, y), (x + 1, y), (x + 0.5, y + 0.5), (x, y + 1), (x + 1, y + 1)], dtype=np.float32)
        return [FaceDetection(BoundingBox(int(x), int(y), int(x) + 1, int(y) + 1), 0.9, points)]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turned_views_map_back_to_the_pixel(quarters):
    rgb = np.zeros((5, 9, 3), dtype=np.uint8)
    rgb[1, 6] = 255
    (face,) = faces_in_turned(CornerFinder(), rgb, quarters, 640)
    np.testing.assert_allclose(face.box.as_array(), [6, 1, 7, 2], atol=1e-6)
    np.testing.assert_allclose(face.keypoints[2], (6.5, 1.5), atol=1e-6)
    # the line of the eyes turns with the picture: counter-clockwise turned, it comes back clockwise
    eyes = face.keypoints[1] - face.keypoints[0]
    np.testing.assert_allclose(eyes, [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters], atol=1e-6)


def test_unturning_is_the_inverse_of_rot90():
    image = np.arange(5 * 9).reshape(5, 9)
    for quarters in range(4):
        turned = np.rot90(image, quarters)
        back = unturned_from_turned(5, 9, quarters)
        for y in range(turned.shape[0]):
            for x in range(turned.shape[1]):
                u, v = np.floor(transform_points(back, np.array([x + 0.5, y + 0.5]))).astype(int)
                assert image[v, u] == turned[y, x]


def face_with(points):
    return FaceDetection(BoundingBox(0, 0, 80, 100), 0.9, np.array(points, dtype=np.float32))


def test_upright_faces_are_told_by_their_key_points():
    upright = np.array([(25, 42), (57, 42), (41, 58), (30, 77), (52, 77)], dtype=np.float32)
    assert looks_upright(face_with(upright))
    middle = np.array([40, 50])
    for degrees, expected in ((20, True), (-20, True), (40, False), (90, False), (180, False)):
        turn = CropRegion(0, 0, 1, np.deg2rad(degrees)).frame_from_crop(1)[:2, :2]
        assert looks_upright(face_with((upright - middle) @ turn.T + middle)) is expected
    assert not looks_upright(face_with([(40, 42), (50, 42), (45, 58), (42, 77), (48, 77)]))
    assert not looks_upright(face_with([(25, 42), (57, 42), (41, 48), (30, 55), (52, 55)]))


@pytest.mark.parametrize("degrees", [0, 45, 90, 135, 180, 225, 270, 315])
def test_the_roll_is_settled_whatever_the_key_points_said(degrees, demo_dir):
    upright = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    truth = CenterFace().detect(upright)[0]
    region = CropRegion(*truth.box.center, 500, -np.deg2rad(degrees))
    rgb = sample_region(upright, region, 400)
    points = transform_points(region.crop_from_frame(400), truth.keypoints)
    guess = FaceDetection(BoundingBox(100, 100, 300, 300), 0.6, np.zeros((5, 2), dtype=np.float32))
    face = RollFinder().settle(rgb, guess)
    assert face is not None
    eyes = np.linalg.norm(points[1] - points[0])
    assert np.linalg.norm(face.keypoints - points, axis=1).max() < 0.3 * eyes
    turn = region_of_face(face).angle_rad - region_of_face(truth).angle_rad - np.deg2rad(degrees)
    assert abs(np.remainder(turn + np.pi, 2 * np.pi) - np.pi) < 0.12
    assert face.box.iou(BoundingBox(100, 100, 300, 300)) > 0.6


def test_where_no_view_shows_a_face_there_is_no_answer(demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / "no_face.mp4", 50))
    assert RollFinder().settle(rgb, FaceDetection(BoundingBox(300, 150, 400, 280), 0.6, np.zeros((5, 2), "f4"))) is None
