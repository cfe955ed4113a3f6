import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.mp_feature_extractors.face_landmarker import build_landmarker, region_of_face, region_of_landmarks
from data_gen.utils.process_video.box_smoothing import smooth_boxes
from data_gen.utils.process_video.centerface import CenterFace
from data_gen.utils.process_video.stable_crop import (
    CHIN_ROOM,
    FIXED_LIMIT,
    SAFETY,
    grow_boxes,
    piece_bounds,
    small_face_note,
    split_at_shots,
    stable_crop,
)
from modules.commons.errors import NoFaceError
from modules.structures.crops import transform_points
from modules.structures.landmarks import JAW_LINE
from modules.structures.tracks import FaceTrack, track_of_boxes
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from tests.data_gen.utils.process_video.moving_face import face_template


def track_of(boxes, is_detected=None):
    return track_of_boxes(boxes, np.ones(len(boxes), dtype=bool) if is_detected is None else is_detected)


def faces_at(centers, size=100.0, roll=None, opening=None):
    """Landmarks ``[T, 478, 2]`` of a template face: where, how large, how far turned, how far the jaw has sunk."""
    points = np.tile((face_template() - 0.5) * size, (len(centers), 1, 1)).astype(float)
    if opening is not None:
        points[:, list(JAW_LINE), 1] += opening[:, None] * size
    if roll is not None:
        cos, sin = np.cos(roll), np.sin(roll)
        points = np.einsum("tij,tnj->tni", np.array([[cos, -sin], [sin, cos]]).transpose(2, 0, 1), points)
    return points + np.asarray(centers)[:, None]


def boxes_of(points):
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)


def least_margin(metadata, points, row):
    """Distance of the outermost landmark, with the jaw sunk by ``CHIN_ROOM`` more, from the crop's edge, crop px."""
    face = transform_points(metadata.crop_from_frame(row), points)
    sunk = face[list(JAW_LINE)] + CHIN_ROOM * (face[152] - face[10])
    everything = np.concatenate([face, sunk])
    return min(everything.min(), metadata.crop_size - everything.max())


def path_of(metadata, count):
    regions = [metadata.region(row) for row in range(count)]
    return np.array([[r.center_x, r.center_y, r.side] for r in regions])


def roughness(path):
    """RMS length of the second difference, px per frame²."""
    return np.sqrt((np.diff(path, 2, axis=0) ** 2).sum(axis=1).mean())


def boxes_around(centers, width=100.0, height=130.0):
    half = np.array([width, height]) / 2
    return np.concatenate([centers - half, centers + half], axis=1)


def assert_covers(metadata, boxes, margin):
    for row, (x0, y0, x1, y1) in enumerate(grow_boxes(np.asarray(boxes, dtype=float), margin)):
        square = metadata.region(row)
        half = square.side / 2 + 1e-6
        assert square.center_x - half <= x0
        assert square.center_y - half <= y0
        assert square.center_x + half >= x1
        assert square.center_y + half >= y1


def test_margin_grows_each_side_by_a_share_of_the_size():
    np.testing.assert_allclose(grow_boxes(np.array([[0.0, 0, 10, 20]]), 0.3), [[-3, -6, 13, 26]])


def test_a_head_that_stays_put_gets_one_square():
    centers = np.array([400.0, 300.0]) + np.random.default_rng(0).uniform(-12, 12, (200, 2))
    boxes = boxes_around(centers)
    metadata = stable_crop(track_of(boxes), (720, 1280), 0.3, 512)
    assert len(metadata.regions) == 1
    assert metadata.regions[0].side <= FIXED_LIMIT * 1.6 * 130
    assert_covers(metadata, boxes, 0.3)
    assert (metadata.frame_size_hw, metadata.crop_size) == ((720, 1280), 512)


def test_a_walking_head_gets_a_smooth_square():
    t = np.arange(250)
    centers = np.stack([200 + 3.0 * t, 300 + 15 * np.sin(t / 5)], axis=1)
    boxes = boxes_around(centers)
    metadata = stable_crop(track_of(boxes), (720, 1280), 0.3, 512)
    assert len(metadata.regions) == 250
    assert_covers(metadata, boxes, 0.3)
    path = np.array([[r.center_x, r.center_y, r.side] for r in metadata.regions])
    kick = np.abs(np.diff(path, 2, axis=0))[25:-25].max()
    assert kick < 0.25 * np.abs(np.diff(centers, 2, axis=0)).max(), "nods are ironed out"
    assert path[:, 2].max() < 2.2 * 1.6 * 130


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 80), st.floats(0, 60))
def test_any_motion_is_covered(seed, count, speed):
    rng = np.random.default_rng(seed)
    centers = np.cumsum(rng.normal(scale=speed, size=(count, 2)), axis=0)
    sizes = np.exp(np.cumsum(rng.normal(scale=0.05, size=count))) * 80
    boxes = np.concatenate([centers - sizes[:, None] / 2, centers + sizes[:, None] / 2], axis=1)
    assert_covers(stable_crop(track_of(boxes), (480, 640), 0.3, 256), boxes, 0.3)


