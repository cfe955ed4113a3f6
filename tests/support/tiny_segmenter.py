"""A ``.tflite`` network with the inputs and outputs of the multiclass selfie segmentation: it goes by colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import flatbuffers
import numpy as np
import tflite
from numpy.typing import NDArray

from modules.structures.segmentation import SelfieClass

COLOURS: dict[SelfieClass, tuple[int, int, int]] = {
    SelfieClass.BACKGROUND: (30, 60, 200),
    SelfieClass.HAIR: (45, 30, 25),
    SelfieClass.BODY_SKIN: (150, 90, 60),
    SelfieClass.FACE_SKIN: (225, 170, 145),
    SelfieClass.CLOTHES: (30, 150, 60),
    SelfieClass.OTHERS: (235, 230, 40),
}
"""What the network takes for the middle of each class."""
SHARPNESS = 30.0
SIDE = 256


def write_segmenter(path: Path, classes: int = len(SelfieClass)) -> Path:
    """Write a network ``[1, 256, 256, 3]`` (0..1) to logits ``[1, 256, 256, classes]``: the nearest colour wins.

    Squared distances differ by a linear function of the colour, which one 1 × 1 convolution is.
    """
    centres = np.array([COLOURS[kind] for kind in SelfieClass][:classes], np.float32) / 255
    weight = (2 * SHARPNESS * centres).reshape(classes, 1, 1, 3).astype(np.float32)
    bias = (-SHARPNESS * (centres**2).sum(axis=1)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_convolution(weight, bias))
    return path


def _convolution(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> bytes:
    builder = flatbuffers.Builder(1024)
    count = len(bias)
    buffers = [_buffer(builder, values) for values in (None, weight, bias)]
    tensors = [
        _tensor(builder, name, shape, buffer)
        for name, shape, buffer in (
            ("input_29", (1, SIDE, SIDE, 3), 0),
            ("weight", weight.shape, 1),
            ("bias", bias.shape, 2),
            ("Identity", (1, SIDE, SIDE, count), 0),
        )
    ]
    operator = _operator(builder)
    listed = _table_vector(builder, tflite.SubGraphStartTensorsVector, tensors)
    operators = _table_vector(builder, tflite.SubGraphStartOperatorsVector, [operator])
    inputs, outputs = (
        builder.CreateNumpyVector(np.array([0], np.int32)),
        builder.CreateNumpyVector(np.array([3], np.int32)),
    )
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, listed)
    tflite.SubGraphAddInputs(builder, inputs)
    tflite.SubGraphAddOutputs(builder, outputs)
    tflite.SubGraphAddOperators(builder, operators)
    graph = tflite.SubGraphEnd(builder)
    tflite.OperatorCodeStart(builder)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, tflite.BuiltinOperator.CONV_2D)
    tflite.OperatorCodeAddBuiltinCode(builder, tflite.BuiltinOperator.CONV_2D)
    tflite.OperatorCodeAddVersion(builder, 1)
    code = tflite.OperatorCodeEnd(builder)
    codes = _table_vector(builder, tflite.ModelStartOperatorCodesVector, [code])
    graphs = _table_vector(builder, tflite.ModelStartSubgraphsVector, [graph])
    kept = _table_vector(builder, tflite.ModelStartBuffersVector, buffers)
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddOperatorCodes(builder, codes)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, kept)
    builder.Finish(tflite.ModelEnd(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _buffer(builder: flatbuffers.Builder, values: NDArray[np.float32] | None) -> int:
    data = None if values is None else builder.CreateByteVector(values.tobytes())
    tflite.BufferStart(builder)
    if data is not None:
        tflite.BufferAddData(builder, data)
    return tflite.BufferEnd(builder)


def _tensor(builder: flatbuffers.Builder, name: str, shape: Sequence[int], buffer: int) -> int:
    called, sides = builder.CreateString(name), builder.CreateNumpyVector(np.array(shape, np.int32))
    tflite.TensorStart(builder)
    tflite.TensorAddShape(builder, sides)
    tflite.TensorAddType(builder, tflite.TensorType.FLOAT32)
    tflite.TensorAddBuffer(builder, buffer)
    tflite.TensorAddName(builder, called)
    return tflite.TensorEnd(builder)


def _operator(builder: flatbuffers.Builder) -> int:
    tflite.Conv2DOptionsStart(builder)
    tflite.Conv2DOptionsAddPadding(builder, tflite.Padding.SAME)
    for add in (
        tflite.Conv2DOptionsAddStrideW,
        tflite.Conv2DOptionsAddStrideH,
        tflite.Conv2DOptionsAddDilationWFactor,
        tflite.Conv2DOptionsAddDilationHFactor,
    ):
        add(builder, 1)
    options = tflite.Conv2DOptionsEnd(builder)
    inputs, outputs = (
        builder.CreateNumpyVector(np.array([0, 1, 2], np.int32)),
        builder.CreateNumpyVector(np.array([3], np.int32)),
    )
    tflite.OperatorStart(builder)
    tflite.OperatorAddOpcodeIndex(builder, 0)
    tflite.OperatorAddInputs(builder, inputs)
    tflite.OperatorAddOutputs(builder, outputs)
    tflite.OperatorAddBuiltinOptionsType(builder, tflite.BuiltinOptions.Conv2DOptions)
    tflite.OperatorAddBuiltinOptions(builder, options)
    return tflite.OperatorEnd(builder)


def _table_vector(builder: flatbuffers.Builder, start, tables: Sequence[int]) -> int:
    start(builder, len(tables))
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return builder.EndVector()
