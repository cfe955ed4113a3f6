"""Key points as the NeRF's condition: normalisation, windows over time, smoothing, eye opening.

Pure tensor functions in GeneFace++'s conventions; they serve the embedded face model and BFM alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

IDEXP_SCALE = 10.0
"""``idexp_lm3d`` is the offset from the mean face times this."""


def idexp_keypoints(identity: Tensor, expression: Tensor, identity_basis: Tensor, expression_basis: Tensor) -> Tensor:
    """GeneFace++'s ``idexp_lm3d``: ten times the key points' offset from the mean face.

    Args:
        identity: ``[I]`` or ``[T, I]``.
        expression: ``[T, E]``.
        identity_basis: ``[K, 3, I]`` rows of the key points.
        expression_basis: ``[K, 3, E]`` rows of the key points.

    Returns:
        ``[T, K, 3]``.
    """
    from_identity = torch.einsum("kci,...i->...kc", identity_basis, identity)
    return IDEXP_SCALE * (from_identity + torch.einsum("kce,te->tkc", expression_basis, expression))


@dataclass(frozen=True, slots=True, eq=False)
class KeypointStatistics:
    """Per-coordinate mean and standard deviation of key points over a clip, ``[1, K, 3]`` each."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, keypoints: Tensor) -> KeypointStatistics:
        """Over time, unbiased: keypoints ``[T, K, 3]``, ``T >= 2``."""
        if len(keypoints) < 2:
            raise ValueError(f"statistics need at least two frames, got {len(keypoints)}")
        return cls(keypoints.mean(dim=0, keepdim=True), keypoints.std(dim=0, keepdim=True))

    def normalize(self, keypoints: Tensor) -> Tensor:
        """z-scores ``[T, K, 3]``; a coordinate that never moves becomes 0."""
        return (keypoints - self.mean) / self.std.clamp_min(torch.finfo(self.std.dtype).eps)

    def denormalize(self, normalized: Tensor) -> Tensor:
        return normalized * self.std + self.mean


def condition_windows(features: Tensor, size: int) -> Tensor:
    """The ``size`` rows around each frame, ``[i - size//2, i + size - size//2)``, zeros outside the clip.

    Args:
        features: ``[T, ...]``.
        size: rows per window, at least 1.

    Returns:
        ``[T, size, ...]``.
    """
    before = size // 2
    shape = features.shape[1:]
    padded = torch.cat([features.new_zeros(before, *shape), features, features.new_zeros(size - before - 1, *shape)])
    rows = torch.arange(len(features), device=features.device)[:, None] + torch.arange(size, device=features.device)
    return padded[rows]


def smooth_features(features: Tensor, kernel_size: int = 7) -> Tensor:
    """Moving average over time with mirrored ends (the edge sample is repeated): ``[T, D]`` to ``[T, D]``.

    A clip shorter than half the kernel is mirrored as often as needed.
    """
    half = kernel_size // 2
    rows = torch.arange(-half, len(features) + half, device=features.device) % (2 * len(features))
    rows = torch.minimum(rows, 2 * len(features) - 1 - rows)
    return functional.avg_pool1d(features[rows].T[None], kernel_size, stride=1)[0].T


def eye_area_percent(keypoints68: Tensor) -> Tensor:
    """Area of both eyes in GeneFace++'s units: canonical 68 points ``[T, 68, 3]`` to ``[T]``.

    x and y are mapped to (v + 1) / 2; the shoelace areas of 36..41 and 42..47 are added and multiplied by 100
    (about 0.15 closed to 0.6 open on BFM).
    """
    unit = (keypoints68[..., :2] + 1) / 2
    areas = []
    for first in (36, 42):
        x, y = unit[:, first : first + 6].unbind(dim=-1)
        areas.append((x * y.roll(-1, dims=1) - y * x.roll(-1, dims=1)).sum(dim=1).abs() / 2)
    return 100 * (areas[0] + areas[1])


BLINK_PERIOD = 100
BLINK_PHASE = 25
BLINK_CURVE = (0.1, 0.5, 0.7, 1.0, 0.7, 0.5, 0.1)
BLINK_LID_LIFT = 0.03
BLINK_IDLE_AREA = 0.6
"""Eye area GeneFace++ reports between blinks, whatever the data set's own."""
_UPPER_LIDS, _LOWER_LIDS = ([37, 38, 43, 44], [41, 40, 47, 46])


def closed_eyes(keypoints68: Tensor) -> Tensor:
    """Both lids laid on the line between the eye's corners: ``[T, 68, 3]`` to ``[T, 68, 3]``."""
    closed = keypoints68.clone()
    for corner in (36, 42):
        left, right = keypoints68[:, corner], keypoints68[:, corner + 3]
        closed[:, corner + 1] = closed[:, corner + 5] = 0.67 * left + 0.33 * right
        closed[:, corner + 2] = closed[:, corner + 4] = 0.33 * left + 0.67 * right
    return closed


def inject_blinks(keypoints68: Tensor, open_area: float, closed_area: float) -> tuple[Tensor, Tensor]:
    """GeneFace++'s ``blink_mode period``: eyes a little wider everywhere, a blink of 7 frames every 100.

    Args:
        keypoints68: canonical points ``[T, 68, 3]``.
        open_area: eye area of this person's open eyes (``eye_area_percent``).
        closed_area: eye area of the closed ones.

    Returns:
        The changed points ``[T, 68, 3]`` and the eye area ``[T, 1]`` to show the renderer.
    """
    points = keypoints68.clone()
    points[:, _UPPER_LIDS, 1] += BLINK_LID_LIFT
    points[:, _LOWER_LIDS, 1] -= BLINK_LID_LIFT
    frames = torch.arange(len(points), device=points.device)
    since_start = (frames + BLINK_PHASE) % BLINK_PERIOD
    blinking = (since_start < len(BLINK_CURVE)) & (frames - since_start >= 0)
    curve = points.new_tensor(BLINK_CURVE)[since_start.clamp_max(len(BLINK_CURVE) - 1)] * blinking
    weight = curve[:, None, None]
    points[:, 36:48] = (1 - weight) * points[:, 36:48] + weight * closed_eyes(points)[:, 36:48]
    area = torch.where(blinking, open_area * (1 - curve) + closed_area * curve, curve.new_tensor(BLINK_IDLE_AREA))
    return points, area[:, None]
