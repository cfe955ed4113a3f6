"""TensorFlow Lite's operations in torch, as far as MediaPipe's networks use them.

Pictures stay ``[B, H, W, C]`` throughout, as in the file. Seen by torch with its axes swapped that is its channels-last
layout, so convolutions need no copies. The file's sizes are for a batch of one; any batch is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_gen.utils.mp_feature_extractors.network_graph import GraphNode, NetworkGraph
from data_gen.utils.mp_feature_extractors.network_steps import (
    Function,
    NetworkSteps,
    OpBuilder,
    Step,
    StepBuilder,
    one_call,
)
from modules.commons.errors import ModelFileError

SAME = 0
"""The file's number for padding that keeps the size; the other, 1, does not pad."""
ACTIVATIONS: dict[int, Callable[[Tensor], Tensor]] = {
    0: lambda x: x,
    1: functional.relu,
    3: functional.relu6,
}
"""By the file's numbers: none, ReLU, ReLU6."""


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis so that it yields ``ceil(size / stride)`` places; an odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def _stride(node: GraphNode) -> tuple[int, int]:
    """Height, width."""
    return node.options["StrideH"], node.options["StrideW"]


def _dilation(node: GraphNode) -> tuple[int, int]:
    """Height, width."""
    return node.options["DilationHFactor"], node.options["DilationWFactor"]


def _padding(
    node: GraphNode, size_hw: tuple[int, ...], window_hw: tuple[int, ...], dilation_hw: tuple[int, int] = (1, 1)
) -> tuple[int, int, int, int]:
    """Left, right, top, bottom."""
    if node.options["Padding"] != SAME:
        return 0, 0, 0, 0
    vertical, horizontal = (
        same_padding(size, (window - 1) * dilation + 1, stride)
        for size, window, dilation, stride in zip(size_hw, window_hw, dilation_hw, _stride(node), strict=True)
    )
    return *horizontal, *vertical


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    padding: tuple[int, int, int, int],
    activation: int,
) -> Tensor:
    """Convolution of ``[B, H, W, C]`` with ``[O, C / groups, h, w]``."""
    image = x.permute(0, 3, 1, 2)
    left, right, top, bottom = padding
    inner = (top, left)
    if left != right or top != bottom:
        image, inner = functional.pad(image, padding), (0, 0)
    out = functional.conv2d(image, weight, bias, stride, inner, dilation, groups)
    return ACTIVATIONS[activation](out).permute(0, 2, 3, 1)


def mix_channels(x: Tensor, weight: Tensor, bias: Tensor | None, *, activation: int) -> Tensor:
    """A 1×1 convolution or fully connected layer: ``[..., C]`` with ``[O, C]``."""
    return ACTIVATIONS[activation](functional.linear(x, weight, bias))


def mix_tiles(x: Tensor, weight: Tensor, bias: Tensor | None, *, tile: tuple[int, int], activation: int) -> Tensor:
    """A convolution whose windows lie side by side: ``[B, H, W, C]`` with ``[O, h · w · C]``."""
    batch, height, width, channels = x.shape
    rows, columns = height // tile[0], width // tile[1]
    whole = x[:, : rows * tile[0], : columns * tile[1]]
    split = whole.reshape(batch, rows, tile[0], columns, tile[1], channels)
    return mix_channels(split.transpose(2, 3).flatten(3), weight, bias, activation=activation)


