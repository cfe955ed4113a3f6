"""Which frames are edited, how strongly, and which expression each gets: tables in, a table out, no pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from inference.usable_faces import MAX_RESIDUAL
from modules.structures.frame_index import shot_ranges
from modules.structures.motion import MotionSequence
from modules.structures.spans import FACE_REASONS, Reason, SpanTable, runs_of

EDITED = Reason.EDITED
AFTER_SPEECH = Reason.AFTER_SPEECH
NO_FACE = Reason.NO_FACE
POOR_FIT = Reason.POOR_FIT
COVERED = Reason.COVERED

MAX_HOLE = 2
"""So many frames without a usable face may be bridged; more would be invention."""
AS_SHOWN = 1e-3
"""Expressions that differ less than this in every unit are the same."""
_ROUNDING_S = 1e-6


@dataclass(frozen=True, slots=True)
class EditConfig:
    """How predicted motion is put on the source's own performance.

    Attributes:
        fade_s: time over which an edit fades in and out at its borders; cuts are no borders.
        silence_s: pauses at least this long fade back to the source when its own mouth rests too.
        resting_opening: the source's lips come to rest below this opening (inter-ocular units).
        waking_opening: and rest until they open wider than this, so that trembling lips do not switch to and fro.
        max_residual: frames whose landmark error exceeds this fraction of the inter-ocular distance pass through.
        keep_smile: share of the source's own slow smile kept in the new mouth, 0..1.
        smile_sigma_s: width of the low-pass that tells a smile from speech.
    """

    fade_s: float = 0.16
    silence_s: float = 1.0
    resting_opening: float = 0.02
    waking_opening: float = 0.035
    max_residual: float = MAX_RESIDUAL
    keep_smile: float = 0.5
    smile_sigma_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.fade_s < float("inf"):
            raise ValueError(f"a fade takes 0 s or more, got {self.fade_s}")
        if self.waking_opening < self.resting_opening:
            raise ValueError(f"lips at rest wake above {self.resting_opening}, got {self.waking_opening}")


@dataclass(frozen=True, slots=True, eq=False)
class SourceMotion:
    """What was tracked in the frames that are shown: one row per output frame.

    Attributes:
        times_s: ``[T]`` rising, seconds of the speech at which each frame is shown; below 0 before it begins.
        expression: ``[T, E]`` fitted units; ``opening``: ``[T]`` tracked lip opening (NaN where unknown).
        reasons: ``T`` times ``Reason.EDITED`` where the face is usable, or why it is not.
        bridgeable: bool ``[T]``: see ``FaceEvidence.bridgeable``.
        rest: ``[E]`` this person's expression with the lips at rest.
    """

    times_s: NDArray[np.float64]
    expression: NDArray[np.float32]
    opening: NDArray[np.float32]
    reasons: tuple[Reason, ...]
    bridgeable: NDArray[np.bool_]
    rest: NDArray[np.float32]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """bool ``[T]``: the face can be repainted."""
        return np.array([reason is Reason.EDITED for reason in self.reasons], bool)


@dataclass(frozen=True, slots=True, eq=False)
class EditPlan:
    """The new expression ``[T, E]`` of each frame, how strongly it is put in, and why not."""

    expression: NDArray[np.float32]
    spans: SpanTable

    def __post_init__(self) -> None:
        if len(self.expression) != len(self.spans):
            raise ValueError(f"{len(self.expression)} expressions do not belong to {len(self.spans)} frames")

    @property
    def strength(self) -> NDArray[np.float32]:
        """float32 ``[T]`` in 0..1."""
        return self.spans.strength

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Per frame ``Reason.EDITED``, fades included, or why not."""
        return self.spans.reasons

    @property
    def edited(self) -> NDArray[np.bool_]:
        """bool ``[T]``: edited at all, fades included."""
        return self.spans.edited

    def is_as_shown(self, shown: NDArray[np.float32]) -> bool:
        """Whether the edited frames are to show what they show already, ``shown [T, E]``: then nothing is proved."""
        change = np.abs(self.expression - shown)[self.edited]
        return bool(len(change)) and float(change.max()) < AS_SHOWN

    def counts(self) -> dict[str, int]:
        """Frames per reason."""
        return self.spans.counts()


