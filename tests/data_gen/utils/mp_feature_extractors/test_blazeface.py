import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.mp_feature_extractors import blazeface
from data_gen.utils.mp_feature_extractors.blazeface import (
    BlazeFace,
    RawDetections,
    anchor_centers,
    decode,
    letterbox_region,
    pairwise_iou,
    turned_box,
    weighted_nms,
)
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame


def naive_anchors(size, strides, per_cell=None):
    """Layer by layer, cell by cell, as the recipe is told: layers with one stride share a grid."""
    anchors, layer = [], 0
    while layer < len(strides):
        last, count = layer, 0
        while last < len(strides) and strides[last] == strides[layer]:
            last, count = last + 1, count + 2
        cells = int(np.ceil(size / strides[layer]))
        for y in range(cells):
            for x in range(cells):
                anchors += [((x + 0.5) / cells, (y + 0.5) / cells)] * (per_cell or count)
        layer = last
    return np.array(anchors)


@pytest.mark.parametrize(
    ("size", "strides", "per_cell", "count"),
    [(128, (8, 16, 16, 16), None, 896), (192, (4,), 1, 2304), (192, (8, 16, 16, 16), None, 2016)],
)
def test_anchors_match_a_naive_loop_and_the_networks(size, strides, per_cell, count):
    anchors = anchor_centers(size, strides, per_cell)
    assert anchors.shape == (count, 2)
    np.testing.assert_allclose(anchors, naive_anchors(size, strides, per_cell), atol=1e-6)


def test_decode_reads_boxes_and_keypoints_from_the_anchor():
    anchors = np.array([[0.25, 0.5], [0.75, 0.5]], dtype=np.float32)
    regressors = np.zeros((2, 16), dtype=np.float32)
    regressors[1, :6] = (12.8, 0, 64, 32, -12.8, 6.4)
    raw = decode(regressors, np.array([-200.0, 2.0], dtype=np.float32), anchors, 128, 0.5)
    np.testing.assert_allclose(raw.boxes, [[0.85 - 0.25, 0.5 - 0.125, 0.85 + 0.25, 0.5 + 0.125]], atol=1e-6)
    np.testing.assert_allclose(raw.keypoints[0, 0], [0.65, 0.55], atol=1e-6)
    np.testing.assert_allclose(raw.scores, 1 / (1 + np.exp(-2.0)), atol=1e-6)


def test_decode_of_nothing_is_empty():
    raw = decode(np.zeros((3, 16), np.float32), np.full(3, -9.0, np.float32), np.zeros((3, 2), np.float32), 128, 0.5)
    assert raw.boxes.shape == (0, 4)
    assert weighted_nms(raw, 0.3).scores.shape == (0,)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 1), st.floats(0.05, 1)), max_size=6))
def test_pairwise_iou_agrees_with_the_box_class(rows):
    box = BoundingBox(0.2, 0.2, 0.7, 0.9)
    others = [BoundingBox(x, y, x + w, y + h) for x, y, w, h in rows]
    expected = [box.iou(other) for other in others]
    stacked = np.array([other.as_array() for other in others]).reshape(-1, 4)
    np.testing.assert_allclose(pairwise_iou(box.as_array(), stacked), expected, atol=1e-9)


def test_weighted_nms_averages_clusters_and_keeps_the_best_score():
    boxes = np.array([[0, 0, 1, 1], [0.1, 0, 1.1, 1], [5, 5, 6, 6]], dtype=np.float32)
    keypoints = boxes[:, None, :2].repeat(6, axis=1)
    merged = weighted_nms(RawDetections(boxes, keypoints, np.array([0.6, 0.9, 0.7], dtype=np.float32)), 0.3)
    np.testing.assert_allclose(merged.scores, [0.9, 0.7])
    np.testing.assert_allclose(merged.boxes[0], [0.06, 0, 1.06, 1], atol=1e-6)
    np.testing.assert_allclose(merged.keypoints[0, 0], [0.06, 0], atol=1e-6)
    np.testing.assert_allclose(merged.boxes[1], boxes[2])


def test_letterbox_is_the_centred_square():
    region = letterbox_region(np.zeros((100, 200, 3), dtype=np.uint8), None)
    assert (region.center_x, region.center_y, region.side) == (100, 50, 200)


@pytest.mark.parametrize("kind", ["short", "full"])
def test_finds_the_face_of_the_demo_clip_and_none_beside_it(kind, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    faces = BlazeFace(kind).detect(rgb)
    assert len(faces) == 1
    assert faces[0].box.iou(BoundingBox(320, 110, 555, 347)) > 0.7
    left_eye, right_eye = faces[0].keypoints[:2]
    np.testing.assert_allclose([left_eye, right_eye], [(369, 180), (468, 175)], atol=12)
    assert BlazeFace(kind).detect(rgb, BoundingBox(0, 0, 250, 360)) == []


def test_area_and_whole_image_give_the_same_face(demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    detector = BlazeFace("short")
    whole = detector.detect(rgb)[0]
    close = detector.detect(rgb, BoundingBox(230, 0, 640, 360))[0]
    assert whole.box.iou(close.box) > 0.85


def test_module_keeps_no_state():
    assert not [name for name in vars(blazeface) if isinstance(vars(blazeface)[name], np.ndarray)]


@given(st.floats(0, 6.3), st.floats(1, 50), st.floats(1, 50))
def test_a_turned_box_holds_the_ellipse_and_nothing_more(angle, half_x, half_y):
    box = np.array([-half_x, -half_y, half_x, half_y])
    turn = CropRegion(7, 9, 1, angle).frame_from_crop(1)
    turn[:2, 2] = (7, 9)
    around = np.linspace(0, 2 * np.pi, 721)
    ellipse = np.stack([half_x * np.cos(around), half_y * np.sin(around)], axis=1) @ turn[:2, :2].T + (7, 9)
    expected = np.concatenate([ellipse.min(axis=0), ellipse.max(axis=0)])
    np.testing.assert_allclose(turned_box(box, turn).as_array(), expected, atol=0.01)


def test_a_region_is_looked_through_as_it_is_turned(demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    lying = np.ascontiguousarray(np.rot90(rgb, -1))
    truth = BlazeFace("short").detect(rgb)[0]
    found = BlazeFace("short").detect(lying, CropRegion(180, 320, 640, np.pi / 2))[0]
    np.testing.assert_allclose(found.keypoints[:, 1], truth.keypoints[:, 0], atol=2)
    np.testing.assert_allclose(found.keypoints[:, 0], 360 - truth.keypoints[:, 1], atol=2)
    assert found.box.width == pytest.approx(truth.box.height, abs=2)
