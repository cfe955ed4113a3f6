"""The compositor on a device: batches of patches put back into their frames without waiting for the GPU.

What ``FaceCompositor`` does frame by frame is done here in three steps: ``estimate`` uploads the windows and finds each
frame's colour by itself; ``follow`` smooths it over time, the only step that depends on earlier frames; ``blend`` makes
the new windows and sends them back. ``Pending.frames`` waits and pastes them into the untouched planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.face_compositor import RINGS, SMOOTHING_S
from modules.structures.device_patch import DevicePatch
from modules.structures.frames import Frame
from modules.video.colour_follow import LONGEST_GAP_S, SAME_FACE_IOU
from modules.video.colour_match import FIELD_SIZE, RingConfig
from modules.video.device_colour_match import Placement, apply_fields, estimate_fields, followed
from modules.video.device_planes import Windows, blended, host_buffer, pasted, placed, rgb_of_windows, staged
from modules.video.linear_light import BT709, LightCurve

_FIELD = 3 * FIELD_SIZE * FIELD_SIZE


@dataclass(frozen=True, slots=True, eq=False)
class ColourMemory:
    """The colour field last applied, and when and where: ``FaceCompositor``'s memory as one row of numbers.

    Attributes:
        row: float64 ``[_FIELD + 6]``: field ``[3, S, S]``, time in seconds, bounds, and 1 where there is any.
    """

    row: Tensor

    @classmethod
    def of(cls, state: dict[str, NDArray], device: torch.device) -> ColourMemory:
        """What a compositor's ``state`` says."""
        row = np.zeros(_FIELD + 6)
        if state:
            row[:_FIELD] = state["field"].transpose(2, 0, 1).ravel()
            row[_FIELD], row[_FIELD + 1 : -1], row[-1] = state["time_s"], state["bounds"], 1
        return cls(torch.from_numpy(row).to(device))

    def state(self) -> dict[str, NDArray]:
        """The memory as ``FaceCompositor.state`` gives it; waits for the device."""
        row = self.row.cpu().numpy()
        if row[-1] == 0:
            return {}
        field = row[:_FIELD].reshape(3, FIELD_SIZE, FIELD_SIZE).transpose(1, 2, 0)
        bounds = row[_FIELD + 1 : -1].astype(np.int64)
        return {"field": field.astype(np.float32), "time_s": np.array(row[_FIELD]), "bounds": bounds}


@dataclass(frozen=True, slots=True, eq=False)
class Edits:
    """What is to be put into frames of one layout and size.

    Attributes:
        frames: the frames.
        patches: one for each.
        strength: float32 ``[B]`` each patch's alpha is multiplied by.
        free: for each, what is not hidden by an occluder, 0..1 over the patch's bounds; None = everything.
        begins: bool ``[B]`` the colour of earlier frames is forgotten before this one.
        wants_alpha: whether the final alphas are wanted.
    """

    frames: tuple[Frame, ...]
    patches: tuple[DevicePatch, ...]
    strength: NDArray[np.float32]
    free: tuple[NDArray[np.float32] | None, ...]
    begins: NDArray[np.bool_]
    wants_alpha: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Estimated:
    """Edits whose windows lie on the device, with the colour of each frame by itself."""

    edits: Edits
    windows: Windows
    placement: Placement
    flat: Tensor
    rgb: Tensor
    ring_alpha: Tensor
    free: Tensor | None
    fields: Tensor
    found: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Composited:
    """One frame as it came back.

    Attributes:
        frame: with the patch in it.
        area_px: sum of the final alpha.
        alpha: ``[h, w]`` the final alpha over the patch's bounds; None where it was not wanted.
    """

    frame: Frame
    area_px: float
    alpha: NDArray[np.float32] | None


