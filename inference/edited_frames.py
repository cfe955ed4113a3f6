"""Frames with new lips, one after the other: edited frame by frame on the CPU, or in batches on one GPU or several.

Either way a stream of ``EditedFrame``: order, states and records do not depend on where the work was done.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.carried_frames import CarriedOnDevice
from inference.device_compositor import ColourMemory, DeviceCompositor, Edits, Estimated, Pending
from inference.edit_plan import EditPlan
from inference.face_compositor import Bounds
from inference.face_edits import FaceEdit, State, Wanted, with_last
from inference.frame_editor import FrameEditor, final_alpha
from inference.prepared import PreparedSource
from modules.structures.frames import Frame, FramePatch
from modules.structures.masks import OcclusionMask
from modules.video.spread import Relay, batched, spread

FRAMES_PER_BATCH = 16
"""A GPU waits for the number of its tasks, which is that of a batch: with 8 frames delta is a tenth to a third slower;
32 take twice the memory for no more."""
BATCH_BYTES = 64 * 2**20
"""Of decoded frames; larger frames make smaller batches, because a dozen batches may be under way."""


@dataclass(frozen=True, slots=True, eq=False)
class EditedFrame:
    """One output frame.

    Attributes:
        before: as it was decoded.
        frame: with new lips.
        edits: by the number of the editor that made them.
        states: of every editor after this frame; None where they were not asked for.
    """

    before: Frame
    frame: Frame
    edits: dict[int, FaceEdit]
    states: tuple[State, ...] | None


class Editor(Protocol):
    """Repaints one face, frame by frame."""

    source: PreparedSource
    plan: EditPlan

    @property
    def runs_in_batches(self) -> bool: ...
    def edit(self, frame: Frame) -> tuple[Frame, FramePatch, OcclusionMask | None]: ...
    def remember_colour(self, frame: Frame) -> None: ...
    def colour_rows(self, times_s: NDArray[np.float64], number: int) -> list[int]: ...
    def state(self) -> State: ...
    def resume(self, state: State) -> None: ...


def edited_one_by_one(
    frames: Iterable[Frame], editors: Sequence[Editor], wanted: Wanted
) -> Generator[EditedFrame, None, None]:
    """Edit frame by frame in the caller's thread; ``editors`` go on from where they are."""
    for frame in frames:
        edited, edits = frame, {}
        for number, editor in enumerate(editors):
            if editor.plan.edited[frame.index]:
                edited, patch, occlusion = editor.edit(edited)
                alpha = final_alpha(patch, occlusion)
                edits[number] = FaceEdit(patch.bounds, float(alpha.sum()), alpha, occlusion is not None)
        states = tuple(editor.state() for editor in editors) if wanted.state_after(frame.index) else None
        yield EditedFrame(frame, edited, edits, states)


@contextmanager
def edited_on_devices(
    frames: Iterable[Frame],
    editors: Sequence[tuple[torch.device, Sequence[FrameEditor]]],
    states: Sequence[State],
    wanted: Wanted,
) -> Generator[Iterator[EditedFrame], None, None]:
    """Edit batches on devices in turn. The frames are the same for any number of equal devices.

    What depends on earlier frames is a face's remembered colour (in blend mode delta what changed, and the source's
    sharpness and grain), a few kilobytes; it goes from batch to batch in order, while everything else of several
    batches is done at once.

    Args:
        frames: decoded ahead by somebody else.
        editors: of every device, one for each face, whose renderer lies there.
        states: of the editors before the first frame; of a fresh run, empty ones.
        wanted: what is needed beside the frames.
    """
    is_carried = [editor.is_carried for editor in editors[0][1]]
    carried = [Relay({name: v for name, v in state.items() if name != "last"}) for state in states]
    coloured = [Relay(Handover.of_state(state)) for state in states]
    workers = []
    for device, own in editors:
        faces: list[DeviceFace] = []
        for number, editor in enumerate(own):
            if is_carried[number]:
                faces.append(CarriedOnDevice(editor, device, carried[number]))
            else:
                faces.append(FaceOnDevice(editor, device, coloured[number], is_shared=len(editors) > 1))
        workers.append(DeviceWorker(device, faces, wanted))
    with spread(_batches(frames), workers) as results:
        yield (frame for batch in results for frame in batch)


