"""One answer to one question: can the face of this frame be repainted, and if not, why?

The job, its report and the evaluation all ask here, so that they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.structures.spans import Reason, runs_of
from modules.structures.tracks import FrameStatus

CLEAN_COVER = 0.05
"""A lower face covered by more than this share tells nothing about its lips."""
MAX_COVER = 0.9
"""Frames whose lower face is covered by more than this share pass through."""
MOUTH_HIDDEN, MOUTH_FREE = 0.5, 0.3
"""A mouth counts as hidden from the first share of its outline on, until less than the second is covered: half a mouth
beside a finger cannot be edited well, a second lip shows."""
MAX_RESIDUAL = 0.08
"""Frames whose landmark error exceeds this fraction of the inter-ocular distance pass through."""
_NEARLY_FITS = 1.5
"""A frame or two between well-fitted ones may miss the limit this far: the fit is smooth over time, so it holds."""

_REASON_OF_STATUS = {
    FrameStatus.LOST: Reason.LOST,
    FrameStatus.PREDICTED: Reason.LOST,
    FrameStatus.OCCLUDED: Reason.COVERED,
    FrameStatus.PROFILE: Reason.PROFILE,
    FrameStatus.TOO_SMALL: Reason.TOO_SMALL,
}


@dataclass(frozen=True, slots=True, eq=False)
class FaceEvidence:
    """What was measured of one face over a clip; one row per frame.

    Attributes:
        valid: bool ``[T]``, the face model was fitted to this very frame.
        residual: float32 ``[T]`` landmark error of the fit, fraction of the inter-ocular distance; NaN = unknown.
        coverage: float32 ``[T]`` share of the lower face behind something.
        status: uint8 ``[T]`` of ``FrameStatus``; None where only the fit is known.
        mouth: float32 ``[T]`` share of the lips' outline behind something; None where nobody looked.
        unsure: bool ``[T]`` something may be in front of the lower face, and what is cannot be told; None = nowhere.
    """

    valid: NDArray[np.bool_]
    residual: NDArray[np.float32]
    coverage: NDArray[np.float32]
    status: NDArray[np.uint8] | None = None
    mouth: NDArray[np.float32] | None = None
    unsure: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        optional = [array for array in (self.status, self.mouth, self.unsure) if array is not None]
        arrays = [self.valid, self.residual, self.coverage, *optional]
        if len({array.shape for array in arrays}) != 1 or self.valid.ndim != 1:
            raise ValueError(f"rows of a face disagree: {[array.shape for array in arrays]}")

    def reasons(self, max_residual: float = MAX_RESIDUAL) -> tuple[Reason, ...]:
        """Per frame ``Reason.EDITED`` where the face can be repainted, or why not.

        The error of the fit counts only where the face is free: behind a hand it is large because points are hidden.

        Args:
            max_residual: largest error of a usable fit.
        """
        found = np.full(len(self.valid), Reason.EDITED, dtype=object)
        fits = (self.residual <= max_residual) | (self.coverage > CLEAN_COVER)
        found[~fits] = Reason.POOR_FIT
        if self.unsure is not None:
            found[self.unsure] = Reason.UNSURE
        found[self.coverage > MAX_COVER] = Reason.COVERED
        if self.mouth is not None:
            found[hidden_mouths(self.mouth)] = Reason.COVERED
        found[~self.valid] = Reason.NO_FACE
        if self.status is not None:
            for status, reason in _REASON_OF_STATUS.items():
                found[self.status == status] = reason
        return tuple(Reason(reason) for reason in found)  # an array of strings forgets what they were

    def bridgeable(self, max_residual: float = MAX_RESIDUAL) -> NDArray[np.bool_]:
        """bool ``[T]``: frames that a run of usable ones may hold one or two of.

        There the fit (interpolated where the face is only predicted) is as good as its neighbours' and nothing covers
        the mouth; a face that is lost or hidden is never invented.

        Args:
            max_residual: largest error of a usable fit.
        """
        nearly = self.valid & (self.residual <= _NEARLY_FITS * max_residual)
        if self.status is not None:
            seen = np.isin(self.status, (FrameStatus.DETECTED, FrameStatus.PROFILE, FrameStatus.TOO_SMALL))
            nearly = (nearly & seen) | (self.status == FrameStatus.PREDICTED)
        # what covers a predicted face is unknown, so its neighbours answer for it
        cover = np.maximum(self.coverage, np.maximum(_shifted(self.coverage, 1), _shifted(self.coverage, -1)))
        return nearly & (cover <= CLEAN_COVER)


def hidden_mouths(mouth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Frames ``[T]`` in which the mouth counts as hidden, given the share of its outline that is covered.

    A threshold alone would switch to and fro while a hand rests at it; so a run of frames above the lower one counts
    as a whole when it reaches the upper one anywhere.
    """
    hidden = np.zeros(len(mouth), bool)
    for first, stop in runs_of(mouth > MOUTH_FREE):
        hidden[first:stop] = mouth[first:stop].max() > MOUTH_HIDDEN
    return hidden


def _shifted(values: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    """``values [T]`` moved by one row, the end repeated."""
    if by > 0:
        return np.concatenate([values[:1], values[:-1]])
    return np.concatenate([values[1:], values[-1:]])
