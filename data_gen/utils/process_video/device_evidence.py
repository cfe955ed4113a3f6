"""``occlusion_evidence`` on tensors: the same hypotheses, numbers and order of steps, for batches of frames on a GPU.

Pictures are planes ``[N, 3, S, S]``; the picture as it is and the calmer one are looked at together, ``[N, 2, ...]``.
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
    """``ExpectedFace`` of N frames on a device: ``[N, 3, S, S]`` RGB, ``[N, S, S]`` spread and known."""

    rgb: Tensor
    spread: Tensor
    known: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DeviceColours:
    """``OccluderColours`` of N frames on a device: float32 counts ``[N, B ** 3]``."""

    counts: Tensor

    @classmethod
    def nothing(cls, device: torch.device) -> DeviceColours:
        """No colour was seen yet, of one frame."""
        return cls(torch.zeros((1, shared.BINS**3), device=device))

    @property
    def trust(self) -> Tensor:
        """See ``OccluderColours.trust``, ``[N]``."""
        total = self.counts.sum(dim=-1)
        return shared.MOST_TRUST * total / (total + shared.HALF_TRUSTED)

    def followed_by(self, fresh: Tensor) -> DeviceColours:
        """The histograms with ``fresh`` counts ``[N, B ** 3]``, older ones fading."""
        return DeviceColours(shared.KEPT * self.counts + fresh)

    def density_of(self, bins: Tensor) -> Tensor:
        """See ``OccluderColours.density_of``; ``bins`` is ``[N, ...]``."""
        scaled = self.counts * (shared.BINS**3 / self.counts.sum(dim=-1, keepdim=True).clamp(min=1e-6))
        return scaled.gather(1, bins.flatten(1)).view(bins.shape)

    def log_odds_of(self, bins: Tensor) -> Tensor:
        """See ``colour_log_odds``; ``bins`` is ``[N, S, S]``."""
        density = self.density_of(bins) + float(shared.LEAST_DENSITY)
        return (density.log() - log(shared.ANY_COLOUR)).clamp(-2.5, 2.5) * self.trust[:, None, None]


def counted(bins: Tensor, sure: Tensor, filters: Filters) -> Tensor:
    """What ``OccluderColours.updated_by`` adds for each frame's ``bins`` that are ``sure``, ``[N, B ** 3]``."""
    frames, side = len(bins), shared.BINS
    counts = torch.zeros((frames, side**3), device=bins.device)
    counts.scatter_add_(1, bins.flatten(1), sure.flatten(1).to(torch.float32))
    spread = filters.constant(_spread_matrix())
    cube = spread @ counts.view(frames, side, side, side) @ spread.T
    return (spread @ cube.view(frames, side, side * side)).view(frames, -1)


def _spread_matrix() -> tuple[tuple[float, ...], ...]:
    """``spread_along`` of one axis as a matrix."""
    return tuple(map(tuple, shared.spread_along(np.eye(shared.BINS, dtype=np.float32), 0).tolist()))


@dataclass(frozen=True, slots=True, eq=False)
class DeviceWeighing:
    """``Weighing`` of N frames on a device.

    Attributes:
        face: ``[N, 2, S, S]`` log density of the face, as it is and calmer. thing: density of things of unknown colour.
        bins: int64 ``[N, 2, S, S]``, each colour's bin.
        known: ``[N, S, S]`` 0..1.
    """

    face: Tensor
    thing: Tensor
    bins: Tensor
    known: Tensor

    @classmethod
    def of(
        cls, observed: Tensor, expected: DeviceExpected, config: EvidenceConfig, near_hand: Tensor, filters: Filters
    ) -> DeviceWeighing:
        """See ``photometric_log_odds``; ``observed`` is RGB ``[N, 3, S, S]``, ``near_hand`` ``[N, S, S]``, 0..1."""
        both = ycc(torch.stack([observed, expected.rgb]), filters)
        std = _channel_std(both[0], both[1], expected, config, filters)
        calm = filters.gaussian(both, config.blur_px)
        seen, clean = torch.stack([both, calm], dim=2)  # each [N, 2 looks, 3, S, S]
        std = torch.stack([std, std * float(shared.CALM_SHARE)], dim=1)
        side = 2 * config.misfit_px + 1
        away = torch.maximum(seen - largest(clean, side), smallest(clean, side) - seen).clamp(min=0) / std
        log_chroma = (std[:, :, 1] * std[:, :, 2]).log()
        lit = _log_student(away.square().sum(dim=2), config.degrees) - std[:, :, 0].log() - log_chroma
        shaded = _log_shaded(seen, clean, std, log_chroma, config, near_hand[:, None], filters)
        face = torch.logaddexp(lit + log(1 - config.shadow_prior), shaded)
        known = expected.known * (expected.known > 0.5).flatten(1).any(dim=1)[:, None, None]
        return cls(face, _plain_density(seen, clean, config, filters), colour_bins(seen, filters), known)

    def log_odds(self, colours: DeviceColours | None = None) -> Tensor:
        """See ``Weighing.log_odds``, ``[N, S, S]``."""
        density = self.thing
        if colours is not None:
            trust = colours.trust[:, None, None, None]
            density = (1 - trust) * density + trust * colours.density_of(self.bins)
        odds = (density.log() - self.face).mean(dim=1)
        return odds.clamp(shared.LEAST_LOG_ODDS, shared.MOST_LOG_ODDS) * self.known


