"""One take: the same words, said a little differently each time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 256
"""Codes drawn from one seed; noise at a given time is then the same however a file is cut up."""


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """How one prediction differs from the mean of all.

    Attributes:
        shares: ``[members]`` weights of the members, summing to 1.
        temperature: standard deviation of the variational members' noise.
        seed: of that noise.
    """

    shares: Tensor
    temperature: float
    seed: int

    @classmethod
    def draw(cls, n_members: int, temperature: float, generator: torch.Generator | None) -> Take | None:
        """A take, None (the mean of all members, their likeliest motion) at temperature 0.

        Raises:
            ValueError: the temperature is negative, or above 0 without a generator.
        """
        if not 0.0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be 0 or more, got {temperature}")
        if temperature == 0.0:
            return None
        if generator is None:
            raise ValueError("temperature above 0 needs a generator")
        weights = torch.randn(n_members, generator=generator, device=generator.device).cpu()
        seed = torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device)
        return cls(torch.softmax(temperature * weights, dim=0), temperature, int(seed))

    def noise(self, member: int, latent: int, first_code: int, n_codes: int) -> Tensor:
        """Noise ``[1, latent, n_codes]`` of a member from code ``first_code`` of the file on; on the CPU."""
        blocks = range(first_code // _BLOCK, (first_code + n_codes - 1) // _BLOCK + 1)
        rows = [self._block(member, block, latent) for block in blocks]
        start = first_code - blocks[0] * _BLOCK
        return torch.cat(rows, dim=1)[None, :, start : start + n_codes]

    def _block(self, member: int, block: int, latent: int) -> Tensor:
        # primes keep the seeds of members and blocks apart
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * member + 7_368_787 * block)
        return self.temperature * torch.randn((latent, _BLOCK), generator=generator)
