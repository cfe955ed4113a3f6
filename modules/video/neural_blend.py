"""A learned blender: a small network that reads a patch, its ring of source, and says the light to put on the patch.

It answers what ``colour_match.estimate_field`` answers, a field of gains on light, so everything after it (smoothing
over time, blending) is the same. What it may do better is to know from this person's own frames which parts of a ring
tell the light of the mouth (cheeks) and which do not (a collar, hair, a jaw that opens).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modules.video.colour_match import FIELD_SIZE, MAX_LOG_GAIN, Field, RingConfig
from modules.video.linear_light import BT709, LightCurve

INPUT_SIZE = 2 * FIELD_SIZE
CHANNELS = 8
"""Patch R'G'B', log ratio of source's light to the patch's in the ring, alpha, ring."""
_WIDTHS = (24, 32, 48, 64)
_LEAST_MASS = 1e-3

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class BlendPair:
    """A frame and its own motion rendered there: what the network learns from.

    Attributes:
        source: RGB float32 ``[h, w, 3]`` 0..1.
        render: RGB float32 ``[h, w, 3]`` 0..1.
        alpha: float32 ``[h, w]`` 0..1 of the region.
    """

    source: Floats
    render: Floats
    alpha: Floats

    def __post_init__(self) -> None:
        if self.source.shape != self.render.shape or self.source.shape[:2] != self.alpha.shape:
            raise ValueError(f"sizes disagree: {self.source.shape}, {self.render.shape}, {self.alpha.shape}")

    def __repr__(self) -> str:
        return f"BlendPair({self.alpha.shape[1]}x{self.alpha.shape[0]})"


class BlendNetwork(nn.Module):
    """Inputs ``[B, CHANNELS, INPUT_SIZE, INPUT_SIZE]`` to fields ``[B, 3, FIELD_SIZE, FIELD_SIZE]``.

    It has about 0.1 million weights and begins by answering the ring's mean ratio everywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        before = CHANNELS
        for width in _WIDTHS:
            self.down.append(nn.Sequential(nn.Conv2d(before, width, 3, stride=2, padding=1), nn.SiLU()))
            before = width
        self.up = nn.ModuleList()
        for width in reversed(_WIDTHS[:-1]):
            self.up.append(nn.Sequential(nn.Conv2d(before + width, width, 3, padding=1), nn.SiLU()))
            before = width
        self.last = nn.Conv2d(before, 3, 3, padding=1, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """See the class."""
        kept, values = [], inputs
        for block in self.down:
            values = block(values)
            kept.append(values)
        for block, skip in zip(self.up, reversed(kept[:-1]), strict=True):
            values = block(torch.cat([nn.functional.interpolate(values, scale_factor=2.0), skip], 1))
        ratio, ring = inputs[:, 3:6], inputs[:, 7:8]
        common = (ratio * ring).sum((2, 3), keepdim=True) / ring.sum((2, 3), keepdim=True).clamp(min=_LEAST_MASS)
        return (common + torch.tanh(self.last(values))).clamp(-MAX_LOG_GAIN, MAX_LOG_GAIN)


class NeuralBlender:
    """A trained network as a ``colour_follow.FieldEstimator``.

    Args:
        network: trained.
        ring: which pixels of the source it may see; beyond them another mouth is shown.
        light: what coded values mean.
    """

    def __init__(self, network: BlendNetwork, ring: RingConfig, light: LightCurve = BT709) -> None:
        self.network, self._ring, self._light = network.eval(), ring, light
        self._device = next(network.parameters()).device

    def __call__(self, source: Floats, patch: Floats, alpha: Floats, weight: Floats) -> Field | None:
        """This frame's field; arguments as for ``estimate_field``. None when too little of the ring is seen."""
        inputs = network_input(source, patch, alpha, weight, self._ring, self._light)
        if inputs is None:
            return None
        with torch.inference_mode():
            field = self.network(torch.from_numpy(inputs[None]).to(self._device))[0]
        return np.ascontiguousarray(field.float().cpu().numpy().transpose(1, 2, 0))


def network_input(
    source: Floats, patch: Floats, alpha: Floats, weight: Floats, ring: RingConfig, light: LightCurve = BT709
) -> Floats | None:
    """``[CHANNELS, INPUT_SIZE, INPUT_SIZE]`` of means over cells; None when too few pixels can be compared.

    Arguments as for ``estimate_field``.
    """
    seen = np.where((alpha > ring.low) & (alpha < ring.high), weight, np.float32(0))
    if int((seen > 0.05).sum()) < ring.min_pixels:
        return None
    inside = np.where(alpha > ring.low, np.float32(1), np.float32(0))
    of_patch = _means(patch, inside)
    ratio = light.log_ratio(_means(source, seen), _means(patch, seen))
    masks = [cv2.resize(mask, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA) for mask in (alpha, seen)]
    return np.concatenate([of_patch, ratio, np.stack(masks)]).astype(np.float32)


def _means(picture: Floats, weight: Floats) -> Floats:
    """``[3, INPUT_SIZE, INPUT_SIZE]``: means of the weighted pixels of each cell, 0 where there are none."""
    size = (INPUT_SIZE, INPUT_SIZE)
    known = np.where(weight[..., None] > 0, picture, np.float32(0)) * weight[..., None]
    sums = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    mass = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    return np.asarray(sums / np.maximum(mass, _LEAST_MASS)[..., None], np.float32).transpose(2, 0, 1)
