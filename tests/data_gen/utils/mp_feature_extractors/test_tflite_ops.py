"""TensorFlow Lite's rules, by small examples worked out by hand or in another way."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from data_gen.utils.mp_feature_extractors.network_graph import GraphNode, NetworkGraph
from data_gen.utils.mp_feature_extractors.tflite_ops import (
    convolve,
    depth_to_space,
    folded_biases,
    mix_tiles,
    prelu,
    resize,
    same_padding,
    tflite_steps,
)
from data_gen.utils.mp_feature_extractors.torch_network import TorchNetwork
from modules.commons.errors import ModelFileError

CPU = torch.device("cpu")
CONV = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1, "FusedActivationFunction": 0}


def graph_of(*nodes, constants=None, shapes=None, outputs=("out",)):
    return NetworkGraph(
        "here", nodes, constants or {}, {"in": (1, 4, 4, 2), **(shapes or {})}, "in", {o: o for o in outputs}
    )


@pytest.mark.parametrize(
    ("size", "window", "stride", "expected"),
    [
        (4, 3, 2, (0, 1)),
        (5, 3, 2, (1, 1)),
        (4, 3, 1, (1, 1)),
        (192, 5, 2, (1, 2)),
        (7, 2, 2, (0, 1)),
        (8, 2, 2, (0, 0)),
    ],
)
def test_an_odd_zero_goes_after(size, window, stride, expected):
    assert same_padding(size, window, stride) == expected


def test_a_strided_convolution_looks_ahead_where_padding_is_uneven():
    x = torch.arange(16.0).reshape(1, 4, 4, 1)
    middle = torch.zeros(1, 1, 3, 3)
    middle[0, 0, 0, 0] = 1
    out = convolve(x, middle, None, stride=(2, 2), dilation=(1, 1), groups=1, padding=(0, 1, 0, 1), activation=0)
    assert out[0, :, :, 0].tolist() == [[0, 2], [8, 10]]


def test_windows_side_by_side_are_a_matrix_product():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 7, 4, generator=generator)
    weight, bias = torch.randn(6, 2, 2, 4, generator=generator), torch.randn(6, generator=generator)
    expected = functional.conv2d(x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2), bias, 2).permute(0, 2, 3, 1)
    found = mix_tiles(x, weight.flatten(1), bias, tile=(2, 2), activation=0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_depth_becomes_space_row_by_row():
    x = torch.arange(8.0).reshape(1, 1, 1, 8)
    out = depth_to_space(x, block=2)
    assert out.shape == (1, 2, 2, 2)
    assert out.flatten().tolist() == list(range(8))


def test_resizing_counts_from_the_middles_of_pixels():
    x = torch.tensor([0.0, 4.0]).reshape(1, 1, 2, 1)
    out = resize(x, size_hw=(1, 4), align_corners=False)
    assert out.flatten().tolist() == [0, 1, 3, 4]


def test_slopes_belong_to_channels():
    x = torch.tensor([-2.0, -2.0, 3.0, 3.0]).reshape(1, 1, 2, 2)
    assert prelu(x, torch.tensor([0.5, 0.25])).flatten().tolist() == [-1, -0.5, 3, 3]


def test_an_unknown_operation_is_named():
    graph = graph_of(GraphNode("CUMSUM", ("in",), ("out",), {}))
    with pytest.raises(ModelFileError, match="here uses the operation CUMSUM, which cannot be run in torch"):
        tflite_steps(graph)


def test_an_unknown_activation_is_named():
    graph = graph_of(GraphNode("ADD", ("in", "in"), ("out",), {"FusedActivationFunction": 4}))
    with pytest.raises(ModelFileError, match="ADD with activation number 4"):
        tflite_steps(graph)


def depthwise_then_mix(outputs=("out",)):
    generator = np.random.default_rng(0)
    shapes = {"spread": (1, 3, 3, 2), "spread_bias": (2,), "mix": (5, 1, 1, 2), "mix_bias": (5,)}
    constants = {
        name: generator.standard_normal((1, *s[1:]) if name == "spread" else s).astype(np.float32)
        for name, s in shapes.items()
    }
    return graph_of(
        GraphNode("DEPTHWISE_CONV_2D", ("in", "spread", "spread_bias"), ("wide",), {**CONV, "Padding": 0}),
        GraphNode("CONV_2D", ("wide", "mix", "mix_bias"), ("out",), {**CONV, "Padding": 1}),
        constants=constants,
        shapes={"wide": (1, 4, 4, 2), "out": (1, 4, 4, 5)},
        outputs=outputs,
    )  # fmt: skip


def test_a_bias_that_moves_on_changes_nothing():
    graph = depthwise_then_mix()
    x = np.random.default_rng(1).standard_normal((2, 4, 4, 2)).astype(np.float32)
    steps = tflite_steps(graph)
    assert next(step.arguments[2] for step in steps.steps) == "", "the depthwise convolution has lost its bias"
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    c = {name: torch.from_numpy(values) for name, values in graph.constants.items()}
    wide = functional.conv2d(image, c["spread"].permute(3, 0, 1, 2), c["spread_bias"], padding=1, groups=2)
    expected = functional.conv2d(wide, c["mix"].permute(0, 3, 1, 2), c["mix_bias"]).permute(0, 2, 3, 1)
    np.testing.assert_allclose(TorchNetwork(steps, CPU).run(x)["out"], expected.numpy(), atol=1e-5)


def test_a_bias_stays_where_somebody_else_reads_the_value():
    steps = tflite_steps(depthwise_then_mix(outputs=("out", "wide")))
    assert all(step.arguments[2] for step in steps.steps)
    assert folded_biases(steps).steps == steps.steps


def test_what_a_batch_shares_is_joined_to_each_of_it():
    graph = graph_of(
        GraphNode("CONCATENATION", ("token", "in"), ("out",), {"Axis": -2, "FusedActivationFunction": 0}),
        constants={"token": np.ones((1, 4, 1, 2), np.float32)},
        shapes={"out": (1, 4, 5, 2)},
    )
    x = np.zeros((3, 4, 4, 2), np.float32)
    out = TorchNetwork(tflite_steps(graph), CPU).run(x)["out"]
    assert out.shape == (3, 4, 5, 2) and (out[:, :, 0] == 1).all() and (out[:, :, 1:] == 0).all()


def test_what_would_mix_the_batch_is_refused():
    graph = graph_of(
        GraphNode("MEAN", ("in", "axis"), ("out",), {"KeepDims": True}), constants={"axis": np.array([0], np.int32)}
    )
    with pytest.raises(ModelFileError, match="sums over the batch"):
        tflite_steps(graph)
