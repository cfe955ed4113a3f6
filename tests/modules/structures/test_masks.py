from dataclasses import replace

import numpy as np
import pytest

from modules.structures.masks import OcclusionEvidence, OcclusionMask, OcclusionTable, filled

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
    mouth = np.array([0, 0.9, 0, 0.2, 0], dtype=np.float32)
    evidence = np.array([0, 2, 2, 1, 1], dtype=np.uint8)
    hands = np.arange(3 * 42, dtype=np.float32).reshape(3, 21, 2)
    return OcclusionTable(
        coverage, hidden, np.array([1, 3], dtype=np.int64), masks, mouth, evidence, np.array([1, 1, 4]), hands
    )  # fmt: skip


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
    for name in OcclusionTable.__slots__:
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match=r"other\.npz does not hold occlusion"):
        OcclusionTable.load(tmp_path / "other.npz")


def test_table_arrays_must_agree():
    with pytest.raises(ValueError, match=r"hands disagree: \(3,\) frames, points \(2, 21, 2\)"):
        replace(make_table(), hand_points=np.zeros((2, 21, 2), np.float32))
    with pytest.raises(ValueError, match="occlusion arrays disagree"):
        OcclusionTable(
            np.zeros(4, dtype=np.float32), np.zeros((5, 478), dtype=bool), np.zeros(0, dtype=np.int64),
            np.zeros((0, 8, 8), dtype=np.uint8), np.zeros(4, dtype=np.float32), np.zeros(4, dtype=np.uint8),
        )  # fmt: skip


def test_a_table_says_who_judged_how_many_frames():
    assert make_table().judged_by() == {"none": 1, "hands": 2, "appearance": 2}
    assert OcclusionTable.nothing(0, 4).judged_by() == {}


def test_the_digest_is_of_everything_and_of_nothing_else(tmp_path):
    table = make_table()
    table.save(tmp_path / "table.npz")
    assert OcclusionTable.load(tmp_path / "table.npz").digest() == table.digest()
    for name in OcclusionTable.__slots__:
        other = getattr(table, name).copy()
        other.flat[-1] = ~other.flat[-1] if other.dtype == bool else other.flat[-1] + 1
        assert replace(table, **{name: other}).digest() != table.digest(), name


def test_part_of_a_table_counts_from_its_own_start():
    table = make_table()
    part = table.part(1, 4)
    assert len(part) == 3 and part.rows.tolist() == [0, 2] and part.evidence.tolist() == [2, 2, 1]
    assert part.mouth.tolist() == pytest.approx([0.9, 0, 0.2]) and part.hidden[0, :10].all()
    for row in range(3):
        here, there = part.stored_mask(row), table.stored_mask(row + 1)
        assert (here is None) == (there is None)
        if here is not None and there is not None:
            np.testing.assert_array_equal(here, there)
    assert len(table.part(4, 5).rows) == 0
    assert part.hand_rows.tolist() == [0, 0] and table.part(2, 5).hand_rows.tolist() == [2]
    np.testing.assert_array_equal(part.hands_in(0), table.hands_in(1))
    assert len(part.hands_in(1)) == 0 and [len(table.hands_in(row)) for row in range(5)] == [0, 2, 0, 0, 1]


def test_soft_mask_keeps_what_a_hard_one_forgets():
    masks = np.full((1, 4, 4), 64, dtype=np.uint8)
    nothing = OcclusionTable.nothing(2, 4, OcclusionEvidence.NERF)
    assert nothing.evidence.tolist() == [3, 3] and nothing.soft_mask(0, 8) is None and nothing.mask_size == 4
    table = OcclusionTable(
        nothing.coverage, nothing.hidden, np.array([1]), masks, nothing.mouth, nothing.evidence
    )  # fmt: skip
    soft, hard = table.soft_mask(1, 8), table.mask(1, 8)
    assert soft is not None and hard is not None
    assert soft.dtype == np.float32 and soft.shape == (8, 8) and np.allclose(soft, 64 / 255) and not hard.any()


def test_a_filled_ring_is_centred_on_its_middle():
    ring = np.array([[10.5, 20.5], [30.5, 20.5], [30.5, 40.5], [10.5, 40.5]])
    rows, columns = np.nonzero(filled(ring, (60, 50)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 40, 10, 30)
    assert rows.mean() + 0.5 == 30.5 and columns.mean() + 0.5 == 20.5
