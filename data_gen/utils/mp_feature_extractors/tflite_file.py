"""Reads a .tflite file without a runtime: its operations, and its weights as plain float32 arrays.

The ``tflite`` package gives access to the flatbuffer's tables; here half-precision and sparse weights are unpacked.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.network_graph import GraphNode, NetworkGraph
from modules.commons.errors import ModelFileError

DTYPES = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.INT64: np.int64,
}
INDEX_TYPES = {1: tflite.Int32Vector, 2: tflite.Uint16Vector, 3: tflite.Uint8Vector}
"""Members of the union that holds the indices of a sparse dimension."""
OPTIONS: dict[str, tuple[type, tuple[str, ...]]] = {
    "ADD": (tflite.AddOptions, ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": (
        tflite.Pool2DOptions,
        ("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth", "FusedActivationFunction"),
    ),
    "CONCATENATION": (tflite.ConcatenationOptions, ("Axis", "FusedActivationFunction")),
    "CONV_2D": (
        tflite.Conv2DOptions,
        ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
    ),
    "DEPTHWISE_CONV_2D": (
        tflite.DepthwiseConv2DOptions,
        ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction"),
    ),
    "DEPTH_TO_SPACE": (tflite.DepthToSpaceOptions, ("BlockSize",)),
    "DIV": (tflite.DivOptions, ("FusedActivationFunction",)),
    "FULLY_CONNECTED": (tflite.FullyConnectedOptions, ("KeepNumDims", "WeightsFormat", "FusedActivationFunction")),
    "MEAN": (tflite.ReducerOptions, ("KeepDims",)),
    "MUL": (tflite.MulOptions, ("FusedActivationFunction",)),
    "RESIZE_BILINEAR": (tflite.ResizeBilinearOptions, ("AlignCorners", "HalfPixelCenters")),
    "STRIDED_SLICE": (
        tflite.StridedSliceOptions,
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask"),
    ),
    "SUB": (tflite.SubOptions, ("FusedActivationFunction",)),
    "SUM": (tflite.ReducerOptions, ("KeepDims",)),
}
"""The table of options of each operation that has any, and the fields that matter."""
OPTIONS["MAX_POOL_2D"] = OPTIONS["AVERAGE_POOL_2D"]
CUSTOM_STRIDED = "Convolution2DTransposeBias"
"""MediaPipe's own operation: padding and strides come as three integers instead of a table."""


def read_tflite(content: bytes, source: str) -> NetworkGraph:
    """The network of a ``.tflite`` file.

    Unpacking of constants (half precision, sparse) happens here, so the graph holds dense float32 weights and the
    operations between them.

    Args:
        content: the file's bytes.
        source: where they came from, for messages.

    Raises:
        ModelFileError: the bytes are no such file, or it holds something these networks do not use.
    """
    if not tflite.Model.ModelBufferHasIdentifier(content, 0):
        raise ModelFileError(
            f"{source} is not a network: it is no .tflite file; run `bash scripts/setup.sh` to fetch it"
        )
    try:
        return _TfliteReader(content, source).read()
    except (struct.error, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ModelFileError(
            f"{source} is a damaged .tflite file ({error}); run `bash scripts/setup.sh` to fetch it anew"
        ) from error


class _TfliteReader:
    """One pass over a file; names of values are the numbers of their tensors."""

    def __init__(self, content: bytes, source: str) -> None:
        self._source = source
        self._model: Any = tflite.Model.GetRootAs(content, 0)
        if self._model.SubgraphsLength() != 1:
            raise ModelFileError(f"{source} holds {self._model.SubgraphsLength()} graphs; only one can be read")
        self._graph: Any = self._model.Subgraphs(0)
        self._constants: dict[str, NDArray] = {}

    def read(self) -> NetworkGraph:
        shapes = {str(i): self._shape(i) for i in range(self._graph.TensorsLength())}
        for index in range(self._graph.TensorsLength()):
            constant = self._constant(index)
            if constant is not None:
                self._constants[str(index)] = constant
        read = (self._node(self._graph.Operators(i)) for i in range(self._graph.OperatorsLength()))
        nodes = tuple(node for node in read if node is not None)
        if self._graph.InputsLength() != 1:
            raise ModelFileError(f"{self._source} takes {self._graph.InputsLength()} inputs; only one can be fed")
        outputs = {self._tensor(i).Name().decode(): str(i) for i in map(int, self._graph.OutputsAsNumpy())}
        return NetworkGraph(self._source, nodes, self._constants, shapes, str(int(self._graph.Inputs(0))), outputs)

    def _tensor(self, index: int) -> Any:
        return self._graph.Tensors(index)

    def _shape(self, index: int) -> tuple[int, ...]:
        tensor = self._tensor(index)
        return tuple(int(n) for n in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()

    def _constant(self, index: int) -> NDArray | None:
        """A tensor's values as float32 or integers, dense; None when it is made at run time."""
        tensor = self._tensor(index)
        buffer = self._model.Buffers(tensor.Buffer())
        if not buffer.DataLength():
            return None
        if tensor.Type() not in DTYPES:
            raise ModelFileError(f"{self._source}: weights of type {tensor.Type()} (tensor {index}) cannot be read")
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), DTYPES[tensor.Type()])
        shape = self._shape(index)
        values = values.reshape(shape) if tensor.Sparsity() is None else densified(values, shape, tensor.Sparsity())
        return values.astype(np.float32) if values.dtype == np.float16 else values

    def _node(self, operator: Any) -> GraphNode | None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        op = code.CustomCode().decode() if number == tflite.BuiltinOperator.CUSTOM else tflite.opcode2name(number)
        inputs = tuple(str(i) if i >= 0 else "" for i in map(int, operator.InputsAsNumpy()))
        outputs = tuple(str(int(i)) for i in operator.OutputsAsNumpy())
        if op in ("DEQUANTIZE", "DENSIFY") and inputs[0] in self._constants:
            self._constants[outputs[0]] = self._constants[inputs[0]]  # unpacked when it was read
            return None
        return GraphNode(op, inputs, outputs, self._options(op, operator))

    def _options(self, op: str, operator: Any) -> dict[str, Any]:
        if op == CUSTOM_STRIDED:
            padding, width, height = struct.unpack("<3i", operator.CustomOptionsAsNumpy().tobytes()[:12])
            # MediaPipe counts paddings from 1
            return {"Padding": padding - 1, "StrideW": width, "StrideH": height}
        if op not in OPTIONS or operator.BuiltinOptions() is None:
            return {}
        kind, fields = OPTIONS[op]
        table = kind()
        table.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
        return {name: getattr(table, name)() for name in fields}


