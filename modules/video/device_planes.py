"""The torch twin of ``colour``: windows of many frames' planes as one batch on a device, to RGB and blended back.

All windows of a batch have one size, so that a batch costs as few kernels as a frame. A window is aligned to the chroma
grid and holds one chroma sample more than its patch on each side, which is what sited filters reach. Beyond the frame
its border samples continue. Results differ from ``colour`` by the rounding of float32 alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from modules.structures.device_patch import DevicePatch
from modules.structures.frames import Frame, PlaneLayout
from modules.video.colour import (
    NEIGHBOUR_SHARES,
    SITE_WEIGHTS,
    Bounds,
    codes_from_rgb,
    largest_code,
    rgb_from_codes,
    site_offset,
)

_STEP = 16
"""Windows grow in steps of so many chroma samples: few sizes let the allocator use its blocks again."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Where the windows of a batch of patches lie.

    Attributes:
        layout: of the frames.
        bounds: of the patches, half-open (x0, y0, x1, y1).
        first: (row, column) of each window's first chroma sample; -1 lies before the plane.
        chroma_hw: size of every window in chroma samples.
    """

    layout: PlaneLayout
    bounds: tuple[Bounds, ...]
    first: tuple[tuple[int, int], ...]
    chroma_hw: tuple[int, int]

    @classmethod
    def around(cls, bounds: Sequence[Bounds], layout: PlaneLayout) -> Windows:
        """The windows of patches on frames of one layout."""
        shift_x, shift_y = layout.chroma_shift
        first = tuple(((y0 >> shift_y) - 1, (x0 >> shift_x) - 1) for x0, y0, _, _ in bounds)
        height = max(((b[3] - 1) >> shift_y) + 2 - row for b, (row, _) in zip(bounds, first, strict=True))
        width = max(((b[2] - 1) >> shift_x) + 2 - column for b, (_, column) in zip(bounds, first, strict=True))
        return cls(layout, tuple(bounds), first, (-(-height // _STEP) * _STEP, -(-width // _STEP) * _STEP))

    def __len__(self) -> int:
        return len(self.bounds)

    @property
    def luma_hw(self) -> tuple[int, int]:
        """Size of every window in pixels."""
        shift_x, shift_y = self.layout.chroma_shift
        return self.chroma_hw[0] << shift_y, self.chroma_hw[1] << shift_x

    @property
    def margin_hw(self) -> tuple[int, int]:
        """Pixels of a window before its inner part, the part without the outermost chroma samples."""
        shift_x, shift_y = self.layout.chroma_shift
        return 1 << shift_y, 1 << shift_x

    @property
    def inner_hw(self) -> tuple[int, int]:
        """Size of the inner part in pixels; colour is known and patches lie there."""
        (height, width), (margin_y, margin_x) = self.luma_hw, self.margin_hw
        return height - 2 * margin_y, width - 2 * margin_x

    def luma_first(self, number: int) -> tuple[int, int]:
        """(row, column) in the frame of the first pixel of window ``number``."""
        shift_x, shift_y = self.layout.chroma_shift
        row, column = self.first[number]
        return row << shift_y, column << shift_x

    def offset(self, number: int) -> tuple[int, int]:
        """(row, column) of patch ``number`` in the inner part."""
        (row, column), (margin_y, margin_x) = self.luma_first(number), self.margin_hw
        x0, y0, _, _ = self.bounds[number]
        return y0 - row - margin_y, x0 - column - margin_x

    @property
    def samples(self) -> int:
        """Samples of one window's three planes."""
        height, width = self.luma_hw
        return height * width + 2 * self.chroma_hw[0] * self.chroma_hw[1]

    def planes_of(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Views luma ``[B, H, W]`` and chroma ``[B, 2, h, w]`` of ``[B, samples]``."""
        height, width = self.luma_hw
        return (
            flat[:, : height * width].unflatten(1, (height, width)),
            flat[:, height * width :].unflatten(1, (2, *self.chroma_hw)),
        )


def staged(frames: Sequence[Frame], windows: Windows, pinned: bool) -> Tensor:
    """Copies of the windows' samples, uint8 or int16 ``[B, samples]`` in main memory.

    Args:
        frames: one per window.
        windows: where they lie.
        pinned: in memory that a GPU reads by itself.
    """
    flat = host_buffer((len(windows), windows.samples), _sample_type(windows.layout), pinned)
    luma, chroma = (view.numpy() for view in windows.planes_of(flat))
    for number, frame in enumerate(frames):
        _copy_window(frame.planes[0], windows.luma_first(number), luma[number])
        for target, plane in zip(chroma[number], frame.planes[1:], strict=True):
            _copy_window(plane, windows.first[number], target)
    return flat


def host_buffer(shape: tuple[int, ...], dtype: torch.dtype, pinned: bool) -> Tensor:
    """Uninitialised main memory; ``pinned`` where a GPU copies from or to it by itself."""
    return torch.empty(shape, dtype=dtype, pin_memory=pinned)


def pasted(frame: Frame, windows: Windows, number: int, flat: Tensor) -> Frame:
    """The frame with the patch's part of window ``number`` put in; its own planes stay as they are.

    Args:
        frame: that the window was taken from.
        windows: where it lies.
        number: which one.
        flat: ``[B, samples]`` in main memory.
    """
    luma, chroma = (view[number].numpy() for view in windows.planes_of(flat))
    shift_x, shift_y = windows.layout.chroma_shift
    x0, y0, x1, y1 = windows.bounds[number]
    around = ((x0 >> shift_x) - 1, (y0 >> shift_y) - 1, ((x1 - 1) >> shift_x) + 2, ((y1 - 1) >> shift_y) + 2)
    parts = [(luma, windows.luma_first(number), windows.bounds[number])]
    parts += [(plane, windows.first[number], around) for plane in chroma]
    planes = [_with_window(plane, *part) for plane, part in zip(frame.planes, parts, strict=True)]
    return replace(frame, planes=(planes[0], planes[1], planes[2]))


def rgb_of_windows(flat: Tensor, windows: Windows) -> Tensor:
    """RGB float32 ``[B, 3, h, w]`` in 0..1 of the windows' inner parts, not rounded.

    Args:
        flat: ``[B, samples]`` on the device.
        windows: what they are of.
    """
    luma, chroma = windows.planes_of(flat)
    (height, width), (margin_y, margin_x) = windows.inner_hw, windows.margin_hw
    inner = luma[:, None, margin_y : margin_y + height, margin_x : margin_x + width].float()
    colour = _upsampled(chroma.float(), windows.layout)
    affine = rgb_from_codes(windows.layout) / 255
    return _transformed(torch.cat([inner, colour], 1), affine).clamp_(0, 1)


def placed(patches: Sequence[DevicePatch], windows: Windows) -> tuple[Tensor, Tensor]:
    """The patches in the windows' inner parts: RGB ``[B, 3, h, w]`` and alpha ``[B, h, w]``, both 0 around them."""
    device, size = patches[0].rgb.device, windows.inner_hw
    rgb = torch.zeros((len(patches), 3, *size), device=device)
    alpha = torch.zeros((len(patches), *size), device=device)
    for number, patch in enumerate(patches):
        row, column = windows.offset(number)
        height, width = patch.alpha.shape
        rows, columns = slice(row, row + height), slice(column, column + width)
        rgb[number, :, rows, columns] = patch.rgb.permute(2, 0, 1)
        alpha[number, rows, columns] = patch.alpha
    return rgb, alpha


def blended(flat: Tensor, windows: Windows, rgb: Tensor, alpha: Tensor, frame_hw: tuple[int, int]) -> Tensor:
    """The windows with patches laid over them: one alpha per plane, blended in float, rounded once.

    Samples where their plane's alpha is 0 are those of ``flat``. Chroma is filtered weighted by alpha, so what ``rgb``
    holds where alpha is 0 never shows.

    Args:
        flat: ``[B, samples]`` on the device.
        windows: what they are of.
        rgb: ``[B, 3, h, w]`` in 0..1 in the inner parts.
        alpha: ``[B, h, w]`` likewise.
        frame_hw: size of the frames.

    Returns:
        ``[B, samples]`` of the type of ``flat``.
    """
    layout, (margin_y, margin_x) = windows.layout, windows.margin_hw
    cover = alpha[:, None]
    affine = codes_from_rgb(layout)
    affine[:, :3] *= 255
    codes = _transformed(torch.where(cover > 0, rgb.clamp(0, 1), 0), affine)
    edge = (margin_x, margin_x, margin_y, margin_y)
    weighted = functional.pad(torch.cat([cover, cover * codes[:, 1:]], 1), edge)
    _continue_beyond_frame(weighted, windows, frame_hw)
    at_sites = _site_mean(weighted, layout)
    luma, chroma = windows.planes_of(flat)
    result = flat.clone()
    new_luma, new_chroma = windows.planes_of(result)
    inner = luma[:, margin_y:-margin_y, margin_x:-margin_x].float()
    new_luma[:, margin_y:-margin_y, margin_x:-margin_x] = _rounded(inner + alpha * (codes[:, 0] - inner), flat, layout)
    own = chroma.float()
    mixed = own + (at_sites[:, 1:] - at_sites[:, :1] * own)
    new_chroma[:] = torch.where(at_sites[:, :1] > 0, _rounded(mixed, flat, layout), chroma)
    return result


def _rounded(values: Tensor, like: Tensor, layout: PlaneLayout) -> Tensor:
    return values.round().clamp_(0, largest_code(layout)).to(like.dtype)


def _sample_type(layout: PlaneLayout) -> torch.dtype:
    """What samples are held in; above 8 bits their 12 at most fit a signed type, which torch computes with."""
    return torch.uint8 if layout.bit_depth == 8 else torch.int16


def _copy_window(plane: NDArray, first: tuple[int, int], target: NDArray) -> None:
    """Fill ``target`` ``[h, w]`` with the plane's samples from ``first`` on, its border ones beyond it."""
    (row, column), (height, width) = first, target.shape
    if row >= 0 and column >= 0 and row + height <= plane.shape[0] and column + width <= plane.shape[1]:
        target[:] = plane[row : row + height, column : column + width]
        return
    rows = np.clip(np.arange(row, row + height), 0, plane.shape[0] - 1)
    columns = np.clip(np.arange(column, column + width), 0, plane.shape[1] - 1)
    target[:] = plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1][rows - rows[0]][:, columns - columns[0]]


