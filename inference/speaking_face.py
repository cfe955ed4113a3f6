"""Who speaks when: the face whose lips move as the video's own sound asks for.

Reads: a video's sound and its ``FaceTable``. Writes: nothing.

The sound alone predicts how far lips are open (the embedded audio → motion model). Lips and prediction are rid of slow
drift and correlated in short windows; over all windows one lag between picture and sound is chosen; a Viterbi search
over time then picks a face or nobody, so that a change has to be worth its cost. Loudness was tried as a helper and
left out: a window of 1 s tells the speaker's lips from other talking lips with an AUC of 0.94 by the prediction (of a
model that never heard the speaker) and of 0.75 by loudness.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from data_gen.utils.process_audio.vad import RATE_HZ, detect_speech
from inference.audio_to_motion import AudioToMotion
from inference.evaluation.motion import own_speech, speech_track
from modules.commons.errors import AudioReadError, ConfigError, NoFaceError
from modules.commons.workspace import AUDIO2MOTION_DIR, FACE_MODEL_FILE, WHISPER_FILE
from modules.face_model.model import FaceModel
from modules.structures.evaluation import SpeechTrack
from modules.structures.faces import FaceTable

logger = logging.getLogger(__name__)

NOBODY = -1
_DRIFT_SIGMA_S = 0.3
"""Of the Gaussian mean that is taken off, as in ``modules.metrics.synchrony``."""
_MAX_HOLE_S = 0.1
_STILL = 0.005
"""Lip motion (inter-ocular units) that counts as still: still lips agree with nothing."""
_FAR_LAG = 0.15
"""Share of the agreement that a lag at the end of the reach has to make up for."""


@dataclass(frozen=True, slots=True)
class SpeakingConfig:
    """What makes a face the speaker.

    Attributes:
        window_s: agreement is measured in triangular windows twice as long.
        reach_s: largest lag between picture and sound.
        enough: agreement (a correlation) above which a face rather speaks than not.
        switch_cost: agreement over ``enough``, times seconds, that a change of speaker has to bring.
        cut_discount: factor on that cost where a shot begins.
        unseen: how much a second out of sight weighs against a face.
        silence: how much a second without speech speaks for nobody.
        min_span_s: shorter spans within a shot are given to their neighbours.
    """

    window_s: float = 0.35
    reach_s: float = 0.3
    enough: float = 0.4
    switch_cost: float = 0.5
    cut_discount: float = 0.3
    unseen: float = 1.0
    silence: float = 0.15
    min_span_s: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class SpeakingFaces:
    """Who speaks in the N frames of a video.

    Attributes:
        face: int64 ``[N]`` row of the face, ``NOBODY`` where none of them speaks.
        confidence: float32 ``[N]`` 0..1, the same over a span: how far the chosen face's agreement lies above that of
            the others; for nobody, how far all lie below what a speaker shows.
        agreement: float32 ``[F, N]`` correlation of the lips with the sound about that time; 0 where unknown.
        lag_s: how much later the lips are than the sound asks for.
    """

    face: NDArray[np.int64]
    confidence: NDArray[np.float32]
    agreement: NDArray[np.float32]
    lag_s: float


def speaking_in(
    video: Path, table: FaceTable, numbers: Sequence[int], config: SpeakingConfig | None = None
) -> SpeakingFaces:
    """Who of some faces speaks in which frame of a video, by its own sound.

    Args:
        video: the video.
        table: its faces.
        numbers: of the faces to look among.
        config: see ``SpeakingConfig``.

    Returns:
        ``face`` holds numbers of the table; ``agreement`` has a row for each of ``numbers``.

    Raises:
        ConfigError: the video has no speech of its own.
        NoFaceError: nobody's lips agree with it.
    """
    try:
        sound = own_speech(video)
    except AudioReadError as error:
        raise ConfigError(f"--face speaking needs the video's own sound: {error}") from error
    if not detect_speech(sound).any():
        raise ConfigError(f"--face speaking: {video} has no speech of its own; choose a face by number or place")
    predictor = AudioToMotion(AUDIO2MOTION_DIR, WHISPER_FILE, FaceModel.load(FACE_MODEL_FILE).version)
    speech = speech_track(sound, predictor.predict(sound))
    openings = np.stack([table.opening_over_video(number) for number in numbers])
    found = speaking_faces(openings, table.times_s, table.shot_starts, speech, config)
    if (found.face == NOBODY).all():
        raise NoFaceError(
            f"--face speaking: no lips in {video} move with its sound (another voice, or dubbed?); choose a face by "
            "number or place"
        )
    named = np.array([*numbers, NOBODY], np.int64)[found.face]  # row -1 is the last
    return SpeakingFaces(named, found.confidence, found.agreement, found.lag_s)


def speaking_faces(
    openings: NDArray[np.floating],
    times_s: NDArray[np.float64],
    shot_starts: NDArray[np.int64],
    speech: SpeechTrack,
    config: SpeakingConfig | None = None,
) -> SpeakingFaces:
    """Who speaks in which frame.

    Args:
        openings: ``[F, N]`` lip opening of each face, NaN where it is not seen.
        times_s: ``[N]`` ascending, seconds on the clock of ``speech``; any rate, constant or not.
        shot_starts: ascending first frames of the shots, 0 first.
        speech: the video's own; its ``opening`` was predicted from the sound alone.
        config: see ``SpeakingConfig``.
    """
    config = config or SpeakingConfig()
    if openings.ndim != 2 or openings.shape[1] != len(times_s):
        raise ValueError(f"openings {openings.shape} do not belong to {len(times_s)} frames")
    grid = _Grid.of(times_s, shot_starts)
    lips, known = _lips_on_grid(openings, times_s, grid)
    heard = np.interp(grid.times_s, speech.times_s, speech.opening, left=0.0, right=0.0)
    heard = _less_drift(heard[None], np.ones((1, len(heard)), bool), np.zeros(len(heard), np.int64))[0]
    at = np.floor(grid.times_s * speech.rate_hz).astype(np.int64)
    active = np.where(at < len(speech.is_speech), speech.is_speech[np.minimum(at, len(speech.is_speech) - 1)], False)
    lag = _common_lag(lips, known, heard, active, grid, config)
    agreement = _agreement(lips, known, _later(heard, lag), grid, config)
    gain = _gains(agreement, known, _later(active, lag), config)
    states = _best_path(gain, grid, config)
    states = _settled(states, grid.shot, round(config.min_span_s * RATE_HZ))
    states = _only_who_is_there(states, known, grid.shot)
    confidence = _confidence(states, agreement, _later(active, lag), grid.shot, config)
    rows = grid.rows_of(times_s)
    return SpeakingFaces(
        states[rows], confidence[rows], agreement[:, rows].astype(np.float32), lag / RATE_HZ
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Regular times ``[G]``, and the shot each belongs to; a whole grid point belongs to the frame shown then."""

    times_s: NDArray[np.float64]
    shot: NDArray[np.int64]

    @classmethod
    def of(cls, times_s: NDArray[np.float64], shot_starts: NDArray[np.int64]) -> _Grid:
        count = int(np.floor(times_s[-1] * RATE_HZ + 1e-6)) + 1
        grid_s = np.arange(count) / RATE_HZ
        row = np.maximum(np.searchsorted(times_s, grid_s + 1e-6, side="right") - 1, 0)
        return cls(grid_s, np.searchsorted(shot_starts, row, side="right") - 1)

    def rows_of(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Grid point of each time, not before it: a frame that begins a shot must meet that shot."""
        return np.clip(np.ceil(times_s * RATE_HZ - 1e-6).astype(np.int64), 0, len(self.times_s) - 1)

    @property
    def shots(self) -> list[slice]:
        edges = [0, *(np.flatnonzero(np.diff(self.shot)) + 1).tolist(), len(self.shot)]
        return [slice(first, stop) for first, stop in zip(edges[:-1], edges[1:], strict=True)]


def _lips_on_grid(
    openings: NDArray[np.floating], times_s: NDArray[np.float64], grid: _Grid
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """``[F, G]`` openings less their drift, 0 where unknown, and where they are known.

    Between two frames of a shot the opening is linear; longer holes stay unknown.
    """
    lips = np.zeros((len(openings), len(grid.times_s)))
    known = np.zeros(lips.shape, bool)
    frame_shot = grid.shot[grid.rows_of(times_s)]
    for face, opening in enumerate(openings):
        seen = np.isfinite(opening)
        if seen.sum() < 2:
            continue
        times, shot = times_s[seen], frame_shot[seen]
        left = np.clip(np.searchsorted(times, grid.times_s + 1e-6, side="right") - 1, 0, len(times) - 2)
        near = (times[left + 1] - times[left] <= _MAX_HOLE_S) & (shot[left] == shot[left + 1])
        near |= np.abs(grid.times_s - times[left]) <= 1e-6  # the last frame before a hole
        inside = (grid.times_s >= times[0] - 1e-6) & (grid.times_s <= times[-1] + 1e-6)
        known[face] = near & inside & (grid.shot == shot[left])
        lips[face] = np.where(known[face], np.interp(grid.times_s, times, opening[seen]), 0.0)
    return _less_drift(lips, known, grid.shot), known


def _less_drift(values: NDArray[np.float64], known: NDArray[np.bool_], shot: NDArray[np.int64]) -> NDArray[np.float64]:
    """``[F, G]`` values less their Gaussian mean over the known ones of the same shot; 0 where unknown."""
    level, sigma = np.zeros(values.shape), _DRIFT_SIGMA_S * RATE_HZ
    for part in _Grid(np.zeros(0), shot).shots:
        weight = gaussian_filter1d(known[:, part].astype(np.float64), sigma, axis=1, mode="constant")
        total = gaussian_filter1d(np.where(known, values, 0.0)[:, part], sigma, axis=1, mode="constant")
        level[:, part] = total / np.maximum(weight, 1e-9)
    return np.where(known, values - level, 0.0)


def _later(values: NDArray, rows: int) -> NDArray:
    """``values [G]`` moved ``rows`` later (earlier when negative), 0 where nothing comes from."""
    moved = np.zeros_like(values)
    if abs(rows) < len(values):
        moved[max(rows, 0) : len(values) + min(rows, 0)] = values[max(-rows, 0) : len(values) - max(rows, 0)]
    return moved


def _windowed(values: NDArray[np.float64], grid: _Grid, window: int) -> NDArray[np.float64]:
    """Mean of ``[..., G]`` in triangular windows that end at cuts (beyond them there is nothing)."""
    mean = np.zeros(values.shape)
    for part in grid.shots:
        once = uniform_filter1d(values[..., part], window, axis=-1, mode="constant")
        mean[..., part] = uniform_filter1d(once, window, axis=-1, mode="constant")
    return np.maximum(mean, 0.0) if (values >= 0).all() else mean


def _agreement(
    lips: NDArray[np.float64],
    known: NDArray[np.bool_],
    heard: NDArray[np.float64],
    grid: _Grid,
    config: SpeakingConfig,
) -> NDArray[np.float64]:
    """``[F, G]`` correlation of lips and sound about each time, drawn to 0 where lips are still or little is known."""
    window = max(round(config.window_s * RATE_HZ), 1)
    own = _windowed(lips**2, grid, window)
    asked = _windowed(heard**2 * known, grid, window)
    shared = _windowed(lips * heard, grid, window)
    share = _windowed(known.astype(np.float64), grid, window)
    still = _STILL**2 * share
    scale = float((heard**2).mean()) * 1e-3 + 1e-12
    return shared / np.sqrt((own + still + 1e-12) * (asked + scale)) * np.minimum(2.0 * share, 1.0)


def _common_lag(
    lips: NDArray[np.float64],
    known: NDArray[np.bool_],
    heard: NDArray[np.float64],
    active: NDArray[np.bool_],
    grid: _Grid,
    config: SpeakingConfig,
) -> int:
    """Grid points by which all lips are later than the sound: where the best face of each moment agrees most."""
    reach = round(config.reach_s * RATE_HZ)
    scores: dict[int, float] = {}
    for lag in sorted(range(-reach, reach + 1), key=abs):
        best = _agreement(lips, known, _later(heard, lag), grid, config).max(axis=0, initial=0.0)
        gained = np.maximum(best - config.enough, 0.0)[_later(active, lag)].sum()
        scores[lag] = float(gained) * (1.0 - _FAR_LAG * (lag / max(reach, 1)) ** 2)
    return max(scores, key=scores.__getitem__)


def _gains(
    agreement: NDArray[np.float64], known: NDArray[np.bool_], active: NDArray[np.bool_], config: SpeakingConfig
) -> NDArray[np.float64]:
    """``[F + 1, G]`` what each face, and last nobody, gains by being named at each grid point."""
    step_s = 1.0 / RATE_HZ
    faces = np.where(active, agreement - config.enough, 0.0)
    faces = np.where(known, faces, -config.unseen)
    nobody = np.where(active, 0.0, config.silence)
    return np.concatenate([faces, nobody[None]]) * step_s


def _best_path(gain: NDArray[np.float64], grid: _Grid, config: SpeakingConfig) -> NDArray[np.int64]:
    """``[G]`` the states of the largest total gain less the cost of changes (Viterbi); ``NOBODY`` for the last."""
    count, length = gain.shape
    cost = np.full(length, config.switch_cost)
    cost[1:][np.diff(grid.shot) > 0] *= config.cut_discount
    came_from = np.zeros((length, count), np.int16)
    total = gain[:, 0].copy()
    for step in range(1, length):
        best = int(total.argmax())
        changed = total[best] - cost[step]
        stays = total >= changed
        came_from[step] = np.where(stays, np.arange(count), best)
        total = np.where(stays, total, changed) + gain[:, step]
    path = np.zeros(length, np.int64)
    path[-1] = int(total.argmax())
    for step in range(length - 1, 0, -1):
        path[step - 1] = came_from[step, path[step]]
    return np.where(path == count - 1, NOBODY, path)


def _spans(states: NDArray[np.int64], shot: NDArray[np.int64]) -> list[slice]:
    """Runs of one state within one shot."""
    edges = np.flatnonzero((np.diff(states) != 0) | (np.diff(shot) != 0)) + 1
    bounds = [0, *edges.tolist(), len(states)]
    return [slice(first, stop) for first, stop in zip(bounds[:-1], bounds[1:], strict=True)]


def _settled(states: NDArray[np.int64], shot: NDArray[np.int64], shortest: int) -> NDArray[np.int64]:
    """Give spans that are too short to their longer neighbour in the shot, the shortest first."""
    states = states.copy()
    while True:
        spans = _spans(states, shot)
        short = [
            (span.stop - span.start, place)
            for place, span in enumerate(spans)
            if span.stop - span.start < shortest and _neighbours(spans, place, shot)
        ]
        if not short:
            return states
        place = min(short)[1]
        heir = max(_neighbours(spans, place, shot), key=lambda span: span.stop - span.start)
        states[spans[place]] = states[heir.start]


def _neighbours(spans: list[slice], place: int, shot: NDArray[np.int64]) -> list[slice]:
    around = [spans[other] for other in (place - 1, place + 1) if 0 <= other < len(spans)]
    return [span for span in around if shot[span.start] == shot[spans[place].start]]


def _only_who_is_there(
    states: NDArray[np.int64], known: NDArray[np.bool_], shot: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Nobody speaks in a shot that does not show them."""
    states = states.copy()
    for part in _Grid(np.zeros(0), shot).shots:
        for face in np.unique(states[part]):
            if face != NOBODY and not known[face, part].any():
                states[part] = np.where(states[part] == face, NOBODY, states[part])
    return states


def _confidence(
    states: NDArray[np.int64],
    agreement: NDArray[np.float64],
    active: NDArray[np.bool_],
    shot: NDArray[np.int64],
    config: SpeakingConfig,
) -> NDArray[np.float32]:
    """``[G]`` 0..1 per span; 0 where a span holds no speech to judge a face by."""
    confidence = np.zeros(len(states), np.float32)
    for span in _spans(states, shot):
        spoken = active[span]
        if not spoken.any():
            confidence[span] = 1.0 if states[span.start] == NOBODY else 0.0
            continue
        mean = agreement[:, span][:, spoken].mean(axis=1)
        if states[span.start] == NOBODY:
            value = 1.0 - float(mean.max(initial=0.0)) / (2 * config.enough)
        else:
            chosen = int(states[span.start])
            others = float(np.delete(mean, chosen).max(initial=0.0))
            value = (float(mean[chosen]) - max(others, 0.0)) / (2 * config.enough)
        confidence[span] = min(max(value, 0.0), 1.0)
    return confidence
