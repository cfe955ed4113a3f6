"""Which frames are edited, how strongly, and which expression each gets: tables in, a table out, no pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from modules.structures.evaluation import EDITED
from modules.structures.motion import MotionSequence

AFTER_SPEECH = "after the end of the speech"
NO_FACE = "no usable face"
POOR_FIT = "the face model does not fit"
COVERED = "mouth covered"


@dataclass(frozen=True, slots=True)
class EditConfig:
    """How predicted motion is put on the source's own performance.

    Attributes:
        fade_s: time over which an edit fades in and out at its borders.
        silence_s: pauses at least this long fade back to the source when its own mouth rests too.
        resting_opening: the source's lips count as resting below this opening (inter-ocular units).
        max_residual: frames whose landmark error exceeds this fraction of the inter-ocular distance pass through.
        keep_smile: share of the source's own slow smile kept in the new mouth, 0..1.
        smile_sigma_s: width of the low-pass that tells a smile from speech.
    """

    fade_s: float = 0.16
    silence_s: float = 1.0
    resting_opening: float = 0.02
    max_residual: float = 0.08
    keep_smile: float = 0.5
    smile_sigma_s: float = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class SourceMotion:
    """What was tracked in the source: one row per frame.

    Attributes:
        times_s: ``[T]`` frame times from the first frame on.
        expression: ``[T, E]`` fitted units; ``opening``: ``[T]`` tracked lip opening (NaN where unknown).
        usable: ``[T]`` bool, a face was tracked; ``residual``: ``[T]`` landmark error of the fit.
        rest: ``[E]`` this person's expression with the lips at rest.
    """

    times_s: NDArray[np.float64]
    expression: NDArray[np.float32]
    opening: NDArray[np.float32]
    usable: NDArray[np.bool_]
    residual: NDArray[np.float32]
    rest: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class EditPlan:
    """The new expression ``[T, E]``, the strength ``[T]`` 0..1 of the edit and why each frame is (not) edited."""

    expression: NDArray[np.float32]
    strength: NDArray[np.float32]
    reasons: tuple[str, ...]

    @property
    def edited(self) -> NDArray[np.bool_]:
        return self.strength > 0

    def counts(self) -> dict[str, int]:
        """Frames per reason."""
        return dict(Counter(self.reasons))


def plan_edits(
    source: SourceMotion,
    motion: MotionSequence,
    sampled: NDArray[np.float32],
    *,
    mouth_units: NDArray[np.int64],
    smile_units: NDArray[np.int64],
    config: EditConfig,
) -> EditPlan:
    """Put predicted mouth motion on the source's performance.

    Args:
        source: tracked tables of the source.
        motion: predicted motion (for its duration and pauses).
        sampled: ``[T, E]`` predicted deviation from rest at the source's frame times.
        mouth_units: indices of the units driven by speech.
        smile_units: those of them that also carry mood.
        config: see ``EditConfig``.
    """
    speech_end_s = motion.duration_s
    reasons = np.full(len(source.times_s), EDITED, dtype=object)
    reasons[source.usable & ~(source.residual <= config.max_residual)] = POOR_FIT
    reasons[~source.usable] = NO_FACE
    reasons[source.times_s >= speech_end_s] = AFTER_SPEECH
    wanted = reasons == EDITED
    wanted &= ~_resting_pauses(source, motion, config)
    strength = fade_edges(wanted, source.times_s, config.fade_s)

    mouth = source.rest[mouth_units] + sampled[:, mouth_units]
    expression = source.expression.copy()
    expression[:, mouth_units] = mouth
    if len(smile_units):
        slow = _slow_part(source, smile_units, config.smile_sigma_s)
        lift = config.keep_smile * np.maximum(slow - source.rest[smile_units], 0)
        expression[:, smile_units] += lift
    expression[:, mouth_units] = np.clip(expression[:, mouth_units], 0.0, 1.0)
    reasons[(strength <= 0) & (reasons == EDITED)] = "long pause, the source's mouth rests"
    return EditPlan(expression.astype(np.float32), strength, tuple(str(r) for r in reasons))


def fade_edges(wanted: NDArray[np.bool_], times_s: NDArray[np.float64], fade_s: float) -> NDArray[np.float32]:
    """Strength 0..1 that is 0 outside ``wanted`` and rises smoothly over ``fade_s`` inside its inner borders.

    The first and last frames of the clip are no borders: an edit may begin and end there at full strength.
    """
    if not wanted.any():
        return np.zeros(len(wanted), np.float32)
    outside = times_s[~wanted]
    if not len(outside) or fade_s <= 0:
        return wanted.astype(np.float32)
    position = np.searchsorted(outside, times_s)
    before = outside[np.clip(position - 1, 0, len(outside) - 1)]
    after = outside[np.clip(position, 0, len(outside) - 1)]
    distance = np.minimum(np.abs(times_s - before), np.abs(times_s - after))
    ramp = np.clip(distance / fade_s, 0.0, 1.0)
    return np.where(wanted, ramp * ramp * (3 - 2 * ramp), 0.0).astype(np.float32)


def _resting_pauses(source: SourceMotion, motion: MotionSequence, config: EditConfig) -> NDArray[np.bool_]:
    """Frames inside pauses of the speech, at least ``silence_s`` long, in which the source's own mouth rests."""
    row = np.clip((source.times_s * motion.rate_hz).astype(int), 0, max(len(motion) - 1, 0))
    silent = motion.is_speech[row] < 0.5 if len(motion) else np.ones(len(row), bool)
    resting = np.nan_to_num(source.opening, nan=1.0) < config.resting_opening
    quiet = np.zeros(len(silent), bool)
    start = None
    for i, flag in enumerate([*silent, False]):
        if flag and start is None:
            start = i
        elif not flag and start is not None:
            span = slice(start, i)
            if source.times_s[i - 1] - source.times_s[start] >= config.silence_s and resting[span].all():
                quiet[span] = True
            start = None
    return quiet


def _slow_part(source: SourceMotion, units: NDArray[np.int64], sigma_s: float) -> NDArray[np.float32]:
    """Low-passed ``[T, len(units)]`` units over usable frames (normalised convolution; gaps do not bleed in)."""
    if len(source.times_s) < 2:
        return source.expression[:, units]
    step = float(np.median(np.diff(source.times_s)))
    sigma = sigma_s / max(step, 1e-3)
    weight = source.usable.astype(np.float64)[:, None]
    smooth = gaussian_filter1d(source.expression[:, units] * weight, sigma, axis=0, mode="nearest")
    norm = gaussian_filter1d(weight, sigma, axis=0, mode="nearest")
    return (smooth / np.maximum(norm, 1e-6)).astype(np.float32)
