"""A network as its file describes it: what the readers of .tflite and .onnx files make and ``torch_network`` runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class GraphNode:
    """One operation.

    Attributes:
        op: its name in the file format.
        inputs: names of values and constants; empty for an optional one that is left out.
        outputs: names of the values it makes.
        options: what the file says of it besides.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, Any]

    def optional_input(self, position: int) -> str:
        """Name of an input; empty where it is left out."""
        return "".join(self.inputs[position : position + 1])


@dataclass(frozen=True, slots=True, eq=False)
class NetworkGraph:
    """Operations in an order in which they can run.

    Attributes:
        source: where it came from, for messages.
        nodes: the operations.
        constants: weights and the like by name: float32, or integers that are no weights.
        shapes: sizes of values by name, for a batch of one; empty where the format does not say.
        input: name of the one input.
        outputs: what the network's outputs are called, and the name of each one's value.
    """

    source: str
    nodes: tuple[GraphNode, ...]
    constants: Mapping[str, NDArray]
    shapes: Mapping[str, tuple[int, ...]]
    input: str
    outputs: Mapping[str, str]
