"""Head, neck and clothes told apart: a drawn person whose parts are known, and real ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.networks import pick_runtime
from data_gen.utils.process_video.head_torso_segmenter import FacePlace, PartColours, head_torso_classes
from data_gen.utils.process_video.part_segmenter import MulticlassSegmenter
from modules.commons.errors import ModelFileError
from modules.structures.landmarks import FACE_OVAL, FOREHEAD_CHIN
from modules.structures.segmentation import SelfieClass
from tests.support.synthetic_head import SyntheticSpeaker
from tests.support.tiny_segmenter import COLOURS as COLOURS_OF_NETWORK
from tests.support.tiny_segmenter import write_segmenter

SIDE = 256
COLOURS = {
    SelfieClass.BACKGROUND: (90, 160, 90),
    SelfieClass.HAIR: (60, 40, 25),
    SelfieClass.BODY_SKIN: (190, 130, 105),
    SelfieClass.FACE_SKIN: (215, 150, 125),
    SelfieClass.CLOTHES: (40, 45, 90),
}


@pytest.fixture(scope="module")
def points():
    speaker = SyntheticSpeaker(3, size_hw=(SIDE, SIDE), face_px=100, center=(0.5, 0.45))
    return speaker.landmarks(speaker.coeffs(4)).points


def draw(points, *, long_hair: bool = False, collar: bool = False, seed: int = 0):
    """A person before a wall: (rgb, probability of a person, true classes)."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    top, chin = (points[index] for index in FOREHEAD_CHIN)
    height = float(chin[1] - top[1])
    truth = np.zeros((SIDE, SIDE), np.uint8)
    middle = chin[0]
    reach = chin[1] + (0.45 if long_hair else -0.35) * height
    truth[(np.abs(x - middle) < 0.55 * height) & (y > top[1]) & (y < reach)] = SelfieClass.HAIR
    truth[((x - middle) / (0.55 * height)) ** 2 + ((y - top[1]) / (0.4 * height)) ** 2 < 1] = SelfieClass.HAIR
    jacket = y > chin[1] + 0.32 * height + 0.2 * np.abs(x - middle)
    truth[jacket] = SelfieClass.CLOTHES
    truth[(np.abs(x - middle) < 0.28 * height) & (y > chin[1] - 0.3 * height) & ~jacket] = SelfieClass.BODY_SKIN
    face = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(face, [points[list(FACE_OVAL)].round().astype(np.int32)], 1)
    truth[face > 0] = SelfieClass.FACE_SKIN
    rgb = np.array([COLOURS[SelfieClass(kind)] for kind in range(5)], np.float32)[truth]
    if collar:
        white = jacket & (np.abs(x - middle) < 0.3 * height) & (y < chin[1] + 0.6 * height)
        rgb[white] = (235, 235, 240)
    noise = np.random.default_rng(seed).normal(0, 5, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8), (truth > 0).astype(np.float32), truth


def told(points, row=3, **drawn):
    """Classes of a frame by the colours of three others, and the truth."""
    colours = PartColours.learn((*draw(one, seed=n, **drawn)[:2], one) for n, one in enumerate(points[:3]))
    rgb, person, truth = draw(points[row], seed=9, **drawn)
    return head_torso_classes(rgb, person, points[row], colours), truth


@pytest.mark.parametrize("drawn", [{}, {"collar": True}, {"long_hair": True}], ids=str)
def test_a_drawn_persons_parts(points, drawn):
    classes, truth = told(points, **drawn)
    for kind, least in (
        (SelfieClass.BACKGROUND, 0.999), (SelfieClass.HAIR, 0.93), (SelfieClass.BODY_SKIN, 0.85),
        (SelfieClass.FACE_SKIN, 0.999), (SelfieClass.CLOTHES, 0.98),
    ):  # fmt: skip
        share = (classes[truth == kind] == kind).mean()
        assert share > least, (kind.name, share)


def test_hair_ends_at_the_lobes_where_there_is_none_below(points):
    classes, _ = told(points)
    place = FacePlace.of(points[3], (SIDE, SIDE))
    assert not ((classes == SelfieClass.HAIR) & (place.below > place.lobes + 0.1)).any()


def test_the_face_is_the_persons_where_the_mask_fails(points):
    colours = PartColours.learn([(*draw(points[0])[:2], points[0])])
    rgb, person, _ = draw(points[3])
    classes = head_torso_classes(rgb, np.zeros_like(person), points[3], colours)
    place = FacePlace.of(points[3], (SIDE, SIDE))
    np.testing.assert_array_equal(classes > 0, place.core)
    assert (classes[place.core] == SelfieClass.FACE_SKIN).all()


def test_a_spot_of_skin_under_the_ear_is_no_neck(points):
    colours = PartColours.learn([(*draw(points[0])[:2], points[0])])
    rgb, person, _ = draw(points[3])
    place = FacePlace.of(points[3], (SIDE, SIDE))
    spot = (np.abs(place.below - place.lobes - 0.06) < 0.03) & (np.abs(place.side - 0.52) < 0.03)
    rgb[spot], person[spot] = COLOURS[SelfieClass.FACE_SKIN], 1
    assert (head_torso_classes(rgb, person, points[3], colours)[spot] == SelfieClass.FACE_SKIN).mean() > 0.9


def test_places_turn_with_the_head(points):
    """A picture turned by a quarter has its places turned."""
    upright = FacePlace.of(points[3], (SIDE, SIDE))
    turned = np.stack([SIDE - points[3][:, 1], points[3][:, 0]], axis=1)
    place = FacePlace.of(turned, (SIDE, SIDE))
    np.testing.assert_allclose(np.rot90(place.below), upright.below, atol=1e-4)
    np.testing.assert_allclose(np.rot90(place.side), upright.side, atol=1e-4)
    assert place.lobes == pytest.approx(upright.lobes, abs=1e-5) and upright.lobes < 0
    assert (np.rot90(place.face) != upright.face).mean() < 0.002


def test_the_multiclass_network_is_asked_where_it_is_there(tmp_path, points):
    with pytest.raises(ModelFileError, match=r"selfie_multiclass_256x256\.tflite is missing"):
        MulticlassSegmenter(pick_runtime(), tmp_path)
    write_segmenter(tmp_path / "selfie_multiclass_256x256.tflite")
    truth = np.repeat(np.arange(6, dtype=np.uint8), 40)[None].repeat(60, axis=0)
    rgb = np.array([COLOURS_OF_NETWORK[SelfieClass(kind)] for kind in range(6)], np.uint8)[truth]
    told = MulticlassSegmenter(pick_runtime(), tmp_path).classes(rgb, points[0])
    assert told.dtype == np.uint8 and (told == truth).mean() > 0.95
