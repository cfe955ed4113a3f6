"""Reads an .onnx file: its operations and float weights.

Such a file is five kinds of protobuf message, and protobuf is a list of (number, value) pairs; reading just that needs
no package. The numbers are those of ONNX's onnx.proto, which never change their meaning.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.network_graph import GraphNode, NetworkGraph
from modules.commons.errors import ModelFileError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Protobuf's ways to write a value."""
DTYPES = {1: np.float32, 7: np.int64}
"""ONNX's numbers of the types of tensors that are read."""

Message = dict[int, list[Any]]


def read_onnx(path: Path) -> NetworkGraph:
    """The network of an ``.onnx`` file.

    Raises:
        ModelFileError: the file is missing, damaged, or holds weights of a type that is not read.
    """
    if not path.is_file():
        raise ModelFileError(f"model file {path} is missing; run `bash scripts/setup.sh` to fetch the model files")
    try:
        graph = _message(_message(path.read_bytes())[7][0])
        constants = dict(_tensor(data, path) for data in graph.get(5, []))
        nodes = tuple(_node(_message(data), number) for number, data in enumerate(graph[1]))
        inputs = [name for name in map(_name, graph[11]) if name not in constants]
        outputs = {name: name for name in map(_name, graph[12])}
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise ModelFileError(f"{path} is not an ONNX network ({error}); run `bash scripts/setup.sh`") from error
    if len(inputs) != 1:
        raise ModelFileError(f"{path} takes {len(inputs)} inputs; only one can be fed")
    return NetworkGraph(str(path), nodes, constants, {inputs[0]: (1, -1, -1, 3)}, inputs[0], outputs)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The (number, value) pairs of a message; values are integers or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
        elif kind == BYTES:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"value of unknown kind {kind}")
        if at > len(data):
            raise ValueError("it ends too early")
        yield number, value


def _message(data: bytes) -> Message:
    """The values of a message by number."""
    found: Message = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer written seven bits at a time, and where the next value begins."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _integers(values: list[Any]) -> tuple[int, ...]:
    """A repeated integer, one by one or packed into bytes."""
    found: list[int] = []
    for value in values:
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(number)
    return tuple(found)


def _name(data: bytes) -> str:
    return _message(data)[1][0].decode()


def _tensor(data: bytes, path: Path) -> tuple[str, NDArray]:
    fields = _message(data)
    name, kind = fields[8][0].decode(), fields[2][0]
    if kind not in DTYPES:
        raise ModelFileError(f"{path}: weights {name} of type {kind} cannot be read")
    raw = fields[9][0] if 9 in fields else b"".join(fields.get(4 if kind == 1 else 7, []))
    return name, np.frombuffer(raw, DTYPES[kind]).reshape(_integers(fields.get(1, [])))


def _node(fields: Message, number: int) -> GraphNode:
    names = [tuple(name.decode() for name in fields.get(part, [])) for part in (1, 2)]
    if not names[1]:
        raise ValueError(f"operation {number} makes nothing")
    options = dict(_attribute(_message(data)) for data in fields.get(5, []))
    return GraphNode(fields[4][0].decode(), names[0], names[1], options)


def _attribute(fields: Message) -> tuple[str, Any]:
    """Name and value: a float (2), an integer (3) or integers (8)."""
    name = fields[1][0].decode()
    if 2 in fields:
        return name, struct.unpack("<f", fields[2][0])[0]
    if 3 in fields:
        return name, fields[3][0]
    return name, _integers(fields.get(8, []))
