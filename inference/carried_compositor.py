"""Blend mode delta on a device: what ``FaceCompositor.composite_carried`` does, batch by batch.

Pictures are made on the device. What depends on earlier frames is remembered by the CPU path's own objects, which are
shown small parts of the pictures; so their states are the same, and work may go on wherever it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference.device_compositor import DeviceCompositor, Pending
from inference.face_edits import State
from modules.structures.device_patch import DevicePatch
from modules.structures.frames import Frame
from modules.video.blocks import Coding
from modules.video.delta_transfer import DeltaTransfer
from modules.video.device_blocks import coded
from modules.video.device_delta import (
    CarriedBatch,
    Moved,
    in_source_light,
    moved,
    over_cells,
    with_detail,
    with_grain,
)
from modules.video.device_grids import Grids, cut
from modules.video.device_planes import Windows, blended, host_buffer, rgb_of_windows, staged
from modules.video.device_real_mouth import rendered_only, with_real_mouth
from modules.video.grain import MEASURED_EVERY_S, Strengths
from modules.video.linear_light import BT709, LightCurve
from modules.video.source_detail import SourceDetail

_MARGIN_PX = 16
"""Around the mouth, whose detail is measured: more than its filters reach."""
_WHITE = 255
_NO_DETAIL = 1e-3
"""Gains that near to 1 change nothing, see ``detail.refined``."""


@dataclass(frozen=True, slots=True, eq=False)
class CarriedEdits:
    """What is to be changed in frames of one layout and size.

    Attributes:
        frames: the frames.
        bounds: int64 ``[B, 4]`` of their windows.
        carried: the renderings and the motion, on the device.
        free: for each, what is not hidden by an occluder, 0..1 over its window; None = everything.
        begins: bool ``[B]`` earlier frames are forgotten before this one.
        wants_alpha: whether the final alphas are wanted.
        real: for each, ``CarriedPatch.real``; () = none has one.
    """

    frames: tuple[Frame, ...]
    bounds: NDArray[np.int64]
    carried: CarriedBatch
    free: tuple[NDArray[np.float32] | None, ...]
    begins: NDArray[np.bool_]
    wants_alpha: bool = False
    real: tuple[NDArray[np.uint8] | None, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Lit:
    """Edits whose windows lie on the device, the renderings in their light."""

    edits: CarriedEdits
    windows: Windows
    flat: Tensor
    source: Tensor
    free: Tensor | None
    carried: CarriedBatch


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """Edits of which it is known what is written where.

    Attributes:
        lit: the edits.
        done: the new pictures.
        cells: bool ``[B, h, w]`` that are written, on the device.
        strengths: of the grain.
        codings: of luma.
        states: after each edit.
    """

    lit: Lit
    done: Moved
    cells: Tensor
    strengths: tuple[Strengths, ...]
    codings: tuple[Coding, ...]
    states: tuple[State, ...]


class CarriedCompositor:
    """Composites one person's face in mode delta.

    Args:
        device: where.
        light: what coded values mean.
    """

    def __init__(self, device: torch.device, light: LightCurve = BT709) -> None:
        self.device = device
        self._light = light
        self._copies = DeviceCompositor(device, light)
        self._transfer, self._detail = DeltaTransfer(), SourceDetail()
        self._tiles = torch.from_numpy(np.stack(self._detail.grain.tiles)).to(device)

    def prepare(self, edits: CarriedEdits) -> Lit:
        """Send the windows up and put both renderings into their light; depends on no earlier frame.

        Args:
            edits: at least one.
        """
        boxes = [(x0, y0, x1, y1) for x0, y0, x1, y1 in edits.bounds.tolist()]
        windows, grids = Windows.around(boxes, edits.frames[0].layout), edits.carried.grids
        is_cuda = self.device.type == "cuda"
        flat = self._copies.sent(staged(edits.frames, windows, is_cuda))
        offsets = np.array([windows.offset(number) for number in range(len(windows))])
        source = cut(rgb_of_windows(flat, windows), offsets, grids.padded_hw) * grids.inside()[:, None]
        free = None
        if any(one is not None for one in edits.free):
            free = self._copies.sent(_over_windows(edits.free, grids, is_cuda))
        lit = in_source_light(source, edits.carried, free, self._light)
        if any(one is not None for one in edits.real):
            lit = replace(lit, real=self._copies.sent(_filmed(edits.real, grids, is_cuda)) / _WHITE)
        return Lit(edits, windows, flat, source, free, lit)

    def follow(self, lit: Lit, state: State) -> Written:
        """Find what earlier frames have a say in; waits for the device.

        Args:
            lit: the next edits.
            state: of the face before them.
        """
        gains, strengths, codings, details = self._detailed(lit, state)
        carried = with_detail(lit.carried, torch.tensor(gains, dtype=torch.float32, device=self.device))
        carried = with_real_mouth(lit.source, carried, lit.free)
        done = moved(lit.source, carried, lit.free)
        cells, transfers = self._cells(lit.edits, done, state)
        states = tuple(transfer | detail for transfer, detail in zip(transfers, details, strict=True))
        return Written(lit, done, cells.to(self.device), strengths, codings, states)

    def blend(self, written: Written) -> Pending:
        """Round luma as the source's, add grain, blend, and send the windows back."""
        lit, done = written.lit, written.done
        grids, windows, frames = lit.carried.grids, lit.windows, lit.edits.frames
        alpha = over_cells(done, written.cells, grids)
        offsets = torch.from_numpy(np.stack([self._detail.grain.offsets(frame.index) for frame in frames]))
        strengths = torch.tensor(written.strengths, dtype=torch.float32)
        rendered = rendered_only(lit.carried)
        rgb = coded(done.rgb, rendered, grids, lit.edits.bounds, written.codings, frames[0].layout)
        rgb = with_grain(rgb, alpha, rendered, self._tiles, offsets.to(self.device), strengths.to(self.device))
        seen = alpha if lit.free is None else alpha * lit.free
        inner = _in_windows(torch.cat([rgb, seen[:, None]], 1), windows)
        flat = blended(lit.flat, windows, inner[:, :3], inner[:, 3], frames[0].size_hw)
        wanted = {"flat": flat, "area": seen.sum((1, 2), dtype=torch.float64)}
        if lit.edits.wants_alpha:
            wanted["alpha"] = inner[:, 3]
        return self._copies.returned(frames, windows, wanted)

    def _detailed(
        self, lit: Lit, state: State
    ) -> tuple[list[tuple[float, ...]], tuple[Strengths, ...], tuple[Coding, ...], list[State]]:
        """Gains of fine bands, strengths of grain and coding of each frame, and the state after it."""
        self._detail.resume(state)
        gains, strengths, codings, states = [], [], [], []
        mouths = _mouths(lit)
        for number, (frame, begins) in enumerate(zip(lit.edits.frames, lit.edits.begins, strict=True)):
            if begins:
                self._detail.reset()
            time_s = float(frame.time_s)
            source, shown, _, mouth_shown, free = mouths[number]
            found = self._detail.gains(source, shown, mouth_shown, free, time_s)
            gains.append(tuple(1.0 for _ in found) if all(abs(gain - 1) < _NO_DETAIL for gain in found) else found)
            parts = _whole(lit, number) if self._is_grain_due(time_s) else mouths[number]
            source, shown, compared, mouth_shown, free = parts
            strengths.append(self._detail.strengths(source, shown, compared, mouth_shown, free, frame))
            x0, y0, x1, y1 = lit.edits.bounds[number].tolist()
            codings.append(self._detail.coding(frame, (x0, y0, x1, y1)))
            states.append(self._detail.state())
        return gains, tuple(strengths), tuple(codings), states

    def _is_grain_due(self, time_s: float) -> bool:
        """Whether grain is measured in a frame shown at that time; if not, its pictures are not looked at."""
        known = self._detail.state().get("grain_time_s")
        return known is None or not 0 <= time_s - float(known) < MEASURED_EVERY_S

    def _cells(self, edits: CarriedEdits, done: Moved, state: State) -> tuple[Tensor, list[State]]:
        """Cells that are written ``[B, h, w]`` in main memory, and the state after each frame."""
        self._transfer.resume(state)
        active, plain = torch.stack([done.active, done.plain]).cpu().numpy()
        written, states = np.zeros_like(active), []
        for number, (frame, begins) in enumerate(zip(edits.frames, edits.begins, strict=True)):
            if begins:
                self._transfer.reset()
            rows, columns = done.cells.size_hw[number]
            part = number, slice(rows), slice(columns)
            x0, y0, x1, y1 = edits.bounds[number].tolist()
            time_s, changed = float(frame.time_s), plain[part].copy()
            written[part] = self._transfer.written(active[part], changed, (x0, y0, x1, y1), time_s)
            states.append(self._transfer.state())
        return torch.from_numpy(written), states


