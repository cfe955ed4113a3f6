"""``occlusion_filter`` on tensors, for batches of frames: messages along flow and the guided filter.

Flow itself is found on the CPU. Only messages from the frames before go frame by frame: those from the frames after
come from a few frames alone, so that each of their steps is made for all frames of a batch at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import cv2
import torch
from torch import Tensor

from data_gen.utils.process_video.device_pictures import Filters, looked_up
from data_gen.utils.process_video.occlusion_filter import BELIEF_BLUR_PX, PAIRS, FilterConfig


@dataclass(frozen=True, slots=True, eq=False)
class DeviceLinks:
    """``Link`` of N frames: places ``[N, S, S, 2]`` as ``Filters.places`` gives them, and belief ``[N, S, S]``."""

    places: Tensor
    belief: Tensor

    @classmethod
    def of(cls, flow: Tensor, rgb: Tensor, other_rgb: Tensor, mismatch: float, filters: Filters) -> DeviceLinks:
        """See ``Link.of``; flow is ``[N, S, S, 2]`` px, pictures are ``[N, 3, S, S]``."""
        places = filters.places(flow)
        away = (looked_up(other_rgb, places) - rgb).abs().amax(dim=1)
        return cls(places, (-(filters.gaussian(away, BELIEF_BLUR_PX) / mismatch).square()).exp())

    def __getitem__(self, which: slice) -> DeviceLinks:
        return DeviceLinks(self.places[which], self.belief[which])

    def where(self, believed: Tensor) -> DeviceLinks:
        """Those of frames ``believed``, 0 or 1 ``[N]``; the others lead nowhere."""
        return DeviceLinks(self.places, self.belief * believed[:, None, None])

    def followed_by(self, others: DeviceLinks) -> DeviceLinks:
        """These and the others."""
        return DeviceLinks(torch.cat([self.places, others.places]), torch.cat([self.belief, others.belief]))

    def message(self, log_odds: Tensor, config: FilterConfig) -> Tensor:
        """See ``Link.message``; ``[N, S, S]``."""
        stationary = log(config.appear / config.vanish)
        there = looked_up((log_odds + stationary)[:, None], self.places)[:, 0]
        return (transition(there, config.appear, config.vanish) - stationary) * self.belief


def transition(log_odds: Tensor, appear: float, vanish: float) -> Tensor:
    """See ``occlusion_filter.transition``."""
    later = log_odds.sigmoid() * (1 - vanish - appear) + appear
    return (later / (1 - later)).log()


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Frames that follow each other, on their way into the filter.

    Attributes:
        evidence: ``[N, S, S]`` log-odds of each frame alone.
        rgb: ``[N, 3, S, S]`` 0..1.
        back: ``[N, S, S, 2]`` px, flow to the frame before, and ``ahead`` from there to the frame.
        joined: float32 ``[N]``, 1 where a frame goes on what was before, 0 after a cut and for the very first frame;
            flow must be finite even there.
    """

    evidence: Tensor
    rgb: Tensor
    back: Tensor
    ahead: Tensor
    joined: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """Frames on their way, see ``occlusion_filter``: own evidence and messages from before ``[N, S, S]``, pictures."""

    own: Tensor
    rgb: Tensor
    before: Tensor
    ahead: DeviceLinks

    def __getitem__(self, which: slice) -> _Held:
        return _Held(self.own[which], self.rgb[which], self.before[which], self.ahead[which])

    def followed_by(self, later: _Held) -> _Held:
        """These frames and those after them."""
        own, rgb = torch.cat([self.own, later.own]), torch.cat([self.rgb, later.rgb])
        return _Held(own, rgb, torch.cat([self.before, later.before]), self.ahead.followed_by(later.ahead))


