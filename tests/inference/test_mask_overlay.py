"""What the overlay of masks shows: the mask's colour where it is, lines and words, and the source elsewhere."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from inference.edit_plan import EditPlan
from inference.edited_frames import EditedFrame, FaceEdit
from inference.mask_overlay import COLOURS, MaskOverlay, ShownFace, described
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from modules.structures.spans import Reason, SpanTable
from modules.video.colour import rgb_from_planes
from modules.video.rgb_video import rgb_frame, rgb_video_info
from tests.support.made_up_source import made_up_source

HEIGHT, WIDTH = 240, 320


@pytest.fixture
def face():
    """Row 1 has something over the right half of the crop, which is the whole frame; row 0 is edited."""
    source = made_up_source(rgb_video_info(Path("none.mp4"), WIDTH, HEIGHT, Fraction(25)), 3)
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[:, :, 40:] = 255
    table = replace(
        OcclusionTable.nothing(3, 64, OcclusionEvidence.NERF), rows=np.array([1]), masks=mask,
        coverage=np.array([0, 0.42, 0], np.float32), mouth=np.array([0, 0.87, 0], np.float32),
    )  # fmt: skip
    crops = CropMetadata((CropRegion(WIDTH / 2, HEIGHT / 2, float(WIDTH)),), (HEIGHT, WIDTH), 256)
    spans = SpanTable(np.array([1, 0, 0.25], np.float32), (Reason.EDITED, Reason.COVERED, Reason.EDITED))
    plan = EditPlan(source.coeffs.expression, spans)
    return ShownFace(replace(source, occlusion=table, crops=crops), plan, OcclusionTable.nothing(3, 64))


def drawn(face, number, edits=None):
    frame = rgb_frame(number, Fraction(number, 25), np.full((HEIGHT, WIDTH, 3), 100, np.uint8))
    overlay = MaskOverlay([face], np.array([1, 1, 2]), HEIGHT)
    made = overlay(EditedFrame(frame, frame, edits or {}, None))
    assert made.index == number and made.pts == frame.pts and made.layout == frame.layout
    return rgb_from_planes(made).astype(int)


def test_the_mask_is_seen_in_the_colour_of_what_judged_it(face):
    picture = drawn(face, 1)
    plain, tinted = picture[200, 40], picture[200, 300]
    assert np.abs(plain - 100).max() <= 2
    towards = np.array(COLOURS[OcclusionEvidence.NERF]) - 100
    assert np.sign(tinted - 100).tolist() == np.sign(towards).tolist() and np.abs(tinted - 100).max() > 40


def test_hands_and_the_edit_are_outlined(face):
    hand = np.zeros((1, 64, 64), np.uint8)
    hand[:, 44:52, 4:12] = 255
    hands = replace(face.hands, rows=np.array([1]), masks=hand)
    edit = FaceEdit((100, 120, 140, 160), 1600.0, np.ones((40, 40), np.float32), is_occluded=False)
    before, after = drawn(face, 0), drawn(replace(face, hands=hands), 0, {0: edit})
    changed = np.abs(after - before).max(axis=2) > 20
    assert changed[120, 105:135].mean() > 0.9 and changed[130:150, 110:130].mean() < 0.2  # a line
    top = round(44 / 64 * WIDTH - (WIDTH - HEIGHT) / 2)
    assert changed[top - 2 : top + 3, 25:55].any(axis=0).mean() > 0.8


def test_a_hands_bones_and_points_are_drawn_where_they_are(face):
    points = np.array([[[60.0 + 8 * (k % 5), 60.0 + 12 * (k // 5)] for k in range(21)]], np.float32)
    hands = replace(face.hands, hand_rows=np.array([1]), hand_points=points)
    before, after = drawn(face, 0), drawn(replace(face, hands=hands), 0)
    changed = np.abs(after - before).max(axis=2) > 20
    for x, y in points[0]:
        assert changed[int(y), int(x)], (x, y)
    middle = points[0, 7:9].mean(axis=0)  # of a bone
    assert changed[int(middle[1]) - 1 : int(middle[1]) + 2, int(middle[0])].any()
    away = changed.copy()
    away[50:130, 50:105] = False
    assert changed.sum() > 100 and not away.any()


def test_the_line_says_who_judged_what_and_what_was_done(face):
    assert described(face, 1, 1) == "1 face 0 by nerf: jaw 42 % mouth 87 % covered, left alone: occluded"
    assert described(face, 2, 2) == "2 face 0 by nerf: jaw 0 % mouth 0 % covered, edited 25 %"
