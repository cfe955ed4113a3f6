"""How well lips say what they should: distances, scores, closures, silence, leakage.

Everything works on per-frame arrays of one clip; NaN marks a frame without a usable face. Lip opening is the inner-lip
gap in distances between the outer eye corners (``modules.structures.landmarks.lip_opening``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.metrics.statistics import circular_shift_null, shift_rows
from modules.structures.landmarks import LM68_MOUTH, LOWER_FACE_SCORES, UPPER_FACE_SCORES, inter_ocular_px

SHUT_PERCENTILE = 10.0
SHUT_MARGIN = 0.01
"""Lips count as shut below this percentile of the person's opening in speech plus this margin."""
CLOSURE_TOLERANCE_S = 0.04
_TOLERANCE_SLACK_S = 0.002
"""Time stamps are rounded to 1 ms in some containers, and one frame of a 24 fps film is 41.7 ms."""
MIN_PAUSE_S = 0.4
"""A shorter silence is part of speaking: the closure of a plosive, a breath."""
PAUSE_ONSET_S = 0.2
"""Lips still come to rest within this time after the last sound."""
BAND = 0.95
_MIN_PAIRS = 3
LEAST_ASKED = 1e-3
"""Spread of a change of lip opening below which nothing is asked for, in inter-ocular units."""