class DeviceTemporalFilter:
    """``TemporalFilter`` on a device, batch by batch."""

    def __init__(self, config: FilterConfig, filters: Filters) -> None:
        self.config, self._filters = config, filters
        self._held: _Held | None = None

    def push(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take frames.

        Returns:
            Log-odds ``[K, S, S]`` and pictures ``[K, 3, S, S]`` of the K oldest frames: all but ``look_ahead``.
        """
        own = batch.evidence * self.config.trust
        last = batch.rgb[:1] if self._held is None else self._held.rgb[-1:]
        previous = torch.cat([last, batch.rgb[:-1]])
        links = DeviceLinks.of(
            torch.cat([batch.back, batch.ahead]), torch.cat([batch.rgb, previous]), torch.cat([previous, batch.rgb]),
            self.config.mismatch, self._filters,
        ).where(batch.joined.repeat(2))  # fmt: skip
        back, ahead = links[: len(own)], links[len(own) :]
        new = _Held(own, batch.rgb, self._from_before(own, back), ahead)
        self._held = new if self._held is None else self._held.followed_by(new)
        return self._oldest(max(len(self._held.own) - self.config.look_ahead, 0))

    def finish(self) -> tuple[Tensor, Tensor] | None:
        """The frames still held, as ``push`` gives them, if there are any."""
        return None if self._held is None else self._oldest(len(self._held.own))

    def _from_before(self, own: Tensor, back: DeviceLinks) -> Tensor:
        """Messages ``[N, S, S]`` of all frames before each."""
        carried = torch.zeros_like(own[:1]) if self._held is None else (self._held.before + self._held.own)[-1:]
        messages = []
        for index in range(len(own)):
            message = back[index : index + 1].message(carried, self.config)
            messages.append(message)
            carried = message + own[index : index + 1]
        return torch.cat(messages)

    def _oldest(self, count: int) -> tuple[Tensor, Tensor]:
        assert self._held is not None
        held, after = self._held, torch.zeros_like(self._held.own)
        ahead = held.ahead[1:]
        for _ in range(self.config.look_ahead if len(after) > 1 else 0):
            after = torch.cat([ahead.message((after + held.own)[1:], self.config), torch.zeros_like(after[:1])])
        self._held = held[count:] if count < len(after) else None
        return (held.before + held.own + after)[:count], held.rgb[:count]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceGuide:
    """``Guide`` of N frames on a device.

    Attributes:
        planes, means: ``[N, 3, S, S]``. inverse: ``[N, 3, 3, S, S]``. radius: of the window. filters: of the device.
    """

    planes: Tensor
    means: Tensor
    inverse: Tensor
    radius: int
    filters: Filters

    @classmethod
    def of(cls, rgb: Tensor, radius: int, softness: float, filters: Filters) -> DeviceGuide:
        """See ``Guide.of``; ``rgb`` is ``[N, 3, S, S]`` 0..1."""
        side = 2 * radius + 1
        means = filters.box(rgb, side, cv2.BORDER_REFLECT)
        products, squares = (torch.stack([p[:, i] * p[:, j] for i, j in PAIRS]) for p in (rgb, means))
        moments = filters.box(products, side, cv2.BORDER_REFLECT) - squares
        return cls(rgb, means, _inverted(moments, softness**2), radius, filters)

    def of_frames(self, which: Tensor) -> DeviceGuide:
        """Those of frames ``which``, int64 ``[K]``."""
        return DeviceGuide(self.planes[which], self.means[which], self.inverse[which], self.radius, self.filters)

    def refined(self, values: Tensor, fine: Tensor) -> Tensor:
        """See ``Guide.refined``; ``values`` is ``[N, S, S]``, ``fine`` ``[N, 3, L, L]`` 0..1."""
        values = values[:, None]
        mean = self._mean(values)
        right = self._mean(self.planes * values) - self.means * mean
        slopes = (self.inverse * right[:, None]).sum(dim=2)
        offset = mean - (slopes * self.means).sum(dim=1, keepdim=True)
        linear = self.filters.enlarged(self._mean(torch.cat([slopes, offset], dim=1)), fine.shape[-1])
        return (linear[:, :3] * fine).sum(dim=1) + linear[:, 3]

    def _mean(self, planes: Tensor) -> Tensor:
        return self.filters.box(planes, 2 * self.radius + 1, cv2.BORDER_REFLECT)


def _inverted(moments: Tensor, ridge: float) -> Tensor:
    """See ``occlusion_filter.inverted``: ``[N, 3, 3, S, S]`` of moments ``[6, N, S, S]``."""
    xx, xy, xz, yy, yz, zz = moments.unbind()
    xx, yy, zz = xx + ridge, yy + ridge, zz + ridge
    c00, c01, c02 = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c11, c12, c22 = xx * zz - xz * xz, xz * xy - xx * yz, xx * yy - xy * xy
    scale = 1 / (xx * c00 + xy * c01 + xz * c02).clamp(min=ridge**3)
    cofactors = torch.stack([c00, c01, c02, c01, c11, c12, c02, c12, c22], dim=1) * scale[:, None]
    return cofactors.unflatten(1, (3, 3))
