import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.blazeface import BlazeFace
from data_gen.utils.mp_feature_extractors.region_confirmer import ConfirmConfig, RegionConfirmer
from data_gen.utils.process_video.centerface import CenterFace
from modules.structures.boxes import BoundingBox
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame


@pytest.fixture(scope="module")
def confirmer():
    return RegionConfirmer()


@pytest.fixture(scope="module")
def face(demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    return rgb, CenterFace().detect(rgb)[0].box


def test_a_face_is_confirmed_and_its_surroundings_are_not(confirmer, face):
    rgb, box = face
    assert confirmer.confirm(rgb, box) > 0.8
    assert confirmer.confirm(rgb, BoundingBox(20, 100, 220, 340)) < 0.3
    assert confirmer.confirm(rgb, BoundingBox(-300, -300, -100, -50)) == 0.0


def test_a_face_beside_the_box_does_not_confirm_it(confirmer, face):
    rgb, box = face
    assert confirmer.confirm(rgb, box.shifted(-0.8 * box.width, 0)) < 0.1


def test_a_covered_face_is_still_a_face(confirmer, demo_dir):

    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 150))
    assert confirmer.confirm(rgb, CenterFace().detect(rgb)[0].box) > 0.6


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_looks_turn_with_the_head(confirmer, face, quarters):
    rgb, box = face
    lying = np.ascontiguousarray(np.rot90(rgb, -quarters))
    height, width = rgb.shape[:2]
    x, y = box.center
    cx, cy = [(x, y), (height - y, x), (width - x, height - y), (y, width - x)][quarters]
    half_w, half_h = (box.height / 2, box.width / 2) if quarters % 2 else (box.width / 2, box.height / 2)
    turned = BoundingBox(cx - half_w, cy - half_h, cx + half_w, cy + half_h)
    assert confirmer.confirm(lying, turned, quarters * np.pi / 2) == pytest.approx(
        confirmer.confirm(rgb, box), abs=0.05
    )


def test_an_unsure_first_look_is_averaged_with_the_second(face, confirmer):
    rgb, box = face
    first = confirmer._look(confirmer._short, rgb, box, 1.8, 0.0)
    second = confirmer._look(confirmer._full, rgb, box, 4.5, 0.0)
    assert confirmer.confirm(rgb, box) == first
    assert RegionConfirmer(config=ConfirmConfig(sure=1.0)).confirm(rgb, box) == pytest.approx((first + second) / 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "indices"),
    [
        ("lectern_profile_editlist_640x360_30fps.mp4", range(0, 680, 60)),
        ("signing_help_hands_640x480_30fps.mkv", range(0, 56, 8)),
        ("dancers_four_faces_682x360_25fps.mp4", range(0, 380, 40)),
    ],
)
def test_real_faces_score_above_what_fools_detectors(clip, indices, confirmer, shared_clips):
    for index in indices:
        rgb = rgb_from_planes(read_frame(shared_clips / clip, index))
        for found in CenterFace(min_score=0.7).detect(rgb):
            assert confirmer.confirm(rgb, found.box) > 0.55, index


@pytest.mark.slow
def test_cups_and_sleeves_do_not_pass(confirmer, shared_clips):
    eager = BlazeFace("full", min_score=0.1)
    asked = 0
    for index in range(0, 280, 40):
        rgb = rgb_from_planes(read_frame(shared_clips / "coffee_no_face_1280x720_30fps.mp4", index))
        for found in eager.detect(rgb):
            asked += 1
            assert confirmer.confirm(rgb, found.box) < 0.65, index
    assert asked > 3
