import sys
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.process_video.centerface import CenterFace
from data_gen.utils.process_video.detector_backends import (
    BLAZEFACE_BOX,
    MTCNN_BOX,
    SAME_BOX,
    BoxFit,
    ModelFiles,
    PackageFinder,
    RawFaces,
    build_finder,
    five_points,
    mediapipe_faces,
    retinaface_faces,
)
from data_gen.utils.process_video.face_detector import FaceDetector
from modules.commons.errors import BackendUnavailableError
from modules.structures.boxes import BoundingBox
from modules.video.colour import rgb_from_planes
from tests.support.bright_networks import write_retinaface, write_scrfd
from tests.support.real_frames import DEMO_CLIP, read_frame

PACKAGES = {
    "mediapipe": "mediapipe",
    "mtcnn": "facenet_pytorch",
    "scrfd": "insightface.model_zoo",
    "retinaface": "retinaface",
}
FIVE = np.array([(3, 4), (7, 4), (5, 6), (4, 8), (6, 8)], dtype=np.float64)


def square_finder(image):
    """The one bright square of a picture, as a package would report it."""
    x, y, width, height = cv2.boundingRect((image[..., 0] > 128).astype(np.uint8))
    if width == 0:
        return RawFaces.none()
    box = np.array([[x, y, x + width, y + height]], dtype=np.float64)
    points = (FIVE / 10 * (width, height) + (x, y))[None]
    return RawFaces(box, points, np.array([0.9]))