def _with_window(plane: NDArray, window: NDArray, first: tuple[int, int], part: Bounds) -> NDArray:
    """A copy of a plane with ``part`` (plane coordinates, cut at its border) taken from a window."""
    x0, y0, x1, y1 = max(part[0], 0), max(part[1], 0), min(part[2], plane.shape[1]), min(part[3], plane.shape[0])
    row, column = first
    changed = plane.copy()
    changed[y0:y1, x0:x1] = window[y0 - row : y1 - row, x0 - column : x1 - column]
    return changed


def _transformed(image: Tensor, affine: NDArray[np.float64]) -> Tensor:
    """``affine`` ``[3, 4]`` applied to each pixel of ``[B, 3, H, W]``; no matrix product, so TF32 cannot round it."""
    rows = []
    for a, b, c, d in affine.tolist():
        rows.append(image[:, 0].mul(a).add_(image[:, 1], alpha=b).add_(image[:, 2], alpha=c).add_(d))
    return torch.stack(rows, 1)


def _upsampled(chroma: Tensor, layout: PlaneLayout) -> Tensor:
    """Chroma ``[B, C, h, w]`` at the pixels of the inner part, linear between the chroma sites."""
    for axis, shift, offset in zip((2, 3), layout.chroma_shift[::-1], site_offset(layout)[::-1], strict=True):
        here = chroma.narrow(axis, 1, chroma.shape[axis] - 2)
        if shift:
            before, after = NEIGHBOUR_SHARES[offset]
            previous = chroma.narrow(axis, 0, here.shape[axis])
            following = chroma.narrow(axis, 2, here.shape[axis])
            pair = (here + (previous - here) * before, here + (following - here) * after)
            here = torch.stack(pair, axis + 1).flatten(axis, axis + 1)
        chroma = here
    return chroma


