"""Reading .onnx files: CenterFace's, and what is refused."""

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.network_graph import GraphNode, NetworkGraph
from data_gen.utils.mp_feature_extractors.onnx_file import _integers, _varint, read_onnx
from data_gen.utils.mp_feature_extractors.onnx_ops import onnx_steps
from modules.commons.errors import ModelFileError
from modules.commons.workspace import CENTERFACE_FILE

CONV = {"pads": (0, 0, 0, 0), "strides": (1, 1), "group": 1, "dilations": (1, 1)}


def test_integers_are_written_seven_bits_at_a_time():
    assert _varint(b"\x96\x01\x05", 0) == (150, 2)
    assert _integers([b"\x01\x96\x01", 7]) == (1, 150, 7)


def test_centerface_is_read_whole():
    graph = read_onnx(CENTERFACE_FILE)
    assert len(graph.nodes) == 122 and list(graph.outputs) == ["537", "538", "539", "540"]
    first = graph.nodes[0]
    assert first.op == "Conv" and first.options["pads"] == (1, 1, 1, 1) and first.options["strides"] == (2, 2)
    assert graph.constants[first.inputs[1]].shape == (32, 3, 3, 3)
    (normalise, *_) = [node for node in graph.nodes if node.op == "BatchNormalization"]
    assert normalise.options["epsilon"] == pytest.approx(1e-3)


def test_missing_and_damaged_files_say_what_to_do(tmp_path):
    with pytest.raises(ModelFileError, match=r"gone\.onnx is missing; run `bash scripts/setup\.sh`"):
        read_onnx(tmp_path / "gone.onnx")
    for name, content in (("short", CENTERFACE_FILE.read_bytes()[:5000]), ("text", b"hello, hello"), ("none", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=f"{name} is not an ONNX network"):
            read_onnx(tmp_path / name)


def steps_of(op, options):
    constants = {"w": np.ones((1, 3, 1, 1), np.float32)}
    node = GraphNode(op, ("in", "w"), ("out",), options)
    return onnx_steps(NetworkGraph("here", (node,), constants, {"in": (1, -1, -1, 3)}, "in", {"out": "out"}))


def test_what_is_not_known_is_named():
    assert len(steps_of("Conv", CONV).steps) == 2
    with pytest.raises(ModelFileError, match="here uses the operation Einsum"):
        steps_of("Einsum", {})
    with pytest.raises(ModelFileError, match="uneven padding"):
        steps_of("Conv", {**CONV, "pads": (0, 0, 1, 1)})
    with pytest.raises(ModelFileError, match="dilated"):
        steps_of("Conv", {**CONV, "dilations": (2, 2)})