def picture_with(box, size_hw=(240, 320)):
    rgb = np.zeros((*size_hw, 3), dtype=np.uint8)
    rgb[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = 255
    return rgb


@given(st.integers(20, 200), st.integers(20, 120), st.sampled_from([80, 160, 320, 640]), st.booleans())
@settings(max_examples=25)
def test_what_a_package_sees_comes_back_in_image_pixels(x, y, max_side, partly):
    truth = BoundingBox(x, y, x + 80, y + 60)
    area = BoundingBox(x - 15, y - 12, x + 100, y + 90) if partly else None
    (face,) = PackageFinder(square_finder, SAME_BOX, 0.5).detect(picture_with(truth), area, max_side=max_side)
    pixel = max(1.0, 320 / max_side)
    np.testing.assert_allclose(face.box.as_array(), truth.as_array(), atol=pixel + 0.01)
    np.testing.assert_allclose(face.keypoints, FIVE / 10 * (80, 60) + (x, y), atol=pixel + 0.01)


def test_weak_empty_and_outside_finds_are_dropped():
    rgb = picture_with(BoundingBox(50, 50, 90, 90))
    assert PackageFinder(square_finder, SAME_BOX, 0.95).detect(rgb) == []
    assert PackageFinder(square_finder, SAME_BOX, 0.5).detect(rgb, BoundingBox(-50, -50, -1, -1)) == []
    flat = RawFaces(np.array([[5.0, 5, 5, 9]]), FIVE[None], np.array([0.9]))
    assert PackageFinder(lambda image: flat, SAME_BOX, 0.5).detect(rgb) == []


def test_the_largest_comes_first_and_boxes_are_stretched():
    boxes = np.array([[0.0, 0, 10, 20], [100, 100, 140, 180]])
    raw = RawFaces(boxes, np.stack([FIVE, FIVE]), np.array([0.9, 0.8]))
    large, small = PackageFinder(lambda image: raw, BoxFit(0.4, 0.75, 0.5), 0.5).detect(
        np.zeros((200, 200, 3), np.uint8)
    )
    np.testing.assert_allclose(large.box.as_array(), [104, 80, 136, 180])
    np.testing.assert_allclose(small.box.as_array(), [1, -5, 9, 20])


def test_mouth_corners_are_estimated_along_the_eyes():
    six = np.array([(10, 20), (30, 40), (20, 35), (14, 46), (0, 20), (40, 60)], dtype=np.float32)
    five = five_points(six)
    assert five.shape == (5, 2)
    np.testing.assert_allclose(five[:3], six[:3])
    np.testing.assert_allclose((five[3] + five[4]) / 2, six[3])
    across, eyes = five[4] - five[3], six[1] - six[0]
    assert across[0] * eyes[1] == pytest.approx(across[1] * eyes[0])
    assert across @ eyes > 0


def test_mediapipe_detections_are_read():
    points = [
        SimpleNamespace(x=x, y=y) for x, y in [(0.3, 0.4), (0.5, 0.4), (0.4, 0.5), (0.4, 0.6), (0.2, 0.4), (0.6, 0.4)]
    ]
    box = SimpleNamespace(origin_x=50, origin_y=60, width=70, height=80)
    raw = mediapipe_faces(
        [SimpleNamespace(bounding_box=box, keypoints=points, categories=[SimpleNamespace(score=0.7)])], (100, 200)
    )
    np.testing.assert_allclose(raw.boxes, [[50, 60, 120, 140]])
    np.testing.assert_allclose(raw.keypoints[0, :3], [(60, 40), (100, 40), (80, 50)])
    np.testing.assert_allclose(raw.scores, [0.7])
    assert mediapipe_faces([], (100, 200)).boxes.shape == (0, 4)


def test_retinaface_names_sides_from_the_person():
    marks = {"right_eye": [3, 4], "left_eye": [7, 4], "nose": [5, 6], "mouth_right": [4, 8], "mouth_left": [6, 8]}
    raw = retinaface_faces({"face_1": {"score": 0.9, "facial_area": [1, 2, 9, 10], "landmarks": marks}})
    np.testing.assert_allclose(raw.keypoints[0], FIVE)
    np.testing.assert_allclose(raw.boxes, [[1, 2, 9, 10]])
    assert retinaface_faces({}).scores.shape == (0,)


def block(monkeypatch, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package.split(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package.split(".")[0], None)


@pytest.mark.parametrize("backend", PACKAGES)
def test_a_named_backend_without_its_package_says_what_to_install(backend, monkeypatch):
    block(monkeypatch, PACKAGES[backend])
    with pytest.raises(
        BackendUnavailableError, match=rf"'{backend}' cannot run here.*pip install.*use detector 'auto'"
    ):
        FaceDetector(backend)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no face detector is called 'haar'"):
        build_finder("haar")  # pyright: ignore[reportArgumentType]


def fake_facenet(answer):
    class MTCNN:
        def __init__(self, **options):
            assert options["keep_all"]

        def detect(self, image, landmarks):
            assert landmarks
            assert image.dtype == np.uint8
            return answer

    module = ModuleType("facenet_pytorch")
    vars(module)["MTCNN"] = MTCNN
    return module


def test_mtcnn_adapter_on_a_package_of_the_same_shape(monkeypatch):
    answer = (
        np.array([[10, 20, 50, 80]], dtype=object),
        np.array([0.99], dtype=object),
        np.array([FIVE], dtype=object),
    )
    monkeypatch.setitem(sys.modules, "facenet_pytorch", fake_facenet(answer))
    (face,) = build_finder("mtcnn").detect(np.zeros((100, 100, 3), np.uint8))
    np.testing.assert_allclose(face.box.as_array(), MTCNN_BOX.apply(BoundingBox(10, 20, 50, 80)).as_array())
    np.testing.assert_allclose(face.keypoints, FIVE)
    monkeypatch.setitem(sys.modules, "facenet_pytorch", fake_facenet((None, np.array([None]), None)))
    assert build_finder("mtcnn").detect(np.zeros((100, 100, 3), np.uint8)) == []


def fake_insightface(network):
    package, zoo = ModuleType("insightface"), ModuleType("insightface.model_zoo")
    vars(zoo)["get_model"] = lambda path: network
    return {"insightface": package, "insightface.model_zoo": zoo}


def fake_scrfd(detect, fixed=None):
    return SimpleNamespace(
        taskname="detection", use_kps=True, static_input_size=fixed, prepare=lambda **options: None, detect=detect
    )


@pytest.mark.parametrize(("fixed", "expected"), [(None, (128, 96)), ((640, 640), (640, 640))])
def test_scrfd_adapter_on_a_package_of_the_same_shape(fixed, expected, monkeypatch, tmp_path):
    def detect(bgr, input_size):
        assert input_size == expected
        assert bgr[0, 0].tolist() == [3, 2, 1]
        return np.array([[10, 20, 50, 80, 0.8]]), FIVE[None]

    for name, module in fake_insightface(fake_scrfd(detect, fixed)).items():
        monkeypatch.setitem(sys.modules, name, module)
    (tmp_path / "det.onnx").write_bytes(b"weights")
    rgb = np.full((90, 100, 3), (1, 2, 3), dtype=np.uint8)
    (face,) = build_finder("scrfd", ModelFiles(scrfd=tmp_path / "det.onnx")).detect(rgb)
    assert face.box == BoundingBox(10, 20, 50, 80)
    assert face.score == pytest.approx(0.8)


def test_scrfd_without_weights_or_with_another_network_is_refused(monkeypatch, tmp_path):
    for name, module in fake_insightface(SimpleNamespace(taskname="recognition")).items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(BackendUnavailableError, match=r"gone\.onnx is missing.*det_10g\.onnx.*'auto'"):
        build_finder("scrfd", ModelFiles(scrfd=tmp_path / "gone.onnx"))
    (tmp_path / "other.onnx").write_bytes(b"weights")
    with pytest.raises(BackendUnavailableError, match=r"other\.onnx is no face detector"):
        build_finder("scrfd", ModelFiles(scrfd=tmp_path / "other.onnx"))


def test_mediapipe_without_its_model_is_refused(tmp_path):
    with pytest.raises(BackendUnavailableError, match=r"face_detection_full_range_sparse\.tflite is missing"):
        build_finder("mediapipe", ModelFiles(mediapipe=tmp_path))


# From here on the real packages, where they are installed.


def test_scrfd_really_loads_a_network_of_its_format(tmp_path):
    pytest.importorskip("insightface.model_zoo", exc_type=ImportError)
    finder = build_finder("scrfd", ModelFiles(scrfd=write_scrfd(tmp_path / "det_10g.onnx")))
    rgb = picture_with(BoundingBox(160, 80, 168, 88))
    for area in (None, BoundingBox(128, 64, 256, 192)):
        (face,) = finder.detect(rgb, area)
        np.testing.assert_allclose(face.box.as_array(), [152, 72, 176, 96], atol=0.1)
        np.testing.assert_allclose(face.keypoints[:2], [(156, 80), (172, 80)], atol=0.1)
        assert face.score > 0.9
    assert finder.detect(np.zeros_like(rgb)) == []
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(BackendUnavailableError, match="put a readable"):
        build_finder("scrfd", ModelFiles(scrfd=tmp_path / "bad.onnx"))


def test_retinaface_really_runs_a_network_of_its_format(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("retinaface", exc_type=ImportError)
    onnx_file = write_retinaface(tmp_path / "retinaface.onnx")
    finder = build_finder("retinaface", ModelFiles(retinaface=onnx_file))
    rgb = picture_with(BoundingBox(160, 80, 168, 88))
    for area in (None, BoundingBox(128, 64, 256, 192)):
        (face,) = finder.detect(rgb, area)
        np.testing.assert_allclose(face.box.as_array(), [152, 72, 183, 103], atol=1.5)
        assert face.keypoints[0, 0] < face.keypoints[1, 0]
        assert face.keypoints[:2, 1].max() < face.keypoints[3:, 1].min()
        assert face.score > 0.9
    assert finder.detect(np.zeros_like(rgb)) == []
    with pytest.raises(BackendUnavailableError, match=r"gone\.onnx is missing"):
        build_finder("retinaface", ModelFiles(retinaface=tmp_path / "gone.onnx"))


@pytest.mark.parametrize("backend", ["blazeface", "mediapipe", "mtcnn"])
@pytest.mark.parametrize("index", [0, 312])
def test_boxes_and_key_points_agree_with_centerface(backend, index, demo_dir):
    if backend in PACKAGES:
        pytest.importorskip(PACKAGES[backend], exc_type=ImportError)
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, index))
    (reference,) = CenterFace().detect(rgb)
    (face,) = build_finder(backend).detect(rgb)
    assert face.box.iou(reference.box) > 0.7
    eye_distance = np.linalg.norm(reference.keypoints[1] - reference.keypoints[0])
    assert face.keypoints.shape == (5, 2)
    assert np.linalg.norm(face.keypoints - reference.keypoints, axis=1).max() < 0.3 * eye_distance


def test_blazeface_box_fit_keeps_the_chin():
    box = BLAZEFACE_BOX.apply(BoundingBox(0, 0, 100, 100))
    assert box.y1 == pytest.approx(100, abs=6)
    assert box.y0 < 0
