"""``exposure_match`` on tensors: the same fit in float64, for all channels of a batch of frames at once."""

from __future__ import annotations

import torch
from torch import Tensor

from data_gen.utils.process_video import exposure_match as shared
from data_gen.utils.process_video.device_pictures import Filters, median


class DeviceExposure:
    """Matches exposures on the device of ``filters``."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters
        self._made: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def matched(self, expected: Tensor, observed: Tensor, spread: Tensor, weight: Tensor) -> Tensor:
        """See ``matched_exposure``; pictures are ``[N, 3, S, S]``, spread and weight ``[N, S, S]``.

        Frames with too few pixels to tell stay as they are.
        """
        size = min(shared.MATCH_SIZE, expected.shape[-1])
        before, after, scale, chosen = (
            self._filters.reduced(planes, size).flatten(-2) for planes in (expected, observed, spread, weight)
        )
        taking_part = chosen > 0.5
        gains = self._coefficients(before, after, scale, taking_part, size) @ self._tables(size)[0].T
        field = self._filters.enlarged(gains.to(torch.float32).unflatten(-1, (size, size)), expected.shape[-1])
        enough = taking_part.sum(dim=-1) >= shared.LEAST_PIXELS
        return torch.where(
            enough[:, None, None, None], expected * field.clamp(shared.LEAST_GAIN, shared.MOST_GAIN), expected
        )

    def _coefficients(self, before: Tensor, after: Tensor, scale: Tensor, taking_part: Tensor, size: int) -> Tensor:
        """Float64 ``[N, 3, K]`` of pixels ``[N, 3, P]``; those that do not take part weigh nothing."""
        terms, squares, prior = self._tables(size)
        part, count = taking_part[:, None], terms.shape[1]
        start = median(after / before.clamp(min=shared.LEAST_EXPECTED), part)
        gain = torch.zeros((*start.shape, count), dtype=torch.float64, device=start.device)
        gain[..., 0] = torch.where(part.any(dim=-1), start, 1.0)
        before, after = before.double(), after.double()
        scale = torch.where(part, scale[:, None], 1).double()
        certain = part * shared.WITNESSES / scale.square()
        for reach in shared.REACHES:
            residual = (after - before * (gain @ terms.T)) / (scale * reach)
            weights = (1 - residual.square()).clamp(min=0).square() * certain
            normal = ((weights * before.square()) @ squares).unflatten(-1, (count, count)) + prior
            right = (weights * before * after) @ terms
            gain = torch.linalg.solve_ex(normal, right[..., None]).result[..., 0]  # the prior makes it solvable
        return gain

    def _tables(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Terms ``[P, K]``, their products ``[P, K²]`` and the prior ``[K, K]``, float64."""
        if size not in self._made:
            terms = shared.field_terms(size).reshape(size * size, -1)
            arrays = terms, shared.field_squares(size), shared.field_prior(terms.shape[1])
            one, two, three = (torch.from_numpy(array).to(self._filters.device) for array in arrays)
            self._made[size] = one, two, three
        return self._made[size]
