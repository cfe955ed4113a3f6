"""How near a picture is to what was filmed, and how sharp and noisy it is.

Edited pictures differ from their source in one part only. Elsewhere SSIM is exactly 1 and errors are exactly 0, so
everything here looks at the smallest window that holds the difference (``changed_window``); the figures are those of
the whole pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from modules.metrics.picture_structure import SSIM_LEAST_PX, ssim_planes

Window = tuple[int, int, int, int]
"""Integer half-open x0, y0, x1, y1."""
Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]

MS_SSIM_LEAST_PX = 176
"""The smallest side on which five scales can be measured: the coarsest then holds one SSIM window."""
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_REACH = 2 * (SSIM_LEAST_PX // 2)
"""SSIM differs from 1 up to half a kernel from a changed pixel, and is right only half a kernel from a cut."""
_NOISE_OPERATOR = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)
_NOISE_GAIN = 6.0
"""Standard deviation of the operator's answer to white noise of deviation 1: the root of its summed squares."""
_KEPT_SHARE = 0.75
_MEAN_OF_KEPT = 0.5149
"""Mean of the smallest three quarters of the absolute values of a standard normal variable."""


@dataclass(frozen=True, slots=True)
class PictureScores:
    """Likeness over one scope: ``psnr`` in dB (inf when equal), ``ssim`` and ``ms_ssim`` up to 1; NaN: no figure."""

    psnr: float
    ssim: float
    ms_ssim: float


def score_scopes(image: Picture, target: Picture, masks: Sequence[Mask | None]) -> list[PictureScores]:
    """Likeness of two pictures over several scopes, with one SSIM map for all.

    PSNR is taken over the mask; SSIM is the mean of ``ssim_map`` over the mask; MS-SSIM is taken over
    ``scope_window(mask)`` with the target's own pixels outside the mask, so that only masked pixels count.

    Args:
        image: RGB ``[H, W, 3]``.
        target: the same shape; what it should look like.
        masks: bool ``[H, W]``, one per scope; None is the whole picture. An empty one scores NaN.

    Raises:
        ValueError: shapes differ.
    """
    structure = ssim_map(image, target)
    return [
        PictureScores(psnr(image, target, mask), _mean_over(structure, mask), _scope_ms_ssim(image, target, mask))
        for mask in masks
    ]


def psnr(image: Picture, target: Picture, mask: Mask | None = None) -> float:
    """PSNR in dB over the masked pixels (None: all) of two RGB pictures ``[H, W, 3]``.

    Returns:
        ``10 log10(255^2 / mean squared error)``; inf when equal, NaN for an empty mask.

    Raises:
        ValueError: shapes differ.
    """
    window = changed_window(image, target)
    count = image.shape[0] * image.shape[1] if mask is None else int(np.count_nonzero(mask))
    if count == 0:
        return float("nan")
    if window is None:
        return float("inf")
    part = window_slice(window)
    squared = ((image[part].astype(np.int32) - target[part]) ** 2).sum(axis=2)
    total = int(squared.sum() if mask is None else squared[mask[part]].sum())
    return float(10 * np.log10(255**2 * 3 * count / total)) if total else float("inf")


def ssim_map(image: Picture, target: Picture) -> NDArray[np.float32]:
    """SSIM at every pixel, mean over the channels (Wang et al. 2004).

    Gaussian window of 11 x 11 px, sigma 1.5, values scaled to 0..1, borders mirrored.

    Args:
        image: RGB ``[H, W, 3]``.
        target: the same shape.

    Returns:
        float32 ``[H, W]``, at most 1; all NaN when a side is below 11 px.

    Raises:
        ValueError: shapes differ.
    """
    window, shape = changed_window(image, target), image.shape[:2]
    if min(shape) < SSIM_LEAST_PX:
        return np.full(shape, np.nan, np.float32)
    whole = np.ones(shape, np.float32)
    if window is None:
        return whole
    part = window_slice(grown(window, _REACH, shape))
    found, _ = ssim_planes(_planes(image[part]), _planes(target[part]))
    whole[part] = found[0].mean(dim=0).numpy()
    return whole


