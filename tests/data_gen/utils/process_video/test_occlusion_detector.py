import numpy as np
import pytest

from data_gen.utils.process_video.face_geometry import landmark_box
from data_gen.utils.process_video.occlusion_detector import (
    OcclusionDetector,
    WindowOcclusion,
    frame_occlusions,
    occlusion_stream,
    reduced_rgb,
)
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.expected_face import ExpectedFace
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionMask
from modules.video.colour import rgb_from_planes
from tests.data_gen.utils.process_video.moving_face import face_template
from tests.data_gen.utils.process_video.test_hand_outline import draw_hand, iou, open_hand
from tests.support.real_frames import DEMO_CLIP, read_frame, read_frames

HAND_FACE = BoundingBox(335, 95, 545, 355)
"""Where the face is in the demo clip while the hand is before it."""


@pytest.fixture(scope="module")
def detector():
    return OcclusionDetector()


def fake_landmarks(count, box, valid=None):
    """Landmarks of a face that fills ``box`` in every frame."""
    points = face_template() * (box.width, box.height) + (box.x0, box.y0)
    valid = np.ones(count, dtype=bool) if valid is None else valid
    rows = np.where(valid[:, None, None], np.repeat(points[None], count, axis=0), np.nan).astype(np.float32)
    return Landmarks2D(rows, rows[..., 0], valid, np.zeros((count, 52), dtype=np.float32))


def test_the_hand_before_the_face_is_found_and_masked(detector, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 114))
    occlusion = detector.detect_face_occlusions(rgb, HAND_FACE)
    assert occlusion.space == "frame"
    assert occlusion.values.shape == rgb.shape[:2]
    assert len(occlusion.hands) == 1
    assert occlusion.values[300:345, 370:415].min() > 0.9, "back of the fingers"
    assert occlusion.values[260:300, 485:520].max() < 0.1, "the free half of the mouth"
    assert occlusion.values[:, 560:].max() == 0


def test_a_bare_face_is_free(detector, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 312))
    occlusion = detector.detect_face_occlusions(rgb, BoundingBox(335, 70, 545, 350))
    assert occlusion.coverage == 0
    assert occlusion.hands.shape == (0, 21, 2)


def test_detect_hands_has_its_shape_with_and_without_a_region(detector, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 200))
    near = detector.detect_hands(rgb, HAND_FACE)
    assert near.shape == (1, 21, 2)
    assert near.dtype == np.float32
    assert detector.detect_hands(rgb).shape[1:] == (21, 2)


def test_occlusion_aware_mask_is_what_is_left(detector):
    face = np.full((6, 8), 0.8, dtype=np.float32)
    values = np.zeros((6, 8), dtype=np.float32)
    values[:, :4], values[:, 4] = 1.0, 0.5
    left = detector.generate_occlusion_aware_mask(
        face, OcclusionMask(values, "frame", np.zeros((0, 21, 2), dtype=np.float32))
    )
    assert left.dtype == np.float32
    np.testing.assert_allclose(left[0], [0, 0, 0, 0, 0.4, 0.8, 0.8, 0.8])
    with pytest.raises(ValueError, match="differ in size"):
        detector.generate_occlusion_aware_mask(
            face[:3], OcclusionMask(values, "frame", np.zeros((0, 21, 2), dtype=np.float32))
        )


def test_masks_are_soft_grown_and_weighted(detector):
    points = open_hand().astype(np.float32)
    image, truth = draw_hand(points, 9)
    full = detector.mask_of_hands(image, points[None])
    assert iou(np.uint8(full.values * 255), truth) > 0.8
    assert full.values[:250][truth[:250] > 0].mean() > 0.97, "no rim of the hand is left out"
    assert ((full.values > 0.1) & (full.values < 0.9)).any(), "soft edge"
    half = detector.mask_of_hands(image, points[None], [0.5])
    np.testing.assert_allclose(half.values, full.values * 0.5, atol=1e-6)


def test_things_too_small_for_a_hand_are_none(detector):
    hand, face = open_hand(size=30.0).astype(np.float32), BoundingBox(60, 60, 260, 300)
    assert not detector._is_plausible(hand, face, (320, 320))
    assert detector._is_plausible(open_hand(size=130.0), face, (320, 320))
    assert not detector._is_plausible(open_hand() + 1000, face, (320, 320))


@pytest.fixture(scope="module")
def demo_windows(detector, demo_dir):
    """What covers the demo face in frames 50..120, the index starting at 50."""
    box = BoundingBox(330, 90, 550, 356)
    valid = np.zeros(120, dtype=bool)
    valid[50:] = True
    landmarks = fake_landmarks(120, box, valid)
    return list(frame_occlusions(read_frames(demo_dir / DEMO_CLIP, 50, 120), landmarks, detector))


def test_the_hand_is_seen_in_every_frame_it_is_there(demo_windows):
    """It comes up at frame 57 and stays; half of the palm is out of the picture all the time."""
    assert [window.index for window in demo_windows] == list(range(50, 120))
    covered = {window.index for window in demo_windows if window.values is not None}
    assert covered >= set(range(59, 120))
    assert not covered & set(range(50, 55))


