"""What classes of pixels say of an occluder, on made-up class maps."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from data_gen.utils.process_video.device_occlusion import DeviceRun
from data_gen.utils.process_video.frame_hints import FrameHints
from data_gen.utils.process_video.occlusion_parts import points_in_crop
from data_gen.utils.process_video.occlusion_pass import PassConfig, occlusion_pass
from data_gen.utils.process_video.segment_evidence import SegmentConfig, segment_log_odds
from modules.structures.landmarks import FACE_OVAL, JAW_LINE
from modules.structures.masks import filled
from modules.structures.segmentation import SelfieClass
from tests.support.occluded_crops import Remembers, cup, outline, tables, with_things
from tests.support.talking_crops import talking_crops

CONFIG = SegmentConfig()
SIZE, COUNT = 256, 9
SKIN = (170, 125, 100)


@pytest.fixture(scope="module")
def clip():
    return talking_crops(COUNT)


@pytest.fixture(scope="module")
def points(clip):
    return points_in_crop(tables(clip), 0, SIZE)


def classes(inside, kind, sure=0.95, elsewhere=SelfieClass.FACE_SKIN):
    """Maps of one class where ``inside``, of another elsewhere; the rest shares what is left."""
    maps = np.full((*inside.shape, 6), (1 - sure) / 5, np.float32)
    maps[inside, kind] = sure
    maps[~inside, elsewhere] = sure
    return maps


def middle_of_mouth(points):
    x, y = points[[13, 14]].mean(axis=0).astype(int)
    return y, x


@pytest.mark.parametrize("kind", sorted(set(SelfieClass) - {SelfieClass.FACE_SKIN, SelfieClass.HAIR}))
def test_what_is_no_face_speaks_for_an_occluder_where_a_face_should_be(points, kind):
    odds = segment_log_odds(classes(np.ones((SIZE, SIZE), bool), kind), points, CONFIG)
    assert odds.shape == (SIZE, SIZE) and odds.dtype == np.float32
    # log((0.96 + 0.02) / (0.02 + 0.02)), or all but a class less, beyond the doubt, weighed
    assert 1.5 < odds[middle_of_mouth(points)] <= CONFIG.most
    assert not odds[~filled(points[list(JAW_LINE)], (SIZE, SIZE))].any()


@pytest.mark.parametrize("kind", [SelfieClass.FACE_SKIN, SelfieClass.HAIR])
def test_skin_of_the_face_and_beards_speak_against_one_a_little(points, kind):
    odds = segment_log_odds(classes(np.ones((SIZE, SIZE), bool), kind), points, CONFIG)
    assert odds[middle_of_mouth(points)] == pytest.approx(CONFIG.least)


def test_the_formula_at_one_pixel_by_hand(points):
    maps = np.zeros((SIZE, SIZE, 6), np.float32)
    maps[:] = (0.05, 0.05, 0.6, 0.15, 0.1, 0.05)
    thing, face = 0.05 + 0.6 + 0.1 + 0.05, 0.05 + 0.15
    wanted = CONFIG.weight * (np.log((thing + 0.02) / (face + 0.02)) - 1.1)
    assert segment_log_odds(maps, points, CONFIG)[middle_of_mouth(points)] == pytest.approx(wanted, rel=1e-4)


def test_a_network_that_is_unsure_says_nothing(points):
    maps = np.full((SIZE, SIZE, 6), 1 / 6, np.float32)
    maps[..., SelfieClass.BODY_SKIN] = 0.3
    assert not segment_log_odds(maps, points, CONFIG).any()


def test_a_persons_own_glasses_are_none(points):
    odds = segment_log_odds(classes(np.ones((SIZE, SIZE), bool), SelfieClass.OTHERS), points, CONFIG)
    rows = np.flatnonzero((odds > 0).any(axis=1))
    assert rows.min() > points[4, 1] - 0.02 * SIZE, "only below the tip of the nose"


def test_the_border_to_the_neck_is_left_out(points):
    """The network's borders are rough: a strip of neck's skin inside the jaw is no hand."""
    inside = filled(points[list(JAW_LINE)], (SIZE, SIZE))
    core = cv2.erode(inside.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    odds = segment_log_odds(classes(inside & ~core, SelfieClass.BODY_SKIN), points, CONFIG)
    assert odds.max() <= 0.05


class ByTruth:
    """Tells hands (skin of the body) exactly where they are."""

    def __init__(self, truths):
        self.truths, self.row = truths, 0

    def segment_classes(self, rgb):
        assert rgb.shape == (256, 256, 3) and rgb.dtype == np.uint8
        self.row += 1
        return classes(self.truths[self.row - 1], SelfieClass.BODY_SKIN)


def test_the_pass_finds_what_only_the_classes_show(clip):
    """Where nothing is known of the face, nothing but its class tells a thing of the face's colour."""
    crops, truths = with_things(clip, lambda picture, row, _: cup(picture, row, SKIN if picture.ndim == 3 else 1))
    config = PassConfig(working_size=128)

    def masks(hints):
        return [m.values for _, m in occlusion_pass(enumerate(crops), tables(clip), None, config, hints=hints)]

    assert max(mask.max() for mask in masks(None)) == 0
    found = masks(FrameHints(segmenter=ByTruth(truths)))
    for row, mask in list(enumerate(found))[2:-2]:  # some frames must agree where nobody knows the face
        lower = outline(clip, row, JAW_LINE)
        core = cv2.erode((truths[row] & lower).astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        assert (mask[core] > 0.5).mean() > 0.9 and (mask > 0.5)[~truths[row]].mean() < 0.01


def test_a_device_adds_the_same(clip):
    crops, truths = with_things(clip, cup, rows=range(2, COUNT))
    config, remembered = PassConfig(working_size=128), Remembers(clip, unknown=range(2, COUNT))
    hints = [FrameHints(segmenter=ByTruth(truths)) for _ in range(2)]
    arrays = [m.values for _, m in occlusion_pass(enumerate(crops), tables(clip), remembered, config, None, hints[0])]
    run = DeviceRun(tables(clip), remembered, config, torch.device("cpu"), hints=hints[1])
    done = [pair for row, crop in enumerate(crops) for pair in run.push(row, crop)] + list(run.finish())
    assert [row for row, _ in done] == list(range(COUNT)) and max(mask.max() for mask in arrays) > 0.9
    plain = [m.values for _, m in occlusion_pass(enumerate(crops), tables(clip), remembered, config)]
    assert max(np.abs(a - b).max() for a, b in zip(arrays, plain, strict=True)) > 0.5, "it makes a difference"
    for one, (_, other) in zip(arrays, done, strict=True):
        away = np.abs(one - other.values)
        assert away.mean() < 0.2 / 255 and (away > 1 / 255).mean() < 1e-3


def test_classes_of_a_clean_face_leave_it_clean(clip):
    config = PassConfig(working_size=128)
    free = [np.zeros((256, 256), bool)] * COUNT
    hints = FrameHints(segmenter=ByTruth(free))
    for row, mask in occlusion_pass(enumerate(clip.crops), tables(clip), Remembers(clip), config, hints=hints):
        assert (mask.values > 0.5)[outline(clip, row, FACE_OVAL)].mean() < 0.002


def test_landmarks_and_classes_add_up_and_a_frame_without_a_face_says_nothing(clip):
    told = tables(clip)
    surprise = SimpleNamespace(log_odds=lambda row, points, size: np.full((size, size), 0.5, np.float32))
    config = PassConfig(working_size=128)
    truths = [np.ones((256, 256), bool)] * COUNT
    crop = clip.crops[0]
    both = FrameHints(surprise, ByTruth(truths)).at(0, crop, told, config)  # pyright: ignore[reportArgumentType]
    one = FrameHints(None, ByTruth(truths)).at(0, crop, told, config)
    assert both is not None and one is not None
    np.testing.assert_allclose(both, one + 0.5, atol=1e-6)
    assert FrameHints().at(0, crop, told, config) is None
    told.landmarks.valid[3] = False
    try:
        assert FrameHints(None, ByTruth(truths)).at(3, crop, told, config) is None
    finally:
        told.landmarks.valid[3] = True
