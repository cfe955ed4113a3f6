"""Painting trials: one pass over the video, every row's pictures and alpha to disk, landmarks re-detected in each.

Writes: one folder per trial in the layout of ``modules.structures.evaluation``; it appears when it is complete.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker, region_of_landmarks
from inference.evaluation.motion import jaw_gap_px, lower_face_px, lower_face_triangles, model_opening
from inference.evaluation.painters import Painted, Painter
from inference.prepared import PreparedSource
from modules.commons.progress import Progress
from modules.structures.evaluation import EDITED, Protocol, SpeechTrack, Trial, TrialRow
from modules.structures.frames import Frame, VideoInfo
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, N_MEDIAPIPE, LandmarkResult, Landmarks2D
from modules.structures.transfer import TRANSFER_FILE
from modules.video.alpha import AlphaWriter
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.window import Bounds, aligned_window, window_frame, window_info
from modules.video.writer import EncodeConfig, VideoWriter

MADE_FROM = "made_from.json"
"""In a trial's folder: what it depends on, so that an interrupted evaluation can go on."""
LEAST_PRESENCE = 0.5
"""Below this score the landmark network sees no face."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """The frames under test.

    Attributes:
        rows: int64 ``[N]`` ascending clip rows.
        block: int64 ``[N]`` unbroken stretch of each.
        outcomes: per clip row, ``EDITED`` or why not.
    """

    rows: NDArray[np.int64]
    block: NDArray[np.int64]
    outcomes: Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class RowPlan:
    """A row to be painted.

    Attributes:
        name, is_result, about, speech_late_s: see ``TrialRow``.
        painter: None shows the source, ``frames_late`` frames late.
        expression: ``[T, E]`` of the clip that drives it; None where nothing does.
    """

    name: str
    about: str
    is_result: bool = False
    painter: Painter | None = None
    expression: NDArray[np.float32] | None = None
    frames_late: int = 0
    speech_late_s: float = 0.0


@dataclass(slots=True)
class _RowRecord:
    """What is gathered of a row while it is painted."""

    plan: RowPlan
    stem: str
    found: list[LandmarkResult | None] = field(default_factory=list)
    lower_face: list[float] = field(default_factory=list)


class LandmarkScout:
    """Landmarks of a frame's face, always through the square that the untouched source's own landmarks chose.

    A square that followed each picture's landmarks would add its own jitter to some rows and not to others.
    """

    def __init__(self, source: PreparedSource) -> None:
        self._source = source
        self._landmarker = FaceLandmarker()

    def __call__(self, frame: Frame, row: int) -> LandmarkResult | None:
        """Landmarks in frame pixels; None where no face is known or seen.

        Args:
            frame: showing clip row ``row``, edited or not.
            row: clip row.
        """
        if not self._source.landmarks.valid[row]:
            return None
        region = region_of_landmarks(self._source.landmarks.points[row])
        height, width = frame.size_hw
        bounds = region.bounding_box().pixel_bounds(width, height)
        if bounds is None:
            return None
        x0, y0 = bounds[:2]
        found = self._landmarker.detect(rgb_from_planes(frame, bounds), region.shifted(-x0, -y0))
        return found.shifted(x0, y0) if found.score >= LEAST_PRESENCE else None


def stacked(found: Sequence[LandmarkResult | None]) -> Landmarks2D:
    """Per-frame results as one table; None becomes an invalid row."""
    count = len(found)
    points = np.full((count, N_MEDIAPIPE, 2), np.nan, np.float32)
    depth = np.full((count, N_MEDIAPIPE), np.nan, np.float32)
    scores = np.full((count, len(MEDIAPIPE_BLENDSHAPES)), np.nan, np.float32)
    for number, result in enumerate(found):
        if result is not None:
            points[number], depth[number], scores[number] = result.points, result.depth, result.blendshapes
    return Landmarks2D(points, depth, np.array([r is not None for r in found], dtype=bool), scores)


def trial_window(source: PreparedSource, rows: NDArray[np.int64]) -> Bounds:
    """Window of the frame that holds every crop of ``rows``, in whole chroma samples."""
    boxes = np.array([source.crops.region(int(row)).bounding_box().as_array() for row in rows])
    low, high = np.floor(boxes[:, :2].min(axis=0)), np.ceil(boxes[:, 2:].max(axis=0))
    width, height = source.info.width, source.info.height
    x0, y0 = np.clip(low, 0, (width - 2, height - 2)).astype(int)
    x1, y1 = np.minimum(high, (width, height)).astype(int)
    return aligned_window((int(x0), int(y0), int(x1), int(y1)), source.info)


def paint_trial(
    name: str,
    protocol: Protocol,
    source: PreparedSource,
    stretch: Stretch,
    plans: Sequence[RowPlan],
    speech: SpeechTrack | None,
    folder: Path,
    progress: Progress,
    notes: Sequence[str] = (),
) -> Path:
    """Paint every row of a trial.

    Args:
        name: title.
        protocol: what its figures will mean.
        source: the clip.
        stretch: the frames.
        plans: the rows; the first shows the untouched source, the first with a painter lends others its alpha.
        speech: what the lips should follow.
        folder: of the trial; replaced when it exists.
        progress: told about the frames.
        notes: for the reader.

    Returns:
        ``folder``.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    window = trial_window(source, stretch.rows)
    records = [_RowRecord(plan, f"row{number}") for number, plan in enumerate(plans)]
    with ExitStack() as stack:
        sinks = {
            r.stem: stack.enter_context(_RowSink(partial, r.stem, source.info, window))
            for r in records
            if r.plan.painter
        }
        _paint(name, source, stretch, records, sinks, progress)
    crops = tuple(source.crops.region(int(row)) for row in stretch.rows)
    trial = Trial(
        name, protocol, source.video, window, stretch.rows, source.times_s[stretch.rows], stretch.block,
        tuple(stretch.outcomes[int(row)] for row in stretch.rows), crops, speech,
        tuple(_finished(record, source, stretch, partial) for record in records), tuple(notes),
    )  # fmt: skip
    trial.save(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def remove_others(trials: Path, made: Sequence[Path]) -> None:
    """Delete trials and scores that an earlier command left below ``trials``, so that no report mixes two."""
    for path in trials.iterdir():
        if path not in made and path.is_dir():
            shutil.rmtree(path)
        elif path not in made and path.name == TRANSFER_FILE:
            path.unlink()


def _paint(
    name: str,
    source: PreparedSource,
    stretch: Stretch,
    records: Sequence[_RowRecord],
    sinks: dict[str, _RowSink],
    progress: Progress,
) -> None:
    scout = LandmarkScout(source)
    triangles = lower_face_triangles(source.face_model)
    for number, (frame, before) in enumerate(_frames_under_test(source.video, stretch.rows)):
        row, block = frame.index, int(stretch.block[number])
        is_edited = stretch.outcomes[row] == EDITED
        first: Painted | None = None
        own = scout(frame, row)
        for record in records:
            plan = record.plan
            if plan.painter is None:
                earlier = scout(before, before.index) if plan.frames_late and before else None
                record.found.append(earlier if plan.frames_late else own)
                continue
            painted = plan.painter.paint(frame, block, first) if is_edited else None
            first = first or painted
            sinks[record.stem].write(painted, frame, number)
            record.found.append(scout(painted.frame, row) if painted else own)
            if plan.expression is not None:
                area = lower_face_px(source, row, plan.expression[row], triangles) if is_edited else np.nan
                record.lower_face.append(area)
        progress(name, number + 1, len(stretch.rows))


def _frames_under_test(video: Path, rows: NDArray[np.int64]) -> Iterator[tuple[Frame, Frame | None]]:
    """Each wanted frame with the one before it in the video."""
    wanted, last, before = set(rows.tolist()), int(rows[-1]), None
    with VideoReader(video) as reader:
        for frame in reader.frames():
            if frame.index in wanted:
                yield frame, before
            if frame.index == last:
                return
            before = frame


class _RowSink:
    """The pictures and the alpha of one row, window by window."""

    def __init__(self, folder: Path, stem: str, info: VideoInfo, window: Bounds) -> None:
        shown = window_info(info, window)
        self._window = window
        self._pictures = VideoWriter(pictures_file(folder, stem), shown, quality=EncodeConfig(lossless=True))
        self._alpha = AlphaWriter(alpha_file(folder, stem), shown)
        self._stack = ExitStack()

    def __enter__(self) -> _RowSink:
        self._stack.enter_context(self._pictures)
        self._stack.enter_context(self._alpha)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def write(self, painted: Painted | None, frame: Frame, number: int) -> None:
        """Frame ``number`` of the row: painted, or the source's where nothing was."""
        shown = window_frame(painted.frame if painted else frame, self._window, number)
        self._pictures.write(shown)
        inside = _inside(painted, self._window) if painted else None
        self._alpha.write(shown, *(inside or (None, None)))


def _inside(painted: Painted, window: Bounds) -> tuple[Bounds, NDArray[np.float32]] | None:
    """The part of the alpha that lies in the window, in the window's pixels."""
    (x0, y0, x1, y1), (left, top, right, bottom) = painted.patch.bounds, window
    ax0, ay0, ax1, ay1 = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)
    if ax0 >= ax1 or ay0 >= ay1:
        return None
    alpha = painted.alpha[ay0 - y0 : ay1 - y0, ax0 - x0 : ax1 - x0]
    return (ax0 - left, ay0 - top, ax1 - left, ay1 - top), alpha