def over_window(patches: Sequence[DevicePatch], bounds: NDArray[np.int64], padded_hw: tuple[int, int]) -> Tensor:
    """Colours ``[B, 3, *padded_hw]`` of patches over windows ``[B, 4]``, black where a patch has none."""
    images = torch.zeros((len(patches), 3, *padded_hw), device=patches[0].rgb.device)
    for image, patch, (x0, y0, x1, y1) in zip(images, patches, bounds.tolist(), strict=True):
        left, top, right, bottom = patch.bounds
        ax0, ay0, ax1, ay1 = max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)
        if ax0 < ax1 and ay0 < ay1:
            part = patch.rgb[ay0 - top : ay1 - top, ax0 - left : ax1 - left]
            image[:, ay0 - y0 : ay1 - y0, ax0 - x0 : ax1 - x0] = part.permute(2, 0, 1)
    return images


_Parts = tuple[
    NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None
]
"""Source and shown rendering ``[h, w, 3]``; compared, mouth shown, free ``[h, w]``."""


def _layers(lit: Lit) -> Tensor:
    carried = lit.carried
    layers = [lit.source, carried.shown, carried.compared[:, None], carried.mouth_shown[:, None]]
    return torch.cat(layers if lit.free is None else [*layers, lit.free[:, None]], 1)


