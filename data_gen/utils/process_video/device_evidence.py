"""``occlusion_evidence`` on tensors: the same hypotheses, numbers and order of steps, for a GPU.

Pictures are planes ``[3, S, S]``; the picture as it is and the calmer one are looked at together, ``[2, ...]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi, prod

import numpy as np
import torch
from torch import Tensor

from data_gen.utils.process_video import occlusion_evidence as shared
from data_gen.utils.process_video.device_pictures import Filters, largest, median, smallest
from data_gen.utils.process_video.occlusion_evidence import EvidenceConfig


@dataclass(frozen=True, slots=True, eq=False)
class DeviceExpected:
    """An ``ExpectedFace`` on a device, matched in exposure: ``[3, S, S]`` RGB, ``[S, S]`` spread and known."""

    rgb: Tensor
    spread: Tensor
    known: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DeviceColours:
    """``OccluderColours`` on a device: float32 counts ``[B, B, B]``, and how far a pixel counts for near bins."""

    counts: Tensor
    spread: Tensor

    @classmethod
    def nothing(cls, device: torch.device) -> DeviceColours:
        """No colour was seen yet."""
        spread = shared.spread_along(np.eye(shared.BINS, dtype=np.float32), 0)
        return cls(torch.zeros((shared.BINS,) * 3, device=device), torch.from_numpy(spread).to(device))

    @property
    def trust(self) -> Tensor:
        """See ``OccluderColours.trust``."""
        total = self.counts.sum()
        return shared.MOST_TRUST * total / (total + shared.HALF_TRUSTED)

    def updated_by(self, bins: Tensor, sure: Tensor) -> DeviceColours:
        """The histogram with the ``bins`` ``[S, S]`` that are ``sure``, older ones fading."""
        count = shared.BINS
        fresh = torch.zeros(count**3, device=bins.device)
        fresh.index_add_(0, bins.flatten(), sure.flatten().to(torch.float32))
        spread = self.spread
        fresh = spread @ fresh.view(count, count, count) @ spread.T
        fresh = (spread @ fresh.view(count, count * count)).view(count, count, count)
        return DeviceColours(shared.KEPT * self.counts + fresh, spread)

    def density_of(self, bins: Tensor) -> Tensor:
        """See ``OccluderColours.density_of``."""
        scaled = self.counts * (shared.BINS**3 / self.counts.sum().clamp(min=1e-6))
        return scaled.flatten()[bins]

    def log_odds_of(self, bins: Tensor) -> Tensor:
        """See ``colour_log_odds``."""
        density = self.density_of(bins) + float(shared.LEAST_DENSITY)
        return (density.log() - log(shared.ANY_COLOUR)).clamp(-2.5, 2.5) * self.trust


@dataclass(frozen=True, slots=True, eq=False)
class DeviceWeighing:
    """``Weighing`` on a device.

    Attributes:
        face: ``[2, S, S]`` log density of the face, as it is and calmer. thing: density of things of unknown colour.
        bins: int64 ``[2, S, S]``, each colour's bin.
        known: ``[S, S]`` 0..1.
    """

    face: Tensor
    thing: Tensor
    bins: Tensor
    known: Tensor

    @classmethod
    def of(
        cls, observed: Tensor, expected: DeviceExpected, config: EvidenceConfig, near_hand: Tensor | None,
        filters: Filters,
    ) -> DeviceWeighing:  # fmt: skip
        """See ``photometric_log_odds``; ``observed`` is RGB ``[3, S, S]`` 0..1."""
        both = ycc(torch.stack([observed, expected.rgb]))
        std = _channel_std(both[0], both[1], expected, config)
        calm = filters.gaussian(both, config.blur_px)
        seen, clean = torch.stack([both, calm], dim=1)  # each [2 looks, 3, S, S]
        std = torch.stack([std, std * float(shared.CALM_SHARE)])
        side = 2 * config.misfit_px + 1
        away = torch.maximum(seen - largest(clean, side), smallest(clean, side) - seen).clamp(min=0) / std
        log_chroma = (std[:, 1] * std[:, 2]).log()
        lit = _log_student(away.square().sum(dim=1), config.degrees) - std[:, 0].log() - log_chroma
        shaded = _log_shaded(seen, clean, std, log_chroma, config, near_hand, filters)
        face = torch.logaddexp(lit + log(1 - config.shadow_prior), shaded)
        known = expected.known * (expected.known > 0.5).any()
        return cls(face, _plain_density(seen, clean, config), colour_bins(seen), known)

    def log_odds(self, colours: DeviceColours | None = None) -> Tensor:
        """See ``Weighing.log_odds``."""
        density = self.thing
        if colours is not None:
            trust = colours.trust
            density = (1 - trust) * density + trust * colours.density_of(self.bins)
        odds = (density.log() - self.face).mean(dim=0)
        return odds.clamp(shared.LEAST_LOG_ODDS, shared.MOST_LOG_ODDS) * self.known


def ycc(rgb: Tensor) -> Tensor:
    """Luma and colour differences ``[..., 3, S, S]`` of RGB, see ``occlusion_evidence.ycc``."""
    matrix = rgb.new_tensor(shared.YCC_FROM_RGB)
    return (matrix @ rgb.flatten(-2)).unflatten(-1, rgb.shape[-2:])


def colour_bins(seen: Tensor) -> Tensor:
    """Number of the histogram's bin of each colour ``[..., 3, S, S]``."""
    shift = seen.new_tensor((0, shared.BINS / 2, shared.BINS / 2))[:, None, None]
    luma, blue, red = (seen * shared.BINS + shift).clamp(0, shared.BINS - 1).to(torch.int64).unbind(dim=-3)
    return (luma * shared.BINS + blue) * shared.BINS + red


