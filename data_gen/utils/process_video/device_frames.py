"""What the CPU does for a batch of frames that a device judges, on a few threads and ahead of it.

Reduced pictures, outlines of hands and face and optical flow are put straight into the memory that the device reads,
so that a batch is sent in a few large copies.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.utils.process_video.device_evidence import DeviceExpected
from data_gen.utils.process_video.occlusion_filter import FlowFinder, grey_of
from data_gen.utils.process_video.occlusion_parts import (
    FaceParts,
    PassConfig,
    PassTables,
    beside_hand,
    face_parts,
    inside_frame,
    settled_places,
    soft_hand,
)
from modules.structures.expected_face import ExpectedFace


@dataclass(frozen=True, slots=True, eq=False)
class HostFrame:
    """What the CPU keeps of a frame; ``grey`` is what flow is found in, the rest decides which parts are objects."""

    row: int
    crop: NDArray[np.uint8]
    grey: NDArray[np.uint8]
    settled: NDArray[np.bool_]
    face: FaceParts
    hand: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, eq=False)
class DeviceFrames:
    """N frames on a device.

    Attributes:
        rgb: ``[N, 3, S, S]`` 0..1.
        expected: not yet matched in exposure; where nobody expects a face, nothing is known.
        teaching: bool ``[N, S, S]``, places that may teach what things look like.
        hand, beside: ``[N, S, S]`` 0..1, soft hands and what lies just outside of them.
        hinted: ``[N, S, S]`` log-odds of ``FrameHints``.
        back, ahead: ``[N, S, S, 2]`` px, flow to the frame before and from there to the frame; 0 without one.
        judged, handled, joined: bool ``[N]``: whether a face is expected, whether hands were found, and whether there
            is a frame before that has to do with it.
    """

    rgb: Tensor
    expected: DeviceExpected
    teaching: Tensor
    hand: Tensor
    beside: Tensor
    hinted: Tensor
    back: Tensor
    ahead: Tensor
    judged: Tensor
    handled: Tensor
    joined: Tensor


class FrameStage:
    """Prepares frames one by one and sends them together.

    Args:
        tables: of the whole clip.
        config: of the pass.
        most: frames of a batch.
        device: where they go.
        pool: threads that prepare them; all that they run is waited for in ``sent``.
    """

    def __init__(
        self, tables: PassTables, config: PassConfig, most: int, device: torch.device, pool: ThreadPoolExecutor
    ) -> None:
        self._tables, self._config, self._device, self._pool = tables, config, device, pool
        size, pinned = config.working_size, device.type == "cuda"

        def memory(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros((most, *shape), dtype=dtype, pin_memory=pinned)

        self._pictures, self._expected = memory(size, size, 3, dtype=torch.uint8), memory(size, size, 3)
        self._planes, self._flows = memory(5, size, size), memory(2, size, size, 2)
        self._teaching, self._flags = memory(size, size, dtype=torch.bool), memory(3, dtype=torch.bool)
        self._finders: SimpleQueue[FlowFinder] = SimpleQueue()
        self._prepared: list[Future[HostFrame]] = []
        self._linked: list[Future[None]] = []
        self._last: Future[HostFrame] | None = None
        self._read: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return len(self._prepared)

    def add(
        self, row: int, crop: NDArray[np.uint8], expected: ExpectedFace | None, hinted: NDArray[np.float32] | None, *,
        fresh: bool,
    ) -> None:  # fmt: skip
        """Begin to prepare a frame.

        Args:
            row: of the clip.
            crop: uint8 ``[L, L, 3]``.
            expected: the clean face at the working size; None = nobody knows.
            hinted: further log-odds ``[S, S]``; None = 0.
            fresh: nothing before has to do with the frame.
        """
        if self._read is not None:
            self._read.synchronize()
        slot, last = len(self._prepared), None if fresh else self._last
        self._last = self._pool.submit(self._prepare, slot, row, crop, expected, hinted)
        self._prepared.append(self._last)
        self._linked.append(self._pool.submit(self._link, slot, self._last, last))

    def sent(self) -> tuple[list[HostFrame], DeviceFrames]:
        """The frames of this batch, on their way to the device; the next batch begins."""
        frames = [job.result() for job in self._prepared]
        for job in self._linked:
            job.result()
        self._prepared, self._linked = [], []
        pictures, expected, planes, flows, teaching, flags = (
            memory[: len(frames)].to(self._device, non_blocking=True)
            for memory in (self._pictures, self._expected, self._planes, self._flows, self._teaching, self._flags)
        )
        if self._device.type == "cuda":
            self._read = torch.cuda.Event()
            self._read.record(torch.cuda.current_stream(self._device))
        spread, known, *others = planes.unbind(dim=1)
        return frames, DeviceFrames(
            pictures.movedim(-1, 1).to(torch.float32) / 255,
            DeviceExpected(expected.movedim(-1, 1).contiguous(), spread, known),
            teaching, *others, *flows.unbind(dim=1), *flags.unbind(dim=1),
        )  # fmt: skip

    def _prepare(
        self, slot: int, row: int, crop: NDArray[np.uint8], expected: ExpectedFace | None,
        hinted: NDArray[np.float32] | None,
    ) -> HostFrame:  # fmt: skip
        """Fill the slot of a frame but for its flow."""
        tables, config, size = self._tables, self._config, self._config.working_size
        reduced = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
        hand, face = soft_hand(tables.hands, row, size), face_parts(tables, row, size)
        settled = np.ones((size, size), bool)
        spread, known, hands, beside, hints = self._planes[slot].numpy()
        hints[:] = 0 if hinted is None else hinted
        if expected is None:
            spread[:], known[:] = 1, 0
        else:
            settled = settled_places(expected, config) & ~face.lips
            self._expected[slot].numpy()[:] = expected.rgb
            spread[:] = expected.spread
            np.multiply(expected.known, inside_frame(tables.metadata, row, size), out=known)
        hands[:], beside[:] = (0, 0) if hand is None else (hand, beside_hand(hand))
        self._pictures[slot].numpy()[:] = reduced
        self._teaching[slot].numpy()[:] = settled & face.near
        self._flags[slot, 0], self._flags[slot, 1] = expected is not None, hand is not None
        return HostFrame(row, crop, grey_of(reduced.astype(np.float32) / np.float32(255)), settled, face, hand)

    def _link(self, slot: int, own: Future[HostFrame], last: Future[HostFrame] | None) -> None:
        """Fill in the flow of a frame; those that it waits for were begun before."""
        flows = self._flows[slot].numpy()
        self._flags[slot, 2] = last is not None
        if last is None:
            flows[:] = 0
            return
        finder = FlowFinder() if self._finders.empty() else self._finders.get()
        grey, other = own.result().grey, last.result().grey
        flows[0], flows[1] = finder.found(grey, other), finder.found(other, grey)
        self._finders.put(finder)
