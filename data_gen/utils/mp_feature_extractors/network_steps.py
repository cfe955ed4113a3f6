"""The steps a network takes in torch: functions, where each one's arguments come from, and the weights among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data_gen.utils.mp_feature_extractors.network_graph import GraphNode, NetworkGraph

Function = Callable[..., Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One call: ``values[output] = function(*arguments)``.

    Attributes:
        function: takes tensors only, or None for an optional one that is left out (empty name).
        arguments: names of values and weights.
        output: name of what it makes.
        done_with: values that no later step needs.
    """

    function: Function
    arguments: tuple[str, ...]
    output: str
    done_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class NetworkSteps:
    """All that torch needs of a network.

    Attributes:
        source: where it came from.
        steps: in order.
        weights: float32 arrays by name.
        input: name of the input's value.
        input_shape: its size for a batch of one; -1 for a size that is free.
        outputs: what each output is called, and the name of its value.
    """

    source: str
    steps: tuple[Step, ...]
    weights: Mapping[str, NDArray[np.float32]]
    input: str
    input_shape: tuple[int, ...]
    outputs: Mapping[str, str]


class StepBuilder:
    """Collects the steps of a network and the weights they use."""

    def __init__(self, graph: NetworkGraph) -> None:
        self._graph = graph
        self._steps: list[Step] = []
        self._weights: dict[str, NDArray[np.float32]] = {}

    def constant(self, name: str) -> NDArray:
        """A constant of the file, for what has to be known before anything runs.

        Raises:
            ValueError: it is computed at run time.
        """
        if name not in self._graph.constants:
            raise ValueError(f"value {name} is not a constant")
        return self._graph.constants[name]

    def weight(self, values: NDArray) -> str:
        """Keep a weight in torch's own layout; returns its name."""
        name = f"weight_{len(self._weights)}"
        self._weights[name] = np.ascontiguousarray(values, np.float32)
        return name

    def add(self, function: Function, arguments: tuple[str, ...], output: str) -> None:
        """Add a step; arguments that are constants of the file become weights as they are."""
        named = tuple(
            self.weight(self._graph.constants[name]) if name in self._graph.constants else name for name in arguments
        )
        self._steps.append(Step(function, named, output))

    def finish(self) -> NetworkSteps:
        """Everything."""
        graph = self._graph
        steps = with_lifetimes(self._steps, graph.outputs)
        return NetworkSteps(graph.source, steps, self._weights, graph.input, graph.shapes[graph.input], graph.outputs)


OpBuilder = Callable[[GraphNode, NetworkGraph, StepBuilder], None]
"""Adds what a node of a network is in torch."""


def one_call(function: Function) -> OpBuilder:
    """For an operation that is ``function`` of its inputs, whatever its options."""

    def build_step(node: GraphNode, graph: NetworkGraph, build: StepBuilder) -> None:
        del graph
        build.add(function, node.inputs, node.outputs[0])

    return build_step


def with_lifetimes(steps: Sequence[Step], outputs: Mapping[str, str]) -> tuple[Step, ...]:
    """The steps, each with the values that no later one and no output needs; weights are values that go on living."""
    needed = set(outputs.values())
    made = {step.output for step in steps}
    finished: list[Step] = []
    for step in reversed(steps):
        ends = tuple(name for name in dict.fromkeys(step.arguments) if name in made and name not in needed)
        finished.append(replace(step, done_with=ends))
        needed.update(step.arguments)
    return tuple(reversed(finished))
