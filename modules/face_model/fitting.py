"""What fitting needs of a face model: its landmarks as linear functions of the coefficients, and what is likely.

Any model that offers this can be fitted: the embedded one and BFM2009 do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from modules.structures.landmarks import FACE_OVAL, MEDIAPIPE_BLENDSHAPES


@dataclass(frozen=True, slots=True, eq=False)
class OutlineSlide:
    """How MediaPipe's outline points move over the head when it turns: they keep to the silhouette.

    Attributes:
        yaw_rad: ``[B]`` euler y angles, ascending; in between, moves are interpolated, beyond the ends held.
        move: ``[B, 36, 3]`` dm in head space, added to the points of ``FACE_OVAL``.
    """

    yaw_rad: Tensor
    move: Tensor

    @classmethod
    def none(cls) -> OutlineSlide:
        """Points that stay where they are."""
        return cls(torch.zeros(1), torch.zeros(1, len(FACE_OVAL), 3))

    def at(self, yaw_rad: Tensor) -> Tensor:
        """Moves at euler y angles ``[T]`` rad: ``[T, 36, 3]`` dm, held beyond the table's ends."""
        last = len(self.yaw_rad) - 1
        if last == 0:
            return self.move.expand(len(yaw_rad), -1, -1)
        above = torch.searchsorted(self.yaw_rad, yaw_rad.detach().contiguous()).clamp(1, last)
        low, high = self.yaw_rad[above - 1], self.yaw_rad[above]
        share = ((yaw_rad - low) / (high - low)).clamp(0.0, 1.0)[:, None, None]
        return torch.lerp(self.move[above - 1], self.move[above], share)

    def to(self, device: torch.device | str) -> OutlineSlide:
        return OutlineSlide(self.yaw_rad.to(device), self.move.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkRows:
    """A linear face model at the first K of MediaPipe's points, head space, dm.

    ``point = mean + identity · id + expression · exp``, and the outline's slide on top.

    Attributes:
        mean: ``[K, 3]``. identity: ``[K, 3, I]``. expression: ``[K, 3, E]``.
        slide: of the points of ``FACE_OVAL``.
        usable: bool ``[K]``, False where the model has no counterpart of a point, which then weighs 0 in every fit;
            None = the model has them all.
    """

    mean: Tensor
    identity: Tensor
    expression: Tensor
    slide: OutlineSlide
    usable: Tensor | None = None

    @property
    def weights(self) -> Tensor:
        """What each point weighs at most: ``[K]``, 1 where it is usable, else 0."""
        return self.mean.new_ones(len(self.mean)) if self.usable is None else self.usable.to(self.mean)


@dataclass(frozen=True, slots=True, eq=False)
class ExpressionPrior:
    """Which expressions are likely in a frame whose MediaPipe scores are known; identities have unit variance.

    Attributes:
        from_scores: ``[E, 52]`` and offset ``[E]``: expected expression = from_scores · scores + offset.
        std: ``[E]`` spread around what is expected.
        lower, upper: ``[E]`` soft bounds; infinite where there are none.
    """

    from_scores: Tensor
    offset: Tensor
    std: Tensor
    lower: Tensor
    upper: Tensor

    @classmethod
    def unbounded(cls, std: Tensor) -> ExpressionPrior:
        """Nothing is known but the spread ``[E]`` around 0."""
        endless = torch.full_like(std, torch.inf)
        scores = std.new_zeros(len(std), len(MEDIAPIPE_BLENDSHAPES))
        return cls(scores, torch.zeros_like(std), std, -endless, endless)


class FittableModel(Protocol):
    """A face model that landmarks can be fitted with."""

    @property
    def version(self) -> str:
        """What artefacts made with the model record."""
        ...

    @property
    def expression_names(self) -> tuple[str, ...]:
        """``[E]``."""
        ...

    def landmark_rows(self) -> LandmarkRows:
        """Its landmarks."""
        ...

    def expression_prior(self) -> ExpressionPrior:
        """Its likely expressions."""
        ...