def _parts(layers: NDArray[np.float32]) -> _Parts:
    images = np.ascontiguousarray(layers[:6].transpose(1, 2, 0))
    free = layers[8] if len(layers) > 8 else None
    return np.ascontiguousarray(images[..., :3]), np.ascontiguousarray(images[..., 3:]), layers[6], layers[7], free


def _whole(lit: Lit, number: int) -> _Parts:
    """Everything of one window, in main memory."""
    height, width = lit.carried.grids.size_hw[number]
    chosen = slice(number, number + 1)
    layers = [lit.source[chosen], lit.carried.shown[chosen]]
    layers += [one[chosen, None] for one in (lit.carried.compared, lit.carried.mouth_shown)]
    if lit.free is not None:
        layers.append(lit.free[chosen, None])
    return _parts(torch.cat(layers, 1)[0, :, :height, :width].cpu().numpy())


def _mouths(lit: Lit) -> list[_Parts]:
    """The part of each window around the mouth that the source shows, in main memory; a pixel where it shows none."""
    shown = lit.carried.mouth_shown > 0
    height = shown.shape[1]
    marks = torch.cat([shown.any(2), shown.any(1)], 1).cpu().numpy()
    boxes = np.zeros((len(marks), 2, 2), np.int64)  # first and stop of rows, of columns
    boxes[:, :, 1] = 1
    for box, mark, size_hw in zip(boxes, marks, lit.carried.grids.size_hw, strict=True):
        for axis, line in enumerate((mark[:height], mark[height:])):
            places = np.flatnonzero(line)
            if len(places):
                box[axis] = max(places[0] - _MARGIN_PX, 0), min(places[-1] + 1 + _MARGIN_PX, size_hw[axis])
    rows, columns = (boxes[:, :, 1] - boxes[:, :, 0]).max(axis=0)
    layers = cut(_layers(lit), boxes[:, :, 0], (int(rows), int(columns))).cpu().numpy()
    return [
        _parts(one[:, : stop_row - row, : stop_column - column])
        for one, ((row, stop_row), (column, stop_column)) in zip(layers, boxes, strict=True)
    ]


def _over_windows(free: Sequence[NDArray[np.float32] | None], grids: Grids, pinned: bool) -> Tensor:
    """Occluders' maps ``[B, H, W]`` in main memory; 1 where there are none."""
    values = host_buffer((len(free), *grids.padded_hw), torch.float32, pinned).fill_(1)
    for target, one in zip(values, free, strict=True):
        if one is not None:
            target[: one.shape[0], : one.shape[1]] = torch.from_numpy(np.ascontiguousarray(one))
    return values


def _filmed(real: Sequence[NDArray[np.uint8] | None], grids: Grids, pinned: bool) -> Tensor:
    """Filmed mouths ``[B, 4, H, W]`` in main memory; 0 where there are none."""
    values = host_buffer((len(real), 4, *grids.padded_hw), torch.uint8, pinned).zero_()
    for target, one in zip(values, real, strict=True):
        if one is not None:
            target[:, : one.shape[0], : one.shape[1]] = torch.from_numpy(one).permute(2, 0, 1)
    return values


def _in_windows(images: Tensor, windows: Windows) -> Tensor:
    """Images ``[B, C, H, W]`` of patches in the windows' inner parts ``[B, C, h, w]``, 0 around them."""
    offsets = np.array([windows.offset(number) for number in range(len(windows))])
    margin = int(offsets.max()) + 1
    return cut(functional.pad(images, (margin,) * 4), margin - offsets, windows.inner_hw)
