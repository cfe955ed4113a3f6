"""Pickles give arrays and plain values, and nothing in them ever runs."""

from __future__ import annotations

import collections
import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy._core import multiarray, numeric

from modules.commons.errors import CheckpointError
from modules.commons.restricted_pickle import DamagedError, RefusedError, read_pickled, read_pickled_array

VALUES = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "bytes": np.arange(4, dtype=np.uint8),
    "flags": np.array([True, False]),
    "texts": np.array(["a", "bc"]),
    "objects": np.array([{"x": 1}, None], dtype=object),
    "number": np.float64(1.5),
    "plain": [1, 2.5, "text", (True, None), b"raw", {1, 2}, frozenset({3}), 1 + 2j],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_data_comes_back(protocol):
    found = read_pickled(io.BytesIO(pickle.dumps(VALUES, protocol=protocol)))
    for key in ("floats", "fortran", "bytes", "flags", "texts", "number"):
        assert found[key].dtype == VALUES[key].dtype and np.array_equal(found[key], VALUES[key])
    assert found["plain"] == VALUES["plain"] and found["objects"].tolist() == [{"x": 1}, None]


def test_pickles_of_older_numpy_come_back():
    old = pickle.dumps(VALUES["floats"], protocol=2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core." in old
    np.testing.assert_array_equal(read_pickled(io.BytesIO(old)), VALUES["floats"])


class Payload:
    """Asks for a function to be called, as an attack does."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


ATTACKS = {
    f"{os.system.__module__}.system": lambda mark: Payload(os.system, f"touch {mark}"),
    "builtins.exec": lambda mark: Payload(exec, f"open({str(mark)!r}, 'w')"),
    "builtins.getattr": lambda mark: Payload(getattr, "text", "upper"),
    "numpy.load": lambda mark: Payload(np.load, str(mark)),
    "collections.OrderedDict": lambda mark: collections.OrderedDict(a=1),
    "_codecs.encode to zip": lambda mark: Payload(__import__("_codecs").encode, "text", "zip"),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_anything_else_is_refused_by_name(name, protocol, tmp_path):
    mark = tmp_path / "ran"
    attack = ATTACKS[name](mark)
    expected = name if protocol > 2 else name.replace("builtins.", "(builtins|__builtin__).")
    with pytest.raises(RefusedError, match=f"^{expected}$"):
        read_pickled(io.BytesIO(pickle.dumps({"good": 1, "bad": [attack]}, protocol=protocol)))
    file = tmp_path / "data.npy"
    np.save(file, np.array({"bad": attack}, dtype=object))
    with pytest.raises(CheckpointError, match=f"refused: besides data it asks for {name}") as caught:
        read_pickled_array(file)
    assert "nothing in it was run" in str(caught.value) and "\n" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("state", [(None, {"__defaults__": ("poison",)}), {"poison": 1}])
def test_a_pickle_leaves_nothing_on_numpys_functions(state):
    """BUILD sets attributes on whatever was named: on a function of NumPy's that would stay for everybody."""
    functions = [getattr(numeric, "_frombuffer"), getattr(multiarray, "_reconstruct"), multiarray.scalar]  # noqa: B009
    before = [(getattr(f, "__defaults__", None), dict(getattr(f, "__dict__", {}))) for f in functions]
    built = pickle.dumps(state, 2)[2:-1] + b"b."
    for named in ("numeric\n_frombuffer", "multiarray\n_reconstruct", "multiarray\nscalar"):
        read_pickled(io.BytesIO(f"\x80\x02cnumpy.core.{named}\n".encode("latin1") + built))
    read_pickled(io.BytesIO(b"\x80\x02cnumpy\ndtype\n" + built))
    for named in (b"numpy\nndarray", b"builtins\nset", b"builtins\nbytearray"):
        with pytest.raises(DamagedError):
            read_pickled(io.BytesIO(b"\x80\x02c" + named + b"\n" + built))
    assert [(getattr(f, "__defaults__", None), dict(getattr(f, "__dict__", {}))) for f in functions] == before


class Array:
    """Pickled as an array whose parts are all the pickle's word."""

    def __init__(
        self, element: str, shape: tuple, contents: object, state: tuple = (3, "<", None, None, None, -1, -1, 0)
    ):
        self.element, self.shape, self.contents, self.state = element, shape, contents, state

    def __reduce__(self):
        made = Payload(np.dtype, self.element, False, True)
        dtype = Stated(made, self.state)
        return (
            getattr(multiarray, "_reconstruct"),  # noqa: B009
            (np.ndarray, (0,), b"b"),
            (1, self.shape, dtype, False, self.contents),
        )


class Stated:
    """What another object is pickled as, with a state of one's own choice."""

    def __init__(self, made: Payload, state: tuple) -> None:
        self.made, self.state = made, state

    def __reduce__(self):
        return *self.made.call, self.state


@pytest.mark.parametrize(
    "claimed",
    [
        Array("f8", (3,), bytes(16)),
        Array("f8", (-3,), bytes(24)),
        Array("f8", (3,), [1, 2, 3]),
        Array("O", (3,), [1]),
        Array("O", (1,), bytes(8)),
        Array("V8", (1,), bytes(8)),
        Array("f8,f8", (1,), bytes(16)),
        Array("f8", (1,), bytes(8), (3, "<", "i4", None, None, -1, -1, 0)),
        Array("f8", (1,), bytes(8), (3, "wrong order", None, None, None, -1, -1, 0)),
    ],
)
def test_what_a_pickle_says_of_an_array_is_checked(claimed):
    with pytest.raises(DamagedError):
        read_pickled(io.BytesIO(pickle.dumps(claimed, 2)))


def test_flags_and_sizes_of_elements_are_never_taken_from_a_pickle():
    """NumPy would take floats for addresses of objects, for every float array from then on."""
    has_object, wide = 63, 800
    state = (3, "<", None, None, None, wide, 1, has_object)
    found = read_pickled(io.BytesIO(pickle.dumps(Array("f8", (2,), np.arange(2.0).tobytes(), state), 2)))
    assert found.dtype == np.float64 and found.tolist() == [0, 1] and np.dtype("f8").flags == 0


@given(st.data())
def test_flipped_bytes_are_data_or_one_sentence(whole, data):
    changed = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    file = whole.with_name("changed.npy")
    file.write_bytes(changed)
    try:
        read_pickled_array(file)
    except CheckpointError as error:
        assert "\n" not in str(error)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("pickles") / "whole.npy"
    np.save(file, {"a": np.zeros(3), "b": [1, "text", {"c": np.float32(2)}]})
    return file


def test_a_header_that_stops_in_a_bracket(tmp_path):
    file = tmp_path / "data.npy"
    np.save(file, {"a": 1})
    file.write_bytes(file.read_bytes().replace(b"'shape': ()", b"'shape': (("))
    with pytest.raises(CheckpointError, match="damaged, or not a dataset of GeneFace"):
        read_pickled_array(file)


def test_a_single_object_and_an_array_of_them(tmp_path):
    np.save(tmp_path / "one.npy", {"a": 1})
    np.save(tmp_path / "two.npy", np.array([{"a": 1}, 2], dtype=object))
    assert read_pickled_array(tmp_path / "one.npy") == {"a": 1}
    assert read_pickled_array(tmp_path / "two.npy").tolist() == [{"a": 1}, 2]


def test_damaged_foreign_and_missing_files(tmp_path):
    file = tmp_path / "data.npy"
    with pytest.raises(CheckpointError, match="no such file"):
        read_pickled_array(file)
    np.save(file, {"a": np.zeros(1000)})
    whole = file.read_bytes()
    for length in (0, 3, 8, 60, 200, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged, or not a dataset of GeneFace") as caught:
            read_pickled_array(file)
        assert "\n" not in str(caught.value)
    file.write_bytes(b"\x89PNG" + bytes(100))
    with pytest.raises(CheckpointError, match="damaged, or not"):
        read_pickled_array(file)
    np.save(file, np.zeros(3))
    with pytest.raises(CheckpointError, match="holds plain float64 numbers"):
        read_pickled_array(file)
