"""Which square and which frames a portrait shows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from data_gen.utils.process_video.portrait_framing import clip_rows, face_rect, lip_rect, portrait_square
from modules.commons.errors import NoFaceError
from modules.commons.workspace import ROOT
from modules.structures.frame_index import FrameIndex
from modules.structures.landmarks import face_height_px
from tests.support.synthetic_head import SyntheticSpeaker

FIXTURE = ROOT.parent / "shared" / "fixtures" / "geneface" / "face3d_pose.npz"


def index(times_ms):
    return FrameIndex(np.array(times_ms, np.int64), Fraction(1, 1000), np.zeros(1, np.int64))


def test_frames_of_25_per_second_are_shown_as_they_are():
    assert clip_rows(index(range(0, 400, 40))).tolist() == list(range(10))


@pytest.mark.parametrize(("step_ms", "count"), [(1000 / 30, 60), (1000 / 24, 48), (1000 / 60, 120)])
def test_other_rates_show_the_frame_nearest_in_time(step_ms, count):
    times = np.round(np.arange(count) * step_ms).astype(int)
    rows = clip_rows(index(times))
    assert abs(len(rows) - 50) <= 1
    shown = np.arange(len(rows)) * 40
    nearest = np.abs(times[None] - shown[:, None]).min(axis=1)
    np.testing.assert_array_equal(np.abs(times[rows] - shown), nearest)


def test_frames_at_uneven_times():
    rows = clip_rows(index([0, 35, 200, 205, 290]))
    assert rows.tolist() == [0, 1, 1, 2, 2, 2, 3, 4]


@pytest.fixture(scope="module")
def points():
    speaker = SyntheticSpeaker(2, size_hw=(480, 640), face_px=120)
    return speaker.landmarks(speaker.coeffs(30)).points


def test_a_square_video_is_kept_whole_and_others_show_head_and_shoulders(points):
    every = np.ones(len(points), bool)
    whole, _ = portrait_square(points, every, (480, 480), "auto")
    assert (whole.center_x, whole.center_y, whole.side) == (240, 240, 480)
    middle, _ = portrait_square(points, every, (480, 640), "whole")
    assert (middle.center_x, middle.center_y, middle.side) == (320, 240, 480)
    face, spread = portrait_square(points, every, (480, 640), "auto")
    height = float(np.median(face_height_px(points)))
    assert 2.2 * height < face.side < 3 * height and 1 <= spread < 1.3
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    corner = np.array([face.center_x, face.center_y]) - face.side / 2
    assert (low - corner > 0.4 * height).all() and (corner + face.side - high > 0.4 * height).all()


def test_the_square_stays_in_the_frame_and_holds_a_head_that_wanders(points):
    wanders = points + np.linspace(-180, 180, len(points))[:, None, None] * [1, 0]
    square, spread = portrait_square(wanders, np.ones(len(points), bool), (480, 640), "face")
    assert spread > 1.6 and square.side == 480
    assert square.side / 2 <= square.center_x <= 640 - square.side / 2 and square.center_y == 240


def test_only_seen_faces_count(points):
    astray, valid = points.copy(), np.ones(len(points), bool)
    astray[3], valid[3] = np.nan, False
    square, _ = portrait_square(astray, valid, (480, 640), "face")
    assert np.isfinite(square.side)
    with pytest.raises(NoFaceError, match="no frame shows the face"):
        portrait_square(points, np.zeros(len(points), bool), (480, 640), "face")


def test_rects_are_genefaces():
    if not FIXTURE.is_file():
        pytest.skip("../shared/fixtures is not on this machine")
    data = np.load(FIXTURE)
    assert list(face_rect(data["face_lms_px"], (512, 512))) == data["face_rect"].tolist()
    assert list(lip_rect(data["face_lms_px"], (512, 512))) == data["lip_rect"].tolist()


def test_rects_lie_in_the_picture_and_around_face_and_lips():
    points = np.zeros((68, 2))
    points[:, 0], points[:, 1] = np.linspace(200, 300, 68), np.linspace(150, 320, 68)
    points[27], points[8] = (250, 180), (250, 320)
    points[48:60] = [(230 + 3 * i, 280 + (i % 4) * 6) for i in range(12)]
    assert face_rect(points, (512, 512)) == (175, 325, 19, 341)
    left, right, top, bottom = lip_rect(points, (512, 512))
    assert right - left == bottom - top == 38
    assert left <= points[48:60, 0].min() and right >= points[48:60, 0].max() and top <= 280 and bottom >= 298
    moved = points + np.array([250, 230])
    left, right, top, bottom = lip_rect(moved, (512, 512))
    assert (right, bottom) == (512, 512) or (right <= 512 and bottom <= 512 and right - left == 38)
