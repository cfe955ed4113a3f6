"""Lag between lips and speech, in milliseconds, with an interval, or 'undetermined'.

The lips' opening, measured in pictures, is held against the opening that a model predicts from the sound alone.
Loudness will not do: on 60 clips of talking people the prediction correlates with the lips at r 0.8 (median, best lag),
loudness at 0.3.

**Sign.** A positive lag says that the mouth is later than the sound, a negative one that it is earlier.

**Method.** Both series are put on a grid of 10 ms and rid of slow drift (head pose leaks into a measured opening); the
lag is the peak of their normalised cross-correlation within ±600 ms. It counts as found when

* unrelated speech hardly ever peaks as high: at most 1 % of predictions whose spectrum is kept and whose phases are
  drawn at random (Theiler et al. 1992). Circular shifts of the true prediction are no measure here, for a clip of
  3..10 s has too few that are independent: of 316 mouths paired with another clip's sound they called 29 % significant
  at 5 %, random phases 6 %;
* and blocks of 1 s drawn at random agree on it: their 95 % interval is at most 300 ms wide.

Of 400 mouths paired with another speaker's sound, 2.9 to 22 s long, none passed both. Where the lips were driven by the
very prediction they are held against, the figures tell whether the pictures follow it, not whether it is right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import gaussian_filter1d

from modules.metrics.statistics import BlockPlan, percentile_interval, plan_blocks
from modules.structures.evaluation import SpeechTrack

GRID_HZ = 100
REACH_S = 0.6
"""Largest lag looked for."""
MIN_SECONDS = 2.5
"""Of visible lips; less tells nothing reliable."""
MAX_INTERVAL_MS = 300.0
BLOCK_S = 1.0
BOOTSTRAP_DRAWS = 300
SURROGATES = 200
_BATCH = 20
LEVEL = 0.01
"""Share of surrogates that may peak as high as a significant peak."""
# Median raw lag of clips in sync, measured with data_gen's landmarks and the shipped audio → motion model (a model
# trained anew needs a new figure). Of 61 clips with speech 51 have a determined lag: 27 of them lie within
# ±60 ms, one and a half frames, around -10 ms (quartiles -39 and +5); the others are 55 to 279 ms off.
IN_SYNC_LAG_MS = -10.0
# Of 28 such clips the median lag at which loudness correlates best within ±200 ms: lips open before the voice is loud.
IN_SYNC_LOUDNESS_LAG_MS = -30.0
LOUDNESS_RANGE_DB = 40.0
"""Levels further below the loud ones (95th percentile) are all the same silence."""
_DRIFT_SIGMA_S = 0.3
"""Of the Gaussian mean that is taken off: halves what swings once in 1.6 s, keeps what is faster."""
_MAX_HOLE_S = 0.1
"""Missing frames are bridged up to this."""
_STILL = 1e-9
"""Variance (of series at unit variance) below which a part does not move."""
_MIN_OVERLAP = 0.5
"""A lag at which less than this share of the lips meets any sound is not looked at."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How much later the mouth is than its sound.

    Attributes:
        value_ms: corrected by ``IN_SYNC_LAG_MS``; positive = the mouth is later; NaN = undetermined.
        low_ms: of the 95 % interval, NaN likewise. high_ms: its other end.
        r: correlation at the peak, found or not; it is the largest of many, so chance alone gives about 0.2 (in
            10 s or more) to 0.4 (in 3 s). NaN when nothing could be compared.
        r_in_sync: correlation where lips and sound are in sync, whatever the peak; chance gives 0.
        r_low: of its 95 % interval, NaN where blocks are too few. r_high: its other end.
        z: how many standard deviations the peak stands above those of unrelated speech.
        is_significant: whether the lag is determined.
        note: why it is not.
    """

    value_ms: float
    low_ms: float
    high_ms: float
    r: float
    r_in_sync: float
    z: float
    r_low: float
    r_high: float
    is_significant: bool
    note: str = ""


def speech_lag(
    opening: NDArray[np.floating],
    times_s: NDArray[np.float64],
    block: NDArray[np.int64],
    speech: SpeechTrack,
    rng: np.random.Generator,
    *,
    speech_late_s: float = 0.0,
) -> Lag:
    """Lag of the lips behind the speech.

    Args:
        opening: ``[N]`` measured lip opening, NaN where there is no face.
        times_s: ``[N]`` ascending, seconds on the clock of ``speech``; any rate, constant or not.
        block: ``[N]`` number of the unbroken stretch.
        speech: its ``opening`` was predicted from the sound alone.
        rng: source of surrogates and bootstrap.
        speech_late_s: the speech is heard this much later than ``speech`` says.
    """
    lips = _lips_on_grid(opening, times_s, block)
    if lips is None or lips.seconds < MIN_SECONDS:
        seconds = 0.0 if lips is None else lips.seconds
        return _undetermined(f"only {seconds:.2f} s of lips: at least {MIN_SECONDS} s are needed")
    sound = _sound_on_grid(speech.opening, speech, lips, speech_late_s)
    profile = _profile(lips, sound)
    if np.isnan(profile).all():
        return _undetermined("the lips or the speech do not move")
    peak = int(np.nanargmax(profile))
    chance = _chance_peaks(lips, sound, rng)
    spread = float(chance.std())
    z = (float(profile[peak]) - float(chance.mean())) / spread if spread > 0 else math.nan
    resampled = _bootstrap_profiles(lips, sound, rng)
    low, high = percentile_interval(np.array([_refined_lag_ms(one) for one in resampled]))
    r_low, r_high = percentile_interval(np.array([_at_lag(one, IN_SYNC_LAG_MS) for one in resampled]))
    note = _doubt(profile, peak, chance, (low, high))
    value = math.nan if note else _refined_lag_ms(profile) - IN_SYNC_LAG_MS
    return Lag(
        value_ms=value,
        low_ms=math.nan if note else low - IN_SYNC_LAG_MS,
        high_ms=math.nan if note else high - IN_SYNC_LAG_MS,
        r=float(profile[peak]),
        r_in_sync=_at_lag(profile, IN_SYNC_LAG_MS),
        z=z,
        r_low=r_low,
        r_high=r_high,
        is_significant=not note,
        note=note,
    )


def loudness_correlation(
    opening: NDArray[np.floating],
    times_s: NDArray[np.float64],
    block: NDArray[np.int64],
    speech: SpeechTrack,
    *,
    speech_late_s: float = 0.0,
) -> float:
    """Correlation of lips and loudness where they are in sync; a weak figure that needs no model.

    The lag is fixed: the best of many would be above 0 for any sound. Arguments as for ``speech_lag``.

    Returns:
        r; about 0.3 for people, 0 by chance; NaN when nothing could be compared.
    """
    lips = _lips_on_grid(opening, times_s, block)
    if lips is None or len(speech.level_db) == 0:
        return math.nan
    quiet = float(np.percentile(speech.level_db, 95)) - LOUDNESS_RANGE_DB
    level = np.maximum(speech.level_db, quiet)
    profile = _profile(lips, _sound_on_grid(level, speech, lips, speech_late_s))
    return _at_lag(profile, IN_SYNC_LOUDNESS_LAG_MS)


@dataclass(frozen=True, slots=True, eq=False)
class _Series:
    """A series on the grid: ``[G]`` values less their drift, 0 where unknown, and where they are known.

    ``block`` is the stretch a grid point belongs to, ``start_s`` the time of the first point.
    """

    values: NDArray[np.float64]
    known: NDArray[np.bool_]
    block: NDArray[np.int64]
    start_s: float

    @property
    def seconds(self) -> float:
        return float(self.known.sum()) / GRID_HZ


_REACH = round(REACH_S * GRID_HZ)
_LAGS_MS = np.arange(-_REACH, _REACH + 1) * (1000.0 / GRID_HZ)


def _lips_on_grid(
    opening: NDArray[np.floating], times_s: NDArray[np.float64], block: NDArray[np.int64]
) -> _Series | None:
    """Between two frames of a stretch the opening is linear; longer holes stay unknown."""
    seen = np.isfinite(opening)
    if seen.sum() < 2:
        return None
    times, values, numbers = times_s[seen], opening[seen].astype(np.float64), block[seen]
    grid = times[0] + np.arange(math.floor((times[-1] - times[0]) * GRID_HZ + 1e-6) + 1) / GRID_HZ
    left = np.clip(np.searchsorted(times, grid, side="right") - 1, 0, len(times) - 2)
    known = (numbers[left] == numbers[left + 1]) & (times[left + 1] - times[left] <= _MAX_HOLE_S)
    on_grid = np.where(known, np.interp(grid, times, values), 0.0)
    number = numbers[left]
    return _Series(_less_drift(on_grid, known, number), known, number, float(times[0]))


def _sound_on_grid(values: NDArray[np.floating], speech: SpeechTrack, lips: _Series, speech_late_s: float) -> _Series:
    """A column of ``speech`` on the grid of the lips and ``REACH_S`` beyond both its ends."""
    heard_s = speech.times_s + speech_late_s
    start_s = lips.start_s - _REACH / GRID_HZ
    grid = start_s + np.arange(len(lips.values) + 2 * _REACH) / GRID_HZ
    number = np.zeros(len(grid), np.int64)
    if len(values) == 0:
        return _Series(np.zeros(len(grid)), number > 0, number, start_s)
    half_row_s = 0.5 / speech.rate_hz
    known = (grid >= heard_s[0] - half_row_s) & (grid <= heard_s[-1] + half_row_s)
    on_grid = np.where(known, np.interp(grid, heard_s, values), 0.0)
    return _Series(_less_drift(on_grid, known, number), known, number, start_s)


def _less_drift(values: NDArray[np.float64], known: NDArray[np.bool_], block: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values less their Gaussian mean over the known ones of the same stretch, at unit variance; 0 where unknown."""
    edges = [0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]
    level, sigma = np.zeros(len(values)), _DRIFT_SIGMA_S * GRID_HZ
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        weight = gaussian_filter1d(known[start:stop].astype(np.float64), sigma, mode="constant")
        total = gaussian_filter1d(np.where(known, values, 0.0)[start:stop], sigma, mode="constant")
        level[start:stop] = total / np.maximum(weight, 1e-9)
    fast = np.where(known, values - level, 0.0)
    size = math.sqrt(float((fast**2).sum()) / max(1, int(known.sum())))
    return fast / size if size > 1e-9 else np.zeros(len(values))


