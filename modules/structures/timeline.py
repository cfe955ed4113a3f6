"""Which source frame an output shows when, and which moment of the speech is heard with it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SourceClock:
    """When the frames of a video are shown.

    Attributes:
        pts: int64 ``[T]``, strictly rising, in units of ``time_base``.
        time_base: seconds per unit.
        frame_rate: nominal; the last frame, whose end no later one tells, lasts as long as it says.
    """

    pts: NDArray[np.int64]
    time_base: Fraction
    frame_rate: Fraction

    def __post_init__(self) -> None:
        if self.pts.dtype != np.int64 or self.pts.ndim != 1 or not len(self.pts):
            raise ValueError(f"times must be int64 [T] with T > 0, got {self.pts.dtype} {self.pts.shape}")
        if not (np.diff(self.pts) > 0).all():
            raise ValueError("the times of a video's frames must rise")
        if self.time_base <= 0 or self.frame_rate <= 0:
            raise ValueError(f"no clock: time base {self.time_base}, frame rate {self.frame_rate}")

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def step(self) -> Fraction:
        """Nominal duration of a frame, units."""
        return max(1 / (self.frame_rate * self.time_base), Fraction(1))

    @property
    def durations(self) -> NDArray[np.int64]:
        """int64 ``[T]`` how long each frame is shown, units."""
        return np.append(np.diff(self.pts), max(round(self.step), 1)).astype(np.int64)

    @property
    def end_pts(self) -> int:
        """Where the last frame ends."""
        return int(self.pts[-1]) + max(round(self.step), 1)

    @property
    def times_s(self) -> NDArray[np.float64]:
        """``[T]`` seconds after the first frame."""
        return self.seconds_after_first(self.pts)

    @property
    def duration_s(self) -> float:
        """From the start of the first frame to the end of the last."""
        return float((self.end_pts - int(self.pts[0])) * self.time_base)

    def seconds_after_first(self, pts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds from this video's first frame to each of ``pts``; of whole seconds nothing is lost to rounding."""
        return (pts - self.pts[0]) * self.time_base.numerator / self.time_base.denominator


@dataclass(frozen=True, slots=True)
class Turns:
    """The rows between which the picture goes back and forth, both shown; to hold a frame means to hold ``last``."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise ValueError(f"turning points must ascend from 0 on, got {self.first} and {self.last}")


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The frames of an output in the order they are shown.

    Attributes:
        rows: int64 ``[N]`` source frame that each output frame shows.
        pts: int64 ``[N]``, strictly rising, in units of ``time_base``, on the source's own scale.
        speech_s: float64 ``[N]``, strictly rising: the second of the speech at each frame; below 0 before it begins.
        in_part: bool ``[N]``: the frames that may be edited; the others keep their own picture and sound.
        first_pass: how many frames show the source itself, frame by frame at its own times; after them the rows take
            single steps back, on or none at all.
        end_pts: where the last frame ends.
        time_base: seconds per unit, the source's.
        speech_start_s: when sample 0 of the speech is heard, on the scale of ``Frame.time_s``; it may lie before the
            edited part, whose speech then begins in the middle.
        part_s: from when to when the speech may be heard, on the same scale.
    """

    rows: NDArray[np.int64]
    pts: NDArray[np.int64]
    speech_s: NDArray[np.float64]
    in_part: NDArray[np.bool_]
    first_pass: int
    end_pts: int
    time_base: Fraction
    speech_start_s: Fraction
    part_s: tuple[Fraction, Fraction]

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.rows, self.pts, self.speech_s, self.in_part)}
        if len(shapes) != 1 or self.rows.ndim != 1 or not len(self.rows):
            raise ValueError(f"a timeline needs equal rows of at least one frame, got {shapes}")
        if not 1 <= self.first_pass <= len(self.rows):
            raise ValueError(f"the first pass shows 1 to {len(self.rows)} frames, got {self.first_pass}")
        if not np.array_equal(self.rows[: self.first_pass], np.arange(self.first_pass)):
            raise ValueError("the first pass does not show the source frame by frame")
        later = self.rows[self.first_pass - 1 :]
        if (np.abs(np.diff(later)) > 1).any() or later.min() < 0 or later.max() >= self.first_pass:
            raise ValueError("after the first pass the picture jumps, or shows frames that it did not hold")
        if not (np.diff(self.pts) > 0).all() or self.end_pts <= self.pts[-1]:
            raise ValueError("the times of a timeline must rise")
        if not (np.diff(self.speech_s) > 0).all():
            raise ValueError("the speech of a timeline must go on")
        if not self.part_s[0] < self.part_s[1]:
            raise ValueError(f"an edited part from {self.part_s[0]} to {self.part_s[1]} s is empty")

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Timeline(frames={len(self)}, first_pass={self.first_pass}, in_part={int(self.in_part.sum())})"

    @property
    def is_source(self) -> bool:
        """Every output frame is the source frame of the same number."""
        return self.first_pass == len(self)

    @property
    def duration_s(self) -> float:
        """From the start of the first frame to the end of the last."""
        return float((self.end_pts - int(self.pts[0])) * self.time_base)

    def shot_starts(self, source_shot_starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The output frames that begin a shot, ascending, 0 first.

        Args:
            source_shot_starts: source frames that begin one, ascending, 0 first.
        """
        shots = np.searchsorted(source_shot_starts, self.rows, side="right")
        return np.concatenate([[0], np.flatnonzero(np.diff(shots)) + 1]).astype(np.int64)
