"""A mouth that was filmed in the place of one that is rendered, in the colours of the skin around it.

Its device twin is ``device_real_mouth``.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.carried_patch import CarriedPatch
from modules.structures.crops import moved_grid
from modules.video.delta_transfer import STEP_PX

COLOUR_EDGES = 6.0
"""Width over which a mouth's colours follow the skin beside it, in edge radii: about half a mouth."""
LEAST_RIM = 1e-3
"""Less of the rim than this, as a share of an area, says nothing about colours."""
WHOLE_FROM = 0.25
"""Share of the rendering from which the filmed mouth is put in wholly: skin beside it is compared with renderings."""
MOST_OFFSET = 0.2
"""Colours are never shifted further than this, of white."""
_WHITE = 255.0

Floats = NDArray[np.float32]


def with_real_mouth(source: Floats, carried: CarriedPatch, free: Floats | None = None) -> CarriedPatch:
    """The new rendering with the filmed mouth in it, where there is one.

    Where the rendering passes over into the source's own skin, the mouth must have its colours; what it differs by
    there is taken from the whole mouth, smoothly.

    Args:
        source: RGB ``[h, w, 3]`` 0..1 of the window.
        carried: in the source's light.
        free: ``[h, w]`` 1 - what stands in front; None = nothing does.
    """
    if carried.real is None or not carried.real[..., 3].any():
        return carried
    left, top, wide, high = cv2.boundingRect(carried.real[..., 3])
    box = slice(top, top + high), slice(left, left + wide)
    real = np.ascontiguousarray(carried.real[box][..., :3], np.float32) / np.float32(_WHITE)
    used = carried.real[box][..., 3].astype(np.float32) / np.float32(_WHITE)
    x, y = moved_grid(carried.flow[box])
    grid = (x + np.float32(left)).astype(np.float32), (y + np.float32(top)).astype(np.float32)
    skin = np.asarray(cv2.remap(source, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
    share = carried.rendered[box]
    rim = 4 * share * (1 - share) * used
    if free is not None:
        rim *= np.asarray(cv2.remap(free, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
    layers = np.zeros((*carried.rendered.shape, 4), np.float32)
    layers[box] = np.dstack([(skin - real) * rim[..., None], rim])
    offset = _spread_over(layers, COLOUR_EDGES * carried.edge_px)[box]
    rgb = carried.patch.rgb.copy()
    put_in = used * np.minimum(share / np.float32(WHOLE_FROM), 1)
    rgb[box] += put_in[..., None] * (np.clip(real + offset, 0, 1) - rgb[box])
    return replace(carried, patch=replace(carried.patch, rgb=rgb))


def _spread_over(layers: Floats, sigma_px: float) -> Floats:
    """Means ``[h, w, 3]`` of weighted values ``[h, w, 3 + 1]`` around each place; 0 far from any weight."""
    height, width = layers.shape[:2]
    size = max(width // STEP_PX, 1), max(height // STEP_PX, 1)
    coarse = cv2.resize(layers, size, interpolation=cv2.INTER_AREA)
    near = np.asarray(cv2.GaussianBlur(coarse, (0, 0), sigma_px / STEP_PX), np.float32)
    offset = np.clip(near[..., :3] / (near[..., 3:] + np.float32(LEAST_RIM)), -MOST_OFFSET, MOST_OFFSET)
    return np.asarray(cv2.resize(offset, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def without_filmed(carried: CarriedPatch) -> CarriedPatch:
    """``rendered`` without what was filmed: that has the source's grain already."""
    if carried.real is None:
        return carried
    filmed = carried.real[..., 3].astype(np.float32) / np.float32(_WHITE)
    return replace(carried, rendered=carried.rendered * (1 - filmed))


def mouth_picture(
    crop: NDArray[np.uint8], crop_from_window: NDArray[np.float64], size_wh: tuple[int, int]
) -> NDArray[np.uint8]:
    """A filmed mouth over a window, ``[h, w, 4]``: RGB, and how far it may be used.

    Args:
        crop: ``[h', w', 4]`` likewise.
        crop_from_window: ``[2, 3]`` affine map of continuous pixels.
        size_wh: of the window, px.
    """
    picture = np.zeros((size_wh[1], size_wh[0], 4), np.uint8)
    box = _box_of(crop.shape[:2], crop_from_window, size_wh)
    if box is None:
        return picture
    left, top, right, bottom = box
    centred = crop_from_window.copy()
    centred[:, 2] += crop_from_window[:, :2] @ [left + 0.5, top + 0.5] - 0.5  # OpenCV centres pixels on whole numbers
    size, flags = (right - left, bottom - top), cv2.WARP_INVERSE_MAP
    part = picture[top:bottom, left:right]
    # colours go on beyond the crop, where nothing is used of them
    part[..., :3] = cv2.warpAffine(
        crop[..., :3], centred, size, flags=flags | cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    part[..., 3] = cv2.warpAffine(
        crop[..., 3], centred, size, flags=flags | cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return picture


def _box_of(
    crop_hw: tuple[int, ...], crop_from_window: NDArray[np.float64], size_wh: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """The part of a window (x0, y0, x1, y1) in which a crop lies; None = beside it."""
    corners = np.array([(x, y) for x in (0, crop_hw[1]) for y in (0, crop_hw[0])], np.float64)
    there = np.linalg.solve(crop_from_window[:, :2], (corners - crop_from_window[:, 2]).T).T
    low = np.maximum(np.floor(there.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(there.max(0)).astype(int) + 1, size_wh)
    return None if (low >= high).any() else (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def affine_between(
    here: NDArray[np.floating], there: NDArray[np.floating], weight: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The affine map ``[2, 3]`` that carries points ``[N, 2]`` nearest to ``[N, 2]`` others, by weighted least squares.

    Args:
        here: px.
        there: px.
        weight: ``[N]``, above 0.
    """
    root = np.sqrt(weight)[:, None]
    design = np.column_stack([here, np.ones(len(here))])
    solved = np.linalg.lstsq(design * root, there * root, rcond=None)[0]
    return solved.T.astype(np.float64)
