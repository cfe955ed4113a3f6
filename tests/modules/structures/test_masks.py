import numpy as np
import pytest

from modules.structures.masks import OcclusionMask, OcclusionTable

NO_HANDS = np.zeros((0, 21, 2), dtype=np.float32)


def test_coverage_is_the_mean():
    values = np.zeros((4, 4), dtype=np.float32)
    values[:2] = 0.5
    assert OcclusionMask(values, "frame", NO_HANDS).coverage == 0.25
    assert OcclusionMask(np.zeros((0, 4), dtype=np.float32), "crop", NO_HANDS).coverage == 0.0


@pytest.mark.parametrize(
    ("values", "hands", "message"),
    [
        (np.zeros((4, 4)), NO_HANDS, "float32"),
        (np.zeros((4, 4, 1), dtype=np.float32), NO_HANDS, "float32"),
        (np.full((4, 4), 1.5, dtype=np.float32), NO_HANDS, "outside 0..1"),
        (np.full((4, 4), np.nan, dtype=np.float32), NO_HANDS, "outside 0..1"),
        (np.zeros((4, 4), dtype=np.float32), np.zeros((1, 20, 2), dtype=np.float32), "hands"),
    ],
)
def test_bad_masks_are_refused(values, hands, message):
    with pytest.raises(ValueError, match=message):
        OcclusionMask(values, "frame", hands)


def make_table():
    masks = np.zeros((2, 8, 8), dtype=np.uint8)
    masks[0, :4] = 255
    hidden = np.zeros((5, 478), dtype=bool)
    hidden[1, :10] = True
    coverage = np.array([0, 0.5, 0, 0.1, 0], dtype=np.float32)
    return OcclusionTable(coverage, hidden, np.array([1, 3], dtype=np.int64), masks)


def test_table_answers_by_frame():
    table = make_table()
    assert len(table) == 5
    assert table.mask(0, 16) is None
    assert table.mask(4, 16) is None
    found = table.mask(1, 16)
    assert found is not None
    assert found.shape == (16, 16)
    assert found[:7].all()
    assert not found[9:].any()


def test_table_round_trip_and_foreign_file(tmp_path):
    table = make_table()
    table.save(tmp_path / "hands.npz")
    again = OcclusionTable.load(tmp_path / "hands.npz")
    for name in ("coverage", "hidden", "rows", "masks"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match=r"other\.npz does not hold occlusion"):
        OcclusionTable.load(tmp_path / "other.npz")


def test_table_arrays_must_agree():
    with pytest.raises(ValueError, match="occlusion arrays disagree"):
        OcclusionTable(
            np.zeros(4, dtype=np.float32), np.zeros((5, 478), dtype=bool), np.zeros(0, dtype=np.int64),
            np.zeros((0, 8, 8), dtype=np.uint8),
        )  # fmt: skip