def _batches(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Batches that begin at multiples of their size, so that a run taken up again has the same ones."""
    source = iter(frames)
    first = next(source, None)
    if first is None:
        return
    size = FRAMES_PER_BATCH
    while size > 1 and size * sum(plane.nbytes for plane in first.planes) > BATCH_BYTES:
        size //= 2
    yield from batched(_prepended(first, source), lambda frame: frame.index, size)


def _prepended(first: Frame, rest: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from rest


@dataclass(frozen=True, slots=True, eq=False)
class Handover:
    """The colour memory between two batches: with whom made it, and on its way to main memory for others."""

    memory: ColourMemory | None = None
    maker: FaceOnDevice | None = None
    state: State | None = None
    pending: Pending | None = None

    @classmethod
    def of_state(cls, state: State) -> Handover:
        """What an editor's ``state`` says."""
        return cls(state={name: array for name, array in state.items() if name != "last"})

    def to(self, taker: FaceOnDevice, device: torch.device) -> ColourMemory:
        """The memory for ``taker``, on its ``device``; waits only where another worker has it, in its own stream."""
        if self.memory is not None and self.maker is taker:
            return self.memory
        state = self.pending.memories()[0] if self.pending is not None else self.state
        return ColourMemory.of(state or {}, device)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One face's edits of a batch under way.

    Attributes:
        pending: what comes back.
        places: of the edited frames in the batch.
        bounds: of their patches.
        occluded: whether something is in front, of each.
        kept: places after which the state is wanted.
    """

    pending: Pending
    places: tuple[int, ...]
    bounds: tuple[Bounds, ...]
    occluded: tuple[bool, ...]
    kept: tuple[int, ...]


class DeviceFace(Protocol):
    """One face's editor on one device; what ``start`` gives is for its own ``finish``."""

    def start(self, batch: int, frames: Sequence[Frame], wanted: Wanted, /) -> Any:
        """Begin the work on a batch."""
        ...

    def finish(
        self,
        part: Any,
        frames: Sequence[Frame],
        /,
    ) -> tuple[list[Frame], dict[int, FaceEdit], dict[int, State]]:
        """Wait for a batch: its frames, the edits and the states by place."""
        ...

    def cancel(self, last: int, /) -> None:
        """Wake up whoever waits for the turn of a batch after ``last``."""
        ...


class FaceOnDevice:
    """One face's editor on one device.

    Args:
        editor: plans and renders.
        device: where.
        relay: hands the colour memory from batch to batch.
        is_shared: other devices take part.
    """

    def __init__(self, editor: FrameEditor, device: torch.device, relay: Relay[Handover], is_shared: bool) -> None:
        self.relay = relay
        self._editor = editor
        self._edited = editor.plan.edited
        self._device = device
        self._is_shared = is_shared
        self._compositor = DeviceCompositor(device, editor.compositor.light)

    def cancel(self, last: int) -> None:
        """Wake up whoever waits for the turn of a batch after ``last``."""
        self.relay.cancel(last)

    def start(self, batch: int, frames: Sequence[Frame], wanted: Wanted) -> _Part:
        """Queue the work on a batch; waits for nothing but its turn."""
        numbers = [frame.index for frame in frames]
        places = tuple(place for place, number in enumerate(numbers) if self._edited[number])
        kept = tuple(place for place, number in enumerate(numbers) if wanted.state_after(number))
        estimated = self._estimated([frames[place] for place in places], wanted) if places else None
        edits_before = [sum(place <= last for place in places) for last in kept]
        fields, rows = self._followed(batch, estimated, edits_before)
        if estimated is None or fields is None:
            return _Part(self._compositor.send_back(None, {}, rows), (), (), (), kept)
        pending = self._compositor.blend(estimated, fields, rows)
        occluded = tuple(free is not None for free in estimated.edits.free)
        return _Part(pending, places, estimated.windows.bounds, occluded, kept)

    def _estimated(self, frames: Sequence[Frame], wanted: Wanted) -> Estimated:
        editor, numbers = self._editor, np.array([frame.index for frame in frames])
        patches = editor.patches(numbers)
        free = [
            editor.free_of_occluders(int(number), patch.bounds)
            for number, patch in zip(numbers, patches, strict=True)
        ]  # fmt: skip
        strength = editor.plan.strength[numbers].astype(np.float32)
        edits = Edits(tuple(frames), tuple(patches), strength, tuple(free), editor.begins[numbers], wanted.alpha)
        return self._compositor.estimate(edits)

    def _followed(
        self, batch: int, estimated: Estimated | None, remembered: Sequence[int]
    ) -> tuple[Tensor | None, list[Tensor]]:
        """The fields to apply and the memories wanted; the last one goes on to the next batch."""
        before = self.relay.take(batch).to(self, self._device)
        fields, after, rows = self._compositor.follow(estimated, before, remembered)
        copied = self._compositor.send_back(None, {}, [after.row]) if self._is_shared else None
        self.relay.give(batch, Handover(after, self, pending=copied))
        return fields, rows

    def finish(self, part: _Part, frames: Sequence[Frame]) -> tuple[list[Frame], dict[int, FaceEdit], dict[int, State]]:
        """Wait for a batch: its frames, the edits and the states by place."""
        made, edits = list(frames), {}
        for number, done in enumerate(part.pending.frames()):
            made[part.places[number]] = done.frame
            is_occluded = part.occluded[number]
            edits[part.places[number]] = FaceEdit(part.bounds[number], done.area_px, done.alpha, is_occluded)
        states = dict(zip(part.kept, part.pending.memories(), strict=True))
        return made, edits, {p: with_last(state, self._edited, frames[p].index) for p, state in states.items()}


class DeviceWorker:
    """Edits batches of frames on one device, in a stream of its own.

    Args:
        device: where.
        faces: to be edited one after the other, because they may overlap.
        wanted: what is needed beside the frames.
    """

    def __init__(self, device: torch.device, faces: Sequence[DeviceFace], wanted: Wanted) -> None:
        self._device = device
        self._faces = faces
        self._wanted = wanted
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # in which the people were loaded

    def start(self, number: int, frames: list[Frame]) -> tuple[int, list[Frame], Any]:
        """Queue the first face's work."""
        with self._at_work():
            return number, frames, self._faces[0].start(number, frames, self._wanted)

    def finish(self, started: tuple[int, list[Frame], Any]) -> list[EditedFrame]:
        """Wait for the first face, then see to the others."""
        number, frames, part = started
        done = [EditedFrame(frame, frame, {}, None) for frame in frames]
        with self._at_work():
            for position, face in enumerate(self._faces):
                before = [one.frame for one in done]
                if position > 0:
                    part = face.start(number, before, self._wanted)
                made, edits, states = face.finish(part, before)
                for place, frame in enumerate(made):
                    done[place] = _continued(done[place], frame, position, edits.get(place), states.get(place))
        return done

    def cancel(self, last: int) -> None:
        """Wake up whoever waits for the turn of a batch after ``last``."""
        for face in self._faces:
            face.cancel(last)

    @contextmanager
    def _at_work(self) -> Generator[None, None, None]:
        is_cuda = self._stream is not None
        with (
            torch.inference_mode(),
            torch.cuda.device(self._device) if is_cuda else nullcontext(),
            torch.cuda.stream(self._stream) if is_cuda else nullcontext(),
        ):
            yield


def _continued(
    done: EditedFrame, frame: Frame, position: int, edit: FaceEdit | None, state: State | None
) -> EditedFrame:
    """The frame with one more face seen to."""
    edits = done.edits if edit is None else {**done.edits, position: edit}
    states = done.states if state is None else (*(done.states or ()), state)
    return replace(done, frame=frame, edits=edits, states=states)
