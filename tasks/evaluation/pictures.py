"""Pictures for the report: the worst frames at a glance, and source and result side by side with the sound."""

from __future__ import annotations

import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import OutputError
from modules.commons.progress import Progress
from modules.structures.audio import AudioClip
from modules.structures.crops import transform_points
from modules.structures.evaluation import EDITED, Trial
from modules.structures.landmarks import MOUTH
from modules.structures.scores import RowScores, TrialScores
from modules.video.rgb_video import TIME_BASE, rgb_frame, rgb_video_info
from modules.video.sound import AudioTrack
from modules.video.writer import EncodeConfig, VideoWriter
from tasks.evaluation.reading import CROP_SIZE, Shown, crop_512, shown_frames
from tasks.radnerfs.validation import difference

VIEW_WH = (288, 216)
"""Part of the 512 crop around the mouth that sheets show."""
SCALE = 2
JPEG_QUALITY = 92
VIDEO_CRF = 20
"""A report embeds its videos; figures are measured on lossless ones."""
APART_S = 0.2
"""Neighbouring frames fail alike: a sheet shows none nearer than this to a worse one."""
_WORST = {"self-reenactment": ("psnr_mouth", min), "dubbing": ("flicker", max), "leakage": ("flicker", max)}
"""By which figure a protocol's worst frames are found, and which end of it is bad."""


def worst_frames(scores: TrialScores, row: RowScores, count: int) -> tuple[str, list[int]]:
    """The figure that says which frames are worst, and their numbers in the trial, worst first."""
    key, bad = _WORST[scores.protocol]
    values = row.frames.get(key)
    if values is None:
        return key, []
    measured = np.flatnonzero(np.isfinite(values) & (np.array(scores.outcomes) == EDITED))
    order = measured[np.argsort(values[measured])]
    chosen: list[int] = []
    for number in (order if bad is min else order[::-1]).tolist():
        if len(chosen) == count:
            break
        if all(abs(scores.times_s[number] - scores.times_s[other]) >= APART_S for other in chosen):
            chosen.append(number)
    return key, chosen


def write_sheet(trial: Trial, row: int, numbers: Sequence[int], values: NDArray[np.floating], path: Path) -> None:
    """Source | result | difference around the mouth, a line per frame, worst first.

    Args:
        trial: on disk.
        row: number of the result's row.
        numbers: frames of the trial.
        values: ``[N]`` the figure they are worst in.
        path: JPEG to write.

    Raises:
        OutputError: the file cannot be written.
    """
    lines: dict[int, NDArray[np.uint8]] = {}
    for number, (source, result) in _pairs(trial, row):
        if number in numbers and source is not None and result is not None:
            lines[number] = _line(trial, number, source, result, f"frame {trial.frames[number]}: {values[number]:.2f}")
        if number == max(numbers):
            break
    sheet = np.concatenate([lines[number] for number in numbers if number in lines])
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [
        cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]  # fmt: skip
    if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), options):
        raise OutputError(f"{path}: cannot be written; choose another folder.")


def write_side_by_side(trial: Trial, row: int, path: Path, progress: Progress) -> None:
    """Source | result at 512 px each, in the trial's own time, with its speech where there is one."""
    rate = _frame_rate(trial)
    info = rgb_video_info(trial.source, 2 * CROP_SIZE, CROP_SIZE, rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = EncodeConfig(crf=VIDEO_CRF)
    with (
        _sound_meanwhile(trial, path.with_suffix(".tmp.wav")) as track,
        VideoWriter(path, info, quality=quality, audio=track) as writer,
    ):
        for number, pair in _pairs(trial, row):
            crops = [crop_512(s.rgb, trial.crops[number], trial.window) for s in pair if s is not None]
            time_s = Fraction(float(trial.times_s[number] - trial.times_s[0])).limit_denominator(TIME_BASE.denominator)
            writer.write(rgb_frame(number, time_s, np.concatenate(crops, axis=1)))
            progress("side by side", number + 1, len(trial))


def _pairs(trial: Trial, row: int) -> Iterator[tuple[int, list[Shown | None]]]:
    """Frame by frame: its number, and the source's and the result's picture."""
    return shown_frames(replace(trial, rows=(trial.rows[0], trial.rows[row])))


def _line(trial: Trial, number: int, source: Shown, result: Shown, text: str) -> NDArray[np.uint8]:
    region = trial.crops[number]
    points = transform_points(region.crop_from_frame(CROP_SIZE), trial.rows[0].landmarks.points[number][list(MOUTH)])
    crops = [crop_512(shown.rgb, region, trial.window) for shown in (source, result)]
    views = [_around(crop, points.mean(axis=0)) for crop in (*crops, difference(crops[1], crops[0]))]
    size = (VIEW_WH[0] * SCALE, VIEW_WH[1] * SCALE)
    large = [cv2.resize(view, size, interpolation=cv2.INTER_CUBIC) for view in views]
    line = np.ascontiguousarray(np.concatenate(large, axis=1)).astype(np.uint8)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.7, 1)
    line[: height + below + 14, : width + 20] = 0
    cv2.putText(line, text, (10, height + 8), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 1, cv2.LINE_AA)
    return line


def _around(crop: NDArray[np.uint8], center: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The view around a point of the crop, moved inside it."""
    width, height = VIEW_WH
    x = int(np.clip(center[0] - width / 2, 0, CROP_SIZE - width))
    y = int(np.clip(center[1] - height / 2, 0, CROP_SIZE - height))
    return crop[y : y + height, x : x + width]


def _frame_rate(trial: Trial) -> Fraction:
    steps = np.diff(trial.times_s)
    return Fraction(1 / float(np.median(steps))).limit_denominator(1001) if len(steps) else Fraction(25)


@contextmanager
def _sound_meanwhile(trial: Trial, file: Path) -> Iterator[AudioTrack | None]:
    """The trial's speech in ``file`` for as long as the block lasts; None where there is none at that time."""
    clip = None if trial.speech is None else _spoken_meanwhile(trial, trial.speech.sound)
    if clip is None or not len(clip.samples):
        yield None
        return
    try:
        _write_wav(file, clip)
        yield AudioTrack(file)
    finally:
        file.unlink(missing_ok=True)


def _spoken_meanwhile(trial: Trial, sound: AudioClip) -> AudioClip:
    first, last = (round(float(trial.times_s[i]) * sound.sample_rate_hz) for i in (0, -1))
    return AudioClip(sound.samples[first : last + sound.sample_rate_hz // 25], sound.sample_rate_hz)


def _write_wav(path: Path, clip: AudioClip) -> None:
    """16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sample_rate_hz)
        file.writeframes(np.round(np.clip(clip.samples, -1, 1) * 32767).astype("<i2").tobytes())