class Pending:
    """Edits on their way back.

    Args:
        frames: those that were edited.
        windows: of their patches; None = there are none.
        downloads: what comes back, by name.
        event: recorded when it is back; None = it is.
    """

    def __init__(
        self,
        frames: tuple[Frame, ...],
        windows: Windows | None,
        downloads: dict[str, Tensor],
        event: torch.cuda.Event | None,
    ) -> None:
        self._frames = frames
        self._windows = windows
        self._downloads = downloads
        self._event = event

    def wait(self) -> None:
        """Return when everything is back."""
        if self._event is not None:
            self._event.synchronize()

    def frames(self) -> list[Composited]:
        """The edited frames; waits for them."""
        self.wait()
        windows = self._windows
        if windows is None:
            return []
        made = []
        for number, frame in enumerate(self._frames):
            edited = pasted(frame, windows, number, self._downloads["flat"])
            area_px = float(self._downloads["area"][number])
            made.append(Composited(edited, area_px, self._alpha(windows, number)))
        return made

    def memories(self) -> list[dict[str, NDArray]]:
        """The memories that were sent along as states; waits for them."""
        self.wait()
        return [ColourMemory(row).state() for row in self._downloads["memories"]]

    def _alpha(self, windows: Windows, number: int) -> NDArray[np.float32] | None:
        if "alpha" not in self._downloads:
            return None
        row, column = windows.offset(number)
        x0, y0, x1, y1 = windows.bounds[number]
        window = self._downloads["alpha"][number, row : row + y1 - y0, column : column + x1 - x0]
        return np.ascontiguousarray(window.numpy())


