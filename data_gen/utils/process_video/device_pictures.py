"""OpenCV's linear filters as matrices on a device: what a filter does to rows and columns is asked of OpenCV itself.

``A @ picture @ Aᵀ`` filters along both axes, borders included, in full precision on any device; at the sizes that masks
are judged at, two products of matrices are one small step for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


class Filters:
    """Filters for planes ``[..., S, S]`` on one device; their matrices are made when first asked for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._matrices: dict[Hashable, Tensor] = {}

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
        own = planes.shape[-1]
        if own == size:
            return planes
        grow = self._made(("size", size), own, lambda eye: cv2.resize(eye, (own, size), interpolation=cv2.INTER_LINEAR))
        return self._both(planes, grow)

    def places(self, flow: Tensor) -> Tensor:
        """Where ``flow`` ``[S, S, 2]`` px leads to, as ``looked_up`` wants it."""
        line = torch.arange(flow.shape[0], dtype=torch.float32, device=flow.device)
        there = flow + torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
        return there * (2 / (flow.shape[0] - 1)) - 1

    def _both(self, planes: Tensor, matrix: Tensor) -> Tensor:
        return matrix @ planes @ matrix.T

    def _made(self, key: Hashable, size: int, work: Callable[[np.ndarray], cv2.typing.MatLike]) -> Tensor:
        named = (key, size)
        if named not in self._matrices:
            made = np.asarray(work(np.eye(size, dtype=np.float32)), np.float32)
            self._matrices[named] = torch.from_numpy(made).to(self._device)
        return self._matrices[named]


def _along_columns(eye: np.ndarray, order: int) -> cv2.typing.MatLike:
    """Sobel's kernel of derivative ``order`` along the columns alone."""
    own, _ = cv2.getDerivKernels(order, 1 - order, 3, ktype=cv2.CV_32F)
    return cv2.sepFilter2D(eye, cv2.CV_32F, np.ones(1, np.float32), own)


def looked_up(planes: Tensor, places: Tensor) -> Tensor:
    """Planes ``[C, S, S]`` at ``Filters.places``, the border repeated: ``cv2.remap`` with ``INTER_LINEAR``."""
    read = functional.grid_sample(planes[None], places[None], "bilinear", "border", align_corners=True)
    return read[0]


def largest(planes: Tensor, side: int) -> Tensor:
    """``cv2.dilate`` of planes ``[..., S, S]`` with a square of odd ``side``."""
    flat = planes.reshape(-1, 1, *planes.shape[-2:])
    return functional.max_pool2d(flat, side, stride=1, padding=side // 2).reshape(planes.shape)


def smallest(planes: Tensor, side: int) -> Tensor:
    """``cv2.erode`` of the same."""
    return -largest(-planes, side)


def median(values: Tensor, where: Tensor | None = None) -> Tensor:
    """``np.median`` of each row of ``[K, N]``, of the values ``where`` ``[N]`` alone; the device is not waited for."""
    if where is not None:
        values = torch.where(where, values, torch.inf)
        count = where.sum()
    else:
        count = torch.tensor(values.shape[-1], device=values.device)
    ordered = values.sort(dim=-1).values
    middle = torch.stack([(count - 1) // 2, count // 2]).clamp(min=0)
    return ordered.index_select(-1, middle).mean(dim=-1)
