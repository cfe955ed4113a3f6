"""LSE-C and LSE-D of a row: SyncNet over its own pictures, on the stable crop, so that no face is too small."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.metrics.statistics import interval
from modules.metrics.syncnet import (
    CROP_SIZE,
    REACH,
    SyncNet,
    SyncScores,
    audio_features,
    frames_at_25fps,
    lip_features,
    scores_of_distances,
    sync_distances,
    syncnet_regions,
)
from modules.structures.audio import AudioClip
from modules.structures.crops import CropRegion, sample_region
from modules.structures.evaluation import SpeechTrack, Trial, TrialRow
from modules.structures.landmarks import FACE_OVAL
from modules.structures.scores import Measure
from tasks.evaluation.motion_scores import Bootstrap
from tasks.evaluation.reading import Shown, row_frames


def lip_sync_error(
    net: SyncNet, trial: Trial, row: TrialRow, speech: SpeechTrack, bootstrap: Bootstrap
) -> dict[str, Measure]:
    """LSE-C and LSE-D over all of a trial's stretches together; a stretch without a face is left out."""
    distances = [np.zeros((0, 2 * REACH + 1), np.float32)]
    is_shown = trial.frames >= row.frames_late  # before that a late row has no picture, and must not move the rest
    frames = (shown for shown in row_frames(trial, row) if shown is not None)
    for number in np.unique(trial.block).tolist():
        rows = np.flatnonzero((trial.block == number) & is_shown)
        ticks = rows[frames_at_25fps(trial.times_s[rows])]
        if not row.landmarks.valid[ticks].any():
            deque(islice(frames, len(rows)), maxlen=0)
            continue
        crops = dict(zip(ticks.tolist(), _regions(row, ticks), strict=True))
        lips = lip_features(net, _seen(frames, trial, rows, ticks, crops))
        sound = audio_features(net, _heard(speech, float(trial.times_s[rows[0]]) - row.speech_late_s))
        distances.append(sync_distances(lips, sound[: len(lips)]))
    scores = scores_of_distances(np.concatenate(distances))
    if scores.frames == 0:
        why = "no stretch with a face is long enough"
        return {"lse_c": Measure.missing(why), "lse_d": Measure.missing(why)}
    return {
        "lse_c": _with_interval(lambda found: found.lse_c, distances, bootstrap),
        "lse_d": _with_interval(lambda found: found.lse_d, distances, bootstrap),
    }


def _with_interval(
    figure: Callable[[SyncScores], float], stretches: list[NDArray[np.float32]], bootstrap: Bootstrap
) -> Measure:
    """A figure of all stretches' distances, resampled in blocks."""
    distances = np.concatenate(stretches)
    block = np.repeat(np.arange(len(stretches)), [len(stretch) for stretch in stretches])
    low, high = interval(
        lambda rows: figure(scores_of_distances(distances[rows])), block, bootstrap.length, bootstrap.rng(),
        bootstrap.draws,
    )  # fmt: skip
    return Measure(figure(scores_of_distances(distances)), low, high, len(distances))


def _regions(row: TrialRow, ticks: NDArray[np.int64]) -> list[CropRegion]:
    oval = row.landmarks.points[ticks][:, list(FACE_OVAL)]
    return syncnet_regions(np.concatenate([oval.min(axis=1), oval.max(axis=1)], axis=1))


def _seen(
    frames: Iterator[Shown],
    trial: Trial,
    rows: NDArray[np.int64],
    ticks: NDArray[np.int64],
    crops: dict[int, CropRegion],
) -> Iterator[NDArray[np.uint8]]:
    """Face crops of one stretch at 25 fps; a frame that is shown for two ticks comes twice."""
    x0, y0 = trial.window[:2]
    times = Counter(ticks.tolist())
    for number in rows.tolist():
        shown = next(frames)
        if number in times:
            region = crops[number].shifted(-x0, -y0)
            yield from [sample_region(shown.rgb, region, CROP_SIZE, border_mode=cv2.BORDER_REPLICATE)] * times[number]


def _heard(speech: SpeechTrack, start_s: float) -> AudioClip:
    """The sound from ``start_s`` on; silence where it has not begun."""
    first = round(start_s * speech.sound.sample_rate_hz)
    samples = speech.sound.samples[first:] if first >= 0 else np.pad(speech.sound.samples, (-first, 0))
    return AudioClip(np.ascontiguousarray(samples), speech.sound.sample_rate_hz)