def landmark_distance(points: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """LMD: mean distance of the 20 lip points of two faces after their means are put on each other.

    As defined for talking heads by Chen et al. 2018 ("Lip movements generation at a glance"), on points 48-67 of the
    68-point layout.

    Args:
        points: ``[N, 478, 2]``; for figures that compare with others', px of the 512 crop.
        reference: ``[N, 478, 2]`` true landmarks, same coordinates.

    Returns:
        ``[N]`` in the unit of the coordinates, NaN where either face is missing.
    """
    return np.linalg.norm(_centred_lips(points) - _centred_lips(reference), axis=-1).mean(axis=-1)


def relative_landmark_distance(points: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.float64]:
    """``landmark_distance`` over the reference's distance between the outer eye corners, ``[N]``; free of scale."""
    return landmark_distance(points, reference) / inter_ocular_px(reference)


def _centred_lips(points: NDArray[np.floating]) -> NDArray[np.float64]:
    lips = points[:, list(LM68_MOUTH)].astype(np.float64)
    return lips - lips.mean(axis=1, keepdims=True)


def expression_error(
    scores: NDArray[np.floating], reference: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean absolute difference of MediaPipe's scores, mouth and jaw apart from brows, eyes and nose.

    Args:
        scores: ``[N, 52]`` in the order of ``MEDIAPIPE_BLENDSHAPES``, 0..1.
        reference: ``[N, 52]`` the true ones.

    Returns:
        ``(lower face [N], upper face [N])``, 0..1, NaN where either face is missing. ``_neutral`` counts in neither.
    """
    difference = np.abs(scores.astype(np.float64) - reference)
    return difference[:, list(LOWER_FACE_SCORES)].mean(axis=1), difference[:, list(UPPER_FACE_SCORES)].mean(axis=1)


def shut_threshold(opening: NDArray[np.floating], is_speech: NDArray[np.bool_]) -> float:
    """Opening below which this person's lips count as shut; NaN when no lips are seen in speech.

    Args:
        opening: ``[N]`` the person's own, not a result's.
        is_speech: ``[N]``.
    """
    spoken = opening[is_speech & np.isfinite(opening)]
    return float(np.percentile(spoken, SHUT_PERCENTILE)) + SHUT_MARGIN if len(spoken) else math.nan


def shut_frames(opening: NDArray[np.floating], threshold: float) -> NDArray[np.float64]:
    """``[N]``: 1 where the lips are shut, 0 where they are open, NaN where ``opening`` or the threshold is unknown."""
    return np.where(np.isfinite(opening) & np.isfinite(threshold), (opening < threshold).astype(np.float64), np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class ClosureScores:
    """How well closures are met.

    Attributes:
        recall: share of the reference's shut frames with a shut frame near by; NaN when it never shuts.
        precision: share of the shut frames with one of the reference's near by; NaN when there is none.
        chance_recall: mean recall when the closures are moved in time at random.
        chance_precision: mean precision likewise.
        n_shut: shut frames.
        n_reference: of the reference.
        n_compared: frames with a face on both sides; the others are left out of everything.
        met: float ``[N]``: whether each of the reference's shut frames is met; NaN for all others.
        meant: float ``[N]``: whether each shut frame is one of the reference's; NaN for all others.
    """

    recall: float
    precision: float
    chance_recall: float
    chance_precision: float
    n_shut: int
    n_reference: int
    n_compared: int
    met: NDArray[np.float64]
    meant: NDArray[np.float64]


def closure_scores(
    shut: NDArray[np.floating],
    reference_shut: NDArray[np.floating],
    times_s: NDArray[np.float64],
    block: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    tolerance_s: float = CLOSURE_TOLERANCE_S,
    shifts: int = 200,
) -> ClosureScores:
    """Recall and precision of lip closures, frame by frame, within a tolerance in time.

    Args:
        shut: ``[N]`` of ``shut_frames``.
        reference_shut: ``[N]`` likewise, of the truth.
        times_s: ``[N]`` ascending.
        block: ``[N]`` number of the unbroken stretch; no closure is matched across.
        rng: source of the chance row.
        tolerance_s: how far apart two closures may be and still be the same.
        shifts: random circular shifts, of at least 0.5 s, behind the chance row.
    """
    known = np.isfinite(shut) & np.isfinite(reference_shut)
    ours, theirs = shut[known] == 1, reference_shut[known] == 1
    links = _neighbours(times_s[known], block[known], tolerance_s + _TOLERANCE_SLACK_S)
    reach_of_theirs = _widened(theirs, links)

    def recall(rows: NDArray[np.int64]) -> float:
        return _share(_widened(ours[rows], links)[theirs])

    def precision(rows: NDArray[np.int64]) -> float:
        return _share(reach_of_theirs[ours[rows]])

    as_is, least = np.arange(len(ours)), shift_rows(times_s[known])
    seed = rng.integers(2**32)  # both chance figures look at the same shifts
    chance_recall = circular_shift_null(recall, len(ours), least, np.random.default_rng(seed), shifts)
    chance_precision = circular_shift_null(precision, len(ours), least, np.random.default_rng(seed), shifts)
    return ClosureScores(
        recall=recall(as_is),
        precision=precision(as_is),
        chance_recall=_mean(chance_recall),
        chance_precision=_mean(chance_precision),
        n_shut=int(ours.sum()),
        n_reference=int(theirs.sum()),
        n_compared=len(ours),
        met=_spread_out(_widened(ours, links), theirs, known),
        meant=_spread_out(reach_of_theirs, ours, known),
    )


def _spread_out(values: NDArray[np.bool_], chosen: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values of the known frames that are chosen, at their places among all; NaN elsewhere."""
    spread = np.full(len(known), np.nan)
    spread[np.flatnonzero(known)[chosen]] = values[chosen]
    return spread


def _neighbours(times_s: NDArray[np.float64], block: NDArray[np.int64], reach_s: float) -> list[NDArray[np.int64]]:
    """Per k = 1, 2, ...: rows i for which row i + k is of the same stretch and at most ``reach_s`` later."""
    links: list[NDArray[np.int64]] = []
    for k in range(1, len(times_s)):
        near = np.flatnonzero((times_s[k:] - times_s[:-k] <= reach_s) & (block[k:] == block[:-k]))
        if len(near) == 0:
            break
        links.append(near)
    return links


def _widened(flags: NDArray[np.bool_], links: list[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """True where a flag is set within reach."""
    wide = flags.copy()
    for k, rows in enumerate(links, start=1):
        wide[rows] |= flags[rows + k]
        wide[rows + k] |= flags[rows]
    return wide


def _share(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else math.nan


def _mean(values: NDArray[np.floating]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def silence_motion(
    opening: NDArray[np.floating],
    times_s: NDArray[np.float64],
    is_speech: NDArray[np.bool_],
    block: NDArray[np.int64],
) -> float:
    """Mean speed of the lips in silence over that in speech; 0 = still, 1 = as lively as in speech.

    Silence is a pause of at least 0.4 s within an unbroken stretch, less its first 0.2 s.

    Args:
        opening: ``[N]``.
        times_s: ``[N]`` ascending.
        is_speech: ``[N]``.
        block: ``[N]`` number of the unbroken stretch.

    Returns:
        the ratio; NaN where there is no silence, no speech, or no motion in speech.
    """
    return speed_ratio(*lip_speeds(opening, times_s, is_speech, block))


def speed_ratio(in_silence: NDArray[np.floating], in_speech: NDArray[np.floating]) -> float:
    """Mean of the one over mean of the other, NaN values left out; NaN where either has none or speech no motion."""
    still, lively = _mean(in_silence), _mean(in_speech)
    return still / lively if lively > 0 else math.nan


def lip_speeds(
    opening: NDArray[np.floating],
    times_s: NDArray[np.float64],
    is_speech: NDArray[np.bool_],
    block: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``[N]`` speed of the lips from the frame before, in silence and in speech, NaN outside each; see there."""
    steps = np.diff(times_s)
    is_step = (np.diff(block) == 0) & (steps > 0) & np.isfinite(np.diff(opening))
    speed = np.abs(np.diff(opening)) / np.where(steps > 0, steps, 1.0)
    silent = resting_frames(times_s, is_speech, block)
    in_silence = is_step & silent[1:] & silent[:-1]
    in_speech = is_step & is_speech[1:] & is_speech[:-1]
    first = [math.nan]
    return (
        np.concatenate([first, np.where(in_silence, speed, np.nan)])[: len(times_s)],
        np.concatenate([first, np.where(in_speech, speed, np.nan)])[: len(times_s)],
    )


def resting_frames(
    times_s: NDArray[np.float64], is_speech: NDArray[np.bool_], block: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """``[N]`` True in pauses of at least 0.4 s, less their first 0.2 s; arguments as for ``silence_motion``."""
    resting = np.zeros(len(times_s), dtype=bool)
    if len(times_s) < 2:
        return resting
    frame_s = float(np.median(np.diff(times_s)))
    changes = np.flatnonzero((np.diff(is_speech.astype(np.int8)) != 0) | (np.diff(block) != 0)) + 1
    edges = [0, *changes.tolist(), len(times_s)]
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        span = times_s[stop - 1] - times_s[start] + frame_s
        if not is_speech[start] and span >= MIN_PAUSE_S - _TOLERANCE_SLACK_S:
            resting[start:stop] = times_s[start:stop] - times_s[start] >= PAUSE_ONSET_S - _TOLERANCE_SLACK_S
    return resting


def opening_spread_ratio(opening: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Standard deviation of ``opening`` over the reference's, on frames ``[N]`` known in both; 1 = as lively.

    NaN with fewer than three such frames, or a reference that never moves.
    """
    a, b = _finite_pairs(opening, reference)
    if len(a) < _MIN_PAIRS or np.ptp(b) == 0:
        return math.nan
    return float(a.std() / b.std())


def shown_share(made: NDArray[np.floating], asked: NDArray[np.floating]) -> float:
    """How much of a change of lip opening is seen: least-squares slope of the change ``made`` on the one ``asked``.

    Both ``[N]`` in inter-ocular units, on frames known in both, each against the untouched source: what is re-detected
    in pictures, and what the driving motion opens more than the tracked one. Noise of detection averages out. 1 = all
    of it, 0 = a picture left alone, however lively. NaN with fewer than three frames, or where nothing is asked.
    """
    a, b = _finite_pairs(made, asked)
    if len(a) < _MIN_PAIRS or b.std() < LEAST_ASKED:
        return math.nan
    return float(((a - a.mean()) * (b - b.mean())).mean() / b.var())


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Pearson's r over the finite pairs of ``[N]`` and ``[N]``; NaN with fewer than three, or without variation."""
    x, y = _finite_pairs(a, b)
    if len(x) < _MIN_PAIRS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x @ y) / math.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def _finite_pairs(a: NDArray[np.floating], b: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    both = np.isfinite(a) & np.isfinite(b)
    return np.asarray(a, dtype=np.float64)[both], np.asarray(b, dtype=np.float64)[both]


def leakage(
    opening: NDArray[np.floating],
    source_opening: NDArray[np.floating],
    times_s: NDArray[np.float64],
    block: NDArray[np.int64],
    rng: np.random.Generator,
    shifts: int = 200,
) -> tuple[float, float]:
    """How much of the source's mouth is left in a result that was driven by something else.

    Args:
        opening: ``[N]`` of the result.
        source_opening: ``[N]`` of the source, same frames.
        times_s: ``[N]`` ascending.
        block: ``[N]`` number of the unbroken stretch; each stretch's own mean is taken off first, for a cut changes
            the measured opening of both alike.
        rng: source of the shifts.
        shifts: circular shifts, of at least 0.5 s, behind the band.

    Returns:
        ``(|r|, band)``: the correlation's size, and the 95th percentile of what shifted lips give. Nothing leaks
        where |r| stays within the band. NaN where lips do not move, or no shift is possible.
    """
    both = np.isfinite(opening) & np.isfinite(source_opening)
    ours = _less_block_mean(np.asarray(opening, np.float64)[both], block[both])
    theirs = _less_block_mean(np.asarray(source_opening, np.float64)[both], block[both])
    null = circular_shift_null(
        lambda rows: abs(correlation(ours, theirs[rows])), len(ours), shift_rows(times_s[both]), rng, shifts
    )
    known = null[np.isfinite(null)]
    band = float(np.quantile(known, BAND)) if len(known) else math.nan
    return abs(correlation(ours, theirs)), band


def _less_block_mean(values: NDArray[np.float64], block: NDArray[np.int64]) -> NDArray[np.float64]:
    if len(values) == 0:
        return values
    _, index = np.unique(block, return_inverse=True)
    return values - (np.bincount(index, values) / np.bincount(index))[index]
