"""The frames of a video as a list of times: what makes a frame number mean the same frame in every pass."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

INDEX_SCHEMA = "frame-index/1"


@dataclass(frozen=True, slots=True, eq=False)
class FrameIndex:
    """Times of all frames of a video and where its shots begin.

    Attributes:
        pts: int64 ``[T]`` presentation times, rising, in units of ``time_base``.
        time_base: seconds.
        shot_starts: int64 ``[S]``, ascending, 0 first: the frames that begin a shot.
    """

    pts: NDArray[np.int64]
    time_base: Fraction
    shot_starts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not (np.diff(self.pts) > 0).all():
            raise ValueError("presentation times must rise")
        if len(self.shot_starts) == 0 or self.shot_starts[0] != 0 or not (np.diff(self.shot_starts) > 0).all():
            raise ValueError(f"shots must start at frame 0 and ascend, got {self.shot_starts}")

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """``[T]`` seconds after the first frame."""
        step = float(self.time_base)
        return (self.pts - self.pts[0]) * step if len(self.pts) else np.zeros(0)

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        base = np.array([self.time_base.numerator, self.time_base.denominator], np.int64)
        np.savez(temporary, schema=np.array(INDEX_SCHEMA), pts=self.pts, time_base=base, shot_starts=self.shot_starts)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> FrameIndex:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            if "schema" not in data or str(data["schema"]) != INDEX_SCHEMA:
                raise ValueError(f"{path} does not hold a frame index of schema {INDEX_SCHEMA}")
            numerator, denominator = data["time_base"].tolist()
            return cls(data["pts"], Fraction(numerator, denominator), data["shot_starts"])


def shot_ranges(shot_starts: NDArray[np.int64] | None, count: int) -> list[tuple[int, int]]:
    """Half-open row ranges of the shots among ``count`` rows; None = one shot."""
    starts = [] if shot_starts is None else [int(start) for start in shot_starts if 0 < start < count]
    return list(zip([0, *starts], [*starts, count], strict=True)) if count else []
