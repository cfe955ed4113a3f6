"""``occlusion_filter`` on tensors: messages along flow and the guided filter. Flow itself is found on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.utils.process_video.device_pictures import Filters, looked_up
from data_gen.utils.process_video.occlusion_filter import BELIEF_BLUR_PX, PAIRS, FilterConfig, Flow, FlowFinder


@dataclass(frozen=True, slots=True, eq=False)
class DeviceLink:
    """``Link`` on a device: places ``[S, S, 2]`` as ``Filters.places`` gives them, and belief ``[S, S]``."""

    places: Tensor
    belief: Tensor

    @classmethod
    def of(cls, flow: Flow, rgb: Tensor, other_rgb: Tensor, mismatch: float, filters: Filters) -> DeviceLink:
        """See ``Link.of``."""
        places = filters.places(torch.from_numpy(flow).to(rgb.device, non_blocking=True))
        away = (looked_up(other_rgb, places) - rgb).abs().amax(dim=0)
        return cls(places, (-(filters.gaussian(away, BELIEF_BLUR_PX) / mismatch).square()).exp())

    def message(self, log_odds: Tensor, config: FilterConfig) -> Tensor:
        """See ``Link.message``."""
        stationary = log(config.appear / config.vanish)
        there = looked_up((log_odds + stationary)[None], self.places)[0]
        return (transition(there, config.appear, config.vanish) - stationary) * self.belief


def transition(log_odds: Tensor, appear: float, vanish: float) -> Tensor:
    """See ``occlusion_filter.transition``."""
    later = log_odds.sigmoid() * (1 - vanish - appear) + appear
    return (later / (1 - later)).log()


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A frame on its way, see ``occlusion_filter``."""

    index: int
    evidence: Tensor
    rgb: Tensor
    grey: NDArray[np.uint8]
    before: Tensor


class DeviceTemporalFilter:
    """``TemporalFilter`` on a device."""

    def __init__(self, config: FilterConfig, filters: Filters) -> None:
        self.config, self._filters = config, filters
        self._flow = FlowFinder()
        self._held: deque[_Held] = deque()
        self._links_ahead: deque[DeviceLink] = deque()

    def push(
        self, index: int, evidence: Tensor, rgb: Tensor, grey: NDArray[np.uint8], *, fresh: bool
    ) -> Iterator[tuple[int, Tensor]]:
        """See ``TemporalFilter.push``; ``rgb`` is ``[3, S, S]`` 0..1, ``grey`` the same for the CPU."""
        if fresh:
            yield from self.finish()
        own = evidence * self.config.trust
        before = torch.zeros_like(own)
        if self._held:
            last = self._held[-1]
            back, ahead = self._flow.found(grey, last.grey), self._flow.found(last.grey, grey)
            before = self._link(back, rgb, last.rgb).message(last.before + last.evidence, self.config)
            self._links_ahead.append(self._link(ahead, last.rgb, rgb))
        self._held.append(_Held(index, own, rgb, grey, before))
        if len(self._held) > self.config.look_ahead:
            yield self._finish_oldest()

    def finish(self) -> Iterator[tuple[int, Tensor]]:
        """The frames still held."""
        while self._held:
            yield self._finish_oldest()

    def _finish_oldest(self) -> tuple[int, Tensor]:
        after = torch.zeros_like(self._held[0].evidence)
        for position in range(len(self._held) - 1, 0, -1):
            after = self._links_ahead[position - 1].message(after + self._held[position].evidence, self.config)
        frame = self._held.popleft()
        if self._links_ahead:
            self._links_ahead.popleft()
        return frame.index, frame.before + frame.evidence + after

    def _link(self, flow: Flow, rgb: Tensor, other_rgb: Tensor) -> DeviceLink:
        return DeviceLink.of(flow, rgb, other_rgb, self.config.mismatch, self._filters)


@dataclass(frozen=True, slots=True, eq=False)
class DeviceGuide:
    """``Guide`` on a device: planes and their means ``[3, S, S]``, inverse ``[3, 3, S, S]``, and window's radius."""

    planes: Tensor
    means: Tensor
    inverse: Tensor
    radius: int
    filters: Filters

    @classmethod
    def of(cls, rgb: Tensor, radius: int, softness: float, filters: Filters) -> DeviceGuide:
        """See ``Guide.of``; ``rgb`` is ``[3, S, S]`` 0..1."""
        first, second = (list(side) for side in zip(*PAIRS, strict=True))
        side = 2 * radius + 1
        means = filters.box(rgb, side, cv2.BORDER_REFLECT)
        moments = filters.box(rgb[first] * rgb[second], side, cv2.BORDER_REFLECT) - means[first] * means[second]
        return cls(rgb, means, _inverted(moments, softness**2), radius, filters)

    def refined(self, values: Tensor, fine: Tensor) -> Tensor:
        """See ``Guide.refined``; ``fine`` is ``[3, L, L]`` 0..1."""
        mean = self._mean(values)
        right = self._mean(self.planes * values) - self.means * mean
        slopes = (self.inverse * right).sum(dim=1)
        offset = mean - (slopes * self.means).sum(dim=0)
        linear = self.filters.enlarged(self._mean(torch.cat([slopes, offset[None]])), fine.shape[-1])
        return (linear[:3] * fine).sum(dim=0) + linear[3]

    def _mean(self, planes: Tensor) -> Tensor:
        return self.filters.box(planes, 2 * self.radius + 1, cv2.BORDER_REFLECT)


def _inverted(moments: Tensor, ridge: float) -> Tensor:
    """See ``occlusion_filter.inverted``: ``[3, 3, S, S]`` of moments ``[6, S, S]``."""
    xx, xy, xz, yy, yz, zz = moments.unbind()
    xx, yy, zz = xx + ridge, yy + ridge, zz + ridge
    c00, c01, c02 = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c11, c12, c22 = xx * zz - xz * xz, xz * xy - xx * yz, xx * yy - xy * xy
    scale = 1 / (xx * c00 + xy * c01 + xz * c02).clamp(min=ridge**3)
    cofactors = torch.stack([c00, c01, c02, c01, c11, c12, c02, c12, c22]) * scale
    return cofactors.unflatten(0, (3, 3))
