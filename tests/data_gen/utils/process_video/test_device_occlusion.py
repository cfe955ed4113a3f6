"""Masks made on a device are those made on the CPU; here the device is torch's CPU, and a GPU where there is one."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_gen.utils.process_video import occlusion_pass as passes
from data_gen.utils.process_video.device_occlusion import DeviceRun
from data_gen.utils.process_video.occlusion_pass import PassConfig, occlusion_pass
from modules.structures.landmarks import FACE_OVAL
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from tests.support.occluded_crops import Remembers, cup, hands_table, outline, straw, tables, with_things
from tests.support.talking_crops import talking_crops

COUNT = 6
CONFIG = PassConfig(working_size=128)
CODE = 1 / 255
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"))


@pytest.fixture(scope="module")
def clip():
    return talking_crops(COUNT)


def by_arrays(crops, told, expectation, config=CONFIG):
    return [mask.values for _, mask in occlusion_pass(enumerate(crops), told, expectation, config)]


def on_device(crops, told, expectation, device, config=CONFIG):
    run = DeviceRun(told, expectation, config, torch.device(device))
    done = [pair for row, crop in enumerate(crops) for pair in run.push(row, crop)] + run.finish()
    assert [row for row, _ in done] == list(range(len(crops)))
    return [mask.values for _, mask in done]


def assert_alike(one, other):
    """Equal but for rounding: a faint pixel may fall on either side of the least that counts."""
    for first, second in zip(one, other, strict=True):
        away = np.abs(first - second)
        assert away.mean() < 0.2 * CODE and (away > CODE).mean() < 1e-3


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_things_over_a_painted_face_have_the_same_masks(clip, device):
    for thing, expectation in ((cup, Remembers(clip)), (straw, Remembers(clip, unknown=(4,)))):
        crops, _ = with_things(clip, thing, rows=range(1, COUNT))
        masks = by_arrays(crops, tables(clip), expectation)
        assert max(mask.max() for mask in masks) > 0.9
        assert_alike(masks, on_device(crops, tables(clip), expectation, device))


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_hands_shadows_and_cuts_too(clip, device):
    crops, truths = with_things(clip, cup, rows=range(2, COUNT))
    for crop, truth in zip(crops, truths, strict=True):
        darker = cv2.dilate(truth.astype(np.uint8), np.ones((9, 9))) > truth
        crop[darker] = crop[darker] // 2
    told = tables(clip, hands_table(truths), cuts=(0, 3))
    for expectation in (Remembers(clip), None):
        masks = by_arrays(crops, told, expectation)
        assert max(mask.max() for mask in masks) > 0.9
        assert_alike(masks, on_device(crops, told, expectation, device))


def test_a_face_of_which_nothing_is_known_says_nothing(clip):
    class Unsure(Remembers):
        def at(self, row, size):
            expected = super().at(row, size)
            assert expected is not None
            expected.known[:] *= 0.4
            return expected

    crops, _ = with_things(clip, cup)
    masks = on_device(crops, tables(clip), Unsure(clip), "cpu")
    assert_alike(by_arrays(crops, tables(clip), Unsure(clip)), masks)


def test_the_pass_takes_the_device_it_is_told(clip, monkeypatch):
    taken = []

    class Run:
        def __init__(self, told, expectation, config, device):
            taken.append(device)

        def push(self, row, crop):
            return []

        finish = list

    monkeypatch.setattr(passes, "DeviceRun", Run)
    assert list(occlusion_pass(enumerate(clip.crops), tables(clip), None, CONFIG, torch.device("meta"))) == []
    assert taken == [torch.device("meta")]
    assert len(list(occlusion_pass(enumerate(clip.crops), tables(clip), None, CONFIG, torch.device("cpu")))) == COUNT
    assert len(taken) == 1


def test_a_thing_over_a_real_face_has_the_same_mask(shared_clips: Path):
    with VideoReader(shared_clips / "anchor_german_512_25fps.mp4") as reader:
        picture = rgb_from_planes(next(iter(reader.frames())))
    clip = talking_crops(3)
    side = min(picture.shape[:2])
    real = cv2.resize(picture[:side, :side], (256, 256), interpolation=cv2.INTER_AREA)
    clean = np.stack([np.roll(real, row, axis=1) for row in range(3)])
    remembered = Remembers(clip)
    remembered.clip.crops[:] = clean
    crops, truths = with_things(clip, cup)
    masks = by_arrays(crops, tables(clip), remembered, PassConfig())
    seen = (masks[1] > 0.5) & truths[1] & outline(clip, 1, FACE_OVAL)
    assert seen.sum() > 0.8 * (truths[1] & outline(clip, 1, FACE_OVAL)).sum()
    assert_alike(masks, on_device(crops, tables(clip), remembered, "cpu", PassConfig()))