def ycc(rgb: Tensor, filters: Filters) -> Tensor:
    """Luma and colour differences ``[..., 3, S, S]`` of RGB, see ``occlusion_evidence.ycc``."""
    matrix = filters.constant(shared.YCC_FROM_RGB)
    return (matrix @ rgb.flatten(-2)).unflatten(-1, rgb.shape[-2:])


def colour_bins(seen: Tensor, filters: Filters) -> Tensor:
    """Number of the histogram's bin of each colour ``[..., 3, S, S]``."""
    shift = filters.constant((0.0, shared.BINS / 2, shared.BINS / 2))[:, None, None]
    luma, blue, red = (seen * shared.BINS + shift).clamp(0, shared.BINS - 1).to(torch.int64).unbind(dim=-3)
    return (luma * shared.BINS + blue) * shared.BINS + red


def _channel_std(
    seen: Tensor, clean: Tensor, expected: DeviceExpected, config: EvidenceConfig, filters: Filters
) -> Tensor:
    """``[N, 3, S, S]``."""
    spread, known = expected.spread.flatten(1), (expected.known > 0.5).flatten(1)
    settled = known & (spread < median(spread, known)[:, None] + 1e-6)
    floors = filters.constant(config.floors)
    shown = shared.NOISE_SHARE * median((seen - clean).abs().flatten(2), settled[:, None])
    noise = torch.minimum(torch.maximum(shown, floors), shared.NOISIEST * floors)
    squares = filters.constant(config.shares).square()[:, None, None] * expected.spread.square()[:, None]
    return (squares + noise.square()[..., None, None]).sqrt()


def _log_student(squares: Tensor, degrees: float) -> Tensor:
    return shared.log_student_constant(degrees) - (degrees + 3) / 2 * torch.log1p(squares / degrees)


def _log_shaded(
    seen: Tensor, clean: Tensor, std: Tensor, log_chroma: Tensor, config: EvidenceConfig, near_hand: Tensor,
    filters: Filters,
) -> Tensor:  # fmt: skip
    """``[N, 2, S, S]`` of pictures ``[N, 2, 3, S, S]`` and ``near_hand`` ``[N, 1, S, S]``."""
    wider = 1 + config.hand_glow * near_hand
    std, log_chroma = std * wider[:, None], log_chroma + 2 * wider.log()
    deepest = config.deepest_shadow + near_hand * (config.deepest_hand_shadow - config.deepest_shadow)
    darkest = float(shared.DARKEST)
    gain = torch.maximum(seen[:, :, 0] / clean[:, :, 0].clamp(min=darkest), deepest).clamp(max=1)
    squares = ((seen - clean * gain[:, :, None]) / std).square().sum(dim=2)
    span = (clean[:, :, 0] * (1 - deepest)).clamp(min=darkest)
    density = _log_student(squares, config.degrees) - log_chroma - span.log() + float(shared.LOG_SQRT_2_PI)
    depth = filters.gaussian(gain.clamp(min=shared.LEAST_DEPTH).log(), shared.SHADOW_BLUR_PX)
    step = filters.steps(depth, shared.SOBEL_SCALE)
    unlikely = log(config.shadow_prior) - (largest(step, shared.SHADOW_EDGE_PX) / config.sharpest_shadow).square()
    return density + unlikely + near_hand * (log(config.hand_shadow_prior) - unlikely)


def _plain_density(seen: Tensor, clean: Tensor, config: EvidenceConfig, filters: Filters) -> Tensor:
    centre = median(clean.flatten(-2)[..., :: shared.SKIN_STEP])[..., None, None]
    away = (seen - centre) / filters.constant(shared.SKIN_STD)[:, None, None]
    skin = (-0.5 * away.square().sum(dim=2)).exp() / ((2 * pi) ** 1.5 * prod(shared.SKIN_STD))
    return (1 - config.skin_prior) * shared.ANY_COLOUR + config.skin_prior * skin
