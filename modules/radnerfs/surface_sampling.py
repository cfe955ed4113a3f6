"""Samples in a thin shell around the fitted head, in canonical head space (dm)."""

from __future__ import annotations

import torch
from torch import Tensor


def samples_around_surface(
    position: Tensor, direction: Tensor, n_samples: int, shell: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Points along each view ray around where it meets the surface.

    The ray's piece from ``-shell`` to ``+shell`` is cut into ``n_samples`` equal intervals; each gets one point, in its
    middle or, with a generator, anywhere in it.

    Args:
        position: ``[N, 3]`` surface points, dm.
        direction: unit ``[N, 3]``, from the camera on.
        n_samples: K.
        shell: half thickness, dm.
        generator: source of the jitter (on the device of ``position``); None = none.

    Returns:
        Positions ``[N, K, 3]``, near to far, and interval lengths ``[N, K]``, both dm.
    """
    length = 2 * shell / n_samples
    place = torch.full((len(position), n_samples), 0.5, dtype=position.dtype, device=position.device)
    if generator is not None:
        place = torch.rand(place.shape, generator=generator, dtype=position.dtype, device=position.device)
    slots = torch.arange(n_samples, dtype=position.dtype, device=position.device)
    offsets = (slots + place) * length - shell
    positions = position[:, None] + offsets[..., None] * direction[:, None]
    return positions, torch.full_like(offsets, length)
