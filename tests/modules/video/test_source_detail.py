"""What a rendered mouth takes over of the source: sharpness, coding and grain, in one object with one state."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np

from modules.metrics.picture import noise_sigma
from modules.structures.carried_patch import CarriedPatch
from modules.structures.frames import Frame, FramePatch, PlaneLayout
from modules.video.source_detail import SourceDetail

SIZE = (100, 140)
LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", full_range=False, matrix="bt709")


def frame(number=3, pts=0):
    """Says when and what; its samples show no grid."""
    half = np.zeros((SIZE[0] // 2, SIZE[1] // 2), np.uint8)
    return Frame(number, pts, Fraction(1, 25), (np.zeros(SIZE, np.uint8), half, half), LAYOUT)


def face(sigma=0.02):
    """A noisy source with teeth, and its own motion rendered too sharp and without noise."""
    luma = np.full(SIZE, 0.5, np.float32)
    luma[40:60, 50:90], luma[44:52, 52:88:4] = 0.15, 0.8
    clean = cv2.merge([luma, 0.8 * luma, 0.7 * luma])
    noise = sigma * np.random.default_rng(0).normal(size=SIZE)[..., None]
    source = (cv2.GaussianBlur(clean, (0, 0), 1.0) + noise).astype(np.float32)
    mouth = np.zeros(SIZE, np.float32)
    mouth[34:66, 40:100] = 1
    ones, zeros = np.ones(SIZE, np.float32), np.zeros((*SIZE, 2), np.float32)
    patch = FramePatch((0, 0, SIZE[1], SIZE[0]), clean, ones)
    return source, CarriedPatch(patch, clean, zeros, mouth, ones, ones, ones, mouth, edge_px=3.0)


def test_a_render_that_is_too_sharp_is_softened_in_the_mouth_alone():
    source, carried = face(sigma=0.0)
    made = SourceDetail().sharpened(source, carried, None, 0.0).patch.rgb
    outside = carried.rendered == 0
    assert np.array_equal(made[outside], carried.patch.rgb[outside])
    strength = [cv2.Laplacian(picture, cv2.CV_32F)[36:64, 44:96].var() for picture in (source, made, carried.patch.rgb)]
    assert strength[0] < strength[1] < 0.8 * strength[2]


def test_a_render_without_grain_gets_the_sources_in_the_mouth_alone():
    source, carried = face()
    carried = replace(carried, patch=replace(carried.patch, rgb=np.full((*SIZE, 3), 0.5, np.float32)))
    made = SourceDetail(seed=2).as_filmed(source, carried, carried.patch, None, frame(), carried.patch.bounds).rgb
    mouth = carried.rendered > 0
    assert np.array_equal(made[~mouth], carried.patch.rgb[~mouth])
    found, wanted = (
        noise_sigma(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), mask)
        for picture, mask in ((made, cv2.erode(mouth.astype(np.uint8), np.ones((5, 5))) > 0), (source, ~mouth))
    )
    assert 0.85 < (found / wanted) ** 2 < 1.15


def test_a_hand_in_front_says_nothing_and_states_are_taken_up():
    source, carried = face()
    detail, other = SourceDetail(), SourceDetail()
    hidden = np.zeros(SIZE, np.float32)
    assert set(detail.gains(source, carried.shown, carried.mouth_shown, hidden, 0.0)) == {1.0}
    maps = carried.compared, carried.mouth_shown
    assert max(detail.strengths(source, carried.shown, *maps, hidden, frame())) == 0
    gains = detail.gains(source, carried.shown, carried.mouth_shown, None, 0.0)
    strengths = detail.strengths(source, carried.shown, *maps, None, frame())
    other.resume(detail.state())
    assert other.gains(source, carried.shown, carried.mouth_shown, hidden, 0.04) == gains
    assert other.strengths(source, carried.shown, *maps, hidden, frame(4, 1)) == strengths
    detail.reset()
    assert detail.state() == {}