def densified(values: NDArray, shape: tuple[int, ...], sparsity: Any) -> NDArray:
    """Dense array ``shape`` of a sparse tensor's stored ``values`` ``[N]``.

    The stored order walks the dimensions as ``TraversalOrder`` lists them, blocks last. Each is either dense (all its
    places are there) or compressed (its segments say which places are). Level by level, every stored entry so far is
    spread over the places below it.
    """
    order = [int(d) for d in sparsity.TraversalOrderAsNumpy()]
    rank = len(shape)
    block_of = {rank + i: int(sparsity.BlockMap(i)) for i in range(sparsity.BlockMapLength())}
    size_of_block = {block_of[d]: _dense_size(sparsity, level) for level, d in enumerate(order) if d >= rank}
    entry = np.zeros(1, np.int64)
    places: dict[int, NDArray[np.int64]] = {}
    for level, dimension in enumerate(order):
        entry, spread, place = _spread(entry, sparsity.DimMetadata(level))
        places = {known: at[spread] for known, at in places.items()} | {dimension: place}
    indices = []
    for dimension in range(rank):
        at = places[dimension]
        for block, target in block_of.items():
            if target == dimension:
                at = at * size_of_block[dimension] + places[block]
        indices.append(at)
    dense = np.zeros(shape, values.dtype)
    dense[tuple(indices)] = values[: len(entry)]
    return dense


def _dense_size(sparsity: Any, level: int) -> int:
    return int(sparsity.DimMetadata(level).DenseSize())


def _spread(entry: NDArray[np.int64], level: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """One level further down: number of each entry there, the entry above it, and its place along the dimension."""
    if level.Format() == tflite.DimensionType.DENSE:
        size = int(level.DenseSize())
        place = np.tile(np.arange(size), len(entry))
        spread = np.repeat(np.arange(len(entry)), size)
        return entry[spread] * size + place, spread, place
    segments = _index_array(level.ArraySegments(), level.ArraySegmentsType())
    indices = _index_array(level.ArrayIndices(), level.ArrayIndicesType())
    counts = segments[entry + 1] - segments[entry]
    spread = np.repeat(np.arange(len(entry)), counts)
    within = np.arange(math.prod(spread.shape)) - np.repeat(np.cumsum(counts) - counts, counts)
    number = segments[entry][spread] + within
    return number, spread, indices[number]


def _index_array(table: Any, kind: int) -> NDArray[np.int64]:
    vector: Any = INDEX_TYPES[kind]()
    vector.Init(table.Bytes, table.Pos)
    return vector.ValuesAsNumpy().astype(np.int64)
