"""The torso goes on under the head: GeneFace++'s own picture, a plain twin, and what it does not do."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_gen.utils.process_video.torso_inpaint import inpaint_torso, without_occluder
from modules.commons.workspace import ROOT
from modules.structures.segmentation import SelfieClass

FIXTURE = ROOT.parent / "shared" / "fixtures" / "geneface" / "segmentation.npz"
HEAD = (SelfieClass.HAIR, SelfieClass.FACE_SKIN, SelfieClass.OTHERS)


def person(height=96, width=80, seed=0):
    """A head over a neck and shoulders, its outline ragged: (rgb, classes)."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(20, 180, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:height, :width]
    classes = np.zeros((height, width), np.uint8)
    chin = (height * 0.62 + rng.integers(-3, 4, width))[None]
    classes[(np.abs(columns - width / 2) < width * 0.2) & (rows > height * 0.5) & (rows < height * 0.8)] = 2
    classes[(rows > height * 0.75 - (columns % 7)) & (rows > chin)] = 4
    classes[(np.abs(columns - width / 2) < width * 0.3) & (rows > 4) & (rows < chin)] = 3
    return rgb, classes


def plain_twin(rgb, classes):
    """(a) to (d) of the recipe, column by column and pixel by pixel; rows above the picture are left out."""
    width = classes.shape[1]
    head, torso = np.isin(classes, HEAD), classes == 4
    picture = rgb.copy()
    picture[head] = 0
    neck = classes == 2
    for _ in range(3):
        wider = neck.copy()
        wider[1:] |= neck[:-1]
        wider[:-1] |= neck[1:]
        neck = wider
    written = {9: np.zeros_like(head), 53: np.zeros_like(head)}
    for part, depth, length in ((torso, 0, 9), (neck, 4, 53)):
        for column in range(width):
            rows = np.flatnonzero(part[:, column])
            if len(rows) == 0 or rows[0] == 0 or not head[rows[0] - 1, column]:
                continue
            source = rows[0] + min(len(rows) - 1, depth)
            if head[source, column]:
                continue
            colour = picture[source, column].astype(float)
            for step in range(length):
                if source - step >= 0:
                    picture[source - step, column] = (colour * 0.98**step).astype(np.uint8)
                    written[length][source - step, column] = True
    soft = cv2.GaussianBlur(picture, (5, 5), 4.0)
    picture[written[53]] = soft[written[53]]
    shown = neck | torso | written[9] | written[53]
    return np.dstack([np.where(shown[..., None], picture, 0), np.where(shown, 255, 0)]).astype(np.uint8)


def test_it_is_genefaces_own_picture():
    if not FIXTURE.is_file():
        pytest.skip("../shared/fixtures is not on this machine")
    data = np.load(FIXTURE)
    made = inpaint_torso(data["imgs"][2], data["segs"][2])
    np.testing.assert_array_equal(made[..., 3] > 0, data["inpaint_torso_mask"])
    np.testing.assert_array_equal(made[..., :3], data["inpaint_torso_img"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_what_plain_loops_make(seed):
    rgb, classes = person(seed=seed)
    made = inpaint_torso(rgb, classes)
    np.testing.assert_array_equal(made, plain_twin(rgb, classes))
    hidden = np.isin(classes, HEAD)
    assert (made[..., 3] > 0)[hidden].sum() > 500  # it does reach under the head


def test_near_the_upper_edge_nothing_is_written_below():
    rgb, classes = person(height=96)
    classes = np.roll(classes, -45, axis=0)
    classes[51:] = SelfieClass.BACKGROUND
    made = inpaint_torso(rgb, classes)
    np.testing.assert_array_equal(made, plain_twin(rgb, classes))
    assert not made[52:].any()


def test_a_hand_before_the_neck_is_left_out():
    rgb, classes = person()
    hand = np.zeros(classes.shape, bool)
    hand[60:80, 36:44] = True
    rgb[hand] = (0, 255, 0)
    classes[hand] = SelfieClass.OTHERS
    made = inpaint_torso(rgb, classes)
    is_green = (made[..., 1] > 200) & (made[..., 0] < 50) & (made[..., 2] < 50) & (made[..., 3] > 0)
    assert not is_green.any() and (made[..., 3] > 0)[hand].any()


def test_a_torso_goes_on_behind_a_hand():
    rgb, classes = person()
    hand = np.zeros(classes.shape, bool)
    hand[82:92, 10:30] = True  # before the chest
    hand[20:40, 34:44] = True  # before the face
    told = np.where(hand, SelfieClass.BODY_SKIN, classes).astype(np.uint8)
    shown = np.where(hand[..., None], (0, 255, 0), rgb).astype(np.uint8)
    cleared, parts = without_occluder(shown, told, hand)
    assert (parts[82:92, 10:30] == SelfieClass.CLOTHES).all() and (parts[20:40, 34:44] == SelfieClass.OTHERS).all()
    assert not ((cleared == (0, 255, 0)).all(axis=2) & (parts == SelfieClass.CLOTHES)).any()
    np.testing.assert_array_equal(cleared[~hand], rgb[~hand])
    np.testing.assert_array_equal(parts[~hand], classes[~hand])
    made = inpaint_torso(cleared, parts)
    assert (made[82:92, 10:30, 3] > 0).all() and not (made[..., :3] == (0, 255, 0)).all(axis=2).any()


def test_with_nothing_in_front_nothing_changes():
    rgb, classes = person()
    cleared, parts = without_occluder(rgb, classes, np.zeros(classes.shape, bool))
    np.testing.assert_array_equal(cleared, rgb)
    np.testing.assert_array_equal(parts, classes)


def test_without_a_head_there_is_nothing_to_continue():
    rgb, classes = person()
    classes[np.isin(classes, HEAD)] = SelfieClass.BACKGROUND
    grown = np.asarray(cv2.dilate((classes == 2).astype(np.uint8), np.ones((7, 1), np.uint8)), bool)
    np.testing.assert_array_equal(inpaint_torso(rgb, classes)[..., 3] > 0, grown | (classes == 4))
