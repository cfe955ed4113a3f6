import numpy as np
import pytest

from modules.structures import landmarks as lm
from modules.structures.landmarks import MOUTH, N_MEDIAPIPE, LandmarkResult, Landmarks2D, mouth_bounds


def make_landmarks(count=3):
    rng = np.random.default_rng(0)
    return Landmarks2D(
        rng.normal(size=(count, 478, 2)).astype(np.float32),
        rng.normal(size=(count, 478)).astype(np.float32),
        np.array([True, False, True][:count]),
        rng.uniform(size=(count, 52)).astype(np.float32),
    )


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("INNER_LIP", 20), ("OUTER_LIP", 20), ("WITHIN_LIPS", 39), ("MOUTH", 79), ("FACE_OVAL", 36),
        ("BLENDSHAPE_SUBSET", 146), ("MEDIAPIPE_BLENDSHAPES", 52), ("LM68", 68),
    ],
)  # fmt: skip
def test_index_tables_have_their_length_and_no_duplicates(name, length):
    table = getattr(lm, name)
    assert len(table) == length
    assert len(set(table)) == length


def test_index_tables_point_into_the_topology():
    for name in ("MOUTH", "EYES", "BROWS", "FACE_OVAL", "IRISES", "RIGID", "BLENDSHAPE_SUBSET", "LM68", "LM131"):
        assert all(0 <= index < lm.N_MEDIAPIPE for index in getattr(lm, name)), name
    assert tuple(sorted(lm.BLENDSHAPE_SUBSET)) == lm.BLENDSHAPE_SUBSET
    assert set(lm.IRISES) <= set(lm.BLENDSHAPE_SUBSET)
    assert set(lm.JAW_LINE) <= set(lm.FACE_OVAL)


def test_scores_of_the_lower_and_the_upper_face_are_all_but_neutral():
    lower, upper = set(lm.LOWER_FACE_SCORES), set(lm.UPPER_FACE_SCORES)
    assert not lower & upper and lower | upper == set(range(1, 52)) and (len(lower), len(upper)) == (28, 23)
    assert lm.MEDIAPIPE_BLENDSHAPES[min(lower)] == "cheekPuff" and len(lm.LM68_MOUTH) == 20


def test_hand_tables_name_each_point_once():
    joints = [joint for finger in lm.HAND_FINGERS for joint in finger]
    assert sorted([0, *joints]) == list(range(21))
    assert lm.HAND_PALM[0] == 0


def test_measures_of_a_known_face():
    points = np.zeros((2, 478, 2))
    points[:, 33], points[:, 263] = (0, 0), (10, 0)
    points[:, 10], points[:, 152] = (5, -5), (5, 15)
    for upper, lower in lm.LIP_GAP_PAIRS:
        points[0, upper], points[0, lower] = (5, 5), (5, 7)
    np.testing.assert_allclose(lm.inter_ocular_px(points), 10)
    np.testing.assert_allclose(lm.face_height_px(points), 20)
    np.testing.assert_allclose(lm.lip_opening(points), [0.2, 0])


def test_save_and_load_round_trip(tmp_path):
    table = make_landmarks()
    table.save(tmp_path / "landmarks.npz")
    again = Landmarks2D.load(tmp_path / "landmarks.npz")
    for name in ("points", "depth", "valid", "blendshapes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    assert len(again) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["landmarks.npz"]


def test_a_foreign_file_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", points=np.zeros(3))
    with pytest.raises(ValueError, match=r"x\.npz does not hold landmarks"):
        Landmarks2D.load(tmp_path / "x.npz")


def test_wrong_shapes_are_refused():
    good = make_landmarks()
    with pytest.raises(ValueError, match=r"\[T, 478, 2\]"):
        Landmarks2D(good.points[:2], good.depth, good.valid, good.blendshapes)
    with pytest.raises(ValueError, match="blendshapes"):
        Landmarks2D(good.points, good.depth, good.valid, good.blendshapes[:, :51])
    with pytest.raises(ValueError, match="landmarks must be"):
        LandmarkResult(good.points[0][:468], good.depth[0], 1.0, good.blendshapes[0])
    with pytest.raises(ValueError, match="blendshapes"):
        LandmarkResult(good.points[0], good.depth[0], 1.0, good.blendshapes[0][:3])


def test_a_result_moves_with_its_window():
    good = make_landmarks()
    result = LandmarkResult(good.points[0], good.depth[0], 0.9, good.blendshapes[0])
    moved = result.shifted(3, -2)
    np.testing.assert_allclose(moved.points - result.points, np.tile([3, -2], (478, 1)), atol=1e-5)
    assert moved.points.dtype == np.float32


def test_the_mouths_box_is_whole_pixels_around_its_grown_points():
    points = np.zeros((N_MEDIAPIPE, 2), np.float32)
    points[list(MOUTH)] = (30.0, 50.0)
    points[MOUTH[0]], points[MOUTH[1]] = (20.0, 45.0), (40.5, 56.0)
    low, high = mouth_bounds(points)
    assert low.tolist() == [16, 43] and high.tolist() == [44, 58]  # 30.25 ± 13.325, 50.5 ± 7.15
    away = mouth_bounds(points - np.float32(64))
    assert [corner.tolist() for corner in away] == [[16 - 64, 43 - 64], [44 - 64, 58 - 64]]
