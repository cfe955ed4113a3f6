"""A network read from its file, as a torch module on any device; on CUDA small batches run as one CUDA graph.

These networks are hundreds of tiny operations: at a batch of one, launching them takes longer than the work itself.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_gen.utils.mp_feature_extractors.network_steps import NetworkSteps
from data_gen.utils.mp_feature_extractors.networks import Images

CAPTURE_AT = 3
"""A graph is made for inputs of a size that has come this often: making one costs as much as many plain calls."""
MOST_GRAPHS = 6
"""Sizes of input that get a graph of their own."""
GRAPH_ELEMENTS = 8 << 20
"""Larger inputs keep the GPU busy without one."""
ALONE = threading.RLock()
"""Held while the process's flags for convolutions are changed, and while a graph is recorded."""


class TorchGraph(nn.Module):
    """Runs the steps of a network; its weights are buffers."""

    def __init__(self, steps: NetworkSteps) -> None:
        super().__init__()
        self._input, self._outputs, self._steps = steps.input, dict(steps.outputs), steps.steps
        self._weights = tuple(steps.weights)
        for name, values in steps.weights.items():
            weight = torch.from_numpy(values.copy())
            if weight.dim() == 4:
                weight = weight.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name, weight, persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Outputs by name, each with the batch first, for an input of the file's size and any batch."""
        values: dict[str, Tensor | None] = {name: self.get_buffer(name) for name in self._weights}
        values |= {self._input: x, "": None}
        for step in self._steps:
            values[step.output] = step.function(*(values[name] for name in step.arguments))
            for name in step.done_with:
                del values[name]
        found = {name: values[at] for name, at in self._outputs.items()}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(slots=True, eq=False)
class _Captured:
    """A CUDA graph with the memory it reads and writes."""

    graph: torch.cuda.CUDAGraph
    source: Tensor
    packed: Tensor
    shapes: dict[str, tuple[int, ...]]


class TorchNetwork:
    """A network that takes arrays and gives arrays, like ``LiteRtModel``; one thread at a time may use it.

    Args:
        steps: what ``tflite_steps`` or ``onnx_steps`` read.
        device: where it runs.
        graphs: on CUDA, run inputs of sizes that come again as CUDA graphs.
    """

    def __init__(self, steps: NetworkSteps, device: torch.device, *, graphs: bool = True) -> None:
        self.source, self.input_shape, self.device = steps.source, steps.input_shape, device
        self.network = TorchGraph(steps).eval().requires_grad_(False).to(device)
        self._graphs = graphs and device.type == "cuda"
        self._captured: dict[tuple[object, ...], _Captured] = {}
        self._seen: Counter[tuple[object, ...]] = Counter()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def run(self, values: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Outputs by name, batch first, for inputs ``[B, ...]``."""
        return self._run(values, 1.0, 0.0)

    def run_images(self, images: Images, low: float = 0.0, high: float = 1.0) -> Mapping[str, NDArray[np.float32]]:
        """Outputs by name, batch first, for pictures ``[B, H, W, 3]`` whose 0..255 means ``low``..``high``."""
        return self._run(images, 255.0 / (high - low), low)

    @torch.inference_mode()
    def _run(self, values: NDArray | Tensor, divisor: float, offset: float) -> dict[str, NDArray[np.float32]]:
        host = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
        if self._stream is None:
            found = self.network(_scaled(host, divisor, offset))
            return {name: value.numpy().astype(np.float32, copy=True) for name, value in found.items()}
        self._stream.wait_stream(torch.cuda.current_stream(self.device))  # the pictures may be made there
        with torch.cuda.stream(self._stream):
            packed, shapes = self._on_cuda(host, divisor, offset)
            flat = packed.cpu().numpy()
        return _unpacked(flat, shapes)

    def _on_cuda(self, host: Tensor, divisor: float, offset: float) -> tuple[Tensor, dict[str, tuple[int, ...]]]:
        """All outputs, packed into ``[B, N]``, and the shape of each."""
        key = (*host.shape, host.dtype, divisor, offset)
        captured = self._captured.get(key)
        if captured is None and self._wants_graph(key, host):
            captured = self._captured[key] = self._capture(host, divisor, offset)
        if captured is not None:
            captured.source.copy_(host, non_blocking=True)
            captured.graph.replay()
            return captured.packed, captured.shapes
        return self._packed_outputs(host.to(self.device, non_blocking=True), divisor, offset)

    def _packed_outputs(
        self, images: Tensor, divisor: float, offset: float
    ) -> tuple[Tensor, dict[str, tuple[int, ...]]]:
        """Run the network as it is; TF32 would move landmarks by a hundredth of a pixel, rounded halves by more."""
        # the flag belongs to the process: threads must not put back each other's value
        with ALONE, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return _packed(self.network(_scaled(images, divisor, offset)))

    def _wants_graph(self, key: tuple[object, ...], host: Tensor) -> bool:
        self._seen[key] += 1
        small = self._graphs and host.numel() <= GRAPH_ELEMENTS and len(self._captured) < MOST_GRAPHS
        return small and self._seen[key] >= CAPTURE_AT

    def _capture(self, host: Tensor, divisor: float, offset: float) -> _Captured:
        """Record the network for inputs like ``host``; it has run for this size before, so nothing is set up anew."""
        source = host.to(self.device)
        graph = torch.cuda.CUDAGraph()
        # other threads may replay theirs meanwhile
        with ALONE, torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            packed, shapes = self._packed_outputs(source, divisor, offset)
        return _Captured(graph, source, packed, shapes)


def _scaled(images: Tensor, divisor: float, offset: float) -> Tensor:
    values = images if images.is_floating_point() else images.float()
    if divisor != 1.0:
        values = values / divisor
    return values + offset if offset else values


def _packed(found: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, tuple[int, ...]]]:
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    return torch.cat([value.flatten(1) for value in found.values()], dim=1), shapes


def _unpacked(flat: NDArray[np.float32], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    ends = np.cumsum([int(np.prod(shape[1:])) for shape in shapes.values()])
    parts = np.split(flat, ends[:-1], axis=1)
    return {name: part.reshape(shape).copy() for (name, shape), part in zip(shapes.items(), parts, strict=True)}
