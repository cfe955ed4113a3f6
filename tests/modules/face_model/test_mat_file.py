"""The reader of MATLAB files against SciPy's, and on bytes that are not theirs."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modules.face_model.mat_file import read_mat_arrays

KINDS = st.sampled_from(["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
ARRAYS = KINDS.flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=2, max_dims=3, max_side=4)))
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@one_folder
@given(st.dictionaries(st.sampled_from(["a", "bc", "longer_name", "tri"]), ARRAYS, min_size=1), st.booleans())
def test_reads_what_scipy_writes(tmp_path, arrays, packed):
    path = tmp_path / "arrays.mat"
    scipy.io.savemat(path, {**arrays, "words": "text", "cell": {"x": 1}}, do_compression=packed)
    read = read_mat_arrays(path, tuple(arrays))
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_numbers_stored_smaller_than_their_class_and_the_other_byte_order(tmp_path):
    """As MATLAB itself writes: doubles that are whole numbers as bytes; short names within their tag; big-endian."""

    def element(kind: int, content: bytes) -> bytes:
        return np.array([kind, len(content)], ">u4").tobytes() + content + bytes(-len(content) % 8)

    short_name = np.array([(1 << 16) | 1], ">u4").tobytes() + b"v\0\0\0"
    parts = element(6, np.array([6, 0], ">u4").tobytes()) + element(5, np.array([1, 3], ">i4").tobytes())
    matrix = element(14, parts + short_name + element(2, bytes([7, 8, 250])))
    path = tmp_path / "big.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + matrix)
    np.testing.assert_array_equal(read_mat_arrays(path, ("v",))["v"], np.array([[7.0, 8.0, 250.0]]))
    np.testing.assert_array_equal(scipy.io.loadmat(path)["v"], np.array([[7.0, 8.0, 250.0]]))


def test_what_is_no_real_array_is_refused(tmp_path):
    path = tmp_path / "odd.mat"
    scipy.io.savemat(path, {"text": "x", "complex": np.array([[1 + 2j]]), "cell": {"x": 1}})
    for name in ("text", "complex", "cell"):
        with pytest.raises(ValueError, match=f"{name} is not an array of real numbers"):
            read_mat_arrays(path, (name,))
    with pytest.raises(KeyError, match="nowhere"):
        read_mat_arrays(path, ("nowhere",))
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(300))
    with pytest.raises(ValueError, match="not a MATLAB file of level 5"):
        read_mat_arrays(path, ("x",))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[bytes]:
    path = tmp_path_factory.mktemp("mat") / "good.mat"
    rng, contents = np.random.default_rng(0), []
    for packed in (False, True):
        scipy.io.savemat(path, {"a": rng.normal(size=(9, 4)), "tri": rng.integers(0, 9, (5, 3))}, do_compression=packed)
        contents.append(path.read_bytes())
    return contents


def read_or_refuse(path: Path) -> None:
    try:
        for array in read_mat_arrays(path, ("a", "tri")).values():
            assert array.size < 1000
    except (ValueError, KeyError) as error:
        assert str(error)


@settings(parent=one_folder, max_examples=100)
@given(st.booleans(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), st.data())
def test_damage_is_refused_or_read_but_nothing_else(tmp_path, files, packed, changes, data):
    content = bytearray(files[packed])
    for place, value in changes:
        content[place % len(content)] = value
    cut = data.draw(st.integers(1, len(content)))
    path = tmp_path / "damaged.mat"
    path.write_bytes(content[:cut])
    read_or_refuse(path)


def test_every_cut_is_refused(tmp_path, files):
    path = tmp_path / "cut.mat"
    for content in files:
        for length in range(1, len(content), 3):
            path.write_bytes(content[:length])
            with pytest.raises((ValueError, KeyError)):
                read_mat_arrays(path, ("a", "tri"))
