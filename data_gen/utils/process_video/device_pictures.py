"""OpenCV's linear filters as matrices on a device: what a filter does to rows and columns is asked of OpenCV itself.

``A @ picture @ Aᵀ`` filters along both axes, borders included, in full precision on any device; at the sizes that masks
are judged at, two products of matrices are one small step for a GPU. Pictures come in batches ``[..., S, S]``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional


class Filters:
    """Filters for planes ``[..., S, S]`` on one device; their matrices are made when first asked for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept: dict[Hashable, Tensor] = {}

    def constant(self, values: float | tuple) -> Tensor:
        """float32 of numbers or nested tuples of them, sent once: each sending would wait for the device."""
        return self._once(("constant", values), lambda: values)

    def gaussian(self, planes: Tensor, sigma: float) -> Tensor:
        """``cv2.GaussianBlur(planes, (0, 0), sigma)`` of float32."""
        key, size = ("gaussian", sigma), planes.shape[-1]
        return self._both(planes, self._made(key, size, lambda eye: cv2.GaussianBlur(eye, (1, 0), 1e-9, None, sigma)))

    def box(self, planes: Tensor, side: int, border: int = cv2.BORDER_REFLECT_101) -> Tensor:
        """``cv2.blur(planes, (side, side), borderType=border)``."""
        key, size = ("box", side, border), planes.shape[-1]
        return self._both(planes, self._made(key, size, lambda eye: cv2.blur(eye, (1, side), borderType=border)))

    def steps(self, planes: Tensor, scale: float) -> Tensor:
        """Size of the gradient by ``cv2.Sobel`` with ``scale``."""
        slope = self._made("slope", planes.shape[-1], lambda eye: _along_columns(eye, 1))
        smooth = self._made("smooth", planes.shape[-1], lambda eye: _along_columns(eye, 0))
        across, down = smooth @ planes @ slope.T, slope @ planes @ smooth.T
        return torch.hypot(across, down) * scale

    def enlarged(self, planes: Tensor, size: int) -> Tensor:
        """``cv2.resize(planes, (size, size), interpolation=cv2.INTER_LINEAR)``."""
        return self._resized(planes, size, cv2.INTER_LINEAR)

    def reduced(self, planes: Tensor, size: int) -> Tensor:
        """``cv2.resize(planes, (size, size), interpolation=cv2.INTER_AREA)``."""
        return self._resized(planes, size, cv2.INTER_AREA)

    def places(self, flow: Tensor) -> Tensor:
        """Where ``flow`` ``[..., S, S, 2]`` px leads to, as ``looked_up`` wants it."""
        size = flow.shape[-2]
        line = np.arange(size, dtype=np.float32)
        grid = self._once(("grid", size), lambda: np.stack(np.meshgrid(line, line), axis=-1))
        return (flow + grid) * (2 / (size - 1)) - 1

    def _resized(self, planes: Tensor, size: int, how: int) -> Tensor:
        own = planes.shape[-1]
        if own == size:
            return planes
        return self._both(
            planes,
            self._made(("size", size, how), own, lambda eye: cv2.resize(eye, (own, size), interpolation=how)),
        )

    def _both(self, planes: Tensor, matrix: Tensor) -> Tensor:
        return matrix @ (planes @ matrix.T)

    def _made(self, key: Hashable, size: int, work: Callable[[np.ndarray], ArrayLike]) -> Tensor:
        return self._once((key, size), lambda: work(np.eye(size, dtype=np.float32)))

    def _once(self, key: Hashable, work: Callable[[], ArrayLike]) -> Tensor:
        if key not in self._kept:
            self._kept[key] = torch.from_numpy(np.array(work(), np.float32)).to(self.device)
        return self._kept[key]


def _along_columns(eye: np.ndarray, order: int) -> cv2.typing.MatLike:
    """Sobel's kernel of derivative ``order`` along the columns alone."""
    own, _ = cv2.getDerivKernels(order, 1 - order, 3, ktype=cv2.CV_32F)
    return cv2.sepFilter2D(eye, cv2.CV_32F, np.ones(1, np.float32), own)


def looked_up(planes: Tensor, places: Tensor) -> Tensor:
    """Planes ``[N, C, S, S]`` at ``Filters.places`` ``[N, S, S, 2]``, the border repeated.

    ``cv2.remap`` with ``INTER_LINEAR`` of each picture by its own places.
    """
    return functional.grid_sample(planes, places, "bilinear", "border", align_corners=True)


def largest(planes: Tensor, side: int) -> Tensor:
    """``cv2.dilate`` of planes ``[..., S, S]`` with a square of odd ``side``."""
    flat, reach = planes.reshape(-1, 1, *planes.shape[-2:]), side // 2
    across = functional.max_pool2d(flat, (1, side), stride=1, padding=(0, reach))
    return functional.max_pool2d(across, (side, 1), stride=1, padding=(reach, 0)).reshape(planes.shape)


def smallest(planes: Tensor, side: int) -> Tensor:
    """``cv2.erode`` of the same."""
    return -largest(-planes, side)


def median(values: Tensor, where: Tensor | None = None) -> Tensor:
    """``np.median`` of each row of ``[..., N]``, of the values ``where`` (broadcast to them); nobody waits.

    Rows without any such value give infinity.
    """
    if where is None:
        ordered, count = values.sort(dim=-1).values, values.shape[-1]
        return (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2
    ordered = torch.where(where, values, torch.inf).sort(dim=-1).values
    count = where.sum(dim=-1, keepdim=True).expand(*values.shape[:-1], 1)
    middle = torch.cat([(count - 1) // 2, count // 2], dim=-1).clamp(min=0)
    return ordered.gather(-1, middle).mean(dim=-1)
