import math
import time

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.face_landmarker import (
    FaceLandmarker,
    build_landmarker,
    detect_all,
    region_of_box,
    region_of_landmarks,
)
from modules.commons.errors import ModelFileError
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion, transform_points, warp_affine
from modules.structures.landmarks import (
    MEDIAPIPE_BLENDSHAPES,
    MOUTH,
    face_height_px,
    inter_ocular_px,
    lip_opening,
)
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame


@pytest.fixture(scope="module")
def landmarker():
    return FaceLandmarker()


@pytest.fixture(scope="module")
def smile(demo_dir):
    """A broad smile, mouth open, nothing in front of it."""
    return rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 312))


@pytest.fixture(scope="module")
def calm(demo_dir):
    return rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))


CALM_BOX = BoundingBox(320, 60, 550, 345)


def settled(landmarker, rgb, box=CALM_BOX):
    first = landmarker.detect(rgb, box)
    return landmarker.detect(rgb, region_of_landmarks(first.points))


def test_landmarks_of_a_known_face(landmarker, calm):
    result = settled(landmarker, calm)
    assert result.score > 0.99
    assert face_height_px(result.points) == pytest.approx(255, abs=25)
    np.testing.assert_allclose(result.points[[468, 473]], [(369, 180), (468, 175)], atol=3)
    assert lip_opening(result.points) < 0.03
    assert result.depth[1] < result.depth[234], "the nose is nearer than the cheek's edge"


def test_blendshapes_see_the_smile(landmarker, calm, smile):
    names = list(MEDIAPIPE_BLENDSHAPES)
    quiet, broad = settled(landmarker, calm), settled(landmarker, smile, BoundingBox(335, 70, 545, 350))
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        assert broad.blendshapes[names.index(name)] > quiet.blendshapes[names.index(name)] + 0.2
    assert lip_opening(broad.points) > 0.08
    assert ((broad.blendshapes >= 0) & (broad.blendshapes <= 1)).all()


@pytest.mark.parametrize("angle", [-0.6, 0.4])
def test_landmarks_turn_with_the_picture(landmarker, calm, angle):
    upright = settled(landmarker, calm)
    center = upright.points.mean(axis=0)
    turn = CropRegion(float(center[0]), float(center[1]), 360, angle).crop_from_frame(360)
    turned = warp_affine(calm, turn, (360, 360))
    region = region_of_landmarks(transform_points(turn, upright.points))
    again = landmarker.detect(turned, region)
    error = np.linalg.norm(again.points - transform_points(turn, upright.points), axis=1)
    assert error.mean() / inter_ocular_px(upright.points) < 0.02


def test_mirroring_shows_no_half_pixel_bias(landmarker, demo_dir):
    """A face 60 px high is where a wrong pixel convention shows most: half a pixel would be 0.7 of the 256."""
    bias = []
    for index in (0, 40, 80):
        rgb = rgb_from_planes(read_frame(demo_dir / "carphone_pristine.mp4", index))
        width = rgb.shape[1]
        result = settled(landmarker, rgb, BoundingBox(40, 37, 112, 96))
        region = region_of_landmarks(result.points)
        straight = landmarker.detect(rgb, region)
        mirrored = CropRegion(width - region.center_x, region.center_y, region.side, -region.angle_rad)
        flipped = landmarker.detect(np.ascontiguousarray(rgb[:, ::-1]), mirrored)
        difference = straight.points[:, 0].mean() - (width - flipped.points[:, 0].mean())
        bias.append(difference / 2 / region.side * 256)
    assert abs(np.mean(bias)) < 0.3


def test_an_empty_picture_has_no_face(landmarker):
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    assert landmarker.detect(grey, CropRegion(100, 100, 150)).score < 0.5


def test_large_faces_do_not_alias(landmarker, calm):
    """The same face at four times the size (a 4K close-up) gives the same landmarks."""
    large = np.repeat(np.repeat(calm, 4, axis=0), 4, axis=1)
    small = settled(landmarker, calm)
    region = region_of_landmarks(small.points)
    big = CropRegion(region.center_x * 4, region.center_y * 4, region.side * 4, region.angle_rad)
    result = landmarker.detect(large, big)
    reference = landmarker.detect(calm, region)
    error = np.linalg.norm(result.points / 4 - reference.points, axis=1).mean()
    assert error / inter_ocular_px(small.points) < 0.01


def test_region_of_box_is_an_upright_square():
    assert region_of_box(BoundingBox(0, 0, 10, 20)) == CropRegion(5, 10, 30, 0.0)


def test_without_blendshapes_they_are_zero(calm):
    result = FaceLandmarker(blendshapes=False).detect(calm, BoundingBox(320, 60, 550, 345))
    assert not result.blendshapes.any()


def test_a_missing_bundle_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"face_landmarker\.task is missing"):
        FaceLandmarker(models=tmp_path)


def test_the_default_needs_no_package_but_the_projects_own():
    assert isinstance(build_landmarker(), FaceLandmarker)


def test_all_faces_of_a_frame_are_found_as_one_by_one(landmarker, calm):
    looks = [(calm, region_of_box(CALM_BOX)), (calm, CropRegion(430, 200, 420, 0.1))]

    class OneByOne:
        def detect(self, rgb, region):
            return landmarker.detect(rgb, region)

    for found, expected in zip(detect_all(landmarker, looks), detect_all(OneByOne(), looks), strict=True):
        np.testing.assert_allclose(found.points, expected.points, atol=0.1)
        np.testing.assert_allclose(found.blendshapes, expected.blendshapes, atol=0.01)
    assert detect_all(landmarker, []) == []


def test_fast_enough_for_the_pass_over_a_video(landmarker, calm):
    """8 ms on a quiet core; a generous bound that only catches a lost XNNPACK or a doubled network."""
    region = region_of_landmarks(settled(landmarker, calm).points)
    times = []
    for _ in range(5):
        start = time.process_time()
        landmarker.detect(calm, region)
        times.append(time.process_time() - start)
    assert min(times) < 0.05


def test_mouth_points_lie_within_the_face(landmarker, smile):
    points = settled(landmarker, smile, BoundingBox(335, 70, 545, 350)).points
    inside = points[list(MOUTH)]
    assert (inside.min(axis=0) > points.min(axis=0)).all()
    assert (inside.max(axis=0) < points.max(axis=0)).all()
    assert math.isfinite(float(points.sum()))
