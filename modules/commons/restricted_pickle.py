"""Pickled data read without running anything in it: arrays, numbers, text and the containers around them.

NumPy takes what a pickle says of an array for true: one changed byte can end the process. So pickles are read in
Python, and what they say of an array is checked before NumPy sees it.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from modules.commons.errors import CheckpointError, first_line

_CONTAINERS = {kind.__name__: kind for kind in (set, frozenset, complex, bytearray)}
_ARRAY_TYPE = object()
"""What ``numpy.ndarray`` is to a pickle: a name to hand to the function that makes one, nothing to call."""
_PLAIN_TYPE = re.compile(r"[<>|=]?([biufc?]\d{0,2}|[SUO]\d{0,9})")
"""Type strings of numbers, flags, texts and objects."""


class RefusedError(pickle.UnpicklingError):
    """A pickle asks for something other than data; the message is its name."""


class DamagedError(pickle.UnpicklingError):
    """Bytes that are no pickle, or not a whole one; the message says how it showed."""


class _DataUnpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Knows arrays and builtin containers; everything else is refused before it is even imported.

    Python's own reader, not the faster one in C, which takes a memory index of four damaged bytes for true and
    allocates gigabytes.
    """

    def find_class(self, module: str, name: str) -> Any:
        found = _data_type(module, name)
        if found is None:
            raise RefusedError(f"{module}.{name}")
        return found


class _ElementType:
    """``numpy.dtype`` as a pickle spells it: a type string, then a state of which only the byte order is taken."""

    def __init__(self, text: str) -> None:
        if not _PLAIN_TYPE.fullmatch(text):
            raise ValueError(f"array elements of type {text!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, subtype, names, fields, *_ = state
        if subtype is not None or names is not None or fields is not None:
            raise ValueError("array elements of several fields")
        self.dtype = self.dtype.newbyteorder(order)


class _PickledArray(np.ndarray):
    """An array that takes its contents from a pickle."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, element, is_fortran, contents = state
        dtype, shape = element.dtype, tuple(int(n) for n in shape)
        known = list if dtype.hasobject else bytes
        expected = math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize)
        if min(shape, default=0) < 0 or not isinstance(contents, known) or len(contents) != expected:
            raise ValueError(f"the contents do not fill an array of {shape}")
        checked: Any = (1, shape, dtype, bool(is_fortran), contents)
        super().__setstate__(checked)


def _data_type(module: str, name: str) -> Any:
    if module == "builtins" or module == "__builtin__":
        return _CONTAINERS.get(name)
    if (module, name) == ("_codecs", "encode"):
        return _latin1_bytes()
    package, _, part = module.partition(".")
    if package != "numpy":
        return None
    inner = part.removeprefix("core").removeprefix("_core").removeprefix(".")
    return _array_part(f"{inner}.{name}" if inner else name)


def _array_part(name: str) -> Any:
    """What arrays and their numbers are rebuilt with, below ``numpy``, ``numpy.core`` and ``numpy._core``.

    New functions each time: a pickle can set attributes, and change defaults, of whatever it was handed.
    """

    def dtype(text: str, *_: Any) -> _ElementType:
        return _ElementType(text)

    def empty(kind: Any, *_: Any) -> np.ndarray:
        if kind is not _ARRAY_TYPE:
            raise RefusedError(f"an array of {kind!r}")
        return np.empty(0, dtype=np.uint8).view(_PickledArray)

    def array(contents: bytes, element: _ElementType, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
        return np.frombuffer(contents, element.dtype).reshape(shape, order="F" if order == "F" else "C")

    def scalar(element: _ElementType, contents: bytes) -> Any:
        return np.frombuffer(contents, element.dtype).reshape(())[()]

    made: dict[str, Any] = {
        "ndarray": _ARRAY_TYPE,
        "dtype": dtype,
        "multiarray._reconstruct": empty,
        "multiarray.scalar": scalar,
        "numeric._frombuffer": array,
    }
    return made.get(name)


def _latin1_bytes() -> Callable[[str, str], bytes]:
    """How older pickles spell bytes; a new function each time, as above."""

    def encode(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise RefusedError(f"_codecs.encode to {encoding}")
        return text.encode("latin1")

    return encode


def read_pickled_array(file: Path) -> Any:
    """What ``numpy.save`` stored of Python objects (``.npy``); a single object comes back as itself.

    Args:
        file: as GeneFace++'s ``trainval_dataset.npy``.

    Raises:
        CheckpointError: no such file, no ``.npy``, damaged, or it holds more than data; the message names what, and
            nothing was run.
    """
    try:
        with file.open("rb") as stream:
            shape = _shape_of_objects(stream)
            values = read_pickled(stream)
        if isinstance(values, np.ndarray):
            values = np.asarray(values) if shape else _only_item(values)
    except RefusedError as error:
        raise CheckpointError(
            f"{file}: refused: besides data it asks for {error}, which could run anything; nothing in it was run. "
            "Get the file from GeneFace++'s authors, or prepare the video again"
        ) from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file; give GeneFace++'s trainval_dataset.npy") from error
    except (DamagedError, OSError) as error:
        raise CheckpointError(
            f"{file}: damaged, or not a dataset of GeneFace++ ({first_line(error)}); copy it again"
        ) from error
    return values


def _only_item(values: np.ndarray) -> Any:
    if values.size != 1:
        raise DamagedError(f"{values.size} values where the header tells of one")
    return values.item()


def _shape_of_objects(stream: io.BufferedIOBase) -> tuple[int, ...]:
    """The shape in the header before a pickle; whatever NumPy's header reader raises is damage."""
    try:
        version = npy.read_magic(stream)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    except Exception as error:
        raise DamagedError(first_line(error)) from error
    if not dtype.hasobject:
        raise DamagedError(f"it holds plain {dtype} numbers")
    return shape


def read_pickled(stream: io.BufferedIOBase) -> Any:
    """The next pickle of a stream.

    Raises:
        RefusedError: it asks for something other than data.
        DamagedError: no pickle, or the start of one; damaged bytes may raise anything while they are read.
    """
    try:
        return _DataUnpickler(stream).load()
    except RefusedError:
        raise
    except Exception as error:
        raise DamagedError(first_line(error)) from error
