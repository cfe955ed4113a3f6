"""ONNX's operations in torch, as far as CenterFace uses them; pictures are ``[B, C, H, W]`` inside, of any size."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from data_gen.utils.mp_feature_extractors.network_graph import GraphNode, NetworkGraph
from data_gen.utils.mp_feature_extractors.network_steps import NetworkSteps, OpBuilder, StepBuilder, one_call
from modules.commons.errors import ModelFileError


def _conv(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    top, left, bottom, right = node.options["pads"]
    if (top, left) != (bottom, right):
        raise ModelFileError(f"{graph.source}: a convolution with uneven padding cannot be read")
    settings = {"stride": node.options["strides"], "padding": (top, left), "groups": node.options["group"]}
    name = build.weight(build.constant(node.inputs[1]))
    bias = node.optional_input(2)
    if set(node.options["dilations"]) != {1}:
        raise ModelFileError(f"{graph.source}: a dilated convolution cannot be read")
    function = functional.conv2d if node.op == "Conv" else functional.conv_transpose2d
    build.add(partial(function, **settings), (node.inputs[0], name, bias), node.outputs[0])


def normalised(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, *, eps: float) -> Tensor:
    """By means and variances that were learned."""
    return functional.batch_norm(x, mean, variance, scale, shift, training=False, eps=eps)


def _batch_norm(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
    del graph
    build.add(partial(normalised, eps=node.options["epsilon"]), node.inputs, node.outputs[0])


OPS: dict[str, OpBuilder] = {
    "Add": one_call(torch.add),
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Relu": one_call(functional.relu),
    "Sigmoid": one_call(torch.sigmoid),
}


def onnx_steps(graph: NetworkGraph) -> NetworkSteps:
    """The torch functions that an ``.onnx`` network is made of; its input is ``[B, H, W, 3]``, its outputs are its own.

    Raises:
        ModelFileError: it uses an operation that is not known here.
    """
    build = StepBuilder(graph)
    channels_first = f"{graph.input}/channels_first"
    # a view: what torch sees is its channels-last layout
    build.add(partial(torch.permute, dims=(0, 3, 1, 2)), (graph.input,), channels_first)
    for node in graph.nodes:
        if node.op not in OPS:
            raise ModelFileError(f"{graph.source} uses the operation {node.op}, which cannot be run in torch")
        inputs = tuple(channels_first if name == graph.input else name for name in node.inputs)
        OPS[node.op](GraphNode(node.op, inputs, node.outputs, node.options), graph, build)
    return build.finish()
