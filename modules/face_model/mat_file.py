"""Numeric arrays out of MATLAB files (level 5, as ``scipy.io.savemat`` and MATLAB up to ``-v7`` write them).

SciPy's own reader trusts the bytes: a damaged file can end the whole process. This one checks every length, and knows
only what a face model's file needs: real, dense, numeric arrays.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEADER, _TAG = 128, 8
_LARGEST = 1 << 30
"""Bytes of one array, unpacked, at most."""
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1"}
"""Types of stored numbers."""
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Numeric classes of arrays; numbers may be stored as a smaller type than their array's class."""
_MATRIX, _COMPRESSED, _COMPLEX_FLAG = 14, 15, 0x0800


@dataclass(frozen=True, slots=True)
class _Element:
    """One tagged piece of a file: its type and its bytes."""

    kind: int
    content: memoryview

    def numbers(self, order: str) -> NDArray:
        """The piece as numbers in byte order ``order`` ('<' or '>')."""
        if self.kind not in _STORED:
            raise ValueError(f"an array's numbers have the unknown type {self.kind}")
        return np.frombuffer(self.content, dtype=np.dtype(order + _STORED[self.kind]))


def read_mat_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray]:
    """Arrays of the given names, in their shape; what the file holds besides is skipped.

    Raises:
        ValueError: the file is damaged, or is no MATLAB file of level 5, or an array is not real and numeric.
        KeyError: it does not hold one of the arrays; the argument is the name.
        OSError: it cannot be read.
    """
    found = dict(_arrays(np.memmap(path, np.uint8, mode="r").data, names))
    for name in names:
        if name not in found:
            raise KeyError(name)
    return found


def _arrays(view: memoryview, names: tuple[str, ...]) -> Iterator[tuple[str, NDArray]]:
    orders = {b"IM": "<", b"MI": ">"}
    if len(view) < _HEADER or bytes(view[126:128]) not in orders:
        raise ValueError("it is not a MATLAB file of level 5")
    order = orders[bytes(view[126:128])]
    for element in _elements(view[_HEADER:], order):
        matrix = element
        if element.kind == _COMPRESSED:
            matrix = next(_elements(_unpacked(element.content), order), element)
        if matrix.kind != _MATRIX:
            raise ValueError(f"it is damaged: a piece of type {matrix.kind} stands where an array should")
        parts = _elements(matrix.content, order)
        flags, shape, name = (_part(parts) for _ in range(3))
        label = bytes(name.content).decode("latin-1")
        if label in names:
            yield label, _array(label, flags.numbers(order), shape.numbers(order), _part(parts).numbers(order))


def _elements(view: memoryview, order: str) -> Iterator[_Element]:
    """The tagged pieces one after another; they begin at multiples of 8 bytes, packed ones anywhere."""
    at = 0
    while at < len(view):
        if len(view) - at < _TAG:
            raise ValueError("it is damaged: it ends in the middle of a tag")
        first, second = (int(n) for n in np.frombuffer(view[at : at + _TAG], dtype=f"{order}u4"))
        size, kind = (first >> 16, first & 0xFFFF) if first >> 16 else (second, first)
        start = at + (4 if first >> 16 else _TAG)
        if size > (4 if first >> 16 else len(view) - start):
            raise ValueError(f"it is damaged: a piece of {size} bytes does not fit")
        yield _Element(kind, view[start : start + size])
        at = at + _TAG if first >> 16 else start + size + (0 if kind == _COMPRESSED else -size % _TAG)


def _part(parts: Iterator[_Element]) -> _Element:
    """The next piece of an array."""
    part = next(parts, None)
    if part is None:
        raise ValueError("it is damaged: an array lacks a part")
    return part


def _unpacked(packed: memoryview) -> memoryview:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, _LARGEST)
    except zlib.error as error:
        raise ValueError(f"it is damaged: {error}") from error
    if not unpacker.eof:
        raise ValueError("it is damaged: a packed array is cut short, or is far too large")
    return memoryview(content)


def _array(name: str, flags: NDArray, shape: NDArray, numbers: NDArray) -> NDArray:
    """A copy of the numbers in their class and shape (stored column by column)."""
    flag = int(flags[0]) if len(flags) else 0
    kind = _CLASSES.get(flag & 0xFF)
    if kind is None or flag & _COMPLEX_FLAG:
        raise ValueError(f"{name} is not an array of real numbers")
    sizes = [int(size) for size in shape]
    if len(sizes) < 2 or min(sizes) < 0 or math.prod(sizes) != len(numbers):
        raise ValueError(f"it is damaged: {name} of shape {sizes} holds {len(numbers)} numbers")
    if numbers.dtype.itemsize > np.dtype(kind).itemsize:
        raise ValueError(f"it is damaged: the numbers of {name} are larger than its class")
    return numbers.astype(kind).reshape(sizes, order="F")
