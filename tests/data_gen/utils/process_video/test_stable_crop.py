import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.process_video.stable_crop import FIXED_LIMIT, follow_boxes, grow_boxes, stable_crop
from modules.commons.errors import NoFaceError
from modules.structures.tracks import FaceTrack


def track_of(boxes, is_detected=None):
    seen = np.ones(len(boxes), dtype=bool) if is_detected is None else is_detected
    return FaceTrack(np.asarray(boxes, dtype=float), seen, seen.astype(np.float32))


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
    for row, (x, y, side) in enumerate(follow_boxes(boxes)):
        assert x - side / 2 <= boxes[row, 0] + 1e-6
        assert y + side / 2 >= boxes[row, 3] - 1e-6


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