def ms_ssim(image: Picture, target: Picture) -> float:
    """Multi-scale SSIM of two RGB pictures ``[H, W, 3]`` (Wang et al. 2003).

    The product over five scales, each half as fine as the last, of the mean contrast-structure term to the power of
    its standard weight; the coarsest scale also counts luminance. Negative means count as 0.

    Returns:
        0..1; NaN when a side is below 176 px.

    Raises:
        ValueError: shapes differ.
    """
    window = changed_window(image, target)
    if min(image.shape[:2]) < MS_SSIM_LEAST_PX:
        return float("nan")
    first, second, product = _planes(image), _planes(target), 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if window is None:
            break
        ssim, contrast = _mean_ssim(first, second, window)
        is_coarsest = scale == len(MS_SSIM_WEIGHTS) - 1
        product *= max(ssim if is_coarsest else contrast, 0.0) ** weight
        first, second = (torch.nn.functional.avg_pool2d(planes, 2) for planes in (first, second))
        window = _halved(window, (first.shape[2], first.shape[3]))
    return product


def sharpness(luma: NDArray, mask: Mask) -> float:
    """Variance of the 4-neighbour Laplacian of ``luma [H, W]`` over the mask; NaN when the mask is empty."""
    answers = _filtered_over(luma, mask, np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float32))
    return float(answers.var(dtype=np.float64)) if len(answers) else float("nan")


def noise_sigma(luma: NDArray, mask: Mask) -> float:
    """Standard deviation of white noise in ``luma [H, W]`` over the mask, in the units of ``luma``.

    Immerkaer's operator (1996), ``[1, -2, 1]`` across and down, is blind to slopes and to straight level or upright
    edges. Of his mean of its absolute answer only the smallest three quarters are taken: other edges answer strongly,
    but few pixels lie on one. (A median would do as well, but jumps in steps on 8-bit pictures.) Noise that codecs or
    resampling have smoothed reads low, so compare only like with like.

    Returns:
        ``mean of the smallest 75 % of |answer| / (6 * 0.5149)``; NaN when the mask is empty.
    """
    answers = np.sort(np.abs(_filtered_over(luma, mask, _NOISE_OPERATOR)))
    if not len(answers):
        return float("nan")
    kept = answers[: max(1, round(_KEPT_SHARE * len(answers)))]
    return float(kept.mean(dtype=np.float64) / (_NOISE_GAIN * _MEAN_OF_KEPT))


def delta_e(image: Picture, target: Picture) -> NDArray[np.float32]:
    """Colour difference at every pixel, CIE76: the distance in CIELAB (D65) of two sRGB pictures ``[H, W, 3]``.

    Returns:
        float32 ``[H, W]``; about 2.3 is just noticeable.

    Raises:
        ValueError: shapes differ.
    """
    window = changed_window(image, target)
    distance = np.zeros(image.shape[:2], np.float32)
    if window is not None:
        part = window_slice(window)
        distance[part] = np.linalg.norm(_lab(image[part]) - _lab(target[part]), axis=2)
    return distance


def luma(image: Picture) -> NDArray[np.float32]:
    """Grey of an RGB picture ``[H, W, 3]``, float32 ``[H, W]`` 0..255, not rounded (BT.601 weights)."""
    return np.asarray(cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY), np.float32)


def changed_window(image: Picture, target: Picture) -> Window | None:
    """The smallest window that holds every pixel in which the pictures differ; None when they are equal.

    Raises:
        ValueError: shapes differ, or they are no RGB pictures.
    """
    if image.shape != target.shape or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"two RGB pictures of one size are needed, got {image.shape} and {target.shape}")
    differs = image != target
    return _span(differs.reshape(len(differs), -1).any(axis=1), differs.any(axis=0).any(axis=1))


def scope_window(mask: Mask, least: int = MS_SSIM_LEAST_PX) -> Window | None:
    """The mask's bounding window, grown to at least ``least`` px a side about its centre, kept inside ``[H, W]``.

    Returns:
        None when the mask is empty or ``[H, W]`` is smaller than that.
    """
    tight = _bounding_window(mask)
    if tight is None or min(mask.shape) < least:
        return None
    x0, x1 = _at_least(tight[0], tight[2], least, mask.shape[1])
    y0, y1 = _at_least(tight[1], tight[3], least, mask.shape[0])
    return x0, y0, x1, y1


