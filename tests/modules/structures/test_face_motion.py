"""Facial motion for other programs: what it refuses, that it survives a file, and which rows are held."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.face_model.model import ARKIT_NAMES
from modules.structures.arkit import LIVE_LINK_VALUES
from modules.structures.cameras import CameraIntrinsics
from modules.structures.face_motion import FaceMotion, hold_rows


@pytest.fixture
def motion():
    rng = np.random.default_rng(0)
    return FaceMotion(
        times_s=np.array([0.0, 0.02, 0.07]),
        names=ARKIT_NAMES,
        expression=rng.uniform(0, 1, (3, 52)).astype(np.float32),
        euler=rng.uniform(-1, 1, (3, 3)).astype(np.float32),
        translation=rng.uniform(-1, 1, (3, 3)).astype(np.float32),
        valid=np.array([True, False, True]),
        rate=Fraction(30000, 1001),
        face_model_version="v",
        camera=CameraIntrinsics.for_frame(640, 360),
    )


@pytest.mark.parametrize("camera", [CameraIntrinsics.for_frame(640, 360), None])
def test_it_survives_a_file_that_needs_no_pickle(motion, tmp_path, camera):
    path = tmp_path / "motion.npz"
    given = replace(motion, camera=camera)
    given.save(path)
    with np.load(path, allow_pickle=False) as data:
        assert {data[name].dtype.hasobject for name in data.files} == {False}
        assert data["rate"].tolist() == [30000, 1001] and data["names"].tolist() == list(ARKIT_NAMES)
        assert data["times_s"].dtype == np.float64
    again = FaceMotion.load(path)
    for name in ("times_s", "expression", "euler", "translation", "valid"):
        assert np.array_equal(getattr(again, name), getattr(given, name)), name
    assert (again.names, again.rate, again.face_model_version) == (ARKIT_NAMES, motion.rate, "v")
    assert again.camera == camera


def test_another_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", schema=np.array("face-coeffs/2"))
    with pytest.raises(ValueError, match="does not hold facial motion"):
        FaceMotion.load(tmp_path / "other.npz")


def test_values_are_sorted_by_name(motion):
    """Columns follow the file's order, whatever the order of the model's units."""
    values = motion.live_link_values()
    assert values.shape == (3, 61)
    for name in ("jawOpen", "jawLeft", "jawRight", "tongueOut", "browDownLeft"):
        column = LIVE_LINK_VALUES.index(name[0].upper() + name[1:])
        assert values[:, column] == pytest.approx(motion.expression[:, ARKIT_NAMES.index(name)])
    shuffled = np.random.default_rng(1).permutation(52)
    other = replace(motion, names=tuple(ARKIT_NAMES[i] for i in shuffled), expression=motion.expression[:, shuffled])
    assert np.array_equal(other.live_link_values(), values)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"times_s": np.array([0.0, 0.02])}, "2 rows"),
        ({"times_s": np.array([0.0, 0.02, 0.02])}, "rise"),
        ({"times_s": np.array([1.0, 1.02, 1.04])}, "begin at 0"),
        ({"names": ("a",) * 52}, "units of ARKit"),
        ({"expression": np.full((3, 52), 1.01, np.float32)}, "0..1"),
        ({"expression": np.full((3, 52), np.nan, np.float32)}, "0..1"),
        ({"euler": np.full((3, 3), np.inf, np.float32)}, "finite"),
        ({"translation": np.full((3, 3), np.nan, np.float32)}, "finite"),
    ],
)
def test_what_is_no_motion(motion, changes, words):
    with pytest.raises(ValueError, match=words):
        replace(motion, **changes)


@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any))
def test_rows_are_held(known):
    expected, last = [], known.index(True)
    for row, is_known in enumerate(known):
        last = row if is_known else last
        expected.append(last)
    assert hold_rows(np.array(known)).tolist() == expected


def test_nothing_to_hold():
    with pytest.raises(ValueError, match="no row is known"):
        hold_rows(np.zeros(3, bool))
