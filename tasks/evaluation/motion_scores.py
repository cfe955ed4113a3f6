"""What is measured in landmarks: lips against the truth, against the speech, and the head's steadiness."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modules.metrics.lips import (
    closure_scores,
    correlation,
    expression_error,
    landmark_distance,
    leakage,
    lip_speeds,
    opening_spread_ratio,
    relative_landmark_distance,
    shown_share,
    shut_frames,
    shut_threshold,
    speed_ratio,
)
from modules.metrics.statistics import block_bootstrap, interval
from modules.metrics.steadiness import landmark_acceleration
from modules.metrics.synchrony import MIN_SECONDS, loudness_correlation, speech_lag
from modules.structures.evaluation import EDITED, SpeechTrack, Trial, TrialRow
from modules.structures.landmarks import Landmarks2D, lip_opening
from modules.structures.scores import Measure
from tasks.evaluation.reading import CROP_SIZE

AGAINST_TRUTH = ("lmd", "lmd_iod", "exp_lower", "exp_upper")
"""Figures of landmarks that need a true picture."""

Columns = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made: ``draws`` resamples of blocks of ``length`` frames, seeded by ``seed`` each time anew."""

    seed: int
    draws: int
    length: int

    def rng(self) -> np.random.Generator:
        """A generator at its start, so that no figure depends on which were measured before it."""
        return np.random.default_rng(self.seed)


def opening_of(landmarks: Landmarks2D) -> NDArray[np.float64]:
    """Lip opening ``[N]``, NaN without a face."""
    return np.where(landmarks.valid, lip_opening(landmarks.points), np.nan)


def measure_frames(trial: Trial, row: TrialRow) -> Columns:
    """Per-frame figures of one row's landmarks ``[N]``, NaN where there is nothing to measure."""
    truth = trial.rows[0].landmarks
    own = landmark_acceleration(truth.points, trial.times_s, trial.block)
    jitter = landmark_acceleration(row.landmarks.points, trial.times_s, trial.block)
    is_edited = _is_edited(trial)
    own, jitter = (np.where(is_edited, values, np.nan) for values in (own, jitter))
    columns: Columns = {"opening": opening_of(row.landmarks), "jitter": jitter / mean_of_source(own)}
    if trial.protocol == "self-reenactment":
        scale = CROP_SIZE / np.array([crop.side for crop in trial.crops])[:, None, None]
        lower, upper = expression_error(row.landmarks.blendshapes, truth.blendshapes)
        columns |= {
            "lmd": landmark_distance(row.landmarks.points * scale, truth.points * scale),
            "lmd_iod": 100 * relative_landmark_distance(row.landmarks.points, truth.points),
            "exp_lower": lower,
            "exp_upper": upper,
        }
        columns |= {name: np.where(is_edited, columns[name], np.nan) for name in AGAINST_TRUTH}
    return columns


def measure_track(trial: Trial, row: TrialRow, bootstrap: Bootstrap) -> dict[str, Measure]:
    """The figures of one row that need its whole stretch."""
    shown, is_edited = opening_of(row.landmarks), _is_edited(trial)
    opening = np.where(is_edited, shown, np.nan)  # frames left alone are the source's, whatever the row
    own = np.where(is_edited, opening_of(trial.rows[0].landmarks), np.nan)
    measures = {"spread": _of_pairs(opening_spread_ratio, opening, own, trial, bootstrap)}
    if row.driving_opening is not None:
        measures["r_driving"] = _of_pairs(correlation, opening, row.driving_opening, trial, bootstrap)
        if row.tracked_opening is not None:
            measures["motion"] = _of_change(row.driving_opening - row.tracked_opening, opening - own, trial, bootstrap)
    if trial.protocol == "leakage":
        if row.is_result:
            measures |= _leakage(trial, opening, own, bootstrap)
    elif trial.speech is None:
        measures |= dict.fromkeys(SPEECH_KEYS, Measure.missing("there is no speech"))
    else:
        measures |= _against_speech(trial, row, opening, trial.speech, bootstrap)
        measures["silence_motion"] = _in_silence(trial, row, shown, trial.speech, bootstrap)
    return measures


SPEECH_KEYS = ("r_speech", "r_loudness", "lag", "closure_recall", "closure_precision", "silence_motion")


def _against_speech(
    trial: Trial, row: TrialRow, opening: NDArray[np.float64], speech: SpeechTrack, bootstrap: Bootstrap
) -> dict[str, Measure]:
    late = row.speech_late_s
    lag = speech_lag(opening, trial.times_s, trial.block, speech, bootstrap.rng(), speech_late_s=late)
    seen = int(np.isfinite(opening).sum())
    seconds = seen * float(np.median(np.diff(trial.times_s))) if len(trial) > 1 else 0.0
    is_long = seconds >= MIN_SECONDS
    loudness = loudness_correlation(opening, trial.times_s, trial.block, speech, speech_late_s=late)
    too_short = Measure.missing(f"only {seconds:.2f} s of lips: at least {MIN_SECONDS} s are needed")
    measures = {
        "r_speech": Measure(lag.r_in_sync, lag.r_low, lag.r_high, seen, lag.note if math.isnan(lag.r_in_sync) else ""),
        "r_loudness": _or_missing(loudness, seen, "the lips or the speech do not move") if is_long else too_short,
        "lag": Measure(lag.value_ms, lag.low_ms, lag.high_ms, seen, lag.note),
    }
    return measures | _closures(trial, opening, speaking_frames(speech, trial.times_s - late), late, bootstrap)