def _channel_std(seen: Tensor, clean: Tensor, expected: DeviceExpected, config: EvidenceConfig) -> Tensor:
    spread, known = expected.spread.flatten(), (expected.known > 0.5).flatten()
    settled = known & (spread < median(spread[None], known) + 1e-6)
    floors = seen.new_tensor(config.floors)
    shown = shared.NOISE_SHARE * median((seen - clean).abs().flatten(1), settled)
    noise = torch.minimum(torch.maximum(shown, floors), shared.NOISIEST * floors)
    shares = seen.new_tensor(config.shares)
    squares = shares.square()[:, None, None] * expected.spread.square()
    return (squares + noise.square()[:, None, None]).sqrt()


def _log_student(squares: Tensor, degrees: float) -> Tensor:
    return shared.log_student_constant(degrees) - (degrees + 3) / 2 * torch.log1p(squares / degrees)


def _log_shaded(
    seen: Tensor, clean: Tensor, std: Tensor, log_chroma: Tensor, config: EvidenceConfig, near_hand: Tensor | None,
    filters: Filters,
) -> Tensor:  # fmt: skip
    deepest = seen.new_tensor(config.deepest_shadow)
    if near_hand is not None:
        wider = 1 + config.hand_glow * near_hand
        std, log_chroma = std * wider, log_chroma + 2 * wider.log()
        deepest = deepest + near_hand * (config.deepest_hand_shadow - config.deepest_shadow)
    darkest = float(shared.DARKEST)
    gain = torch.maximum(seen[:, 0] / clean[:, 0].clamp(min=darkest), deepest).clamp(max=1)
    squares = ((seen - clean * gain[:, None]) / std).square().sum(dim=1)
    span = (clean[:, 0] * (1 - deepest)).clamp(min=darkest)
    density = _log_student(squares, config.degrees) - log_chroma - span.log() + float(shared.LOG_SQRT_2_PI)
    depth = filters.gaussian(gain.clamp(min=shared.LEAST_DEPTH).log(), shared.SHADOW_BLUR_PX)
    step = filters.steps(depth, shared.SOBEL_SCALE)
    unlikely = log(config.shadow_prior) - (largest(step, shared.SHADOW_EDGE_PX) / config.sharpest_shadow).square()
    if near_hand is not None:
        unlikely = unlikely + near_hand * (log(config.hand_shadow_prior) - unlikely)
    return density + unlikely


def _plain_density(seen: Tensor, clean: Tensor, config: EvidenceConfig) -> Tensor:
    samples = clean.flatten(2)[..., :: shared.SKIN_STEP]
    centre = median(samples.flatten(0, 1)).view(*samples.shape[:2], 1, 1)
    away = (seen - centre) / seen.new_tensor(shared.SKIN_STD)[:, None, None]
    skin = (-0.5 * away.square().sum(dim=1)).exp() / ((2 * pi) ** 1.5 * prod(shared.SKIN_STD))
    return (1 - config.skin_prior) * shared.ANY_COLOUR + config.skin_prior * skin
