"""Parts of a portrait by class: GeneFace++'s masks and colours."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.runs.portrait_pictures import cut_out
from modules.structures.portrait_parts import (
    HEAD_CLASSES,
    TORSO_CLASSES,
    classes_of_map,
    is_class,
    segment_map,
)
from modules.structures.segmentation import SelfieClass
from tests.modules.radnerfs import golden

SHOWN = 2
"""The frame of the fixture that its parts are of."""
PARTS = {
    "head": HEAD_CLASSES,
    "torso": TORSO_CLASSES,
    "person": tuple(SelfieClass)[1:],
    "bg": (SelfieClass.BACKGROUND,),
    "torso_with_bg": (SelfieClass.BACKGROUND, *TORSO_CLASSES),
}


@pytest.mark.parametrize("part", PARTS)
def test_parts_are_the_originals(part):
    data = golden.load("segmentation")
    classes, picture = data["segs"][SHOWN], data["imgs"][SHOWN]
    mask = is_class(classes, PARTS[part])
    np.testing.assert_array_equal(mask, data[f"segmask_{part}"])
    shown = cut_out(picture, mask)
    np.testing.assert_array_equal(shown[..., :3], data[f"segout_{part}"])
    np.testing.assert_array_equal(shown[..., 3], np.where(mask, 255, 0))


def test_segment_maps_have_the_originals_colours():
    data = golden.load("segmentation")
    np.testing.assert_array_equal(segment_map(data["segs"][SHOWN]), data["segmap_rgb"])
    np.testing.assert_array_equal(classes_of_map(data["segmap_rgb"]), data["segs"][SHOWN])


def test_every_class_comes_back_and_other_colours_do_not():
    classes = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(classes_of_map(segment_map(classes)), classes)
    for colour in ((0, 0, 0), (0, 0, 255), (255, 255, 250)):
        with pytest.raises(ValueError, match="colours that no class has"):
            classes_of_map(np.full((2, 2, 3), colour, np.uint8))