def _in_silence(
    trial: Trial, row: TrialRow, shown: NDArray[np.float64], speech: SpeechTrack, bootstrap: Bootstrap
) -> Measure:
    """What a viewer sees in pauses, frames left alone included: there the source's own lips rest."""
    speaking = speaking_frames(speech, trial.times_s - row.speech_late_s)
    still, lively = lip_speeds(shown, trial.times_s, speaking, trial.block)
    value = speed_ratio(still, lively)
    if math.isnan(value):
        return Measure.missing("no pause of 0.4 s, or no motion in speech")
    low, high = interval(
        lambda rows: speed_ratio(still[rows], lively[rows]), trial.block, bootstrap.length, bootstrap.rng(),
        bootstrap.draws,
    )  # fmt: skip
    return Measure(value, low, high, int(np.isfinite(still).sum()))


def _closures(
    trial: Trial, opening: NDArray[np.float64], speaking: NDArray[np.bool_], late_s: float, bootstrap: Bootstrap
) -> dict[str, Measure]:
    """Shut lips against the truth's; in dubbing against those that the driving motion shuts, as late as its speech."""
    reference = opening_of(trial.rows[0].landmarks)
    threshold = shut_threshold(reference, speaking)
    if trial.protocol == "dubbing":
        driven = next((r.driving_opening for r in trial.rows if r.is_result and r.driving_opening is not None), None)
        if driven is None:
            note = "what drove the lips is unknown"
            return {"closure_recall": Measure.missing(note), "closure_precision": Measure.missing(note)}
        driven = np.where(_is_edited(trial), driven, np.nan)
        reference = np.interp(trial.times_s - late_s, trial.times_s, driven, left=np.nan, right=np.nan)
    shut = shut_frames(opening, threshold)
    wanted = shut_frames(reference, shut_threshold(reference, speaking))
    found = closure_scores(shut, wanted, trial.times_s, trial.block, bootstrap.rng())
    return {
        "closure_recall": _closure(found.met, found.chance_recall, trial, bootstrap),
        "closure_precision": _closure(found.meant, found.chance_precision, trial, bootstrap),
    }


def _closure(hits: NDArray[np.float64], chance: float, trial: Trial, bootstrap: Bootstrap) -> Measure:
    count = int(np.isfinite(hits).sum())
    if count == 0:
        return Measure.missing(f"no shut lips to look at in {len(hits)} frames")
    by_chance = "" if math.isnan(chance) else f"by chance {chance:.2f}"
    low, high = block_bootstrap(hits, trial.block, bootstrap.length, bootstrap.rng(), bootstrap.draws)
    return Measure(float(np.nanmean(hits)), low, high, count, by_chance)


def _leakage(
    trial: Trial, opening: NDArray[np.float64], own: NDArray[np.float64], bootstrap: Bootstrap
) -> dict[str, Measure]:
    size, band = leakage(opening, own, trial.times_s, trial.block, bootstrap.rng())
    seen = int((np.isfinite(opening) & np.isfinite(own)).sum())
    return {
        "leak_r": _or_missing(size, seen, "lips that do not move"),
        "leak_band": _or_missing(band, seen, "too short for circular shifts"),
    }


def _of_pairs(
    figure: Callable[[NDArray[np.floating], NDArray[np.floating]], float],
    opening: NDArray[np.float64],
    other: NDArray[np.floating],
    trial: Trial,
    bootstrap: Bootstrap,
) -> Measure:
    """A figure of two series, frame by frame, with its interval."""
    value = figure(opening, other)
    if math.isnan(value):
        return Measure.missing("lips that do not move, or fewer than three frames")
    low, high = interval(
        lambda rows: figure(opening[rows], other[rows]), trial.block, bootstrap.length, bootstrap.rng(), bootstrap.draws
    )
    return Measure(value, low, high, int((np.isfinite(opening) & np.isfinite(other)).sum()))


def _of_change(asked: NDArray[np.floating], made: NDArray[np.float64], trial: Trial, bootstrap: Bootstrap) -> Measure:
    """How much of the asked change the pictures show; only where a change is asked for."""
    found = _of_pairs(shown_share, made, asked, trial, bootstrap)
    return found if found.is_measured else Measure.missing("these lips are to move as the source's own do")


def speaking_frames(speech: SpeechTrack, times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether there is speech at each of ``times_s [N]``."""
    rows = np.floor(times_s * speech.rate_hz).astype(np.int64)
    inside = (rows >= 0) & (rows < len(speech.is_speech))
    speaking = np.zeros(len(times_s), dtype=bool)
    speaking[inside] = speech.is_speech[rows[inside]]
    return speaking


def _is_edited(trial: Trial) -> NDArray[np.bool_]:
    return np.array([outcome == EDITED for outcome in trial.outcomes])


def _or_missing(value: float, count: int, why: str) -> Measure:
    return Measure.missing(why) if math.isnan(value) else replace(Measure(value), count=count)


def mean_of_source(values: NDArray[np.float64]) -> float:
    """Mean that ratios are taken to, over the finite ones of ``values [N]``; NaN unless it is above 0."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) and known.mean() > 0 else math.nan
