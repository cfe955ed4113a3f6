"""Change a source's own pixels by what two renderings differ in, instead of replacing them.

    result(x) = source(x + flow) + new(x) - shown(x + flow)      where both renderings know the skin
    result(x) = new(x)                                           inside the mouth and close to it

Both renderings are put into the source's light first, which shows where source and ``shown`` are compared. So light,
texture, beard and grain are the source's and move with the skin; where nothing moves nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from modules.structures.carried_patch import CarriedPatch
from modules.structures.crops import moved_grid
from modules.structures.frames import FramePatch
from modules.video.detail import weighted
from modules.video.linear_light import BT709, LightCurve

SMOOTHED_EDGES = 0.4
"""Renderings are compared without their finest detail, which is not the skin's but the network's: sigma in edges."""
LIGHT_EDGES = 10.0
"""Width of the low-pass that carries the source's light into the mouth, in edges."""
STEP_PX = 8
"""Low frequencies are found on a coarser grid."""
CELL_PX = 3
"""Pixels stay the source's own in whole cells, whose borders are softened over the next two."""
STILL_PX = 0.1
SAME = 1.0 / 255
"""A cell changes when its skin moves more than this or its colours differ more, on average."""
PLAIN = 3.0
"""What changed so many times as much is written once more in the next frame."""
MOST_GAIN = 1.6
"""A source is never said to be lit more differently from training than this."""
LONGEST_GAP_S = 0.5
"""A frame longer ago is not the one before."""
FAR = 1e-3
"""Weight of skin far from the mouth, which counts where there is none nearby."""
LEAST = 1e-6
"""Less weight than this is none."""
_NO_MAPS = ("patch", "edge_px")
FULL, THIN = 2 / 3, 1 / 6
"""Shares of changing cells around a place from which it is written in full, and up to which it is left alone: over
the straight edge of what changes, so that the soft edge ends half a cell earlier than one that reached 0."""
KERNEL_SIGMAS = 4
"""How far OpenCV's Gaussians of floats reach."""
WINDOW_STEP = math.lcm(STEP_PX, CELL_PX)
"""A window of whole steps can be worked on in part: both coarser grids are then the same in the part."""
MEASURED_PX = 8
"""How far around a mouth its detail is looked at (``detail``)."""


