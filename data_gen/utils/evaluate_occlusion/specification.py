"""What the synthetic occluder set holds: which thing passes before which face, and along which way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal[
    "hand_flat", "hand_spread", "hand_fist", "hand_relaxed", "finger", "cup", "microphone", "stem", "phone", "straw",
    "sandwich",
]  # fmt: skip
THIN: frozenset[str] = frozenset({"finger", "stem", "straw"})
"""What is narrower than 24 px before a face that fills a 512 px crop."""
PAINTED_PREFIX = "head:"
"""A source that begins so is no clip but a painted head, by the number of its seed."""
SHUTTER = 0.5
"""Share of the time between frames in which light falls in (a shutter of 180 degrees)."""


@dataclass(frozen=True, slots=True)
class Pose2D:
    """Where a thing is: (x, y) in face heights from the middle of the mouth (y down), and its turn, clockwise."""

    x: float
    y: float
    angle_rad: float = 0.0


@dataclass(frozen=True, slots=True)
class Way:
    """In, a stay, and out again. Outside ``times_s`` the thing is out of sight.

    Attributes:
        enter, stay, leave: where it comes from, where it stays and where it goes.
        times_s: it leaves ``enter``, reaches ``stay``, leaves ``stay``, reaches ``leave``.
        wobble: how far it wanders about during its stay, face heights.
    """

    enter: Pose2D
    stay: Pose2D
    leave: Pose2D
    times_s: tuple[float, float, float, float] = (1.0, 1.45, 2.5, 2.95)
    wobble: float = 0.02

    def at(self, time_s: float) -> Pose2D | None:
        """Where the thing is, along ways of least jerk; None when it is out of sight."""
        start, arrived, left, gone = self.times_s
        if not start <= time_s <= gone:
            return None
        coming, going = _least_jerk((time_s - start) / (arrived - start)), _least_jerk((time_s - left) / (gone - left))
        ends = (self.enter, self.stay, self.leave)
        weights = np.array([1 - coming, coming - going, going])
        x, y, angle = weights @ np.array([(p.x, p.y, p.angle_rad) for p in ends])
        calm = coming * (1 - going)
        phase = 2 * math.pi * (time_s - start)
        return Pose2D(
            float(x + self.wobble * calm * math.sin(0.9 * phase)),
            float(y + self.wobble * calm * math.sin(0.7 * phase + 1.0)),
            float(angle + self.wobble * calm * math.sin(0.6 * phase + 2.0)),
        )


def _least_jerk(share: float) -> float:
    s = min(max(share, 0.0), 1.0)
    return s * s * s * (10 - 15 * s + 6 * s * s)


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """One sequence of the set.

    Attributes:
        name: of its files. source: a clip, or ``PAINTED_PREFIX`` and the seed of a painted head.
        kind: the thing. way: where it goes.
        start_s, seconds: part of the clip.
        euler_rad: from where the thing is seen, about x, y and z. size: over its natural size.
        skin: a hand's colour: the person's own ('own'), or RGB in 0..1.
        color: of things that come in colours; None = their usual one.
        sleeve: RGB of a hand's sleeve; None = bare arm.
        width_px: of straws and stems, at a face height of 300 px.
        shadow: strength of the contact shadow, 0..1.
        blur_px: softness of the picture, standard deviation.
        crf: of the encoder.
        seed: of grain.
    """

    name: str
    source: str
    kind: Kind
    way: Way
    start_s: float = 0.0
    seconds: float = 4.0
    euler_rad: tuple[float, float, float] = (0.0, 0.0, 0.0)
    size: float = 1.0
    skin: Literal["own"] | tuple[float, float, float] = "own"
    color: tuple[float, float, float] | None = None
    sleeve: tuple[float, float, float] | None = None
    width_px: float = 6.0
    shadow: float = 0.0
    blur_px: float = 0.7
    crf: int = 23
    seed: int = 0

    @property
    def is_thin(self) -> bool:
        return self.kind in THIN

    @property
    def is_painted(self) -> bool:
        """Whether the face is a painted head; real ones need their clip."""
        return self.source.startswith(PAINTED_PREFIX)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where a face is through a clip: mouth ``[T, 2]`` frame px and face height ``[T]`` px, both calmed."""

    mouth: NDArray[np.float64]
    height: NDArray[np.float64]