def test_masks_over_frame_and_crop_agree(demo_windows):
    window = next(w for w in demo_windows if w.index == 114)
    frame = window.over_frame((360, 640))
    assert frame.space == "frame"
    assert frame.values[300:345, 370:415].min() > 0.9
    metadata = CropMetadata((CropRegion(400, 220, 256),), (360, 640), 256)
    crop = window.over_crop(metadata)
    assert crop.space == "crop"
    np.testing.assert_allclose(crop.values, frame.values[92:348, 272:528], atol=2e-3)
    np.testing.assert_allclose(crop.hands, frame.hands - (272, 92), atol=1e-3)


def test_frames_without_a_face_or_hand_are_empty(demo_windows, detector, demo_dir):
    clear = demo_windows[0]
    assert clear.values is None
    assert clear.over_frame((360, 640)).coverage == 0
    absent = fake_landmarks(3, BoundingBox(0, 0, 50, 50), np.zeros(3, dtype=bool))
    windows = list(frame_occlusions(read_frames(demo_dir / DEMO_CLIP, 0, 5), absent, detector))
    assert len(windows) == 5
    assert all(window.values is None for window in windows)


def test_window_masks_land_where_the_window_was():
    values = np.zeros((10, 10), dtype=np.float32)
    values[2:5, 3:6] = 1.0
    window = WindowOcclusion(
        0, values, np.array([[2.0, 0, 20], [0, 2.0, 30], [0, 0, 1]]), np.zeros((0, 21, 2), dtype=np.float32)
    )
    mask = window.over_frame((80, 80)).values
    rows, cols = np.nonzero(mask > 0.5)
    assert (cols.min(), cols.max() + 1, rows.min(), rows.max() + 1) == (26, 32, 34, 40)


@pytest.mark.parametrize("bounds", [(101, 51, 400, 301), (0, 0, 640, 360), (333, 200, 640, 360)])
def test_reduced_parts_show_the_same_picture_at_the_same_place(demo_dir, bounds):
    frame = read_frame(demo_dir / DEMO_CLIP, 0)
    whole = rgb_from_planes(frame).astype(np.float32)
    small, (x0, y0) = reduced_rgb(frame, bounds, 3)
    assert x0 <= bounds[0] < x0 + 6
    assert y0 <= bounds[1] < y0 + 6
    assert (x0 + small.shape[1] * 3, y0 + small.shape[0] * 3) >= bounds[2:]
    rows, cols = min(small.shape[0], (360 - y0) // 3), min(small.shape[1], (640 - x0) // 3)
    blocks = whole[y0 : y0 + rows * 3, x0 : x0 + cols * 3].reshape(rows, 3, cols, 3, 3).mean(axis=(1, 3))
    assert np.abs(blocks - small[:rows, :cols]).mean() < 1.5


def test_the_stream_of_images_gives_the_same_kind_of_answer(detector, demo_dir):
    frames = read_frames(demo_dir / DEMO_CLIP, 110, 116)
    images = ((frame.index, rgb_from_planes(frame), HAND_FACE) for frame in frames)
    masks = dict(occlusion_stream(images, detector))
    assert sorted(masks) == list(range(110, 116))
    assert all(len(mask.hands) == 1 for mask in masks.values())


@pytest.mark.parametrize(
    ("name", "start", "stop", "box"),
    [
        ("signing_help_hands_640x480_30fps.mkv", 22, 42, BoundingBox(308, 84, 374, 161)),
        ("signing_book_hands_640x480_30fps.mkv", 20, 45, BoundingBox(274, 106, 330, 172)),
    ],
)
def test_signing_hands_before_small_faces(detector, shared_clips, name, start, stop, box):
    landmarks = fake_landmarks(stop, box)
    windows = list(frame_occlusions(read_frames(shared_clips / name, start, stop), landmarks, detector))
    assert np.mean([window.values is not None for window in windows]) > 0.9


@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("kitchen_beard_1080x1920_25fps.mp4", BoundingBox(400, 330, 660, 650)),
        ("glasses_512_25fps.mp4", BoundingBox(80, 130, 340, 480)),
    ],
)
def test_no_false_hands_on_beard_and_glasses(detector, shared_clips, name, box):
    landmarks = fake_landmarks(24, box)
    windows = list(frame_occlusions(read_frames(shared_clips / name, 0, 24), landmarks, detector))
    assert not [window.index for window in windows if window.values is not None]


def test_landmark_box_of_the_template_is_the_box():
    assert landmark_box(fake_landmarks(1, HAND_FACE).points[0]).iou(HAND_FACE) > 0.99


def test_an_expected_face_shows_things_that_are_no_hands(detector, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 312))[60:380, 300:600]
    flat = np.full(rgb.shape[:2], 0.015, np.float32)
    expected = ExpectedFace(rgb.astype(np.float32) / np.float32(255), flat, np.ones_like(flat))
    covered = np.ascontiguousarray(rgb)
    covered[200:300, 100:160] = (30, 60, 160)
    box = BoundingBox(35, 10, 245, 290)
    found = detector.detect_face_occlusions(covered, box, expected)
    assert found.values[210:290, 110:150].min() > 0.9
    assert (found.values[:190] > 0.5).mean() < 0.001
    with pytest.raises(ValueError, match="differ in size"):
        detector.detect_face_occlusions(covered[:100], box, expected)
