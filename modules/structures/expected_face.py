"""What a frame should look like if nothing stood in front of the face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedFace:
    """The clean face that a crop should show.

    Attributes:
        rgb: float32 ``[S, S, 3]`` 0..1, full-range RGB; anything where ``known`` is 0.
        spread: float32 ``[S, S]`` 0..1, robust standard deviation of a channel that is to be expected there: noise,
            misfit, moving lips, teeth.
        known: float32 ``[S, S]`` 0..1, how far the expectation says anything at all.
    """

    rgb: NDArray[np.float32]
    spread: NDArray[np.float32]
    known: NDArray[np.float32]

    def __post_init__(self) -> None:
        size = self.known.shape
        if len(size) != 2 or self.rgb.shape != (*size, 3) or self.spread.shape != size:
            raise ValueError(
                f"an expected face disagrees with itself: rgb {self.rgb.shape}, spread {self.spread.shape}, "
                f"known {self.known.shape}"
            )
        if any(array.dtype != np.float32 for array in (self.rgb, self.spread, self.known)):
            raise ValueError("an expected face must be float32")


class FaceExpectation(Protocol):
    """Predicts the clean face of any frame of a clip."""

    def knows(self, row: int) -> bool:
        """Whether ``at`` has an answer for frame ``row``; costs nothing."""
        ...

    def at(self, row: int, size: int) -> ExpectedFace | None:
        """The crop of frame ``row`` without occluders at ``[size, size]``; None = nothing is known of that frame."""
        ...
