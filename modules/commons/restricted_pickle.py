"""Pickled data read without running anything in it: arrays, numbers, text and the containers around them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy._core import multiarray, numeric
from numpy.lib import format as npy

from modules.commons.errors import CheckpointError, first_line

_ARRAY_PARTS: dict[str, Any] = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "multiarray._reconstruct": getattr(multiarray, "_reconstruct"),  # noqa: B009
    "multiarray.scalar": multiarray.scalar,
}
"""What arrays and their numbers are rebuilt with, below ``numpy``, ``numpy.core`` and ``numpy._core``.

All of it is C, on which a pickle cannot set attributes; Python functions are handed out as new ones (see below).
"""
_CONTAINERS = {kind.__name__: kind for kind in (set, frozenset, complex, bytearray)}
_DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError,
    UnicodeDecodeError, OverflowError, MemoryError, RecursionError, OSError, SyntaxError, TokenError,
)  # fmt: skip
"""What bytes that are no pickle, or only the start of one, raise; the last two come out of NumPy's header."""


class RefusedError(pickle.UnpicklingError):
    """A pickle asks for something other than data; the message is its name."""


class _DataUnpickler(pickle.Unpickler):
    """Knows arrays and builtin containers; everything else is refused before it is even imported."""

    def find_class(self, module: str, name: str) -> Any:
        found = _data_type(module, name)
        if found is None:
            raise RefusedError(f"{module}.{name}")
        return found


def _data_type(module: str, name: str) -> Any:
    if module == "builtins" or module == "__builtin__":
        return _CONTAINERS.get(name)
    if (module, name) == ("_codecs", "encode"):
        return _latin1_bytes()
    package, _, part = module.partition(".")
    if package != "numpy":
        return None
    inner = part.removeprefix("core").removeprefix("_core").removeprefix(".")
    if (inner, name) == ("numeric", "_frombuffer"):
        return _array_of_bytes()
    return _ARRAY_PARTS.get(f"{inner}.{name}" if inner else name)


def _latin1_bytes() -> Callable[[str, str], bytes]:
    """How older pickles spell bytes; a new function each time, so that no pickle can leave anything on it."""

    def encode(text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise RefusedError(f"_codecs.encode to {encoding}")
        return text.encode("latin1")

    return encode


def _array_of_bytes() -> Callable[..., Any]:
    """How newer pickles spell arrays: NumPy's own function, whose defaults a pickle could change for everybody."""
    rebuild = getattr(numeric, "_frombuffer")  # noqa: B009

    def array(*arguments: Any) -> Any:
        return rebuild(*arguments)

    return array


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
            version = npy.read_magic(stream)
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read_header(stream)
            if not dtype.hasobject:
                raise ValueError(f"it holds plain {dtype} numbers")
            values = read_pickled(stream)
    except RefusedError as error:
        raise CheckpointError(
            f"{file}: refused: besides data it asks for {error}, which could run anything; nothing in it was run. "
            "Get the file from GeneFace++'s authors, or prepare the video again"
        ) from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file; give GeneFace++'s trainval_dataset.npy") from error
    except _DAMAGE as error:
        raise CheckpointError(
            f"{file}: damaged, or not a dataset of GeneFace++ ({first_line(error)}); copy it again"
        ) from error
    return values.item() if shape == () and isinstance(values, np.ndarray) else values


def read_pickled(stream: io.BufferedIOBase) -> Any:
    """The next pickle of a stream.

    Raises:
        RefusedError: it asks for something other than data.
        Exception: whatever ``pickle`` raises where bytes are damaged.
    """
    return _DataUnpickler(stream).load()
