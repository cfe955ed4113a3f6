"""Masks made on a device are those made on the CPU; here the device is torch's CPU, and a GPU where there is one."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_gen.utils.process_video import occlusion_pass as passes
from data_gen.utils.process_video.device_occlusion import BATCH_FRAMES, DeviceRun
from data_gen.utils.process_video.frame_hints import FrameHints
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


def by_arrays(crops, told, expectation, config=CONFIG, hints=None):
    return [mask.values for _, mask in occlusion_pass(enumerate(crops), told, expectation, config, hints=hints)]


def on_device(crops, told, expectation, device, config=CONFIG, most=BATCH_FRAMES, hints=None):
    run = DeviceRun(told, expectation, config, torch.device(device), most, hints)
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
def test_masks_do_not_depend_on_how_many_frames_are_judged_together(clip, device):
    crops, _ = with_things(clip, cup, rows=range(1, COUNT))
    told = tables(clip, cuts=(0, 4))
    masks = by_arrays(crops, told, Remembers(clip))
    for most in (1, 4):
        assert_alike(masks, on_device(crops, told, Remembers(clip), device, most=most))


class Hints(FrameHints):
    """Are sure of something in a corner of the face from the third frame on."""

    def at(self, row, crop, tables, config):
        assert crop.shape == (256, 256, 3)
        said = np.zeros((config.working_size,) * 2, np.float32)
        said[64:90, 40:70] = 9
        return None if row < 2 else said


HINTS = Hints()


def test_further_evidence_counts_the_same(clip):
    told, expectation = tables(clip), Remembers(clip)
    masks = by_arrays(clip.crops, told, expectation, hints=HINTS)
    assert masks[4][140:170, 90:130].mean() > 0.9 > 0.1 > masks[0].mean()
    assert_alike(masks, on_device(clip.crops, told, expectation, "cpu", hints=HINTS))


def test_a_frame_that_cannot_be_prepared_stops_the_pass(clip):
    run = DeviceRun(tables(clip), Remembers(clip), CONFIG, torch.device("cpu"), 2)
    with pytest.raises(cv2.error):
        for row in range(2):
            run.push(row, np.zeros((0, 0, 3), np.uint8))


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
        def __init__(self, told, expectation, config, device, hints):
            taken.append(device)
            assert hints is HINTS

        def push(self, row, crop):
            return []

        finish = list

    monkeypatch.setattr(passes, "DeviceRun", Run)
    assert list(occlusion_pass(enumerate(clip.crops), tables(clip), None, CONFIG, torch.device("meta"), HINTS)) == []
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
