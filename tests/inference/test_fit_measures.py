"""What a fit amounts to, measured on a speaker whose coefficients are known."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference.fit_measures import AXIS_DM, NOSE_TIP, FittedFace, measure_fit, pose_jitter_deg, summarise_fit
from modules.face_model.fitting import OutlineSlide
from modules.face_model.projection import project
from modules.structures.frames import PlaneLayout, VideoInfo
from modules.structures.landmarks import FACE_OVAL, INNER_LIP, OUTER_LIP, inter_ocular_px, lip_opening
from tests.support.made_up_source import source_of
from tests.support.synthetic_head import SyntheticSpeaker

COUNT = 300


@pytest.fixture(scope="module")
def speaker():
    return SyntheticSpeaker(5)


@pytest.fixture(scope="module")
def coeffs(speaker):
    return speaker.coeffs(COUNT)


@pytest.fixture(scope="module")
def tracked(speaker, coeffs):
    """Where the model itself has the points, its outline's slide included."""
    points = FittedFace(speaker.model, coeffs).landmarks_px(0, COUNT).astype(np.float32)
    return replace(speaker.landmarks(coeffs), points=points)


@pytest.fixture
def visible():
    return np.zeros((COUNT, 478), bool)


def test_the_points_are_the_models_own(speaker, coeffs):
    """They are ``FaceModel.landmarks`` with the outline on the silhouette, projected."""
    expected = speaker.landmarks(coeffs).points
    found = FittedFace(speaker.model, coeffs).landmarks_px(10, 20)
    np.testing.assert_allclose(found, expected[10:20], atol=2e-3)
    assert np.ptp(found, axis=0).max() > 1, "the head moves"


def test_the_outline_slides_with_the_turn_of_the_head(speaker, coeffs):
    yaws = torch.tensor([-1.0, 0.0, 1.0])
    move = torch.zeros(3, len(FACE_OVAL), 3)
    move[2, :, 1] = 0.5  # up, when the head is turned to the image's right
    still = FittedFace(replace(speaker.model, outline_slide=OutlineSlide.none()), coeffs).landmarks_px(0, COUNT)
    slid = FittedFace(replace(speaker.model, outline_slide=OutlineSlide(yaws, move)), coeffs).landmarks_px(0, COUNT)
    moved = np.linalg.norm(slid - still, axis=2)
    right = coeffs.euler[:, 1] > 0.05
    assert right.any() and (moved[right][:, list(FACE_OVAL)] > 0.1).all()
    others = np.setdiff1d(np.arange(478), FACE_OVAL)
    assert moved[:, others].max() < 1e-9 and moved[coeffs.euler[:, 1] < 0].max() < 1e-9


