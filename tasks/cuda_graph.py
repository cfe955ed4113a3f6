"""Work that is the same in every step, recorded once as a CUDA graph: a replay costs the host microseconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

T = TypeVar("T")

EAGER_CALLS = 3
"""First calls that run as they are: kernels are compiled and buffers made before anything is recorded."""


class GraphedCall(Generic[T]):
    """Calls ``work()``; from the fourth call on by replaying its kernels, on the same memory each time.

    Args:
        work: same shapes in every call, no wait for the device, no decision on the host.
        generator: what its random numbers come from.
        device: CUDA.
    """

    def __init__(self, work: Callable[[], T], generator: torch.Generator, device: torch.device) -> None:
        self._work = work
        self._generator = generator
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0
        self._answer: T

    def __call__(self) -> T:
        """The answer; its tensors are overwritten by the next call."""
        if self._graph is None and self._calls >= EAGER_CALLS:
            self._record()
        self._calls += 1
        if self._graph is None:
            return self._run_eagerly()
        self._graph.replay()
        return self._answer

    def _run_eagerly(self) -> T:
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):  # where it will be recorded, so that buffers made now fit
            answer = self._work()
        here.wait_stream(self._stream)
        return answer

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        torch.cuda.synchronize(self._stream.device)
        # only this thread's work is recorded: NCCL watches its own events from another one
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._answer = self._work()
        self._graph = graph
