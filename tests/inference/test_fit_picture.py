"""The page of a fit: its layout for any video, and what each part of it shows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.fit_measures import FittedFace
from inference.fit_overlay import wires_of
from inference.fit_picture import (
    LEAST_FACE_HEIGHT,
    MOUTH_HEIGHT,
    PANEL,
    FitPainter,
    FrameFit,
    Layout,
    flow,
    item_width,
)
from tests.support.synthetic_head import SyntheticSpeaker

ITEMS = (("frame", "   1"), ("time", " 0.04 s"), ("jawOpen", " 0.31"))
WIDTHS = [item_width(item) for item in ITEMS]


@given(st.integers(2, 5000), st.integers(2, 5000), st.integers(64, 2000))
def test_every_video_gets_a_page_of_even_size(width, height, longest):
    layout = Layout.of(width, height, longest, WIDTHS)
    assert all(size % 2 == 0 for size in layout.page)
    assert max(layout.frame) <= max(longest, 2) and layout.scale <= 1
    assert layout.frame[0] + PANEL <= layout.width and layout.frame_y >= 0
    assert layout.frame_y + layout.frame[1] <= layout.height and layout.face_height >= LEAST_FACE_HEIGHT
    if max(width, height) <= longest:
        assert layout.frame == (width, height), "its own size"
    else:
        assert layout.frame[0] / layout.frame[1] == pytest.approx(width / height, rel=0.3) or min(layout.frame) < 20


def test_items_flow_into_lines():
    assert flow([100, 100, 100], 324) == [[0, 1, 2]] and flow([100, 100, 100], 323) == [[0, 1], [2]]
    assert flow([500, 10], 100) == [[0], [1]] and flow([], 100) == [[]]


def test_mouths_are_enlarged_three_times_where_they_fit():
    layout = Layout.of(1280, 720, 1280, WIDTHS)
    for size in ([20.0, 8.0], [100.0, 40.0], [150.0, 80.0]):
        assert layout.mouth_scale(np.array(size)) >= 3.0
    for size in ([400.0, 100.0], [100.0, 300.0]):
        scale = layout.mouth_scale(np.array(size))
        assert scale < 3.0 and size[0] * scale <= PANEL and size[1] * scale <= MOUTH_HEIGHT
    face = np.array([300.0, 400.0])
    assert (face * layout.face_scale(face) <= [PANEL, layout.face_height]).all()


@pytest.fixture(scope="module")
def speaker():
    return SyntheticSpeaker(5)


@pytest.fixture(scope="module")
def scene(speaker):
    """A painted frame, its exact fit, and a painter for its size."""
    coeffs = speaker.coeffs(3)
    frame = speaker.frame(coeffs, 1)
    triangles = speaker.model.triangles.numpy()
    wires = wires_of(speaker.model.mean.numpy(), triangles, np.ones(len(triangles), bool))
    painter = FitPainter(Layout.of(384, 288, 1280, WIDTHS), wires)
    return frame.rgb, FittedFace(speaker.model, coeffs).frame(1), painter


def fit_of(fitted, tracked, errors=None, note=""):
    errors = np.full(478, 0.5) if errors is None else errors
    center = np.array([192.0, 144.0])
    return FrameFit(fitted, tracked, errors, center, np.array([192.0, 184.0]), 2.0, 5.0, ITEMS, note)


def parts(page):
    """The frame, the face, the mouth and the text of a page of this scene."""
    top = (MOUTH_HEIGHT + 4 + LEAST_FACE_HEIGHT - 288) // 2
    face, below = LEAST_FACE_HEIGHT, LEAST_FACE_HEIGHT + 4 + MOUTH_HEIGHT
    return page[top : top + 288, :384], page[:face, -PANEL:], page[face + 4 : below, -PANEL:], page[below:]


def test_a_frame_without_a_fit_says_so_and_is_otherwise_itself(scene):
    rgb, _, painter = scene
    page = painter.paint(rgb, fit_of(None, None, np.full(478, np.nan), "no fit in this frame: not seen"))
    frame, _, _, text = parts(page)
    np.testing.assert_array_equal(frame[60:], rgb[60:])
    changed = (frame[:60] != rgb[:60]).any(axis=2)
    assert changed[10:36, 12:300].mean() > 0.5 and text.max() > 200
    nowhere = parts(painter.paint(rgb, replace(fit_of(None, None), face_scale=0.0, mouth_scale=0.0)))
    assert all(len(np.unique(part)) <= 3 for part in nowhere[1:3]), "nothing to enlarge"
    silent = parts(painter.paint(rgb, fit_of(None, None)))[0]
    np.testing.assert_array_equal(silent, rgb)


def test_the_mesh_the_points_and_the_axes_lie_on_the_face(scene):
    rgb, fitted, painter = scene
    frame, face, mouth, _ = parts(painter.paint(rgb, fit_of(fitted, fitted.landmarks_px)))
    changed = (frame != rgb).any(axis=2)
    low, high = fitted.vertices_px.min(axis=0), fitted.vertices_px.max(axis=0)
    rows, columns = np.nonzero(changed)
    assert columns.min() >= low[0] - 3 and columns.max() <= high[0] + 3
    assert rows.min() >= low[1] - 3 and rows.max() <= high[1] + 3 and changed.mean() > 0.02
    plain = painter.paint(rgb, fit_of(None, None))
    for drawn, before in zip((face, mouth), parts(plain)[1:3], strict=True):
        assert (drawn != before).any(axis=2).mean() > 0.05


def greens_and_reds(picture):
    red, green, blue = (picture[..., k].astype(int) for k in range(3))
    is_green = (green > red + 60) & (green > blue + 60)
    is_red = (red > green + 120) & (red > blue + 120)
    return int(is_green.sum()), int(is_red.sum())


def test_points_are_coloured_by_their_error(scene):
    rgb, fitted, painter = scene
    grey = np.full_like(rgb, 128)
    good = parts(painter.paint(grey, fit_of(fitted, fitted.landmarks_px)))[2]
    off = fitted.landmarks_px + np.array([1.5, 0.0])
    bad = parts(painter.paint(grey, fit_of(fitted, off, np.full(478, 9.0))))[2]
    hidden = parts(painter.paint(grey, fit_of(fitted, off, np.full(478, np.nan))))[2]
    assert greens_and_reds(good)[0] > 300 and greens_and_reds(good)[1] == 0
    assert greens_and_reds(bad)[1] > 300 and greens_and_reds(bad)[0] == 0
    assert greens_and_reds(hidden) == (0, 0) and (hidden != parts(painter.paint(grey, fit_of(fitted, None)))[2]).any()


def test_pages_of_one_video_are_of_one_size(scene):
    rgb, fitted, painter = scene
    with_fit, without = painter.paint(rgb, fit_of(fitted, fitted.landmarks_px)), painter.paint(rgb, fit_of(None, None))
    assert with_fit.shape == without.shape == (*Layout.of(384, 288, 1280, WIDTHS).page[::-1], 3)
    assert with_fit.dtype == np.uint8