def test_a_frame_has_the_whole_mesh_and_the_axes(speaker, coeffs):
    fitted = FittedFace(speaker.model, coeffs)
    frame = fitted.frame(7)
    row = slice(7, 8)
    head = speaker.model.vertices(torch.from_numpy(coeffs.identity), torch.from_numpy(coeffs.expression[row])).double()
    pose = (torch.from_numpy(coeffs.euler[row].astype(float)), torch.from_numpy(coeffs.translation[row].astype(float)))
    pixels, depth = project(head, *pose, coeffs.camera)
    np.testing.assert_allclose(frame.vertices_px, pixels[0].numpy(), atol=1e-2)
    np.testing.assert_allclose(frame.depth, depth[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(10.0 - frame.vertices[:, 2], frame.depth, atol=1e-5)
    np.testing.assert_array_equal(frame.landmarks_px, fitted.landmarks_px(7, 8)[0])
    np.testing.assert_allclose(frame.axes_px[0], frame.landmarks_px[NOSE_TIP], atol=1e-2)


def test_axes_of_a_face_that_looks_at_the_camera(speaker, coeffs):
    frontal = replace(coeffs, euler=np.zeros_like(coeffs.euler))
    nose, x, y, z = FittedFace(speaker.model, frontal).frame(0).axes_px
    frame = FittedFace(speaker.model, frontal).frame(0)
    px_per_dm = coeffs.camera.fx / frame.depth.min()
    assert x[0] - nose[0] == pytest.approx(AXIS_DM * px_per_dm, rel=0.1) and abs(x[1] - nose[1]) < 0.01
    assert nose[1] - y[1] == pytest.approx(AXIS_DM * px_per_dm, rel=0.1), "up is up"
    assert np.linalg.norm(z - nose) < 0.3 * AXIS_DM * px_per_dm, "towards the camera"


def test_a_persons_correction_moves_the_units(speaker, coeffs):
    """A unit's column brings identity directions along: the same as a person who has them, scaled by the unit."""
    unit, direction = speaker.model.unit("jawOpen"), 3
    correction = np.zeros((speaker.model.n_identity, speaker.model.n_expression), np.float32)
    correction[direction, unit] = 2.0
    row = int(coeffs.expression[:, unit].argmax())
    identity = coeffs.identity.copy()
    identity[direction] += 2.0 * coeffs.expression[row, unit]
    corrected = FittedFace(speaker.model, replace(coeffs, correction=correction)).frame(row)
    expected = FittedFace(speaker.model, replace(coeffs, identity=identity)).frame(row)
    np.testing.assert_allclose(corrected.vertices_px, expected.vertices_px, atol=1e-3)
    np.testing.assert_allclose(corrected.landmarks_px, expected.landmarks_px, atol=1e-3)
    plain = FittedFace(speaker.model, coeffs).frame(row)
    assert np.abs(plain.vertices_px - corrected.vertices_px).max() > 0.5


def test_an_exact_fit_has_no_error(speaker, coeffs, tracked, visible):
    errors = measure_fit(FittedFace(speaker.model, coeffs), tracked, coeffs.valid, visible)
    assert errors.face.max() < 1e-3 and errors.lips.max() < 1e-3
    np.testing.assert_allclose(errors.opening, lip_opening(tracked.points.astype(float)))
    assert (np.abs(errors.center - [192, 144]) < 40).all() and (errors.face_size[:, 1] > errors.mouth_size[:, 1]).all()


def test_errors_are_percents_of_the_distance_between_the_eyes(speaker, coeffs, tracked, visible):
    points = tracked.points.copy()
    points[:, list(INNER_LIP + OUTER_LIP)] += np.array([3.0, 4.0], np.float32)
    points[40] += np.array([0.0, 2.0], np.float32)
    errors = measure_fit(FittedFace(speaker.model, coeffs), replace(tracked, points=points), coeffs.valid, visible)
    eyes = inter_ocular_px(tracked.points)
    count = len(INNER_LIP + OUTER_LIP)
    np.testing.assert_allclose(errors.lips[:40], 100 * 5 / eyes[:40], rtol=1e-3)
    np.testing.assert_allclose(errors.face[:40], 100 * 5 / eyes[:40] * count / 478, rtol=1e-3)
    assert errors.face[40] == pytest.approx(
        100 * (2 * (478 - count) + np.hypot(3, 6) * count) / 478 / eyes[40], rel=1e-3
    )


def test_points_that_nobody_saw_do_not_count(speaker, coeffs, tracked, visible):
    points = tracked.points.copy()
    points[5, list(INNER_LIP)] += 50
    points[6, list(INNER_LIP + OUTER_LIP)] += 50
    visible[5, list(INNER_LIP)] = True
    visible[6, list(INNER_LIP + OUTER_LIP)] = True
    errors = measure_fit(FittedFace(speaker.model, coeffs), replace(tracked, points=points), coeffs.valid, visible)
    assert errors.lips[5] < 1e-3 and np.isnan(errors.lips[6]) and errors.face[6] < 1e-3


def test_frames_without_a_fit_have_no_error(speaker, coeffs, tracked, visible):
    points, valid = tracked.points.copy(), tracked.valid.copy()
    points[20], valid[20] = np.nan, False
    fits = coeffs.valid.copy()
    fits[270] = False
    lost = replace(tracked, points=points, valid=valid)
    errors = measure_fit(FittedFace(speaker.model, coeffs), lost, fits, visible)
    assert np.flatnonzero(np.isnan(errors.face)).tolist() == [20, 270]
    assert np.flatnonzero(np.isnan(errors.center).any(axis=1)).tolist() == [20]


def test_jitter():
    turn = np.zeros((9, 3))
    turn[:, 1] = np.radians(0.5 * np.arange(9) ** 2)  # each step is 1 degree longer than the last
    every = np.ones(9, bool)
    assert pose_jitter_deg(turn, every, np.array([0])) == pytest.approx(1.0, rel=1e-6)
    turn[5:, 0] += 1.0  # another shot
    assert pose_jitter_deg(turn, every, np.array([0, 5])) == pytest.approx(1.0, rel=0.05)
    assert pose_jitter_deg(turn, every, np.array([0])) > 10
    assert np.isnan(pose_jitter_deg(turn, np.array([1, 1, 0] * 3, bool), np.array([0])))


INFO = VideoInfo(
    Path("a.mp4"), 384, 288, Fraction(25), Fraction(1, 25), 0, PlaneLayout("yuv420p", (1, 1), "left", False, "bt709"),
    (1, 1, 1, 1), False, None,
)  # fmt: skip


def test_summary(speaker, coeffs, tracked, visible):
    noisy = replace(tracked, points=tracked.points + np.array([1.0, 0.0], np.float32))
    fits = coeffs.valid.copy()
    fits[110:120] = False
    errors = measure_fit(FittedFace(speaker.model, coeffs), noisy, fits, visible)
    summary: dict[str, Any] = summarise_fit(
        source_of(speaker, INFO, coeffs, tracked, (0, 100, 200), face=1), errors, 50, 250
    )
    assert (summary["frames"], summary["frames_with_fit"], summary["shots"], summary["face"]) == (200, 190, 3, 1)
    lips = errors.lips[50:250]
    told = summary["residual_percent"]
    assert told["lips"]["mean"] == pytest.approx(np.nanmean(lips), rel=1e-3)
    assert told["face"]["p95"] == pytest.approx(np.nanpercentile(errors.face[50:250], 95), rel=1e-3)
    known = np.isfinite(lips)
    widest = np.argsort(errors.opening[50:250][known])[-19:]
    assert told["lips_widest_open_tenth"]["mean"] == pytest.approx(lips[known][widest].mean(), rel=1e-3)
    assert summary["focal_px"] == pytest.approx(coeffs.camera.fx, rel=1e-3) and not summary["has_correction"]
    assert summary["focal_over_longer_side"] == pytest.approx(1.2, rel=1e-3)


def test_a_summary_of_nothing_is_json(speaker, coeffs, tracked, visible):
    errors = measure_fit(FittedFace(speaker.model, coeffs), tracked, np.zeros(COUNT, bool), visible)
    summary: dict[str, Any] = summarise_fit(
        source_of(speaker, INFO, coeffs, tracked, (0, 100, 200), face=1), errors, 0, 2
    )
    text = json.dumps(summary, allow_nan=False)
    assert summary["frames_with_fit"] == 0 and summary["pose_jitter_deg"] is None and "NaN" not in text
