import zipfile

import numpy as np
import pytest

from modules.structures.array_file import ArrayFileWriter, mapped_npz


def test_mapped_members_equal_those_numpy_reads(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {
        "points": np.arange(24, dtype=np.float32).reshape(4, 3, 2),
        "none": np.zeros((0, 5)),
        "word": np.array("x"),
    }
    np.savez(path, **arrays)
    found = mapped_npz(path)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_file_written_in_blocks_equals_the_whole_and_is_the_same_bytes_every_time(tmp_path):
    whole = np.random.default_rng(0).normal(size=(10, 7)).astype(np.float32)
    for name, cuts in (("a.npz", (0, 3, 10)), ("b.npz", (0, 1, 6, 10))):
        with ArrayFileWriter(tmp_path / name, {"x": (np.float32, (10, 7))}, {"n": np.array(3)}) as writer:
            for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
                writer.append(x=whole[start:stop])
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        np.testing.assert_array_equal(data["x"], whole)
        assert int(data["n"]) == 3
    np.testing.assert_array_equal(mapped_npz(tmp_path / "a.npz")["x"], whole)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_nothing_stays_of_a_file_that_was_not_finished(tmp_path):
    with pytest.raises(RuntimeError), ArrayFileWriter(tmp_path / "a.npz", {"x": (np.float32, (2, 1))}, {}) as writer:
        writer.append(x=np.zeros((1, 1)))
        raise RuntimeError
    with (
        pytest.raises(ValueError, match="x got 1 rows of 2"),
        ArrayFileWriter(tmp_path / "a.npz", {"x": (np.float32, (2, 1))}, {}) as writer,
    ):
        writer.append(x=np.zeros((1, 1)))
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_shape_are_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="rows of x must be"),
        ArrayFileWriter(tmp_path / "a.npz", {"x": (np.float32, (2, 1))}, {}) as writer,
    ):
        writer.append(x=np.zeros((1, 2)))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 50])
def test_a_damaged_file_is_said_to_be_one(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged or no \.npz"):
        mapped_npz(path)


def test_compressed_and_foreign_members_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="compressed"):
        mapped_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", b"hello")
    with pytest.raises(ValueError):
        mapped_npz(tmp_path / "b.npz")