def window_slice(window: Window) -> tuple[slice, slice]:
    """Index of a window in a picture."""
    x0, y0, x1, y1 = window
    return slice(y0, y1), slice(x0, x1)


def only_masked(image: Picture, target: Picture, mask: Mask) -> Picture:
    """``image [H, W, 3]`` where the mask is set, ``target`` elsewhere."""
    return np.where(mask[..., None], image, target)


def grown(window: Window, by: int, shape: tuple[int, ...]) -> Window:
    """The window ``by`` px larger on every side, kept inside ``shape = (H, W)``."""
    x0, y0, x1, y1 = window
    return max(x0 - by, 0), max(y0 - by, 0), min(x1 + by, shape[1]), min(y1 + by, shape[0])


def _at_least(low: int, high: int, least: int, size: int) -> tuple[int, int]:
    """An interval grown about its centre to ``least``, inside 0..``size``."""
    length = max(high - low, least)
    start = min(max((low + high - length) // 2, 0), size - length)
    return start, start + length


def _bounding_window(mask: Mask) -> Window | None:
    return _span(mask.any(axis=1), mask.any(axis=0))


def _span(rows: ArrayLike, columns: ArrayLike) -> Window | None:
    """From the first to the last set row and column; None when none is."""
    y, x = np.flatnonzero(rows), np.flatnonzero(columns)
    return (int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1) if len(y) else None


def _mean_over(values: NDArray[np.float32], mask: Mask | None) -> float:
    chosen = values if mask is None else values[mask]
    return float(chosen.mean(dtype=np.float64)) if chosen.size else float("nan")


def _scope_ms_ssim(image: Picture, target: Picture, mask: Mask | None) -> float:
    if mask is None:
        return ms_ssim(image, target)
    window = scope_window(mask)
    if window is None:
        return float("nan")
    part = window_slice(window)
    return ms_ssim(only_masked(image[part], target[part], mask[part]), target[part])


def _planes(picture: Picture) -> torch.Tensor:
    """float32 ``[1, 3, H, W]`` in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None])).float() / 255


def _mean_ssim(first: torch.Tensor, second: torch.Tensor, window: Window) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure of ``[1, 3, H, W]`` planes that differ only inside ``window``.

    The second mean leaves out the half kernel along the borders.
    """
    whole = (first.shape[2], first.shape[3])
    part = (..., *window_slice(grown(window, _REACH, whole)))
    near = (first[part], second[part])
    ssim, contrast = ssim_planes(*near)
    reach = SSIM_LEAST_PX // 2
    height, width = near[0].shape[2:]
    share = height * width / (whole[0] * whole[1])
    inner_share = (height - _REACH) * (width - _REACH) / ((whole[0] - _REACH) * (whole[1] - _REACH))
    inner = contrast[..., reach:-reach, reach:-reach]
    return 1 + (float(ssim.mean()) - 1) * share, 1 + (float(inner.mean()) - 1) * inner_share


def _halved(window: Window, shape: tuple[int, int]) -> Window | None:
    """The window at half the resolution; None when it falls into an odd last row or column, which is dropped."""
    x0, y0, x1, y1 = window
    x0, y0, x1, y1 = x0 // 2, y0 // 2, min((x1 + 1) // 2, shape[1]), min((y1 + 1) // 2, shape[0])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _filtered_over(luma: NDArray, mask: Mask, kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers ``[n]`` of a 3 x 3 kernel at the masked pixels; the picture's borders are mirrored."""
    tight = _bounding_window(mask)
    if tight is None:
        return np.zeros(0, np.float32)
    part = window_slice(grown(tight, 1, mask.shape))
    answers = cv2.filter2D(luma[part].astype(np.float32), cv2.CV_32F, kernel)
    return np.asarray(answers[mask[part]], np.float32)


def _lab(picture: Picture) -> NDArray[np.float32]:
    """CIELAB of an sRGB picture: L 0..100, a and b about -110..100.

    OpenCV's own way from sRGB reads a coarse table (off by up to 0.4), so light is made linear here.
    """
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    light = cv2.LUT(np.ascontiguousarray(picture), linear.astype(np.float32))
    return np.asarray(cv2.cvtColor(light, cv2.COLOR_LRGB2Lab), np.float32)
