"""Volume rendering sums in plain torch: ordinary autograd over padded ``[N, S]`` samples gives the gradients.

With optical depth ``x = σ·dt``: transmittance before a sample ``T = exp(-Σ x)``, weight ``w = T · (1 - exp(-x))``.
Sums of depths, not products of ``1 - alpha``: they stay differentiable when a sample is opaque.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules.radnerfs.backends.base import MarchedBlock, RaySums
from modules.radnerfs.rays import RaySamples


def volume_weights(optical_depth: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of samples along rays and the transmittance before each of them, both ``[N, S]``.

    Args:
        optical_depth: ``[N, S]``, >= 0, infinity allowed.
    """
    before = torch.cumsum(optical_depth[:, :-1], dim=1)
    transmittance = torch.exp(-torch.cat([torch.zeros_like(optical_depth[:, :1]), before], dim=1))
    return transmittance * -torch.expm1(-optical_depth), transmittance


def composite_train(sigmas: Tensor, rgbs: Tensor, ambient: Tensor, samples: RaySamples, t_thresh: float) -> RaySums:
    """Sums of packed samples; see ``RenderBackend.composite_train``."""
    n_rays = len(samples.counts)
    n_slots = int(samples.counts.max()) if len(sigmas) else 1
    first = samples.counts.cumsum(0) - samples.counts
    place = samples.ray_index * n_slots + torch.arange(len(sigmas), device=sigmas.device) - first[samples.ray_index]

    def padded(values: Tensor) -> Tensor:
        flat = values.new_zeros(n_rays * n_slots, *values.shape[1:])
        return flat.index_copy(0, place, values).view(n_rays, n_slots, *values.shape[1:])

    weights, transmittance = volume_weights(padded(sigmas * samples.deltas[:, 0]))
    visited = transmittance >= t_thresh
    weights = torch.where(visited, weights, 0.0)
    return RaySums(
        image=(weights[..., None] * padded(rgbs)).sum(dim=1),
        opacity=weights.sum(dim=1),
        depth=(weights.detach() * padded(samples.deltas[:, 1])).sum(dim=1),
        ambient=torch.where(visited, padded(ambient), 0.0).sum(dim=1),
    )


def composite_infer(
    sums: RaySums, sigmas: Tensor, rgbs: Tensor, ambient: Tensor, block: MarchedBlock, t_thresh: float
) -> tuple[RaySums, Tensor]:
    """Running sums after one more block; see ``RenderBackend.composite_infer``."""
    image, opacity, depth, total = sums.image, sums.opacity, sums.depth, sums.ambient
    going = torch.ones_like(opacity, dtype=torch.bool)
    for step in range(sigmas.shape[1]):
        transmittance = 1 - opacity
        going = going & (block.deltas[:, step] > 0)
        weight = -torch.expm1(-sigmas[:, step] * block.deltas[:, step]) * transmittance
        weight = torch.where(going, weight, 0.0)
        image = image + weight[:, None] * rgbs[:, step]
        opacity = opacity + weight
        depth = depth + weight * block.ends[:, step]
        total = total + torch.where(going, ambient[:, step], 0.0)
        going = going & (transmittance >= t_thresh)
    return RaySums(image, opacity, depth, total), going


def composite_opaque(sigmas: Tensor, rgbs: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
    """Image and weights when each ray's last sample is opaque; see ``RenderBackend.composite_opaque``."""
    before_last = sigmas[:, :-1] * deltas[:, :-1]
    solid = torch.full_like(sigmas[:, :1], torch.inf)
    weights, _ = volume_weights(torch.cat([before_last, solid], dim=1))
    return torch.einsum("nk,nkc->nc", weights, rgbs), weights
