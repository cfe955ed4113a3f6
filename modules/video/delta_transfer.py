"""Change a source's own pixels by what two renderings differ in, instead of replacing them.

    result(x) = source(x + flow) + new(x) - shown(x + flow)      where both renderings know the skin
    result(x) = new(x)                                           inside the mouth and close to it

Both renderings are put into the source's light first, which shows where source and ``shown`` are compared. So light,
texture, beard and grain are the source's and move with the skin; where nothing moves nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

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
FULL, THIN = 2 / 3, 1 / 6
"""Shares of changing cells around a place from which it is written in full, and up to which it is left alone: over
the straight edge of what changes, so that the soft edge ends half a cell earlier than one that reached 0."""
KERNEL_SIGMAS = 4
"""How far OpenCV's Gaussians of floats reach."""


def in_source_light(
    source: NDArray[np.float32],
    carried: CarriedPatch,
    free: NDArray[np.float32] | None = None,
    light: LightCurve = BT709,
) -> CarriedPatch:
    """Both renderings under the light that the source's skin shows, where anything is read of them.

    Args:
        source: RGB ``[h, w, 3]`` in 0..1 of the patch's window.
        carried: the renderings and the motion between them.
        free: ``[h, w]`` 1 - what stands in front of the face; None = nothing does.
        light: what coded values mean.
    """
    weight = carried.matched if free is None else carried.matched * free
    gains = _gains(source, carried.shown, weight, LIGHT_EDGES * carried.edge_px, light.offset)
    box = _read_box(carried, is_free=free is None)
    moved = _carried(gains, _grid_of(carried.flow, box), cv2.INTER_LINEAR)
    new, shown = carried.patch.rgb.copy(), carried.shown.copy()
    new[box], shown[box] = _lit(new[box], moved, light.offset), _lit(shown[box], gains[box], light.offset)
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

    def patch(
        self, source: NDArray[np.float32], carried: CarriedPatch, free: NDArray[np.float32] | None, time_s: float
    ) -> FramePatch:
        """The source under its new motion.

        Args:
            source: see ``in_source_light``.
            carried: the renderings in the source's light.
            free: see there. What stands in front is not carried along: there the rendering is used, or the source is
                left alone.
            time_s: when the frame is shown.

        Returns:
            A patch for plain blending; its alpha is 0 where nothing changes, everywhere when motions are the same.
        """
        target, alpha = _moved(source, carried, free)
        difference = _floats(cv2.absdiff(target, source))
        cells, plain = _active(carried.flow, difference)
        cells = self.written(cells, plain, carried.patch.bounds, time_s)
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


def _moved(
    source: NDArray[np.float32], carried: CarriedPatch, free: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The source under its new motion ``[h, w, 3]``, and where it may be used ``[h, w]``."""
    target, alpha = source.copy(), carried.patch.alpha
    box = _stirred(carried, is_free=free is None)
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


Box = tuple[slice, slice]


def _grid_of(flow: NDArray[np.float32], box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the pixels of a box come from, in the window's pixels."""
    x, y = moved_grid(flow[box])
    return _floats(x + np.float32(box[1].start)), _floats(y + np.float32(box[0].start))


def _read_box(carried: CarriedPatch, *, is_free: bool) -> Box:
    """The box in which a rendering is read by anybody: what stirs, and what the source is compared in."""
    height, width = carried.patch.alpha.shape
    compared = (carried.matched > 0) | (carried.mouth_shown > 0)
    left, top, wide, high = cv2.boundingRect(compared.astype(np.uint8))
    boxes = [(slice(top, top + high), slice(left, left + wide))] if wide else []
    stirred = _stirred(carried, is_free=is_free)
    boxes += [stirred] if stirred is not None else []
    if not boxes:
        return slice(0, height), slice(0, width)
    rows, columns = ([box[axis] for box in boxes] for axis in (0, 1))
    return slice(min(r.start for r in rows), max(r.stop for r in rows)), slice(
        min(c.start for c in columns), max(c.stop for c in columns)
    )


def _stirred(carried: CarriedPatch, *, is_free: bool) -> tuple[slice, slice] | None:
    """The box outside of which the source stays as it is, wide enough to be filtered by itself; None = nowhere.

    Beside an occluder the rendering may be used anywhere: then it is the whole window.
    """
    height, width = carried.patch.alpha.shape
    if not is_free:
        return slice(0, height), slice(0, width)
    moves = (carried.flow[..., 0] != 0) | (carried.flow[..., 1] != 0)
    changes = moves | (carried.compared > 0) | (carried.rendered > 0)
    left, top, wide, high = cv2.boundingRect(changes.astype(np.uint8))
    if wide == 0:
        return None
    margin = math.ceil(KERNEL_SIGMAS * SMOOTHED_EDGES * carried.edge_px) + 1
    rows = slice(max(top - margin, 0), min(top + high + margin, height))
    return rows, slice(max(left - margin, 0), min(left + wide + margin, width))


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


def _gains(
    source: NDArray[np.float32],
    shown: NDArray[np.float32],
    weight: NDArray[np.float32],
    sigma_px: float,
    offset: float,
) -> NDArray[np.float32]:
    """Smooth gains ``[h, w, 3]`` of the source over its rendering: means where ``weight`` is, from afar elsewhere."""
    height, width = weight.shape
    size = max(width // STEP_PX, 1), max(height // STEP_PX, 1)
    sigma = sigma_px / STEP_PX
    weights = cv2.merge([weight, weight, weight])
    lit, plain = (cv2.resize(cv2.multiply(p, weights), size, interpolation=cv2.INTER_AREA) for p in (source, shown))
    mass = _spread(_floats(cv2.resize(weight, size, interpolation=cv2.INTER_AREA)), sigma)
    mass = mass[..., None]
    above, below = (_spread(_floats(image), sigma) + np.float32(offset) * mass for image in (lit, plain))
    gains = np.where(mass > LEAST, above / np.maximum(below, LEAST), 1)
    gains = _floats(np.clip(gains, 1 / MOST_GAIN, MOST_GAIN))
    return _floats(cv2.resize(gains, (width, height), interpolation=cv2.INTER_LINEAR))


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
