"""What happens to each frame of a video, and why: one table that the job, its report and its sidecar share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modules.structures.evaluation import EDITED as EDITED_OUTCOME


class Reason(StrEnum):
    """Why a frame is left alone; ``EDITED`` where it is not."""

    EDITED = EDITED_OUTCOME
    NO_FACE = "no usable face"
    LOST = "face lost"
    PROFILE = "face in profile"
    TOO_SMALL = "face too small"
    COVERED = "occluded"
    """Something hides most of the mouth."""
    UNSURE = "perhaps occluded, and too little of the clip shows the clean face to tell"
    POOR_FIT = "the face model does not fit"
    SHORT = "too short between frames that are left alone"
    BEFORE_SPEECH = "before the start of the speech"
    AFTER_SPEECH = "after the end of the speech"
    OUTSIDE_PART = "outside the edited part"
    OTHER_SPEAKS = "another face speaks"
    PAUSE = "long pause, the source's mouth rests"


FACE_REASONS = frozenset(
    {
        Reason.NO_FACE, Reason.LOST, Reason.PROFILE, Reason.TOO_SMALL, Reason.COVERED, Reason.UNSURE, Reason.POOR_FIT,
    }
)  # fmt: skip
"""Those that lie in the picture; the others lie in the speech or in what was asked for."""


class SpanKind(StrEnum):
    """What is done to a frame."""

    EDITED = "edited"
    """New lips at full strength."""
    FADE = "fade"
    """New lips and the source's blended, so that nothing pops where an edit begins or ends."""
    PASSTHROUGH = "passthrough"
    """The source's own samples."""


@dataclass(frozen=True, slots=True)
class Span:
    """Frames ``first`` up to, not including, ``stop``, of one kind for one reason.

    Attributes:
        strength: 0..1 of each frame of a fade; empty for the other kinds, whose strength is their name.
    """

    first: int
    stop: int
    kind: SpanKind
    reason: Reason
    strength: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.stop:
            raise ValueError(f"a span covers at least one frame from 0 on, got {self.first} up to {self.stop}")
        if len(self.strength) != (len(self) if self.kind is SpanKind.FADE else 0):
            raise ValueError(f"a {self.kind} of {len(self)} frames cannot have {len(self.strength)} strengths")

    def __len__(self) -> int:
        return self.stop - self.first

    def to_json(self) -> dict[str, Any]:
        """The span as plain values."""
        data: dict[str, Any] = {
            "first": self.first, "stop": self.stop, "kind": str(self.kind), "reason": str(self.reason)
        }  # fmt: skip
        return {**data, "strength": list(self.strength)} if self.strength else data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Span:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: a key is missing or a value is none of ours.
        """
        try:
            strength = tuple(float(value) for value in data.get("strength", ()))
            return cls(
                int(data["first"]), int(data["stop"]), SpanKind(data["kind"]), Reason(data["reason"]), strength
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a span: {data!r}") from error


@dataclass(frozen=True, slots=True, eq=False)
class SpanTable:
    """Per frame how strongly it is edited, and why it is not.

    The kind follows from the strength, 0 passthrough, 1 edited, between them fade, so that both cannot disagree.

    Attributes:
        strength: float32 ``[T]`` in 0..1.
        reasons: ``T`` reasons; ``Reason.EDITED`` exactly where the strength is above 0.
    """

    strength: NDArray[np.float32]
    reasons: tuple[Reason, ...]

    def __post_init__(self) -> None:
        if self.strength.dtype != np.float32 or self.strength.shape != (len(self.reasons),):
            raise ValueError(
                f"strength must be float32 [{len(self.reasons)}], got {self.strength.dtype} {self.strength.shape}"
            )
        if not ((self.strength >= 0) & (self.strength <= 1)).all():
            raise ValueError("strength outside 0..1")
        unknown = [reason for reason in self.reasons if not isinstance(reason, Reason)]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no known reason")
        edited = np.array([reason is Reason.EDITED for reason in self.reasons], bool)
        wrong = np.flatnonzero(edited != (self.strength > 0))
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(f"frame {row} has strength {self.strength[row]} but is called {str(self.reasons[row])!r}")

    def __len__(self) -> int:
        return len(self.reasons)

    def __repr__(self) -> str:
        return f"SpanTable(frames={len(self)}, {self.counts()})"

    @property
    def edited(self) -> NDArray[np.bool_]:
        """bool ``[T]``: edited at all, fades included."""
        return self.strength > 0

    def kind(self, row: int) -> SpanKind:
        """What is done to frame ``row``."""
        strength = self.strength[row]
        return SpanKind.PASSTHROUGH if strength <= 0 else SpanKind.FADE if strength < 1 else SpanKind.EDITED

    def spans(self) -> list[Span]:
        """The table as runs of one kind and reason, in order, without gaps."""
        if not len(self):
            return []
        kinds = [self.kind(row) for row in range(len(self))]
        changes = [
            row
            for row in range(1, len(self))
            if kinds[row] is not kinds[row - 1] or self.reasons[row] is not self.reasons[row - 1]
        ]
        made = []
        for first, stop in zip([0, *changes], [*changes, len(self)], strict=True):
            fading = self.strength[first:stop] if kinds[first] is SpanKind.FADE else ()
            made.append(Span(first, stop, kinds[first], self.reasons[first], tuple(float(value) for value in fading)))
        return made

    def counts(self) -> dict[str, int]:
        """Frames per reason."""
        return {str(reason): count for reason, count in Counter(self.reasons).items()}

    def to_json(self) -> list[dict[str, Any]]:
        """The spans as plain values; ``from_json`` makes the very same table of them."""
        return [span.to_json() for span in self.spans()]

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, Any]]) -> SpanTable:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: the spans leave a gap, overlap, or are not ours.
        """
        strength: list[float] = []
        reasons: list[Reason] = []
        for span in map(Span.from_json, data):
            if span.first != len(reasons):
                raise ValueError(f"a span begins at frame {span.first}, the one before it ends at {len(reasons)}")
            strength += span.strength or [1.0 if span.kind is SpanKind.EDITED else 0.0] * len(span)
            reasons += [span.reason] * len(span)
            if span.kind is SpanKind.FADE and not all(0 < value < 1 for value in span.strength):
                raise ValueError(f"a fade at frame {span.first} does not stay between 0 and 1")
        return cls(np.array(strength, np.float32), tuple(reasons))


def runs_of(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open ranges of the True runs of ``flags [T]``, in order."""
    padded = np.concatenate([[False], np.asarray(flags, bool), [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return [(int(first), int(stop)) for first, stop in zip(edges[::2], edges[1::2], strict=True)]
