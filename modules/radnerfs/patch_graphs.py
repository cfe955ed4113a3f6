"""Batches up to the GPU in one copy, and CUDA graphs of work that comes again with the same shapes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGN_BYTES = 16
MOST_GRAPHS = 6
WARM_UPS = 2
"""Runs before a shape is captured: kernels compile and libraries choose their algorithms outside the graph."""

Work = Callable[[dict[str, Tensor]], tuple[Tensor, ...]]
"""From inputs on the device to outputs there; may not wait for the GPU."""


def upload(arrays: Mapping[str, NDArray], device: torch.device) -> dict[str, Tensor]:
    """Arrays as tensors of ``device``; on CUDA in one copy that the CPU does not wait for."""
    packed = _pack(arrays)
    if device.type == "cuda":
        packed = packed.pin_memory().to(device, non_blocking=True)
    return _unpack(packed, arrays)


def _pack(arrays: Mapping[str, NDArray]) -> Tensor:
    """Arrays one behind the other as uint8."""
    parts = []
    for array in arrays.values():
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts += [raw, np.zeros(-len(raw) % ALIGN_BYTES, np.uint8)]
    return torch.from_numpy(np.concatenate(parts))


def _unpack(packed: Tensor, arrays: Mapping[str, NDArray]) -> dict[str, Tensor]:
    """Views of ``packed`` with the arrays' names, types and shapes."""
    tensors, start = {}, 0
    for name, array in arrays.items():
        kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
        tensors[name] = packed[start : start + array.nbytes].view(kind).view(array.shape)
        start += array.nbytes + -array.nbytes % ALIGN_BYTES
    return tensors


@dataclass(frozen=True, slots=True, eq=False)
class _Captured:
    graph: torch.cuda.CUDAGraph
    packed: Tensor
    outputs: tuple[Tensor, ...]


class GraphCache:
    """Replays work on shapes it has seen before; one stream at a time.

    The graphs share their memory, so an answer is copied out before the next one starts.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._captured: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._runs: dict[Hashable, int] = {}
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, key: Hashable, work: Work, arrays: Mapping[str, NDArray]) -> tuple[Tensor, ...]:
        """``work`` on ``arrays``; ``key`` must tell apart whatever the work depends on beside their values."""
        with torch.cuda.device(self.device):
            return self._run(key, work, arrays)

    def _run(self, key: Hashable, work: Work, arrays: Mapping[str, NDArray]) -> tuple[Tensor, ...]:
        if key not in self._captured:
            self._runs[key] = self._runs.get(key, 0) + 1
            if self._runs[key] <= WARM_UPS:
                return work(upload(arrays, self.device))
            self._captured[key] = self._capture(work, arrays)
            if len(self._captured) > MOST_GRAPHS:
                self._captured.popitem(last=False)
        self._captured.move_to_end(key)
        captured = self._captured[key]
        captured.packed.copy_(_pack(arrays).pin_memory(), non_blocking=True)
        captured.graph.replay()
        return tuple(output.clone() for output in captured.outputs)

    def _capture(self, work: Work, arrays: Mapping[str, NDArray]) -> _Captured:
        packed = _pack(arrays).to(self.device)
        inputs = _unpack(packed, arrays)
        graph = torch.cuda.CUDAGraph()
        # other threads decode and copy meanwhile: only this one's calls may break a capture
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            outputs = work(inputs)
        return _Captured(graph, packed, outputs)