Bounds = tuple[int, int, int, int]
Box = tuple[slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The part of a window that is worked on.

    Attributes:
        carried: cut to it. free: likewise; None = nothing stands in front.
        box: rows and columns of the window.
        window: bounds of the whole window.
    """

    carried: CarriedPatch
    free: NDArray[np.float32] | None
    box: Box
    window: Bounds

    @classmethod
    def whole(cls, carried: CarriedPatch, free: NDArray[np.float32] | None = None) -> Part:
        """All of the window."""
        return cls(carried, free, _all_of(carried.patch.alpha), carried.patch.bounds)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the window."""
        return self.carried.patch.alpha.shape == self.size_hw

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of the whole window."""
        x0, y0, x1, y1 = self.window
        return y1 - y0, x1 - x0

    def over_window(self, patch: FramePatch) -> FramePatch:
        """A patch of the part over the whole window; black and without alpha around it."""
        if self.is_whole:
            return patch
        rgb, alpha = np.zeros((*self.size_hw, 3), np.float32), np.zeros(self.size_hw, np.float32)
        rgb[self.box], alpha[self.box] = patch.rgb, patch.alpha
        return FramePatch(self.window, rgb, alpha)

    def cells(self, step: int) -> Box:
        """The part's rows and columns of a grid of ``step`` px over the window."""
        rows, columns = (slice(axis.start // step, -(-axis.stop // step)) for axis in self.box)
        return rows, columns


def in_source_light(source: NDArray[np.float32], part: Part, light: LightCurve = BT709) -> CarriedPatch:
    """Both renderings under the light that the source's skin shows, where anything is read of them.

    Args:
        source: RGB ``[h, w, 3]`` in 0..1 of the part.
        part: the renderings and the motion between them.
        light: what coded values mean.
    """
    carried, free = part.carried, part.free
    weight = carried.matched if free is None else carried.matched * free
    gains = _gains(source, part, weight, light.offset)
    moved = _carried(gains, _grid_of(carried.flow, _all_of(carried.flow)), cv2.INTER_LINEAR)
    new, shown = (_lit(*pair, light.offset) for pair in ((carried.patch.rgb, moved), (carried.shown, gains)))
    return replace(carried, patch=replace(carried.patch, rgb=new), shown=shown)


class DeltaTransfer:
    """Changes one face's pixels frame by frame in order.

    What changed in the frame before is written in this one, too, even where it is the source's own again: so the edge
    of what is written always lies where nothing changes, neither in the picture nor in time.
    """

    def __init__(self) -> None:
        self._before: _Changed | None = None

    def reset(self) -> None:
        """Forget the frame before; call it at cuts."""
        self._before = None

    def state(self) -> dict[str, NDArray]:
        """What is remembered, as arrays; empty when there is nothing."""
        before = self._before
        if before is None:
            return {}
        return {
            "changed": before.cells,
            "changed_bounds": np.array(before.bounds),
            "changed_s": np.array(before.time_s),
        }

    def resume(self, state: dict[str, NDArray]) -> None:
        """Remember what another's ``state`` says."""
        self._before = None
        if "changed" in state:
            x0, y0, x1, y1 = (int(value) for value in state["changed_bounds"])
            self._before = _Changed(state["changed"], (x0, y0, x1, y1), float(state["changed_s"]))

    def part(self, carried: CarriedPatch, free: NDArray[np.float32] | None) -> Part:
        """The part of a window in which anything is read, changes or has just changed.

        Args:
            carried: of the window.
            free: ``[h, w]`` 1 - what stands in front; None = nothing does. Beside an occluder the rendering may be
                used anywhere.
        """
        height, width = carried.patch.alpha.shape
        if free is not None or height % WINDOW_STEP or width % WINDOW_STEP:
            return Part.whole(carried, free)
        rows, columns = _read_box(carried, self._before)
        if rows.stop <= rows.start:
            return Part.whole(carried)
        x0, y0 = carried.patch.bounds[:2]
        bounds = (x0 + columns.start, y0 + rows.start, x0 + columns.stop, y0 + rows.stop)
        maps = {f.name: getattr(carried, f.name) for f in fields(carried) if f.name not in _NO_MAPS}
        maps = {name: None if values is None else values[rows, columns] for name, values in maps.items()}
        patch = FramePatch(bounds, carried.patch.rgb[rows, columns], carried.patch.alpha[rows, columns])
        return Part(replace(carried, patch=patch, **maps), None, (rows, columns), carried.patch.bounds)

    def patch(self, source: NDArray[np.float32], part: Part, time_s: float) -> FramePatch:
        """The source under its new motion.

        Args:
            source: see ``in_source_light``.
            part: the renderings in the source's light. What stands in front is not carried along: there the rendering
                is used, or the source is left alone.
            time_s: when the frame is shown.

        Returns:
            A patch for plain blending; its alpha is 0 where nothing changes, everywhere when motions are the same.
        """
        carried = part.carried
        target, alpha = _moved(source, part)
        difference = _floats(cv2.absdiff(target, source))
        box, size_hw = part.cells(CELL_PX), [-(-length // CELL_PX) for length in part.size_hw]
        cells, plain = np.zeros((2, *size_hw), bool)
        cells[box], plain[box] = _active(carried.flow, difference)
        cells = self.written(cells, plain, part.window, time_s)[box]
        return replace(carried.patch, rgb=target, alpha=np.minimum(alpha, _grown(cells, alpha.shape)))

    def written(
        self, cells: NDArray[np.bool_], plain: NDArray[np.bool_], bounds: tuple[int, int, int, int], time_s: float
    ) -> NDArray[np.bool_]:
        """The cells to be written, those that changed plainly in the frame before included; remembers this frame.

        Args:
            cells: that change, see ``_Changed``.
            plain: those of them that change plainly.
            bounds: of the window.
            time_s: when the frame is shown.
        """
        now, before = _Changed(plain, bounds, time_s), self._before
        self._before = now
        return cells if before is None or not cells.any() else cells | before.at(now)


def _moved(source: NDArray[np.float32], part: Part) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The source under its new motion ``[h, w, 3]``, and where it may be used ``[h, w]``."""
    carried, free = part.carried, part.free
    target, alpha = source.copy(), carried.patch.alpha
    box = _stirred(carried) if free is None else _all_of(alpha)
    if box is None:
        return target, alpha
    grid = _grid_of(carried.flow, box)
    rendered, compared = carried.rendered[box], carried.compared
    if free is not None:
        rendered, compared, alpha = _beside_occluders(carried, free, grid)
    new, sigma = carried.patch.rgb[box], SMOOTHED_EDGES * carried.edge_px
    kept = source.copy()
    kept[box] -= weighted(_blurred(carried.shown[box], sigma), compared[box])
    kept = _carried(_floats(cv2.merge([kept, compared])), grid, cv2.INTER_CUBIC)
    skin, share = _floats(cv2.cvtColor(kept, cv2.COLOR_RGBA2RGB)), _floats(cv2.extractChannel(kept, 3))
    skin += weighted(_blurred(new, sigma), share)
    skin += weighted(_floats(new - skin), rendered)
    target[box] = np.clip(skin, 0, 1, out=skin)
    return target, alpha


def _all_of(values: NDArray) -> Box:
    return slice(0, values.shape[0]), slice(0, values.shape[1])


def _grid_of(flow: NDArray[np.float32], box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the pixels of a box come from, in the window's pixels."""
    x, y = moved_grid(flow[box])
    return _floats(x + np.float32(box[1].start)), _floats(y + np.float32(box[0].start))


def _read_box(carried: CarriedPatch, before: _Changed | None) -> Box:
    """The box, in whole ``WINDOW_STEP``, in which a rendering is read by anybody, or anything was just changed."""
    boxes = [_widened(_rect_of(cv2.max(carried.matched, carried.mouth_shown)), MEASURED_PX)]
    stirred = _stirred(carried)
    boxes += [] if stirred is None else [stirred]
    if before is not None and before.cells.any():
        left, top, wide, high = cv2.boundingRect(before.cells.astype(np.uint8))
        right, down = (before.bounds[axis] - carried.patch.bounds[axis] for axis in (0, 1))
        at = (CELL_PX * left + right, CELL_PX * top + down, CELL_PX * wide, CELL_PX * high)
        boxes.append(_widened(at, 3 * CELL_PX))
    limits = carried.patch.alpha.shape
    box = []
    for axis, limit in enumerate(limits):
        first = min(one[axis].start for one in boxes) // WINDOW_STEP * WINDOW_STEP
        last = -(-max(one[axis].stop for one in boxes) // WINDOW_STEP) * WINDOW_STEP
        box.append(slice(max(first, 0), min(last, limit)))
    return box[0], box[1]


def _rect_of(values: ArrayLike) -> Sequence[int]:
    """Left, top, width and height of what is not 0."""
    return cv2.boundingRect((_floats(values) != 0).view(np.uint8))


def _widened(rect: Sequence[int], by: int) -> Box:
    left, top, wide, high = rect
    return slice(top - by, top + high + by), slice(left - by, left + wide + by)


def _stirred(carried: CarriedPatch) -> Box | None:
    """The box outside of which the source stays as it is, wide enough to be filtered by itself; None = nowhere."""
    height, width = carried.patch.alpha.shape
    left, top, wide, high = _rect_of(cv2.max(carried.compared, carried.rendered))
    x, y, moved_wide, moved_high = _rect_of(np.ascontiguousarray(carried.flow).reshape(height, 2 * width))
    if moved_wide:
        x, stop = x // 2, -(-(x + moved_wide) // 2)
        right, down = max(left + wide, stop), max(top + high, y + moved_high)
        left, top = (min(left, x), min(top, y)) if wide else (x, y)
        wide, high = right - left, down - top
    if wide == 0:
        return None
    margin = max(math.ceil(KERNEL_SIGMAS * SMOOTHED_EDGES * carried.edge_px) + 1, MEASURED_PX)
    rows, columns = _widened((left, top, wide, high), margin)
    return slice(max(rows.start, 0), min(rows.stop, height)), slice(max(columns.start, 0), min(columns.stop, width))


def _lit(image: NDArray[np.float32], gains: NDArray[np.float32], offset: float) -> NDArray[np.float32]:
    """An image under other light: a gain on light is one on coded values with the curve's offset."""
    return _floats(cv2.multiply(image + np.float32(offset), gains)) - np.float32(offset)


def _carried(
    values: NDArray[np.float32], grid: tuple[NDArray[np.float32], NDArray[np.float32]], interpolation: int
) -> NDArray[np.float32]:
    return _floats(cv2.remap(values, *grid, interpolation, borderMode=cv2.BORDER_REPLICATE))


def _blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return _floats(cv2.GaussianBlur(image, (0, 0), sigma))


def _floats(image: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(image, np.float32)


def _beside_occluders(
    carried: CarriedPatch, free: NDArray[np.float32], grid: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """``rendered``, ``compared`` and alpha where something stands in front of the face."""
    clear = _carried(free, grid, cv2.INTER_LINEAR)
    hidden = np.float32(1) - clear
    rendered = np.maximum(carried.rendered, hidden * carried.paintable)
    alpha = carried.patch.alpha * (1 - hidden * (1 - carried.paintable))
    return _floats(rendered), _floats(carried.compared * free), _floats(alpha)


def _gains(source: NDArray[np.float32], part: Part, weight: NDArray[np.float32], offset: float) -> NDArray[np.float32]:
    """Smooth gains ``[h, w, 3]`` of the source over its rendering: means where ``weight`` is, from afar elsewhere."""
    height, width = part.size_hw
    size, box = (max(width // STEP_PX, 1), max(height // STEP_PX, 1)), part.cells(STEP_PX)
    sigma = LIGHT_EDGES * part.carried.edge_px / STEP_PX
    if part.is_whole:
        box = _all_of(np.empty(size[::-1]))
    sums, own = np.zeros((size[1], size[0], 7), np.float32), [axis.stop - axis.start for axis in box[::-1]]
    weights = cv2.merge([weight, weight, weight])
    layers = [cv2.multiply(source, weights), cv2.multiply(part.carried.shown, weights), weight]
    found = [np.atleast_3d(cv2.resize(layer, own, interpolation=cv2.INTER_AREA)) for layer in layers]
    sums[box] = np.concatenate(found, axis=2)
    total = _spread(sums, sigma)
    mass = total[..., 6:]
    above, below = (total[..., k : k + 3] + np.float32(offset) * mass for k in (0, 3))
    gains = np.where(mass > LEAST, above / np.maximum(below, LEAST), 1)
    gains = _floats(np.clip(gains, 1 / MOST_GAIN, MOST_GAIN))
    return _floats(cv2.resize(gains, (width, height), interpolation=cv2.INTER_LINEAR)[part.box])


def _spread(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Means over what is near, and faintly over everything."""
    return _floats(_blurred(values, sigma) + np.float32(FAR) * values.mean(axis=(0, 1)))


@dataclass(frozen=True, slots=True, eq=False)
class _Changed:
    """Cells ``[ceil(h / CELL_PX), ceil(w / CELL_PX)]`` of a window ``bounds`` that changed in a frame."""

    cells: NDArray[np.bool_]
    bounds: tuple[int, int, int, int]
    time_s: float

    def at(self, other: _Changed) -> NDArray[np.bool_]:
        """The cells of another window that changed here; none when it is of another moment."""
        if not 0 <= other.time_s - self.time_s <= LONGEST_GAP_S:
            return np.zeros_like(other.cells)
        height, width = other.cells.shape
        rows, columns = np.nonzero(self.cells)
        down, right = (np.float64(self.bounds[k] - other.bounds[k]) / CELL_PX for k in (1, 0))
        found = np.zeros_like(other.cells)
        for round_row in (np.floor, np.ceil):
            for round_column in (np.floor, np.ceil):
                at_row, at_column = rows + int(round_row(down)), columns + int(round_column(right))
                inside = (at_row >= 0) & (at_row < height) & (at_column >= 0) & (at_column < width)
                found[at_row[inside], at_column[inside]] = True
        return found


def _active(flow: NDArray[np.float32], difference: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cells in which skin moves, ``flow [h, w, 2]`` px, or colours change, ``difference [h, w, 3]`` absolute.

    Returns:
        Those that do, and those that do plainly.
    """
    height, width = flow.shape[:2]
    size = max(-(-width // CELL_PX), 1), max(-(-height // CELL_PX), 1)
    mean = cv2.transform(difference, np.full((1, 3), 1 / 3))
    moves, differs = (cv2.resize(values, size, interpolation=cv2.INTER_AREA) for values in (flow, mean))
    change = np.maximum(np.abs(moves[..., 0]), np.abs(moves[..., 1])) / STILL_PX
    change = np.maximum(change, differs / SAME)
    return change > 1, change > PLAIN


def _grown(cells: NDArray[np.bool_], size_hw: tuple[int, ...]) -> NDArray[np.float32]:
    """Alpha ``[h, w]`` that is 1 over cells and 0 from half way between the first and second cell beside them on."""
    if not cells.any():
        return np.zeros(size_hw, np.float32)
    grown = cv2.blur(cells.astype(np.float32), (3, 3))
    soft = _floats(cv2.resize(grown, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR))
    return _floats(np.clip((soft - np.float32(THIN)) / np.float32(FULL - THIN), 0, 1))
