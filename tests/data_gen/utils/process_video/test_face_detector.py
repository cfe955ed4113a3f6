import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.face_landmarker import region_of_face
from data_gen.utils.process_video.face_detector import DetectorConfig, FaceDetector
from data_gen.utils.process_video.face_roll import unturned_from_turned
from modules.commons.errors import ModelFileError
from modules.structures.boxes import BoundingBox
from modules.structures.crops import transform_points
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame, read_frames


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


def test_auto_takes_centerface_and_says_so(caplog, tmp_path):
    with caplog.at_level("INFO"):
        assert FaceDetector().backend == "centerface"
        assert FaceDetector("auto", centerface=tmp_path / "gone.onnx").backend == "blazeface"
    assert "face detector: centerface" in caplog.text
    assert "face detector: blazeface" in caplog.text


def test_a_backend_named_explicitly_does_not_fall_back(tmp_path):
    with pytest.raises(ModelFileError, match=r"gone\.onnx is missing"):
        FaceDetector("centerface", centerface=tmp_path / "gone.onnx")


@pytest.mark.parametrize("backend", ["centerface", "blazeface"])
def test_both_backends_find_the_demo_face(backend, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 300))
    faces = FaceDetector(backend).detect_face_bbox(rgb)
    assert len(faces) == 1
    assert faces[0].box.iou(BoundingBox(335, 65, 550, 350)) > 0.55


def test_looks_finer_only_when_nothing_was_found(detector, demo_dir):
    """A face 24 px high in a 1280 px frame escapes the first look and is found by the second."""
    import cv2

    face = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))[40:360, 280:600]
    frame = np.full((720, 1280, 3), 90, dtype=np.uint8)
    frame[300:320, 700:720] = cv2.resize(face, (20, 20), interpolation=cv2.INTER_AREA)
    assert detector.detect_face_bbox(frame, max_side=640) == []
    found = detector.detect_face_bbox(frame)
    assert len(found) == 1
    assert found[0].box.iou(BoundingBox(702, 302, 717, 320)) > 0.4
    once = FaceDetector(config=DetectorConfig(max_sides=(640,)))
    assert once.detect_face_bbox(frame) == []


def test_the_largest_face_comes_first(detector, shared_clips):
    rgb = rgb_from_planes(read_frame(shared_clips / "interview_two_speakers_hand_1280x720_25fps.mp4", 100))
    faces = detector.detect_face_bbox(rgb)
    assert len(faces) == 2
    assert faces[0].box.area >= faces[1].box.area


def test_track_faces_follows_one_face(detector, demo_dir):
    (track,) = detector.track_faces(read_frames(demo_dir / DEMO_CLIP, 0, 60))
    assert track.first_frame == 0
    assert len(track) == 60
    assert track.is_detected.mean() > 0.9
    assert track.box(0).iou(BoundingBox(320, 63, 548, 346)) > 0.6


def test_track_faces_follows_two_people_apart(detector, shared_clips):
    clip = shared_clips / "interview_two_speakers_hand_1280x720_25fps.mp4"
    tracks = detector.track_faces(read_frames(clip, 100, 140))
    assert len(tracks) == 2
    assert all(track.is_detected.mean() > 0.9 for track in tracks)
    left, right = sorted(tracks, key=lambda track: track.boxes[0, 0])
    assert (left.boxes[:, 2] < right.boxes[:, 0]).all()


def test_track_faces_of_nothing_is_empty(detector, demo_dir):
    assert detector.track_faces(read_frames(demo_dir / "no_face.mp4", 0, 10)) == []
    assert detector.track_faces(iter(())) == []


def test_the_stable_crop_of_the_demo_is_one_square(detector, demo_dir):
    (track,) = detector.track_faces(read_frames(demo_dir / DEMO_CLIP, 0, 40))
    metadata = detector.compute_stable_crop_region(track, (360, 640))
    assert len(metadata.regions) == 1
    assert metadata.crop_size == 512
    wider = detector.compute_stable_crop_region(track, (360, 640), margin=0.5, crop_size=256)
    assert wider.regions[0].side > metadata.regions[0].side
    assert wider.crop_size == 256


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_lying_face_is_found_with_its_roll(detector, demo_dir, quarters):
    upright = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    (truth,) = detector.detect_face_bbox(upright)
    lying = np.ascontiguousarray(np.rot90(upright, -quarters))
    (face,) = detector.detect_any_roll(lying)
    height, width = upright.shape[:2]
    back = unturned_from_turned(height, width, -quarters)
    eyes = np.linalg.norm(truth.keypoints[1] - truth.keypoints[0])
    errors = np.linalg.norm(transform_points(back, face.keypoints) - truth.keypoints, axis=1)
    assert errors.max() < 0.25 * eyes
    turn = region_of_face(face).angle_rad - region_of_face(truth).angle_rad - quarters * np.pi / 2
    assert abs(np.remainder(turn + np.pi, 2 * np.pi) - np.pi) < 0.1
    x, y = face.box.center
    near = detector.detect_any_roll(lying, BoundingBox(x - 200, y - 190, x + 190, y + 200))
    assert near[0].box.iou(face.box) > 0.8
    assert detector.detect_any_roll(lying, BoundingBox(-9, -9, -1, -1)) == []


def test_an_upright_face_costs_one_look(detector, demo_dir, monkeypatch):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    calls = []
    look = detector._finder.detect
    monkeypatch.setattr(detector._finder, "detect", lambda *args, **named: calls.append(1) or look(*args, **named))
    monkeypatch.setattr(detector._roll_finder, "settle", lambda *args: pytest.fail("looked again"))
    (face,) = detector.detect_any_roll(rgb)
    assert len(calls) == 1
    assert face.score > 0.75


def test_a_face_that_no_upright_look_sees_is_found_by_turning(detector, demo_dir, monkeypatch):
    upright = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    upside_down = np.ascontiguousarray(upright[::-1, ::-1])
    look = detector._finder.detect
    blind = lambda rgb, *args, **named: [] if rgb is upside_down else look(rgb, *args, **named)  # noqa: E731
    monkeypatch.setattr(detector._finder, "detect", blind)
    assert detector.detect_any_roll(upside_down, turn=False) == []
    (face,) = detector.detect_any_roll(upside_down)
    assert face.keypoints[0, 0] > face.keypoints[1, 0]
    assert face.box.iou(BoundingBox(640 - 548, 360 - 346, 640 - 320, 360 - 63)) > 0.6


def test_turning_finds_nothing_where_there_is_nothing(detector, demo_dir):
    for index in (0, 50, 90):
        assert detector.detect_any_roll(rgb_from_planes(read_frame(demo_dir / "no_face.mp4", index))) == []
