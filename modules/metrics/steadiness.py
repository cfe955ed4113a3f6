"""Is it steady? Jitter of the head's landmarks and flicker of the picture, in result and source alike.

Both leave out true motion as far as the source's own does, so what counts is the result's figure over the source's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.landmarks import JAW_LINE, MOUTH, N_MEDIAPIPE, RIGID

Luma = NDArray[np.uint8]
"""Y' ``[H, W]``."""

HEAD_POINTS = tuple(sorted(set(RIGID) - set(MOUTH) - set(JAW_LINE)))
"""Landmarks that follow the head whatever is said: their jitter is the picture's, not the speech's."""
QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95)
"""At which frames are compared."""
LEAST_FRAMES = 8
"""For quantiles."""
_SMALLEST_FOR_FLOW = 32
"""DIS fails on, or returns NaN for, pictures hardly larger than its 8 px patches."""


def landmark_acceleration(
    points: NDArray[np.floating], times_s: NDArray[np.floating], block: NDArray[np.integer]
) -> NDArray[np.float64]:
    """RMS over the head's landmarks of the length of their second difference in time, px per frame squared.

    Times may be irregular: the second divided difference ``2 ((p2 - p1) / h2 - (p1 - p0) / h1) / (h1 + h2)`` is scaled
    by the square of the median frame time, which at a constant rate leaves the plain ``p2 - 2 p1 + p0``.

    Args:
        points: ``[N, 478, 2]`` px; rows without a face are NaN.
        times_s: ``[N]`` ascending.
        block: ``[N]`` number of the unbroken stretch a frame belongs to.

    Returns:
        ``[N]``; NaN at the first and last frame of a block and beside missing faces.

    Raises:
        ValueError: when shapes disagree or times do not ascend.
    """
    count = len(points)
    if points.shape != (count, N_MEDIAPIPE, 2) or times_s.shape != (count,) or block.shape != (count,):
        raise ValueError(f"expected [N, 478, 2], [N], [N], got {points.shape}, {times_s.shape}, {block.shape}")
    found = np.full(count, np.nan)
    if count < 3:
        return found
    step = np.diff(times_s.astype(np.float64))
    if not (step > 0).all():
        raise ValueError("times must ascend")
    unbroken = block[1:] == block[:-1]
    frame_time = np.median(step[unbroken]) if unbroken.any() else math.nan
    velocity = np.diff(points[:, HEAD_POINTS].astype(np.float64), axis=0) / step[:, None, None]
    acceleration = 2 * np.diff(velocity, axis=0) / (step[1:] + step[:-1])[:, None, None] * frame_time**2
    rms = np.sqrt((acceleration**2).sum(axis=2).mean(axis=1))
    found[1:-1] = np.where(unbroken[1:] & unbroken[:-1], rms, np.nan)
    return found


class FlickerMeter:
    """What changes from frame to frame beyond what the source's motion explains; frames are given in order.

    The previous frame is carried along by the motion found in the source (DIS optical flow, Kroeger et al. 2016) and
    compared with the present one. Result and source are carried by the same motion, so its errors, and the loss of
    detail in resampling, weigh on both; the figure is the mean over frames of the result's error over that of the
    source's. Lips that move otherwise than the source's count as flicker where they reach into the band.
    Remembers one frame, whatever the length of the video.
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._previous: tuple[Luma, Luma] | None = None

    def update(
        self, result_luma: Luma, source_luma: Luma, band: NDArray[np.bool_], is_block_start: bool
    ) -> tuple[float, float]:
        """``update_all`` of one band."""
        return self.update_all(result_luma, source_luma, (band,), is_block_start)[0]

    def update_all(
        self, result_luma: Luma, source_luma: Luma, bands: Sequence[NDArray[np.bool_]], is_block_start: bool
    ) -> list[tuple[float, float]]:
        """Errors (result, source) in each band: mean absolute difference, in luma codes 0..255.

        Args:
            result_luma: uint8 ``[H, W]`` of this frame.
            source_luma: uint8 ``[H, W]`` of this frame.
            bands: bool ``[H, W]``, where to look in this frame.
            is_block_start: there is no frame before, or it does not belong to this one.

        Returns:
            NaN for both at the start of a block and where a band is empty.

        Raises:
            ValueError: when sizes disagree, or differ from the previous frame's inside a block.
        """
        if any(not result_luma.shape == source_luma.shape == band.shape for band in bands):
            shapes = [band.shape for band in bands]
            raise ValueError(f"sizes disagree: {result_luma.shape}, {source_luma.shape}, bands {shapes}")
        previous, self._previous = self._previous, (result_luma, source_luma)
        unknown = [(math.nan, math.nan) for _ in bands]
        if is_block_start or previous is None:
            return unknown
        if previous[1].shape != source_luma.shape:
            raise ValueError(f"size changed inside a block: {previous[1].shape}, then {source_luma.shape}")
        if not any(band.any() for band in bands):
            return unknown
        flow = _motion(self._flow, source_luma, previous[1])
        made, own = (
            warp_errors(luma, before, flow, bands)
            for luma, before in ((result_luma, previous[0]), (source_luma, previous[1]))
        )
        return list(zip(made, own, strict=True))


def worst_quantile_ratio(result: NDArray[np.floating], source: NDArray[np.floating]) -> float:
    """Largest ratio of equal quantiles of two series, result over source, over ``QUANTILES``.

    A mean hides a result that is steady mostly and flashes now and then; the uppermost 5 % are left to chance.

    Args:
        result: ``[N]``, NaN where unknown.
        source: ``[N]``, likewise.

    Returns:
        NaN with fewer than ``LEAST_FRAMES`` known pairs, or where the source's quantiles are not above 0.
    """
    known = np.isfinite(result) & np.isfinite(source)
    if known.sum() < LEAST_FRAMES:
        return math.nan
    own = np.quantile(source[known], QUANTILES)
    return float((np.quantile(result[known], QUANTILES) / own).max()) if own.min() > 0 else math.nan


def warp_errors(
    luma: Luma, previous: Luma, flow: NDArray[np.float32], bands: Sequence[NDArray[np.bool_]]
) -> list[float]:
    """Mean over each band of ``|luma(x) - previous(x + flow(x))|``, linear between pixels, edge values continuing.

    Args:
        luma: uint8 ``[H, W]``.
        previous: uint8 ``[H, W]`` of the frame before.
        flow: ``[H, W, 2]`` px (x, y), from this frame to the one before.
        bands: bool ``[H, W]``; NaN where one is empty.
    """
    height, width = luma.shape
    to_x = flow[..., 0] + np.arange(width, dtype=np.float32)
    to_y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    before = previous.astype(np.float32)
    carried = cv2.remap(before, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    error = np.abs(luma.astype(np.float32) - carried)
    return [float(error[band].mean(dtype=np.float64)) if band.any() else math.nan for band in bands]


def _motion(flow: cv2.DISOpticalFlow, luma: Luma, previous: Luma) -> NDArray[np.float32]:
    """Where each pixel was in the previous frame, relative to where it is, ``[H, W, 2]`` px (x, y)."""
    height, width = luma.shape
    below, right = max(_SMALLEST_FOR_FLOW - height, 0), max(_SMALLEST_FOR_FLOW - width, 0)
    first, second = (cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE) for image in (luma, previous))
    at_rest = np.zeros((*first.shape, 2), np.float32)
    return np.asarray(flow.calc(first, second, at_rest), np.float32)[:height, :width]
