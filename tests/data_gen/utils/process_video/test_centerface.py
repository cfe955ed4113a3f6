import numpy as np
import pytest

from data_gen.utils.process_video.centerface import CenterFace, decode_heatmap, input_size, suppress
from modules.commons.errors import ModelFileError
from modules.structures.boxes import BoundingBox
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame


@pytest.fixture(scope="module")
def detector():
    return CenterFace()


@pytest.mark.parametrize(
    ("size_hw", "max_side", "expected"),
    [
        ((1080, 1920), 960, (544, 960)),
        ((144, 176), 640, (160, 192)),
        ((20, 20), 640, (32, 32)),
        ((720, 1280), 640, (384, 640)),
    ],
)
def test_input_sizes_are_multiples_of_32_and_never_enlarge(size_hw, max_side, expected):
    assert input_size(size_hw, max_side) == expected


def test_decode_reads_height_before_width_and_y_before_x():
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[2, 5] = 0.8
    scale = np.zeros((2, 8, 8), dtype=np.float32)
    scale[:, 2, 5] = np.log([10.0, 5.0])
    offset = np.zeros((2, 8, 8), dtype=np.float32)
    offset[:, 2, 5] = (0.25, -0.25)
    marks = np.zeros((10, 8, 8), dtype=np.float32)
    marks[2:4, 2, 5] = (0.5, 1.0)
    boxes, keypoints, scores = decode_heatmap(heat, scale, offset, marks, 0.5)
    center = np.array([(5.5 - 0.25) * 4, (2.5 + 0.25) * 4])
    np.testing.assert_allclose(
        boxes[0].reshape(2, 2), [np.subtract(center, (10, 20)), np.add(center, (10, 20))], atol=1e-4
    )
    np.testing.assert_allclose(keypoints[0, 0], boxes[0, :2])
    np.testing.assert_allclose(keypoints[0, 1], [boxes[0, 2], center[1]], atol=1e-4)
    np.testing.assert_allclose(scores, 0.8)


def test_suppression_keeps_the_best_of_each_cluster():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 0, 40, 10], [0, 0, 10, 4]], dtype=float)
    assert suppress(boxes, np.array([0.6, 0.9, 0.7, 0.8]), 0.5) == [1, 3, 2]
    assert suppress(boxes[:0], np.zeros(0), 0.5) == []


def test_finds_the_face_and_its_key_points(detector, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    (face,) = detector.detect(rgb)
    assert face.box.iou(BoundingBox(320, 63, 548, 346)) > 0.8
    eyes, nose, mouth = face.keypoints[:2], face.keypoints[2], face.keypoints[3:]
    np.testing.assert_allclose(eyes, [(369, 180), (468, 175)], atol=12)
    assert eyes[:, 1].max() < nose[1] < mouth[:, 1].min()


@pytest.mark.parametrize("height", [24, 40])
def test_finds_tiny_faces_in_a_large_frame(detector, demo_dir, height):
    import cv2

    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))[40:360, 280:600]
    side = round(height * 320 / 283)
    frame = np.full((480, 640, 3), 90, dtype=np.uint8)
    frame[100 : 100 + side, 400 : 400 + side] = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_AREA)
    (face,) = detector.detect(frame)
    assert face.box.height == pytest.approx(height, rel=0.25)
    assert face.box.x0 >= 400
    assert face.box.x1 <= 400 + side


def test_an_area_gives_the_same_face_in_image_pixels(detector, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    whole = detector.detect(rgb)[0]
    near = detector.detect(rgb, BoundingBox(250, 20, 640, 360), max_side=192)[0]
    assert whole.box.iou(near.box) > 0.85
    assert detector.detect(rgb, BoundingBox(0, 0, 200, 200)) == []
    assert detector.detect(rgb, BoundingBox(-50, -50, -1, -1)) == []


def test_no_face_in_the_clip_without_one(detector, demo_dir):
    for index in (0, 50, 90):
        assert detector.detect(rgb_from_planes(read_frame(demo_dir / "no_face.mp4", index))) == []


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"gone\.onnx is missing"):
        CenterFace(tmp_path / "gone.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match=r"bad\.onnx is not a network"):
        CenterFace(tmp_path / "bad.onnx")


def test_several_parts_of_one_frame_are_looked_at_together(detector, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    areas = [None, BoundingBox(300, 40, 620, 360), BoundingBox(900, 0, 950, 50), BoundingBox(0, 0, 200, 200)]
    together = detector.detect_many([rgb] * 4, areas, max_side=320)
    assert [len(faces) for faces in together] == [1, 1, 0, 0]
    for faces, area in zip(together, areas, strict=True):
        for found, expected in zip(faces, detector.detect(rgb, area, max_side=320), strict=True):
            np.testing.assert_array_equal(found.box.as_array(), expected.box.as_array())
            np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert detector.detect_many([], []) == []
