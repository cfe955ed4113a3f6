"""The visible mark: readable at every size, only in its box, in a free corner, steady over pauses, gone over a face."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from inference.watermark import DEFAULT_MARK, check_letters, drawn_mark, plan_watermark
from modules.commons.errors import ConfigError
from modules.structures.frames import Frame, PlaneLayout, VideoInfo

LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", False, "bt709")
N = 200
TIMES = np.arange(N) / 25


def info(width=320, height=180, transfer=1, layout=LAYOUT):
    rate = Fraction(25)
    return VideoInfo(Path("x.mp4"), width, height, rate, 1 / rate, 0, layout, (1, transfer, 1, 1), False, None)


def frame(index=0, width=320, height=180, luma=80, layout=LAYOUT):
    dtype = np.uint8 if layout.bit_depth == 8 else np.uint16
    finer = 1 << (layout.bit_depth - 8)
    chroma = np.full((height // 2, width // 2), 128 * finer, dtype)
    planes = (np.full((height, width), luma * finer, dtype), chroma, chroma.copy())
    return Frame(index, index, Fraction(1, 25), planes, layout)


def flags(*spans):
    edited = np.zeros(N, bool)
    for first, stop in spans:
        edited[first:stop] = True
    return edited


def boxes(x0, y0, x1, y1, *, rows=slice(None)):
    found = np.full((N, 4), np.nan)
    found[rows] = (x0, y0, x1, y1)
    return found


@pytest.mark.parametrize(("width", "height"), [(96, 64), (320, 180), (1080, 1920), (3840, 2160)])
def test_the_mark_is_small_and_its_letters_stand_out_on_any_ground(width, height):
    rgb, alpha = drawn_mark(DEFAULT_MARK, info(width, height))
    assert alpha.shape[1] <= 0.5 * width and alpha.shape[0] <= 0.12 * height + 9
    assert rgb.shape == (*alpha.shape, 3) and rgb.dtype == alpha.dtype == np.float32
    assert alpha.min() >= 0 and alpha.max() <= 1 and alpha[0].max() < 0.3  # the shade ends softly
    for ground in (0.0, 0.5, 1.0):
        seen = ground + alpha * (rgb[..., 0] - ground)
        assert seen.max() - seen[alpha > 0.3].min() > 0.25


def test_only_the_box_of_the_mark_changes_and_only_while_a_face_is_edited():
    mark = plan_watermark("made by a machine", info(), TIMES, flags((50, 120)), [boxes(140, 40, 200, 110)])
    before, after = frame(80), mark.put(frame(80))
    x0, y0, x1, y1 = mark.bounds(80)
    assert x1 > 310 and y1 > 170  # lower right
    changed = before.planes[0] != after.planes[0]
    assert changed[y0:y1, x0:x1].mean() > 0.2
    changed[y0:y1, x0:x1] = False
    assert not changed.any()
    for untouched in (0, 49, 120, 199):
        assert mark.put(frame(untouched)).planes[0] is not None
        assert np.array_equal(mark.put(frame(untouched)).planes[0], frame(untouched).planes[0])
    assert np.array_equal(mark.shown, flags((50, 120)))
    assert 0 < mark.strength[50] < 0.2 < mark.strength[53] < mark.strength[60] == 1  # comes softly


def test_short_pauses_do_not_make_it_blink():
    mark = plan_watermark("x", info(), TIMES, flags((10, 40), (80, 100), (160, 170)), [])
    assert np.array_equal(mark.shown, flags((10, 100), (160, 170)))  # 1.6 s are bridged, 2.4 s are not
    assert (mark.strength[20:90] == 1).all()


@pytest.mark.parametrize(
    ("taken", "corner"),
    [
        ([], (1, 1)), ([(200, 100, 320, 180)], (0, 1)), ([(0, 100, 320, 180)], (1, 0)),
        ([(0, 100, 320, 180), (210, 0, 300, 60)], (0, 0)),
    ],
)  # fmt: skip
def test_it_lies_in_the_first_corner_that_no_face_comes_near(taken, corner):
    mark = plan_watermark("synthesised", info(), TIMES, flags((0, N)), [boxes(*box) for box in taken])
    x0, y0, x1, y1 = mark.bounds(100)
    assert ((x0 + x1) / 2 > 160, (y0 + y1) / 2 > 90) == (bool(corner[0]), bool(corner[1]))
    assert (mark.strength == 1).all()


def test_a_face_that_reaches_every_corner_is_never_covered():
    everywhere = boxes(0, 0, 320, 180, rows=slice(60, 90))
    mark = plan_watermark("synthesised", info(), TIMES, flags((0, N)), [everywhere])
    assert not mark.shown[60:90].any() and mark.shown[:60].all() and mark.shown[90:].all()


def test_each_shot_has_its_own_corner():
    right = boxes(200, 60, 320, 180, rows=slice(0, 100))
    mark = plan_watermark("synthesised", info(), TIMES, flags((0, N)), [right], np.array([0, 100]))
    assert mark.bounds(99)[0] < 100 < 200 < mark.bounds(100)[0]
    assert mark.shown.all()


def test_white_is_paper_white_in_hdr_and_ten_bits_are_used():
    deep = replace(LAYOUT, pixel_format="yuv420p10le", matrix="bt2020", bit_depth=10)
    usual = drawn_mark("synthesised", info())[0].max()
    assert usual > 0.8
    for transfer, white in ((16, 0.58), (18, 0.75)):
        assert drawn_mark("synthesised", info(transfer=transfer))[0].max() == pytest.approx(white * usual, rel=1e-3)
    mark = plan_watermark("synthesised", info(transfer=16, layout=deep), TIMES, flags((0, N)), [])
    after = mark.put(frame(100, layout=deep))
    assert after.planes[0].dtype == np.uint16 and 400 < after.planes[0].max() < 64 + 0.6 * 876


def test_letters_that_the_font_lacks_are_refused():
    check_letters("Künstliche Lippen, синтез")
    with pytest.raises(ConfigError, match="--watermark: the font has no '合'"):
        check_letters("合成")
