"""Tiny ONNX networks with the inputs and outputs of real face detectors: they take bright squares for faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CELLS = 1.5
"""Half of the side of every box that the SCRFD network gives, in cells of the stride that sees it."""
MARKS = ((-1.0, -0.5), (1.0, -0.5), (0.0, 0.0), (-0.75, 1.0), (0.75, 1.0))
"""Key points from the middle of the box, in cells (RetinaFace: in quarters of the box)."""
THRESHOLD = 0.85
"""Share of a cell that must be bright."""


def write_scrfd(path: Path) -> Path:
    """SCRFD's layout: RGB ``[1, 3, H, W]`` minus 127.5 over 128 in; scores, edge distances and key points out.

    Two anchors a cell at strides 8, 16 and 32; rows ``[h·w·2, 1 | 4 | 10]`` in cells from the cell's corner.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes, outputs, constants = [], {"score": [], "box": [], "marks": []}, []
    constants.append(_tensor("mean_weight", np.full((1, 3, 1, 1), 1 / 3, np.float32)))
    constants.append(_tensor("box_row", np.array([[CELLS - 0.5] * 2 + [CELLS + 0.5] * 2], np.float32)))
    constants.append(_tensor("marks_row", (np.array(MARKS, np.float32) + 0.5).reshape(1, 10)))
    nodes.append(helper.make_node("Conv", ["input", "mean_weight"], ["grey"]))
    for stride in (8, 16, 32):
        nodes += _cell_scores("grey", f"cell{stride}", stride, constants, low=-1.0, span=2.0)
        # both anchors of a cell say the same; suppression merges them
        constants.append(_tensor(f"shape{stride}", np.array([-1, 1], np.int64)))
        nodes += [
            helper.make_node("Concat", [f"cell{stride}"] * 2, [f"pair{stride}"], axis=1),
            helper.make_node("Transpose", [f"pair{stride}"], [f"last{stride}"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"last{stride}", f"shape{stride}"], [f"score{stride}"]),
            helper.make_node("Mul", [f"score{stride}", "zero"], [f"null{stride}"]),
            helper.make_node("Add", [f"null{stride}", "box_row"], [f"box{stride}"]),
            helper.make_node("Add", [f"null{stride}", "marks_row"], [f"marks{stride}"]),
        ]
        for kind, width in (("score", 1), ("box", 4), ("marks", 10)):
            outputs[kind].append(helper.make_tensor_value_info(f"{kind}{stride}", TensorProto.FLOAT, [None, width]))
    constants.append(_tensor("zero", np.zeros(1, np.float32)))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])]
    graph = helper.make_graph(nodes, "scrfd", inputs, [o for kind in outputs.values() for o in kind], constants)
    onnx.save(_model(graph), str(path))
    return path


def write_retinaface(path: Path) -> Path:
    """``retina-face``'s layout: RGB 0..255 ``[1, H, W, 3]`` in; for strides 32, 16, 8 probabilities ``[1, h, w, 4]``
    (two anchors: not a face, a face), box changes ``[…, 8]`` and key point changes ``[…, 20]`` out.
    """
    import onnx
    from onnx import TensorProto, helper

    constants = [_tensor("mean_weight", np.full((1, 3, 1, 1), 1 / 3, np.float32))]
    nodes = [
        helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "mean_weight"], ["grey"]),
    ]
    outputs = []
    for stride in (32, 16, 8):
        nodes += _cell_scores("grey", f"cell{stride}", stride, constants, low=0.0, span=255.0)
        constants += [
            _tensor(f"boxes{stride}", np.zeros((1, 1, 1, 8), np.float32)),
            _tensor(f"points{stride}", np.tile(np.array(MARKS, np.float32).ravel() / 4, 2).reshape(1, 1, 1, 20)),
            # a cell of 16 or 32 px would answer with a box of its own
            _tensor(f"speaks{stride}", np.array([float(stride == 8)], np.float32)),
        ]
        nodes += [
            helper.make_node("Transpose", [f"cell{stride}"], [f"any{stride}"], perm=[0, 2, 3, 1]),
            helper.make_node("Mul", [f"any{stride}", f"speaks{stride}"], [f"yes{stride}"]),
            helper.make_node("Mul", [f"yes{stride}", "zero"], [f"null{stride}"]),
            # the second anchor, half the size of the first, is never sure
            helper.make_node(
                "Concat", [f"null{stride}", f"null{stride}", f"yes{stride}", f"null{stride}"], [f"prob{stride}"], axis=3
            ),
            helper.make_node("Add", [f"null{stride}", f"boxes{stride}"], [f"change{stride}"]),
            helper.make_node("Add", [f"null{stride}", f"points{stride}"], [f"marks{stride}"]),
        ]
        for kind, width in (("prob", 4), ("change", 8), ("marks", 20)):
            shape = [1, None, None, width]
            outputs.append(helper.make_tensor_value_info(f"{kind}{stride}", TensorProto.FLOAT, shape))
    constants.append(_tensor("zero", np.zeros(1, np.float32)))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, "height", "width", 3])]
    onnx.save(_model(helper.make_graph(nodes, "retinaface", inputs, outputs, constants)), str(path))
    return path


def _cell_scores(source: str, name: str, stride: int, constants: list, *, low: float, span: float) -> list:
    """Nodes for a score per cell: near 1 where the cell is bright all over, near 0 elsewhere."""
    from onnx import helper

    constants += [
        _tensor(f"{name}_low", np.array([low + THRESHOLD * span], np.float32)),
        _tensor(f"{name}_steep", np.array([60.0 / span], np.float32)),
    ]
    return [
        helper.make_node(
            "AveragePool", [source], [f"{name}_mean"], kernel_shape=[stride, stride], strides=[stride, stride]
        ),
        helper.make_node("Sub", [f"{name}_mean", f"{name}_low"], [f"{name}_over"]),
        helper.make_node("Mul", [f"{name}_over", f"{name}_steep"], [f"{name}_logit"]),
        helper.make_node("Sigmoid", [f"{name}_logit"], [name]),
    ]


def _tensor(name: str, values: np.ndarray) -> object:
    from onnx import numpy_helper

    return numpy_helper.from_array(values, name)


def _model(graph: object) -> object:
    from onnx import helper

    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
