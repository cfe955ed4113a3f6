"""What the stages of a portrait's data hand on, and the classes that make its parts."""

from __future__ import annotations

import numpy as np
import pytest

from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.portrait_parts import (
    HEAD_CLASSES,
    TORSO_CLASSES,
    classes_of_map,
    is_class,
    segment_map,
)
from modules.structures.portrait_tables import PortraitPlan, PortraitSpeech
from modules.structures.segmentation import SelfieClass

CROPS = CropMetadata((CropRegion(30.0, 20.0, 40.0),), (40, 60), 512)


def plan(**changed) -> PortraitPlan:
    values = {
        "crops": CROPS,
        "source_rows": np.arange(0, 20, 2),
        "samples": np.array([1, 4, 9]),
        "is_train": np.array([True, True, False]),
    }
    return PortraitPlan(**{**values, **changed})


def test_a_plan_comes_back(tmp_path):
    plan().save(tmp_path / "plan.npz")
    again = PortraitPlan.load(tmp_path / "plan.npz")
    assert again.crops.to_json() == CROPS.to_json() and len(again) == 10
    for name in ("source_rows", "samples", "is_train"):
        np.testing.assert_array_equal(getattr(again, name), getattr(plan(), name))
    with pytest.raises(ValueError, match="schema portrait-plan/1, expected portrait-speech/1"):
        PortraitSpeech.load(tmp_path / "plan.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["plan.npz"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"samples": np.array([4, 1, 9])}, "must ascend"),
        ({"samples": np.array([1, 4, 10])}, "within the clip's 10 frames"),
        ({"samples": np.array([], int), "is_train": np.array([], bool)}, "within the clip"),
        ({"is_train": np.array([True])}, "must ascend"),
        ({"crops": CropMetadata(CROPS.regions * 2, (40, 60), 512)}, "one square, got 2"),
    ],
)
def test_other_plans_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        plan(**changed)


def test_speech_comes_back(tmp_path):
    made = PortraitSpeech(np.ones((4, 3), np.float32), "ears", np.zeros((4, 80), np.float32), np.zeros(0, np.float32))
    made.save(tmp_path / "speech.npz")
    again = PortraitSpeech.load(tmp_path / "speech.npz")
    assert again.speech_extractor == "ears" and again.f0_hz.shape == (0,)
    np.testing.assert_array_equal(again.speech, made.speech)


def test_segment_maps_are_genefaces_colours_and_can_be_read_back():
    classes = np.random.default_rng(0).integers(0, 6, (9, 7)).astype(np.uint8)
    colours = segment_map(classes)
    np.testing.assert_array_equal(classes_of_map(colours), classes)
    assert segment_map(np.array([[SelfieClass.HAIR]], np.uint8)).tolist() == [[[255, 255, 0]]]
    colours[0, 0] = (255, 250, 0)  # a lossy picture
    with pytest.raises(ValueError, match="no class has"):
        classes_of_map(colours)
    with pytest.raises(ValueError, match="no class has"):
        classes_of_map(np.zeros((1, 1, 3), np.uint8))


def test_head_torso_and_background_are_everything():
    every = np.arange(6, dtype=np.uint8)[None]
    head, torso = is_class(every, HEAD_CLASSES), is_class(every, TORSO_CLASSES)
    assert not (head & torso).any() and (~(head | torso))[0].tolist() == [True, False, False, False, False, False]