def plan_edits(
    source: SourceMotion,
    motion: MotionSequence,
    sampled: NDArray[np.float32],
    *,
    mouth_units: NDArray[np.int64],
    smile_units: NDArray[np.int64],
    config: EditConfig,
    shot_starts: NDArray[np.int64] | None = None,
    in_part: NDArray[np.bool_] | None = None,
    other_speaks: NDArray[np.bool_] | None = None,
) -> EditPlan:
    """Put predicted mouth motion on the source's performance.

    Args:
        source: tracked tables of the frames that are shown.
        motion: predicted motion (for its duration and pauses).
        sampled: ``[T, E]`` predicted deviation from rest at the source's frame times.
        mouth_units: indices of the units driven by speech.
        smile_units: those of them that also carry mood.
        config: see ``EditConfig``.
        shot_starts: ascending rows that begin a shot; None = one shot.
        in_part: bool ``[T]`` frames that may be edited; None = all.
        other_speaks: bool ``[T]`` frames that are another face's turn; None = none.
    """
    spans = _plan_spans(source, motion, config, shot_starts, in_part, other_speaks)
    mouth = source.rest[mouth_units] + sampled[:, mouth_units]
    expression = source.expression.copy()
    expression[:, mouth_units] = mouth
    if len(smile_units):
        slow = _slow_part(source, smile_units, config.smile_sigma_s)
        lift = config.keep_smile * np.maximum(slow - source.rest[smile_units], 0)
        expression[:, smile_units] += lift
    expression[:, mouth_units] = np.clip(expression[:, mouth_units], 0.0, 1.0)
    return EditPlan(expression.astype(np.float32), spans)


def _plan_spans(
    source: SourceMotion,
    motion: MotionSequence,
    config: EditConfig,
    shot_starts: NDArray[np.int64] | None,
    in_part: NDArray[np.bool_] | None,
    other_speaks: NDArray[np.bool_] | None,
) -> SpanTable:
    """Who is edited: usable faces while there is speech, without holes and flashes, faded at their borders."""
    times = source.times_s
    shots = shot_ranges(shot_starts, len(times))
    reasons = np.array(source.reasons, dtype=object)
    for first, stop in shots:
        _bridge_holes(reasons[first:stop], source.bridgeable[first:stop])
    is_face = reasons == EDITED
    reasons[is_face & _resting_pauses(source, motion, config)] = Reason.PAUSE
    reasons[times < 0] = Reason.BEFORE_SPEECH
    reasons[times >= motion.duration_s] = AFTER_SPEECH
    if other_speaks is not None:
        reasons[other_speaks] = Reason.OTHER_SPEAKS
    if in_part is not None:
        reasons[~in_part] = Reason.OUTSIDE_PART
    for first, stop in shots:
        _drop_flashes(reasons[first:stop], times[first:stop], config.fade_s)
    strength = fade_edges(reasons == EDITED, times, config.fade_s, shot_starts)
    return SpanTable(strength, tuple(Reason(reason) for reason in reasons))


def _bridge_holes(reasons: NDArray[np.object_], bridgeable: NDArray[np.bool_]) -> None:
    """Let an edit run on over one or two bad frames: fading out and in around them would pump. In place, one shot."""
    for first, stop in runs_of(reasons != EDITED):
        is_hole = first > 0 and stop < len(reasons) and stop - first <= MAX_HOLE
        if is_hole and bridgeable[first:stop].all():
            reasons[first:stop] = EDITED


def _drop_flashes(reasons: NDArray[np.object_], times_s: NDArray[np.float64], fade_s: float) -> None:
    """Leave out runs too short to fade in and out where the face is lost beside them. In place, one shot.

    Borders that lie in the speech do not count: a word between two pauses is short and wanted.
    """
    for first, stop in runs_of(reasons == EDITED):
        beside = [reasons[row] for row in (first - 1, stop) if 0 <= row < len(reasons)]
        fades = sum(reason in FACE_REASONS for reason in beside)
        if fades and _length_s(times_s, first, stop) < fades * fade_s - _ROUNDING_S:
            reasons[first:stop] = Reason.SHORT


