"""How well predicted mouths agree with seen ones: the figures of the model card's table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.metrics.lips import resting_frames
from modules.structures.seen_mouth import SeenMouth
from tasks.audio2motion.closures import EventCounts, OpeningPair, held_out_counts
from tasks.audio2motion.evaluation import pearson, speaker_bootstrap
from tasks.audio2motion.held_out import Case
from tasks.audio2motion.measures import MEASURES, OPENING, seen_measures

LAG_REACH_ROWS = 16
"""Lags looked at, either way: 8 frames of 25 a second."""
LAG_TOLERANCE_ROWS = 2
"""One such frame."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipAgreement:
    """Of one clip and each of ``MEASURES``: correlation, and spread over the true spread; the opening's best lag."""

    name: str
    speaker: str
    correlation: NDArray[np.float64]
    spread: NDArray[np.float64]
    lag_rows: int


@dataclass(frozen=True, slots=True)
class Figure:
    """Of one measure over clips: mean r with its 95 % interval over resampled speakers, and medians."""

    r_mean: float
    r_low: float
    r_high: float
    r_median: float
    spread_median: float


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One line of the table.

    Attributes:
        title: of the line. figures: per measure. clips: how each clip did.
        lag_share: share of clips whose best lag is within one frame of 0. closures: None where none were counted.
        has_spread: whether spreads mean anything; a ridge on z-scores has none.
    """

    title: str
    figures: Mapping[str, Figure]
    clips: Sequence[ClipAgreement]
    lag_share: float
    closures: EventCounts | None = None
    has_spread: bool = True


def make_row(
    title: str,
    cases: Sequence[Case],
    predicted: Sequence[NDArray[np.float64]],
    *,
    has_spread: bool = True,
    with_closures: bool = True,
    seed: int = 0,
) -> Row:
    """Agreement of predicted measures ``[T, 5]`` with those seen, over cases."""
    clips = [agreement(case, values) for case, values in zip(cases, predicted, strict=True)]
    lag_share = float(np.mean([abs(clip.lag_rows) <= LAG_TOLERANCE_ROWS for clip in clips]))
    closures = None
    if with_closures:
        pairs = [
            OpeningPair.of_rows(values[:, OPENING], case.seen.opening, rows_to_judge(case), case.seen.rate_hz)
            for case, values in zip(cases, predicted, strict=True)
        ]
        closures = held_out_counts(pairs, [case.fold for case in cases])
    return Row(title, summarize(clips, seed), clips, lag_share, closures, has_spread)


def rows_to_judge(case: Case) -> NDArray[np.bool_]:
    """``[T]``: where a face was fitted and seen."""
    return case.clip.clip.valid & case.seen.valid


def agreement(case: Case, predicted: NDArray[np.float64]) -> ClipAgreement:
    """Of one clip: ``predicted [T, 5]`` against what was seen."""
    rows, truth = rows_to_judge(case), seen_measures(case.seen)
    pairs = list(zip(predicted[rows].T, truth[rows].T, strict=True))
    return ClipAgreement(
        case.name,
        case.speaker,
        np.array([pearson(p, t) for p, t in pairs]),
        np.array([float(p.std() / max(t.std(), 1e-9)) for p, t in pairs]),
        best_lag(predicted[:, OPENING], truth[:, OPENING], rows),
    )


def best_lag(predicted: NDArray, seen: NDArray, valid: NDArray[np.bool_], reach: int = LAG_REACH_ROWS) -> int:
    """Rows by which the prediction is later than what is seen, where they correlate best."""
    reach = min(reach, len(seen) // 2)
    found = []
    for lag in range(-reach, reach + 1):
        ours = predicted[max(0, lag) : len(predicted) + min(0, lag)]
        theirs, known = (a[max(0, -lag) : len(a) - max(0, lag)] for a in (seen, valid))
        found.append(pearson(ours[known], theirs[known]))
    return int(np.argmax(found)) - reach


def summarize(clips: Sequence[ClipAgreement], seed: int = 0) -> dict[str, Figure]:
    """Figures of each measure."""
    r = np.array([clip.correlation for clip in clips])
    spread = np.array([clip.spread for clip in clips])
    low, high = speaker_bootstrap(r, [clip.speaker for clip in clips], np.random.default_rng(seed))
    return {
        name: Figure(
            float(r[:, k].mean()),
            float(low[k]),
            float(high[k]),
            float(np.median(r[:, k])),
            float(np.median(spread[:, k])),
        )
        for k, name in enumerate(MEASURES)
    }


def ceiling(cases: Sequence[Case]) -> Row | None:
    """The second tracking against the first; None where no clip was tracked twice."""
    twice = [(case, case.seen_again) for case in cases if case.seen_again is not None]
    if not twice:
        return None
    predicted = [_usable(again, case) for case, again in twice]
    return make_row("second tracking of the same video (ceiling)", [case for case, _ in twice], predicted)


def _usable(again: SeenMouth, case: Case) -> NDArray[np.float64]:
    """Measures of the second tracking; where it saw nothing, those of the first's mean, which agree with nothing."""
    values, mean = seen_measures(again), seen_measures(case.seen)[case.seen.valid].mean(axis=0)
    return np.where(again.valid[:, None], values, mean)


@dataclass(frozen=True, slots=True)
class SilenceFigures:
    """Silences of at least 0.4 s over all clips.

    Attributes:
        motion_share: mean speed of the lips in them (less their first 0.2 s) over that in speech.
        shut_share: share of them in which the lips are shut 0.2 s after the last sound.
        count: of silences.
    """

    motion_share: float
    shut_share: float
    count: int


def silence_figures(
    openings: Sequence[NDArray[np.floating]],
    speech: Sequence[NDArray[np.bool_]],
    rate_hz: float,
    shut_below: Callable[[int], float],
) -> SilenceFigures:
    """How still predicted lips are where nobody speaks.

    Args:
        openings: ``[T]`` over rest, per clip.
        speech: ``[T]`` per clip.
        rate_hz: rows per second.
        shut_below: opening under which clip ``index``'s lips count as shut.
    """
    still, lively, shut = [], [], []
    for index, (opening, is_speech) in enumerate(zip(openings, speech, strict=True)):
        times_s = np.arange(len(opening)) / rate_hz
        resting = resting_frames(times_s, is_speech, np.zeros(len(opening), np.int64))
        speed = np.abs(np.diff(opening)) * rate_hz
        still.append(speed[resting[1:] & resting[:-1]])
        lively.append(speed[is_speech[1:] & is_speech[:-1]])
        starts = np.flatnonzero(resting & ~np.concatenate([[False], resting[:-1]]))
        shut += [bool(opening[start] <= shut_below(index)) for start in starts]
    quiet, loud = np.concatenate(still), np.concatenate(lively)
    share = float(quiet.mean() / loud.mean()) if len(quiet) and len(loud) and loud.mean() > 0 else float("nan")
    return SilenceFigures(share, float(np.mean(shut)) if shut else float("nan"), len(shut))