def test_a_cut_is_not_smeared_over():
    boxes = boxes_around(np.concatenate([np.full((40, 2), 200.0), np.full((40, 2), 900.0)]))
    metadata = stable_crop(track_of(boxes), (1080, 1920), 0.3, 512)
    assert metadata.region(39).center_x == pytest.approx(200)
    assert metadata.region(40).center_x == pytest.approx(900)
    assert len({r.side for r in metadata.regions}) == 1, "each shot holds its own square still"


def test_predictions_do_not_widen_the_square():
    boxes = boxes_around(np.full((30, 2), 300.0))
    boxes[10:20] += 2000
    seen = np.ones(30, dtype=bool)
    seen[10:20] = False
    metadata = stable_crop(track_of(boxes, seen), (720, 1280), 0.3, 512)
    assert len(metadata.regions) == 1
    assert metadata.regions[0].center_x == pytest.approx(300)


def test_no_detection_is_no_face():
    with pytest.raises(NoFaceError, match="no face to crop"):
        stable_crop(track_of(boxes_around(np.zeros((3, 2))), np.zeros(3, dtype=bool)), (10, 10), 0.3, 512)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 90), st.floats(0, 12), st.booleans(), st.floats(0, 0.3))
def test_every_landmark_of_every_seen_frame_is_inside(seed, count, speed, roll, margin):
    rng = np.random.default_rng(seed)
    centers = 300 + np.cumsum(rng.normal(scale=speed, size=(count, 2)), axis=0)
    turn = np.cumsum(rng.normal(scale=0.1, size=count)) + rng.uniform(-3, 3)
    points = faces_at(centers, 80, turn, rng.uniform(0, 0.3, size=count))
    seen = rng.random(count) > 0.2
    seen[0] = True
    boxes = smooth_boxes(boxes_of(points), seen)
    points[~seen] = np.nan
    metadata = stable_crop(track_of(boxes, seen), (480, 640), margin, 256, points=points, roll=roll)
    for row in np.flatnonzero(seen):
        face = transform_points(metadata.crop_from_frame(row), points[row])
        wanted = SAFETY * np.ptp(face, axis=0).min() - 1e-6
        assert face.min() >= wanted
        assert face.max() <= 256 - wanted
        assert least_margin(metadata, points[row], row) > 0


def test_the_widest_mouth_needs_room_below_the_chin():
    """Boxes alone know nothing of a chin that the smoothing left outside."""
    points = faces_at(np.full((100, 2), 300.0))
    points[50, list(JAW_LINE), 1] += 60
    boxes = np.tile(boxes_of(points)[:1], (100, 1))
    without = stable_crop(track_of(boxes), (720, 1280), 0.05, 512)
    assert least_margin(without, points[50], 50) < 0
    assert least_margin(stable_crop(track_of(boxes), (720, 1280), 0.05, 512, points=points), points[50], 50) > 0


def test_a_rolling_head_turns_the_square_slowly():
    t = np.arange(300)
    roll = np.deg2rad(50) * np.sin(t / 60) + np.random.default_rng(0).normal(scale=0.03, size=300)
    points = faces_at(np.full((300, 2), 400.0), 120, roll)
    track = track_of(boxes_of(points))
    turned = stable_crop(track, (720, 1280), 0.3, 512, points=points, roll=True)
    angles = np.array([region.angle_rad for region in turned.regions])
    assert np.abs(angles - np.deg2rad(50) * np.sin(t / 60)).max() < np.deg2rad(12)
    assert np.abs(np.diff(angles, 2)).max() < 0.05 * np.abs(np.diff(roll, 2)).max()
    for row in range(300):
        eyes = transform_points(turned.crop_from_frame(row), points[row])[[33, 263]]
        assert abs(np.arctan2(*(eyes[1] - eyes[0])[::-1])) < np.deg2rad(17)
    level = stable_crop(track, (720, 1280), 0.3, 512, points=points)
    assert {region.angle_rad for region in level.regions} == {0.0}


def test_a_level_head_is_not_turned_and_a_lying_one_gets_one_turned_square():
    rng = np.random.default_rng(0)
    for lean, expected in ((0.15, 0.0), (np.pi / 2, np.pi / 2), (np.pi, np.pi)):
        points = faces_at(np.full((80, 2), 300.0), 120, lean + rng.uniform(-0.05, 0.05, size=80))
        metadata = stable_crop(track_of(boxes_of(points)), (720, 1280), 0.3, 512, points=points, roll=True)
        assert len(metadata.regions) == 1
        assert abs(metadata.regions[0].angle_rad) == pytest.approx(expected, abs=0.02)
        assert metadata.regions[0].side < 1.8 * 120, "a turned square needs no more room"