def _site_mean(values: Tensor, layout: PlaneLayout) -> Tensor:
    """Mean of ``[B, C, H, W]`` over one chroma sample's area centred on each chroma site."""
    for axis, shift, offset in zip((2, 3), layout.chroma_shift[::-1], site_offset(layout)[::-1], strict=True):
        if not shift:
            continue
        count = values.shape[axis] // 2
        edge = (0, 0, 1, 1) if axis == 2 else (1, 1, 0, 0)
        padded = functional.pad(values, edge, mode="replicate")
        terms = [(weight, k) for k, weight in enumerate(SITE_WEIGHTS[offset]) if weight]
        values = sum(
            (_every_other(padded, axis, k, count) * weight for weight, k in terms[1:]),
            _every_other(padded, axis, terms[0][1], count) * terms[0][0],
        )
    return values


def _every_other(values: Tensor, axis: int, first: int, count: int) -> Tensor:
    stop = first + 2 * count - 1
    return values[:, :, first:stop:2] if axis == 2 else values[:, :, :, first:stop:2]


def _continue_beyond_frame(values: Tensor, windows: Windows, frame_hw: tuple[int, int]) -> None:
    """Let the frame's border pixels go on outside it in ``[B, C, H, W]``, for patches that touch the border."""
    height, width = frame_hw
    for number, (x0, y0, x1, y1) in enumerate(windows.bounds):
        row, column = windows.luma_first(number)
        image = values[number]
        if x0 == 0:
            image[:, :, :-column] = image[:, :, -column : -column + 1]
        if x1 == width:
            image[:, :, width - column :] = image[:, :, width - column - 1 : width - column]
        if y0 == 0:
            image[:, :-row] = image[:, -row : -row + 1]
        if y1 == height:
            image[:, height - row :] = image[:, height - row - 1 : height - row]