def _conv_2d(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    weight = build.constant(node.inputs[1])  # [O, h, w, C]
    bias = node.optional_input(2)
    size_hw, window = graph.shapes[node.inputs[0]][1:3], weight.shape[1:3]
    stride, dilation, activation = _stride(node), _dilation(node), _activation(node)
    padding = _padding(node, size_hw, window, dilation)
    # as a matrix product it is one launch with its bias, and needs no copies
    tiles = dilation == (1, 1) and not any(padding) and window in (stride, size_hw)
    name = build.weight(weight.reshape(len(weight), -1) if tiles else weight.transpose(0, 3, 1, 2))
    if tiles and window == (1, 1):
        function: Function = partial(mix_channels, activation=activation)
    elif tiles:
        function = partial(mix_tiles, tile=window, activation=activation)
    else:
        function = partial(convolve, stride=stride, dilation=dilation, groups=1, padding=padding, activation=activation)
    build.add(function, (node.inputs[0], name, bias), node.outputs[0])


def _depthwise(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    weight = build.constant(node.inputs[1])  # [1, h, w, C · multiplier]
    bias = node.optional_input(2)
    shape, dilation = graph.shapes[node.inputs[0]], _dilation(node)
    settings = partial(
        convolve,
        stride=_stride(node),
        dilation=dilation,
        groups=shape[3],
        padding=_padding(node, shape[1:3], weight.shape[1:3], dilation),
        activation=_activation(node),
    )
    build.add(settings, (node.inputs[0], build.weight(weight.transpose(3, 0, 1, 2)), bias), node.outputs[0])


def _transposed(x: Tensor, weight: Tensor, bias: Tensor, *, stride: tuple[int, int]) -> Tensor:
    return functional.conv_transpose2d(x.permute(0, 3, 1, 2), weight, bias, stride).permute(0, 2, 3, 1)


def _transpose_conv_bias(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    weight = build.constant(node.inputs[1])  # [O, h, w, C]
    stride = _stride(node)
    if weight.shape[1:3] != stride:
        raise ModelFileError(f"{graph.source}: a transposed convolution whose windows overlap cannot be read")
    name = build.weight(weight.transpose(3, 0, 1, 2))
    build.add(partial(_transposed, stride=stride), (node.inputs[0], name, node.inputs[2]), node.outputs[0])


def _fully_connected(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    if node.options["WeightsFormat"] != 0:
        raise ModelFileError(f"{graph.source}: shuffled weights of a fully connected layer cannot be read")
    build.add(partial(mix_channels, activation=_activation(node)), node.inputs, node.outputs[0])


def max_pool(x: Tensor, *, window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...]) -> Tensor:
    """Greatest of each window of ``[B, H, W, C]``; what is padded never counts."""
    image = x.permute(0, 3, 1, 2)
    if any(padding):
        image = functional.pad(image, padding, value=float("-inf"))
    return functional.max_pool2d(image, window, stride).permute(0, 2, 3, 1)


def _pool(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    options, size_hw = node.options, graph.shapes[node.inputs[0]][1:3]
    window = options["FilterHeight"], options["FilterWidth"]
    stride, padding = _stride(node), _padding(node, size_hw, window)
    if node.op == "MAX_POOL_2D":
        function: Function = partial(max_pool, window=window, stride=stride, padding=padding)
    elif window == size_hw:
        function = partial(torch.mean, dim=(1, 2), keepdim=True)
    else:
        raise ModelFileError(f"{graph.source}: averages over less than the whole picture cannot be read")
    build.add(function, node.inputs[:1], node.outputs[0])


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """``[B, H, W, C]``; negative values times ``alpha`` ``[C]``."""
    return functional.prelu(x.movedim(-1, 1), alpha).movedim(1, -1)


def _prelu(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    alpha = build.constant(node.inputs[1])
    if alpha.size != graph.shapes[node.inputs[0]][-1]:
        raise ModelFileError(f"{graph.source}: slopes that differ from place to place cannot be read")
    build.add(prelu, (node.inputs[0], build.weight(alpha.reshape(-1))), node.outputs[0])


def _pad(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    amounts = build.constant(node.inputs[1])
    if amounts[0].any():
        raise ModelFileError(f"{graph.source}: the batch cannot be padded")
    flat = [int(n) for n in amounts[:0:-1].ravel()]
    build.add(partial(functional.pad, pad=flat), node.inputs[:1], node.outputs[0])


def resize(x: Tensor, *, size_hw: tuple[int, int], align_corners: bool) -> Tensor:
    """Bilinear; centres of pixels at their middles, or the corners' centres kept where ``align_corners`` says so."""
    image = x.permute(0, 3, 1, 2)
    out = functional.interpolate(image, size_hw, mode="bilinear", align_corners=align_corners)
    return out.permute(0, 2, 3, 1)


def _resize(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    height, width = (int(n) for n in build.constant(node.inputs[1]))
    corners = bool(node.options["AlignCorners"])
    if corners == bool(node.options["HalfPixelCenters"]):
        raise ModelFileError(f"{graph.source}: resizing by corners of pixels, TensorFlow's oldest rule, cannot be read")
    build.add(partial(resize, size_hw=(height, width), align_corners=corners), node.inputs[:1], node.outputs[0])


def depth_to_space(x: Tensor, *, block: int) -> Tensor:
    """``[B, H, W, block² C]`` to ``[B, block H, block W, C]``."""
    batch, height, width, channels = x.shape
    split = x.reshape(batch, height, width, block, block, channels // block**2)
    return split.permute(0, 1, 3, 2, 4, 5).reshape(batch, height * block, width * block, -1)


def _depth_to_space(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    del graph
    build.add(partial(depth_to_space, block=node.options["BlockSize"]), node.inputs, node.outputs[0])


def _reshape(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    shape = graph.shapes[node.outputs[0]]
    if shape[0] != 1:
        raise ModelFileError(f"{graph.source}: a reshape that mixes the batch cannot be read")
    build.add(partial(torch.Tensor.reshape, shape=(-1, *shape[1:])), node.inputs[:1], node.outputs[0])


def _transpose(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    order = tuple(int(n) for n in build.constant(node.inputs[1]))
    if order[0] != 0:
        raise ModelFileError(f"{graph.source}: a transpose that moves the batch cannot be read")
    build.add(partial(torch.permute, dims=order), node.inputs[:1], node.outputs[0])


def joined(*parts: Tensor, axis: int) -> Tensor:
    """Along an axis; what is the same for every member of the batch comes once."""
    batch = max(len(part) for part in parts)
    return torch.cat([part.expand(batch, *part.shape[1:]) for part in parts], axis)


def _concatenate(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    axis = node.options["Axis"] % len(graph.shapes[node.outputs[0]])
    if axis == 0 or _activation(node) != 0:
        raise ModelFileError(f"{graph.source}: joining along the batch, or with an activation, cannot be read")
    build.add(partial(joined, axis=axis), node.inputs, node.outputs[0])


def cut(x: Tensor, *, parts: tuple[slice | int, ...]) -> Tensor:
    """A part of ``x``, all of its batch."""
    return x[parts]


def _strided_slice(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    begin, end, step = (build.constant(name) for name in node.inputs[1:])
    masks = {name: int(node.options[name]) for name in ("BeginMask", "EndMask", "ShrinkAxisMask")}
    if node.options["EllipsisMask"] or node.options["NewAxisMask"] or (step < 1).any():
        raise ModelFileError(f"{graph.source}: slices backwards or with new axes cannot be read")
    parts: list[slice | int] = [slice(None)]  # the batch stays, whatever a batch of one would do
    for axis in range(1, len(begin)):
        bit = 1 << axis
        if masks["ShrinkAxisMask"] & bit:
            parts.append(int(begin[axis]))
            continue
        first = None if masks["BeginMask"] & bit else int(begin[axis])
        stop = None if masks["EndMask"] & bit else int(end[axis])
        parts.append(slice(first, stop, int(step[axis])))
    build.add(partial(cut, parts=tuple(parts)), node.inputs[:1], node.outputs[0])


def _reduce(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    rank = len(graph.shapes[node.inputs[0]])
    axes = tuple(int(n) % rank for n in np.atleast_1d(build.constant(node.inputs[1])))
    if 0 in axes:
        raise ModelFileError(f"{graph.source}: sums over the batch cannot be read")
    function: Any = torch.mean if node.op == "MEAN" else torch.sum
    build.add(partial(function, dim=axes, keepdim=bool(node.options["KeepDims"])), node.inputs[:1], node.outputs[0])


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> OpBuilder:
    def build_step(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
        del graph
        act = ACTIVATIONS[_activation(node)] if node.options else ACTIVATIONS[0]
        build.add(lambda a, b: act(function(a, b)), node.inputs, node.outputs[0])

    return build_step


def _activation(node: GraphNode) -> int:
    number = int(node.options["FusedActivationFunction"])
    if number not in ACTIVATIONS:
        raise ModelFileError(f"operation {node.op} with activation number {number} cannot be read")
    return number


OPS: dict[str, OpBuilder] = {
    "ADD": _binary(torch.add),
    "AVERAGE_POOL_2D": _pool,
    "CONCATENATION": _concatenate,
    "CONV_2D": _conv_2d,
    "Convolution2DTransposeBias": _transpose_conv_bias,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _depth_to_space,
    "DIV": _binary(torch.div),
    "FULLY_CONNECTED": _fully_connected,
    "HARD_SWISH": one_call(functional.hardswish),
    "LOGISTIC": one_call(torch.sigmoid),
    "MAX_POOL_2D": _pool,
    "MEAN": _reduce,
    "MUL": _binary(torch.mul),
    "NEG": one_call(torch.neg),
    "PAD": _pad,
    "PRELU": _prelu,
    "RELU": one_call(functional.relu),
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "RSQRT": one_call(torch.rsqrt),
    "SQRT": one_call(torch.sqrt),
    "SQUARED_DIFFERENCE": _binary(lambda a, b: torch.square(a - b)),
    "STRIDED_SLICE": _strided_slice,
    "SUB": _binary(torch.sub),
    "SUM": _reduce,
    "TRANSPOSE": _transpose,
}


def tflite_steps(graph: NetworkGraph) -> NetworkSteps:
    """The torch functions that a ``.tflite`` network is made of.

    Raises:
        ModelFileError: it uses an operation, or a variant of one, that is not known here.
    """
    build = StepBuilder(graph)
    for node in graph.nodes:
        if node.op not in OPS:
            raise ModelFileError(
                f"{graph.source} uses the operation {node.op}, which cannot be run in torch; use extractor litert"
            )
        OPS[node.op](node, graph, build)
    return folded_biases(build.finish())


def folded_biases(network: NetworkSteps) -> NetworkSteps:
    """The network without the biases of depthwise convolutions that only a 1×1 convolution reads.

    They go into the latter's bias, which costs nothing there; a GPU adds a convolution's own in a launch by itself.
    """
    uses = Counter(name for step in network.steps for name in step.arguments)
    uses.update(network.outputs.values())
    makers = {step.output: step for step in network.steps}
    weights, changed = dict(network.weights), dict(makers)
    for step in network.steps:
        before = makers.get(step.arguments[0])
        if before is None or uses[before.output] > 1 or not _is_plain_depthwise(before) or not _mixes(step):
            continue
        image, spread, spread_bias = before.arguments
        source, mix, mix_bias = step.arguments
        total = weights[mix].astype(np.float64) @ weights[spread_bias] + (weights[mix_bias] if mix_bias else 0.0)
        name = f"folded_{len(weights)}"
        weights[name] = total.astype(np.float32)
        changed[before.output] = replace(before, arguments=(image, spread, ""))
        changed[step.output] = replace(step, arguments=(source, mix, name))
    steps = tuple(changed[step.output] for step in network.steps)
    used = {name for step in steps for name in step.arguments}
    return replace(network, steps=steps, weights={name: weights[name] for name in weights if name in used})


def _is_plain_depthwise(step: Step) -> bool:
    function = step.function
    if not isinstance(function, partial) or function.func is not convolve or not step.arguments[2]:
        return False
    return function.keywords["groups"] > 1 and function.keywords["activation"] == 0


def _mixes(step: Step) -> bool:
    return isinstance(step.function, partial) and step.function.func is mix_channels