def _profile(lips: _Series, sound: _Series) -> NDArray[np.float64]:
    """Pearson's r at every lag of ``_LAGS_MS``, NaN where too little overlaps or nothing moves."""
    return _pearson(np.stack([*_overlap_sums(lips, sound), *_sound_sums(lips, sound.values)]))


def _overlap_sums(lips: _Series, sound: _Series) -> tuple[NDArray[np.float64], ...]:
    """Points, lips and squared lips where both are known, summed at every lag."""
    heard = sound.known.astype(np.float64)
    return _sums(heard, lips.known.astype(np.float64)), _sums(heard, lips.values), _sums(heard, lips.values**2)


def _sound_sums(lips: _Series, sound: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Sound, squared sound and sound times lips, summed at every lag."""
    seen = lips.known.astype(np.float64)
    return _sums(sound, seen), _sums(sound**2, seen), _sums(sound, lips.values)


def _sums(sound: NDArray[np.float64], lips: NDArray[np.float64]) -> NDArray[np.float64]:
    """``sum over i of lips[i] * sound[..., i - lag]`` at every lag, ``[..., 2 reach + 1]``."""
    size = next_fast_len(sound.shape[-1] + len(lips), real=True)
    product = np.fft.rfft(sound, size) * np.conj(np.fft.rfft(lips, size))
    return np.fft.irfft(product, size)[..., 2 * _REACH :: -1]


def _pearson(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """r ``[..., L]`` out of the sums ``[6, ..., L]`` of 1, x, x², y, y² and xy at L lags."""
    n, x, xx, y, yy, xy = sums
    count = np.maximum(n, 1.0)
    variance = (xx / count - (x / count) ** 2) * (yy / count - (y / count) ** 2)
    usable = (n >= _MIN_OVERLAP * n.max(axis=-1, keepdims=True)) & (n >= 2) & (variance > _STILL)
    return np.where(usable, (xy / count - x * y / count**2) / np.sqrt(np.maximum(variance, _STILL)), np.nan)


def _chance_peaks(lips: _Series, sound: _Series, rng: np.random.Generator) -> NDArray[np.float64]:
    """Highest r over all lags for speech of the same spectrum that has nothing to do with the lips."""
    spectrum = np.fft.rfft(sound.values[sound.known])
    peaks: list[NDArray[np.float64]] = []
    for done in range(0, SURROGATES, _BATCH):
        count = min(_BATCH, SURROGATES - done)
        turned = spectrum * np.exp(2j * np.pi * rng.random((count, len(spectrum))))
        turned[:, 0] = 0.0
        other = np.zeros((count, len(sound.values)))
        other[:, sound.known] = np.fft.irfft(turned, int(sound.known.sum()), axis=1)
        overlap = (np.broadcast_to(sums, (count, len(sums))) for sums in _overlap_sums(lips, sound))
        profiles = _pearson(np.stack([*overlap, *_sound_sums(lips, other)]))
        peaks.append(np.nan_to_num(profiles, nan=-1.0).max(axis=1))
    return np.concatenate(peaks)


def _bootstrap_profiles(lips: _Series, sound: _Series, rng: np.random.Generator) -> NDArray[np.float64]:
    """``[draws, L]`` profiles of resampled series; no row where fewer than two blocks of lips are known."""
    rows = np.flatnonzero(lips.known)
    plan = plan_blocks(lips.block[rows], round(BLOCK_S * GRID_HZ))
    if plan.per_draw < 2:
        return np.zeros((0, len(_LAGS_MS)))
    starts = plan.starts(rng, BOOTSTRAP_DRAWS)
    sums = np.stack([_lag_sums(lips, sound, rows, place, plan, starts) for place in range(2 * _REACH, -1, -1)], axis=-1)
    return np.nan_to_num(_pearson(sums), nan=-1.0)


def _lag_sums(
    lips: _Series,
    sound: _Series,
    rows: NDArray[np.int64],
    place: int,
    plan: BlockPlan,
    starts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Sums ``[6, draws]`` of ``_pearson`` over the drawn blocks, with the sound taken ``place`` points further on."""
    x, y, heard = lips.values[rows], sound.values[rows + place], sound.known[rows + place].astype(np.float64)
    columns = (heard, heard * x, heard * x**2, y, y**2, x * y)
    return np.stack([plan.sums(column)[starts].sum(axis=1) for column in columns])


def _refined_lag_ms(profile: NDArray[np.float64]) -> float:
    """Lag of the highest r, between grid points by the parabola through it and its neighbours."""
    peak = int(np.nanargmax(profile))
    if not 0 < peak < len(profile) - 1:
        return float(_LAGS_MS[peak])
    before, top, after = profile[peak - 1 : peak + 2]
    bend = before - 2 * top + after
    offset = 0.5 * (before - after) / bend if bend < 0 else 0.0  # NaN neighbours: no bend
    return float(_LAGS_MS[peak] + offset * 1000.0 / GRID_HZ)


def _at_lag(profile: NDArray[np.float64], lag_ms: float) -> float:
    return float(np.interp(lag_ms, _LAGS_MS, profile))


def _doubt(
    profile: NDArray[np.float64], peak: int, chance: NDArray[np.float64], interval_ms: tuple[float, float]
) -> str:
    """Why the peak is not to be believed; empty when it is."""
    low, high = interval_ms
    at_end = peak in (0, len(profile) - 1) or np.isnan(profile[[peak - 1, peak + 1]]).any()
    if (1 + (chance >= profile[peak]).sum()) / (1 + len(chance)) > LEVEL:
        usual = float(np.quantile(chance, 1 - LEVEL))
        return f"undetermined: unrelated speech peaks as high (r {profile[peak]:.2f}, by chance up to {usual:.2f})"
    if at_end:
        return f"undetermined: no peak within ±{1000 * REACH_S:.0f} ms"
    if math.isnan(low) or high - low > MAX_INTERVAL_MS:
        return f"undetermined: parts of the clip disagree ({low:.0f}..{high:.0f} ms)"
    return ""


def _undetermined(reason: str) -> Lag:
    return Lag(*[math.nan] * 8, is_significant=False, note=f"undetermined: {reason}")