def pictures_file(folder: Path, stem: str) -> Path:
    """Where a row's pictures lie."""
    return folder / f"{stem}.mkv"


def alpha_file(folder: Path, stem: str) -> Path:
    """Where a row's alpha lies."""
    return folder / f"{stem}_alpha.mkv"


def _finished(record: _RowRecord, source: PreparedSource, stretch: Stretch, folder: Path) -> TrialRow:
    plan, rows = record.plan, stretch.rows
    is_painted, is_driven = plan.painter is not None, plan.expression is not None
    return TrialRow(
        name=plan.name,
        is_result=plan.is_result,
        pictures=pictures_file(folder, record.stem) if is_painted else None,
        landmarks=stacked(record.found),
        frames_late=plan.frames_late,
        alpha=alpha_file(folder, record.stem) if is_painted else None,
        driving_opening=model_opening(source, plan.expression)[rows] if is_driven else None,  # type: ignore[arg-type]
        tracked_opening=model_opening(source, source.coeffs.expression)[rows] if is_driven else None,
        lower_face_px=np.array(record.lower_face, np.float32) if is_driven else None,
        jaw_gap_px=jaw_gap_px(source, plan.expression)[rows] if is_driven else None,  # type: ignore[arg-type]
        speech_late_s=plan.speech_late_s,
        about=plan.about,
    )
