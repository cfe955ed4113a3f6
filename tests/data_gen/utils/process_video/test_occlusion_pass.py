import cv2
import numpy as np
import pytest

from data_gen.utils.process_video.occlusion_pass import PassConfig, occlusion_pass, things_in_image
from modules.structures.landmarks import FACE_OVAL, JAW_LINE
from tests.support.occluded_crops import Remembers, crop_points, cup, hands_table, outline, straw, tables, with_things
from tests.support.talking_crops import talking_crops

COUNT = 9
CONFIG = PassConfig(working_size=128)


@pytest.fixture(scope="module")
def clip():
    return talking_crops(COUNT)


def masks(clip, crops, expectation, hands=None, cuts=(0,)):
    done = list(occlusion_pass(enumerate(crops), tables(clip, hands, cuts), expectation, CONFIG))
    assert [row for row, _ in done] == list(range(len(crops)))
    assert all(mask.space == "crop" and mask.values.shape == (256, 256) for _, mask in done)
    return [mask.values for _, mask in done]


def overlap(found, true, where):
    a, b = (found > 0.5) & where, true & where
    return (a & b).sum() / max((a | b).sum(), 1)


def test_a_talking_face_with_nothing_before_it_stays_free(clip):
    for row, mask in enumerate(masks(clip, clip.crops, Remembers(clip))):
        assert (mask > 0.5)[outline(clip, row, JAW_LINE)].mean() < 0.002


def test_a_cup_is_outlined_in_every_frame(clip):
    crops, truths = with_things(clip, cup)
    for row, mask in enumerate(masks(clip, crops, Remembers(clip))):
        assert overlap(mask, truths[row], outline(clip, row, FACE_OVAL)) > 0.88


def test_a_straw_is_kept_although_it_is_thin(clip):
    crops, truths = with_things(clip, straw)
    for row, mask in enumerate(masks(clip, crops, Remembers(clip))):
        where = outline(clip, row, FACE_OVAL)
        near = cv2.dilate((mask > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert (near & truths[row] & where).sum() > 0.85 * (truths[row] & where).sum()


def test_a_thing_is_found_in_the_frame_it_appears_in_and_gone_when_it_goes(clip):
    crops, _ = with_things(clip, cup, rows=range(3, 6))
    found = masks(clip, crops, Remembers(clip))
    shares = [(mask > 0.5)[outline(clip, row, JAW_LINE)].mean() for row, mask in enumerate(found)]
    assert min(shares[3:6]) > 0.1
    assert max(shares[:3] + shares[6:]) < 0.01


def test_a_flash_in_one_frame_is_no_thing(clip):
    crops = clip.crops.copy()
    crops[4, 150:156, 100:106] = (40, 70, 150)
    assert max((mask > 0.5).mean() for mask in masks(clip, crops, Remembers(clip))) < 0.001


def test_what_only_the_mouth_does_is_no_thing(clip):
    crops = clip.crops.copy()
    for row in range(COUNT):
        x, y = crop_points(clip, row)[[13, 14]].mean(axis=0).astype(int)
        cv2.ellipse(crops[row], (int(x), int(y)), (13, 7), 0, 0, 360, (235, 225, 215), -1)
    for row, mask in enumerate(masks(clip, crops, Remembers(clip))):
        assert (mask > 0.5)[outline(clip, row, JAW_LINE)].mean() < 0.005


def test_nothing_is_said_of_a_thing_that_does_not_reach_the_face(clip):
    crops = clip.crops.copy()
    crops[:, :40, :40] = (40, 70, 150)
    assert max((mask > 0.5).sum() for mask in masks(clip, crops, Remembers(clip))) == 0


def test_without_an_expectation_hands_decide(clip):
    _, truths = with_things(clip, cup, rows=range(2, 7))
    found = masks(clip, clip.crops, None, hands_table(truths))
    for row, mask in enumerate(found):
        if truths[row].any():
            assert overlap(mask, truths[row], np.ones((256, 256), bool)) > 0.75
    assert (found[0] > 0.5).sum() == 0


def test_frames_that_the_expectation_does_not_know_are_judged_by_hands(clip):
    crops, _ = with_things(clip, cup)
    unknown = Remembers(clip, unknown=range(COUNT))
    assert all(np.array_equal(a, b) for a, b in zip(masks(clip, crops, unknown), masks(clip, crops, None), strict=True))


def test_a_cut_separates_what_is_known(clip):
    crops, _ = with_things(clip, cup, rows=range(5, COUNT))
    whole = masks(clip, crops, Remembers(clip), cuts=(0, 5))
    first = masks(clip, crops[:5], Remembers(clip))
    assert all(np.array_equal(a, b) for a, b in zip(whole[:5], first, strict=True))


def test_one_image_by_itself_shows_things_and_hands(clip):
    crops, truths = with_things(clip, cup)
    expected = Remembers(clip).at(4, 256)
    assert expected is not None
    found = things_in_image(crops[4], expected, np.zeros((256, 256), np.float32))
    assert overlap(found, truths[4], outline(clip, 4, FACE_OVAL)) > 0.85
    hand = np.zeros((256, 256), np.float32)
    hand[140:200, 60:110] = 1
    with_hand = things_in_image(clip.crops[4], expected, hand)
    assert overlap(with_hand, hand > 0, np.ones((256, 256), bool)) > 0.8