def _length_s(times_s: NDArray[np.float64], first: int, stop: int) -> float:
    """How long rows ``first`` up to ``stop`` are shown; of the last row of all, as long as the one before it."""
    if stop < len(times_s):
        return float(times_s[stop] - times_s[first])
    last = times_s[-1] - times_s[-2] if len(times_s) > 1 else 0.0
    return float(times_s[-1] - times_s[first] + last)


def fade_edges(
    wanted: NDArray[np.bool_],
    times_s: NDArray[np.float64],
    fade_s: float,
    shot_starts: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Strength 0..1 that is 0 outside ``wanted`` and rises smoothly over ``fade_s`` inside its inner borders.

    The ends of the clip and cuts are no borders: an edit may begin and end there at full strength.

    Args:
        wanted: bool ``[T]``.
        times_s: ``[T]``, rising.
        fade_s: 0 = no fades.
        shot_starts: ascending rows that begin a shot; None = one shot.
    """
    strength = wanted.astype(np.float32)
    if fade_s <= _ROUNDING_S:
        return strength
    for first, stop in shot_ranges(shot_starts, len(wanted)):
        strength[first:stop] = _fade_in_shot(wanted[first:stop], times_s[first:stop], fade_s)
    return strength


def _fade_in_shot(wanted: NDArray[np.bool_], times_s: NDArray[np.float64], fade_s: float) -> NDArray[np.float32]:
    outside = times_s[~wanted]
    if not len(outside):
        return wanted.astype(np.float32)
    position = np.searchsorted(outside, times_s)
    before = outside[np.clip(position - 1, 0, len(outside) - 1)]
    after = outside[np.clip(position, 0, len(outside) - 1)]
    distance = np.minimum(np.abs(times_s - before), np.abs(times_s - after))
    ramp = np.clip(distance / fade_s, 0.0, 1.0)
    # a wanted frame never rounds to 0, which would mean that it is left alone
    return np.where(wanted, np.maximum(ramp * ramp * (3 - 2 * ramp), 1e-6), 0.0).astype(np.float32)


def _resting_pauses(source: SourceMotion, motion: MotionSequence, config: EditConfig) -> NDArray[np.bool_]:
    """Frames inside pauses of the speech, at least ``silence_s`` long, in which the source's own mouth rests.

    The first and last ``fade_s`` of such a pause are left out: the fade belongs into the pause, not into the words.
    """
    times = source.times_s
    row = np.clip((times * motion.rate_hz).astype(int), 0, max(len(motion) - 1, 0))
    silent = motion.is_speech[row] < 0.5 if len(motion) else np.ones(len(row), bool)
    resting = resting_lips(source.opening, config.resting_opening, config.waking_opening)
    quiet = np.zeros(len(silent), bool)
    for first, stop in runs_of(silent & resting):
        if times[stop - 1] - times[first] < config.silence_s:
            continue
        begin_s = times[first] + config.fade_s if first else -np.inf
        end_s = times[stop - 1] - config.fade_s if stop < len(times) else np.inf
        quiet[first:stop] = (times[first:stop] >= begin_s) & (times[first:stop] <= end_s)
    return quiet


def resting_lips(opening: NDArray[np.floating], low: float, high: float) -> NDArray[np.bool_]:
    """bool ``[T]``: lips that have come to rest and have not woken since.

    They rest from where ``opening [T]`` falls below ``low`` until it exceeds ``high``; in between they stay what they
    were, and at first are awake. Where nothing is known (NaN) they are awake.
    """
    known = np.nan_to_num(opening, nan=np.inf)
    decided = np.where(known < low, 1, np.where(known > high, 0, -1))
    last = np.maximum.accumulate(np.where(decided >= 0, np.arange(len(decided)), -1))
    return (last >= 0) & (decided[last] == 1)


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
