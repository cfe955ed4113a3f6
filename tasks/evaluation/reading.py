"""A trial's pictures, row beside row: one pass over all its videos at once, nothing held but the frame at hand."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import VideoReadError
from modules.structures.crops import CropRegion, sample_region
from modules.structures.evaluation import Trial, TrialRow
from modules.structures.frames import Frame, PlaneLayout
from modules.video.alpha import alpha_of
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.window import Bounds, window_frame

CROP_SIZE = 512


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One row's picture of one frame.

    Attributes:
        frame: planes of the trial's window.
        rgb: ``[h, w, 3]`` of the window.
        alpha: float32 ``[h, w]``; None where the row has none.
    """

    frame: Frame
    rgb: NDArray[np.uint8]
    alpha: NDArray[np.float32] | None


def shown_frames(trial: Trial) -> Iterator[tuple[int, list[Shown | None]]]:
    """Frame by frame: its number in the trial and every row's picture, the untouched source first.

    A row that shows the source late has None where the source had not begun.

    Raises:
        VideoReadError: a row's video, or its alpha, is shorter than the trial.
    """
    with ExitStack() as stack:
        videos = [stack.enter_context(closing(_row_frames(trial, row))) for row in trial.rows]
        for number in range(len(trial)):
            shown: list[Shown | None] = []
            for row, frames in zip(trial.rows, videos, strict=True):
                found = next(frames, None)
                if found is None:
                    raise VideoReadError(f"{row.pictures or trial.source} ends before frame {number} of {trial.name}")
                shown.append(found[0])
            yield number, shown


def row_frames(trial: Trial, row: TrialRow) -> Iterator[Shown | None]:
    """One row's pictures, frame by frame."""
    with closing(_row_frames(trial, row)) as frames:
        for (shown,) in frames:
            yield shown


def crop_512(rgb: NDArray[np.uint8], region: CropRegion, window: Bounds) -> NDArray[np.uint8]:
    """The stable crop ``[512, 512, 3]`` out of the window's picture."""
    return sample_region(rgb, region.shifted(-window[0], -window[1]), CROP_SIZE, flags=cv2.INTER_CUBIC)


def _row_frames(trial: Trial, row: TrialRow) -> Generator[tuple[Shown | None], None, None]:
    """A 1-tuple per trial frame, so that None is an answer."""
    wanted = trial.frames - row.frames_late if row.pictures is None else trial.frames
    is_whole = row.pictures is None or row.is_whole
    path = row.pictures or trial.source
    # A window's file is smaller than the source and stands upright: by itself it would be read with another matrix.
    layout = None if is_whole else _layout_of(trial.source)
    alphas = None
    with ExitStack() as stack:
        pictures = stack.enter_context(closing(stack.enter_context(VideoReader(path)).frames()))
        if row.alpha is not None:
            alphas = stack.enter_context(closing(stack.enter_context(VideoReader(row.alpha)).frames()))
        for number, index in enumerate(wanted.tolist() if is_whole else range(len(trial))):
            if index < 0:
                yield (None,)
                continue
            frame = _advance(pictures, index)
            if frame is None:
                return
            alpha = _advance(alphas, index) if alphas is not None else None
            if alphas is not None and alpha is None:
                raise VideoReadError(f"{row.alpha} ends before frame {number} of {trial.name}")
            frame = replace(frame, layout=layout or frame.layout)
            yield (_in_window(frame, alpha, trial.window if is_whole else None, number),)


def _layout_of(video: Path) -> PlaneLayout:
    with VideoReader(video) as reader:
        return reader.info.layout


def _advance(frames: Iterator[Frame], index: int) -> Frame | None:
    """The frame of that index; the ones before it are passed over."""
    for frame in frames:
        if frame.index == index:
            return frame
    return None


def _in_window(frame: Frame, alpha: Frame | None, window: Bounds | None, number: int) -> Shown:
    values = None if alpha is None else alpha_of(alpha)
    if window is not None:
        x0, y0, x1, y1 = window
        frame = window_frame(frame, window, number)
        values = None if values is None else values[y0:y1, x0:x1]
    return Shown(frame, rgb_from_planes(frame), values)
