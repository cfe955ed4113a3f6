"""The mouths that a clip shows: read where they lie, told from odd ones, and put where a new motion wants them."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import filmed_mouths
from inference.driving import MOUTH_ROWS
from inference.filmed_mouths import (
    RUN,
    FilmedMouths,
    Head,
    LipPoints,
    comparable,
    detail_of,
    filmed_mouths_for,
    softly_ended,
    spread,
)
from inference.jobs import EvaluationJob
from modules.commons.progress import silent
from modules.radnerfs.mouth_choice import SeenMouths
from modules.radnerfs.surface import FacePose, project_mesh
from modules.video.rgb_video import rgb_video_info
from tests.support.made_up_source import made_up_source


@pytest.fixture(scope="module")
def source():
    return made_up_source(rgb_video_info(Path("clip.mp4"), 96, 96, Fraction(25)), 40)


def head_of(source, rows):
    coeffs = source.coeffs
    return Head(
        source.face_model, coeffs, coeffs.expression[rows], coeffs.euler[rows], coeffs.translation[rows]
    )  # fmt: skip


def test_chosen_vertices_lie_where_the_whole_mesh_has_them(source):
    rows, ids = np.array([3, 20]), np.array([0, 5, 77])
    found, coeffs = head_of(source, rows).in_frame(ids), source.coeffs
    for number, row in enumerate(rows):
        pose = FacePose(coeffs.identity, coeffs.expression[row], coeffs.euler[row], coeffs.translation[row])
        expected = project_mesh(source.face_model, pose, coeffs.camera.matrix()).pixels[ids]
        np.testing.assert_allclose(found[number], expected, atol=1e-3)


def library(source):
    """Every frame's mouth as a crop of one grey, which is its number."""
    points, rows = LipPoints.of(source.face_model), np.arange(len(source))
    head = head_of(source, rows)
    px = head.in_frame(points.crop)
    low, high = np.floor(px.min(1)).astype(np.int64), np.ceil(px.max(1)).astype(np.int64)
    crops = tuple(
        np.full((*(h - lo)[::-1], 3), row, np.uint8) for row, (lo, h) in enumerate(zip(low, high, strict=True))
    )
    seen = SeenMouths(
        rows, np.zeros((len(rows), 3), np.float32), head.in_head(points.ring).numpy()[..., :2],
        source.coeffs.euler[:, :2],
    )  # fmt: skip
    return FilmedMouths(source, points, seen, crops, np.hstack([low, high]), head.in_frame(points.outline))


def test_a_frame_driven_as_it_is_gets_its_own_mouth_in_its_own_place_and_others_none(source):
    rows = np.arange(len(source))
    expression = source.coeffs.expression.copy()
    jaw = source.face_model.unit("jawOpen")
    expression[:, MOUTH_ROWS] = 0
    expression[:, jaw] = np.linspace(0, 0.5, len(rows))
    person = replace(source, coeffs=replace(source.coeffs, expression=expression))
    mouths = library(person)
    edited = rows >= 4
    made = mouths.stand_ins(expression, rows, edited)
    assert made.picture(6, (0, 0, 9, 9)) is None, "lips that hardly part are rendered"
    for row in (25, 35):
        low, high = mouths.bounds[row, :2], mouths.bounds[row, 2:]
        bounds = int(low[0]) - 5, int(low[1]) - 7, int(high[0]) + 4, int(high[1]) + 3
        picture = made.picture(row, bounds)
        assert picture is not None and picture.shape == (bounds[3] - bounds[1], bounds[2] - bounds[0], 4)
        middle = picture[picture.shape[0] // 2, picture.shape[1] // 2]
        assert abs(int(middle[0]) - row) <= 3 and middle[3] == 255
        assert not picture[:4, :, 3].any() and not picture[:, :3, 3].any()
    assert made.picture(2, (0, 0, 9, 9)) is None


def test_a_crop_ends_softly():
    used = softly_ended((40, 60))
    assert used[20, 30] == 255 and used[0].max() < 40 and used[:, 0].max() < 40
    assert (np.diff(used[:20, 30].astype(int)) >= 0).all() and np.array_equal(used, used[::-1, ::-1])


def test_light_counts_little_and_sharper_pictures_have_more_detail(source):
    points = LipPoints.of(source.face_model)
    places = head_of(source, np.arange(6)).in_frame(points.looks)
    looks = np.random.default_rng(0).uniform(0.2, 0.6, (1, len(points.looks), 3)).repeat(6, 0).astype(np.float32)
    looks[3] += np.float32(0.1)
    made = comparable(looks, places, source.face_model, points.looks)
    off = np.linalg.norm(made[3] - made[0])
    assert 0.2 * 25.5 < off < 0.4 * 25.5 and np.linalg.norm(made[1] - made[0]) == 0
    rng = np.random.default_rng(1)
    sharp = rng.integers(0, 256, (30, 40, 3), np.uint8)
    assert detail_of([sharp, sharp // 2])[0] == pytest.approx(2 * detail_of([sharp, sharp // 2])[1], rel=0.05)


@given(st.integers(0, 3000), st.integers(1, 700))
def test_of_long_clips_runs_are_kept_that_lie_evenly(count, most):
    rows = 2 * np.arange(count) + 1
    kept = spread(rows, most)
    assert len(kept) <= most and np.isin(kept, rows).all() and (np.diff(kept) > 0).all()
    if count <= most:
        assert np.array_equal(kept, rows)
    else:
        length = min(RUN, most)
        assert len(kept) > most - length and kept[0] == rows[0] and (kept[-1] == rows[-1] or len(kept) == length)
        assert (np.diff(kept.reshape(-1, length), axis=1) == 2).all()


@pytest.fixture
def job(tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"")
    return EvaluationJob(clip, tmp_path / "out")


def test_none_are_read_where_none_are_wanted_or_too_few_are_shown(source, job, monkeypatch):
    assert filmed_mouths_for(replace(job, mouth="rendered"), source, silent) is None
    assert filmed_mouths_for(replace(job, blend_mode="alpha"), source, silent) is None
    monkeypatch.setattr(filmed_mouths, "LEAST_MOUTHS", len(source) + 1)
    assert filmed_mouths_for(job, source, silent) is None
    monkeypatch.setattr(filmed_mouths, "LEAST_MOUTHS", 4)
    assert filmed_mouths_for(job, source, silent, rows=np.arange(3)) is None