def test_shot_starts_cut_the_path_where_nothing_else_would():
    """The same person a little further left after the cut, still walking."""
    t = np.arange(60)
    walk = np.concatenate([200 + 6.0 * t, 500 + 6.0 * t])
    boxes = boxes_around(np.stack([walk, np.full(120, 300.0)], axis=1))
    glides = path_of(stable_crop(track_of(boxes), (720, 1280), 0.3, 512), 120)
    shots = np.array([0, 1060])
    track = FaceTrack(boxes, track_of(boxes).status, track_of(boxes).confidence, 1000)
    cut = stable_crop(track, (720, 1280), 0.3, 512, shot_starts=shots)
    leap = cut.region(1060).center_x - cut.region(1059).center_x
    assert leap < -9
    assert np.diff(glides[:, 0]).min() > -6
    apart = path_of(stable_crop(track_of(boxes[60:]), (720, 1280), 0.3, 512), 60)
    after = np.array([[r.center_x, r.center_y, r.side] for r in cut.regions[60:]])
    np.testing.assert_allclose(after, apart, atol=1e-6)


def test_pieces_reach_from_their_shot_to_the_next():
    pieces = split_at_shots([np.arange(5, 30), np.arange(60, 70)], np.array([0, 12, 40, 50]))
    assert [(int(p[0]), int(p[-1])) for p in pieces] == [(5, 11), (12, 29), (60, 69)]
    assert piece_bounds(pieces, np.array([0, 12, 40, 50]), 90) == [(0, 12), (12, 50), (50, 90)]
    assert piece_bounds(pieces, np.zeros(0, np.int64), 90) == [(0, 12), (12, 60), (60, 90)]


def test_wrong_landmarks_are_refused():
    track = track_of(boxes_around(np.zeros((3, 2))))
    with pytest.raises(ValueError, match="do not belong to a track of 3 rows"):
        stable_crop(track, (10, 10), 0.3, 512, points=np.zeros((4, 478, 2)))
    with pytest.raises(ValueError, match="needs landmarks"):
        stable_crop(track, (10, 10), 0.3, 512, roll=True)


def test_a_memory_map_gives_the_same_square(tmp_path):
    points = faces_at(300 + np.arange(600)[:, None] * [1.0, 0.2], 90).astype(np.float32)
    np.save(tmp_path / "points.npy", points)
    track = track_of(boxes_of(points))
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    first = stable_crop(track, (720, 1280), 0.3, 512, points=points)
    assert stable_crop(track, (720, 1280), 0.3, 512, points=mapped).regions == first.regions
    assert len(first.regions) == 600


def test_a_small_face_is_said_once_and_a_tiny_one_refused():
    def crop(height):
        track = track_of(boxes_around(np.full((9, 2), 100.0), height * 0.8, height))
        return track, stable_crop(track, (360, 640), 0.3, 256)

    assert small_face_note(*crop(80.0), 60) is None
    note = small_face_note(*crop(40.0), 60)
    assert note is not None
    assert "about 40 px high, below min_face_px 60" in note
    assert "enlarged 4.0 times" in note
    with pytest.raises(NoFaceError, match="about 20 px high, at least 24 px are needed"):
        small_face_note(*crop(20.0), 60)


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["head_motion_512_25fps.mp4", "tall_moving_camera_480x908_30fps.mp4"])
def test_the_crop_of_a_moving_head_is_calm_and_holds_it(shared_clips, clip):
    """Issue 4: RMS second difference at most a fifth of the raw detections'; all landmarks inside in all frames."""
    detector, landmarker = CenterFace(), build_landmarker()
    found, points = [], []
    with VideoReader(shared_clips / clip) as reader:
        size_hw = (reader.info.height, reader.info.width)
        rate, region = float(reader.info.frame_rate), None
        for frame in reader.frames():
            rgb = rgb_from_planes(frame)
            face = detector.detect(rgb)[0]
            found.append(face.box.as_array())
            points.append(landmarker.detect(rgb, region or region_of_face(face)).points)
            region = region_of_landmarks(points[-1])
    points = np.stack(points)
    raw = [np.column_stack([(b[:, :2] + b[:, 2:]) / 2, (b[:, 2:] - b[:, :2]).max(axis=1)]) for b in
           (np.stack(found), boxes_of(points))]  # fmt: skip
    track = track_of(smooth_boxes(boxes_of(points), np.ones(len(points), dtype=bool)))
    metadata = stable_crop(track, size_hw, 0.3, 512, points=points, frame_rate=rate)
    rough = roughness(path_of(metadata, len(points)))
    assert rough <= 0.2 * min(roughness(raw[0]), roughness(raw[1]))
    assert all(least_margin(metadata, face, row) > 0.04 * 512 for row, face in enumerate(points))