class DeviceCompositor:
    """Composites one person's rendered face batch by batch; the memory of colour is the caller's to pass on.

    Args:
        device: where.
        light: what coded values mean.
        smoothing_s: see ``FaceCompositor``, whose mode ``alpha`` this is.
    """

    def __init__(self, device: torch.device, light: LightCurve = BT709, *, smoothing_s: float | None = None) -> None:
        self.device = device
        self._light = light
        self._ring: RingConfig = RINGS["alpha"]
        self._smoothing_s = SMOOTHING_S["alpha"] if smoothing_s is None else smoothing_s
        self._is_cuda = device.type == "cuda"
        self._upload = torch.cuda.Stream(device) if self._is_cuda else None
        self._download = torch.cuda.Stream(device) if self._is_cuda else None

    def estimate(self, edits: Edits) -> Estimated:
        """Send the windows up and find each frame's colour field by itself.

        Args:
            edits: at least one.

        Raises:
            ValueError: when a patch reaches outside its frame.
        """
        _check(edits)
        bounds = [patch.bounds for patch in edits.patches]
        windows = Windows.around(bounds, edits.frames[0].layout)
        flat = self.sent(staged(edits.frames, windows, self._is_cuda))
        placement = Placement.of(windows, self.device)
        rgb, alpha = placed(edits.patches, windows)
        if (edits.strength < 1).any():
            strength = self.sent(_in_host_memory(edits.strength, self._is_cuda))
            alpha = alpha * strength[:, None, None]
        free = self._free(edits, windows)
        source = rgb_of_windows(flat, windows)
        fields, found = estimate_fields(source, rgb, alpha, free, placement, self._ring, self._light)
        return Estimated(edits, windows, placement, flat, rgb, alpha, free, fields, found)

    def follow(
        self, estimated: Estimated | None, memory: ColourMemory, remembered: Sequence[int] = ()
    ) -> tuple[Tensor | None, ColourMemory, list[Tensor]]:
        """Smooth the colour of consecutive edits over time.

        Args:
            estimated: the edits; None = there are none.
            memory: what the frames before left.
            remembered: numbers 0..B of edits done after which the memory is wanted too.

        Returns:
            The fields to apply ``[B, 3, S, S]``, the memory after the last edit, and the rows of the wanted ones.
        """
        row = memory.row
        rows, fields = [row], []
        if estimated is not None:
            moments = self.sent(_in_host_memory(_moments(estimated.edits), self._is_cuda))
            for number in range(len(estimated.edits.frames)):
                field, row = self._followed(
                    estimated.fields[number], estimated.found[number], moments[number], row,
                    begins=bool(estimated.edits.begins[number]),
                )  # fmt: skip
                rows.append(row)
                fields.append(field)
        return torch.stack(fields) if fields else None, ColourMemory(row), [rows[number] for number in remembered]

    def blend(self, estimated: Estimated, fields: Tensor, memories: Sequence[Tensor] = ()) -> Pending:
        """Apply the fields, blend, and send the windows back.

        Args:
            estimated: the edits.
            fields: ``[B, 3, S, S]`` as ``follow`` gave them.
            memories: rows to send along.
        """
        rgb = apply_fields(estimated.rgb, fields, estimated.placement, self._light)
        alpha = estimated.ring_alpha if estimated.free is None else estimated.ring_alpha * estimated.free
        flat = blended(estimated.flat, estimated.windows, rgb, alpha, estimated.edits.frames[0].size_hw)
        wanted = {"flat": flat, "area": alpha.sum((1, 2), dtype=torch.float64)}
        if estimated.edits.wants_alpha:
            wanted["alpha"] = alpha
        return self.send_back(estimated, wanted, memories)

    def send_back(
        self, estimated: Estimated | None, wanted: dict[str, Tensor], memories: Sequence[Tensor] = ()
    ) -> Pending:
        """Start copying tensors to main memory."""
        frames, windows = (estimated.edits.frames, estimated.windows) if estimated else ((), None)
        if memories:
            wanted = {**wanted, "memories": torch.stack(list(memories))}
        return self.returned(frames, windows, wanted)

    def returned(self, frames: tuple[Frame, ...], windows: Windows | None, wanted: dict[str, Tensor]) -> Pending:
        """Start copying the tensors of some frames' windows to main memory, see ``Pending``."""
        if self._download is None:
            return Pending(frames, windows, {"memories": torch.empty(0), **wanted}, None)
        event = torch.cuda.Event()
        self._download.wait_stream(torch.cuda.current_stream(self.device))
        downloads = {"memories": torch.empty(0)}
        with torch.cuda.stream(self._download):
            for name, tensor in wanted.items():
                downloads[name] = host_buffer(tuple(tensor.shape), tensor.dtype, pinned=True)
                downloads[name].copy_(tensor, non_blocking=True)
                tensor.record_stream(self._download)
            event.record(self._download)
        return Pending(frames, windows, downloads, event)

    def sent(self, values: Tensor) -> Tensor:
        """A copy on the device of ``host_buffer``'s memory, made in a stream of its own while others are at work."""
        if self._upload is None:
            return values
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._upload):
            copied = values.to(self.device, non_blocking=True)
        current.wait_stream(self._upload)
        copied.record_stream(current)
        return copied

    def _free(self, edits: Edits, windows: Windows) -> Tensor | None:
        """What no occluder hides ``[B, h, w]``, sent up only when one hides something."""
        if all(free is None for free in edits.free):
            return None
        values = host_buffer((len(windows), *windows.inner_hw), torch.float32, self._is_cuda).fill_(1)
        for number, free in enumerate(edits.free):
            if free is not None:
                row, column = windows.offset(number)
                values[number, row : row + free.shape[0], column : column + free.shape[1]] = torch.from_numpy(free)
        return self.sent(values)

    def _followed(
        self, field: Tensor, found: Tensor, moment: Tensor, row: Tensor, *, begins: bool
    ) -> tuple[Tensor, Tensor]:
        """The field to apply ``[3, S, S]`` and the memory after it.

        Args:
            field: ``[3, S, S]`` this frame's own.
            found: bool, whether there is one.
            moment: float64 ``[5]``, time in seconds and bounds.
            row: the memory before.
            begins: it is forgotten.
        """
        if begins:
            row = torch.zeros_like(row)
        before, gap_s = row[:_FIELD].float().view_as(field), moment[0] - row[_FIELD]
        goes_on = (row[-1] > 0) & (gap_s >= 0) & (gap_s <= LONGEST_GAP_S) & _is_same_place(row, moment)
        smoothed = field
        if self._smoothing_s > 0:
            share = (1 - torch.exp(-gap_s / self._smoothing_s)).float()
            smoothed = torch.where(goes_on, followed(before, field, share), field)
        applied = torch.where(found, smoothed, torch.where(goes_on, before, 0))
        new_row = torch.cat([smoothed.flatten().double(), moment, torch.ones_like(moment[:1])])
        return applied, torch.where(found, new_row, row)


def _is_same_place(row: Tensor, moment: Tensor) -> Tensor:
    """Whether the face is about where it was."""
    before, now = row[_FIELD + 1 : -1], moment[1:]
    low, high = torch.maximum(before[:2], now[:2]), torch.minimum(before[2:], now[2:])
    shared = (high - low).clamp(min=0).prod()
    union = (before[2:] - before[:2]).prod() + (now[2:] - now[:2]).prod() - shared
    return shared >= SAME_FACE_IOU * union


def _moments(edits: Edits) -> NDArray[np.float64]:
    """``[B, 5]`` time in seconds and bounds of each edit."""
    return np.array([(float(f.time_s), *p.bounds) for f, p in zip(edits.frames, edits.patches, strict=True)])


def _in_host_memory(values: NDArray, pinned: bool) -> Tensor:
    tensor = torch.from_numpy(values)
    return tensor.pin_memory() if pinned else tensor


def _check(edits: Edits) -> None:
    for frame, patch in zip(edits.frames, edits.patches, strict=True):
        height, width = frame.size_hw
        if patch.bounds[2] > width or patch.bounds[3] > height:
            raise ValueError(f"patch {patch.bounds} reaches outside the {width}x{height} frame")
