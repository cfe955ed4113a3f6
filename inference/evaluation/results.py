"""A finished video as a trial of the dubbing protocol: what a job made, or what anybody else did."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.edit_plan import EditPlan
from inference.evaluation.motion import (
    frame_outcomes,
    jaw_gap_px,
    lower_face_px,
    lower_face_triangles,
    model_opening,
    speech_track,
)
from inference.evaluation.protocols import NO_TRUTH, OF_SOURCE, SHIFT_S
from inference.evaluation.trials import MADE_FROM, LandmarkScout, remove_others, stacked, trial_window
from inference.jobs import ArbitraryJob
from inference.prepared import PreparedSource
from modules.commons.config import load_config
from modules.commons.errors import VideoReadError
from modules.commons.progress import Progress
from modules.structures.audio import AudioClip
from modules.structures.evaluation import EDITED, TRIALS, Trial, TrialRow
from modules.structures.landmarks import JAW_LINE, LandmarkResult, Landmarks2D
from modules.structures.motion import MotionSequence
from modules.video.reader import VideoReader
from tasks.evaluate import DEFAULT_CONFIG, evaluate_trials
from tasks.evaluation.config import EvaluationConfig

LEFT_ALONE = "not edited"
WITHOUT_MASKS = (
    "What was edited is unknown without --masks: every frame with a usable face is counted as edited, and the edge of "
    "the edit is not measured."
)
ONLY_SHOWN = (
    "Retrieval and mouths that never move need the person who was painted; a finished result stands without them. The "
    "previous true frame has no meaning here."
)


def result_trial(
    source: PreparedSource,
    result: Path,
    speech: tuple[AudioClip, MotionSequence] | None,
    folder: Path,
    progress: Progress,
    *,
    plan: EditPlan | None = None,
    alpha: Path | None = None,
) -> Path:
    """Write the trial of ``result`` into ``folder``; the videos stay where they are.

    Args:
        source: the clip it was made from.
        result: video of the source's frames, as many or, with ``plan``, fewer.
        speech: what its lips should say.
        folder: of the trial.
        progress: told about the frames.
        plan: what drove it; None when unknown.
        alpha: grey video of what was edited; None when unknown.

    Raises:
        VideoReadError: the result or its alpha has other frames than the source.
    """
    before, after = _landmarks_of_both(source, result, progress, may_end_early=plan is not None)
    rows = np.arange(len(after))
    outcomes = plan.reasons if plan else _outcomes_by_alpha(source, alpha) if alpha else frame_outcomes(source)
    old, new = stacked(before), stacked(after)
    made = TrialRow(
        "result", True, result, new, alpha=alpha, is_whole=True, jaw_gap_px=_seen_jaw_gap_px(old, new),
        about=str(result),
    )  # fmt: skip
    if plan is not None:
        triangles = lower_face_triangles(source.face_model)
        expression = source.coeffs.expression.copy()
        expression[rows] = plan.expression[rows]  # a plan may end before the clip
        area = [
            lower_face_px(source, int(row), expression[row], triangles) if outcomes[row] == EDITED else np.nan
            for row in rows
        ]
        made = replace(
            made,
            driving_opening=model_opening(source, expression)[rows],
            tracked_opening=model_opening(source, source.coeffs.expression)[rows],
            jaw_gap_px=jaw_gap_px(source, expression)[rows],
            lower_face_px=np.array(area, np.float32),
        )
    late = replace(
        made, name="speech shifted by 2 s", is_result=False, speech_late_s=SHIFT_S, driving_opening=None,
        tracked_opening=None,
        about="the same pictures, the speech heard two seconds later",
    )  # fmt: skip
    trial = Trial(
        "dubbing", "dubbing", source.video, trial_window(source, rows), rows, source.times_s[rows],
        np.zeros(len(rows), np.int64), tuple(outcomes[int(row)] for row in rows),
        tuple(source.crops.region(int(row)) for row in rows), speech_track(*speech) if speech else None,
        (TrialRow("source", False, None, old, about=OF_SOURCE), made, *([late] if speech else [])),
        (NO_TRUTH, ONLY_SHOWN) if plan or alpha else (NO_TRUTH, ONLY_SHOWN, WITHOUT_MASKS),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MADE_FROM).unlink(missing_ok=True)  # of a trial that was painted here before
    trial.save(folder)
    return folder


def masks_of_report(folder: Path) -> Path:
    """Where a job leaves its masks for its report."""
    return folder / TRIALS / "dubbing" / "alpha.mp4"


def report_result(
    job: ArbitraryJob,
    source: PreparedSource,
    plan: EditPlan,
    speech: tuple[AudioClip, MotionSequence],
    progress: Progress,
    masks: Path | None,
) -> None:
    """Measure what a job has just written, into its report's folder."""
    assert job.report is not None
    folder = job.report / TRIALS / "dubbing"
    remove_others(folder.parent, [result_trial(source, job.out_name, speech, folder, progress, plan=plan, alpha=masks)])
    config = load_config(DEFAULT_CONFIG, EvaluationConfig)
    evaluate_trials(job.report, config, shlex.join(sys.argv), progress)


def _landmarks_of_both(
    source: PreparedSource, result: Path, progress: Progress, *, may_end_early: bool
) -> tuple[list[LandmarkResult | None], list[LandmarkResult | None]]:
    scout = LandmarkScout(source)
    before: list[LandmarkResult | None] = []
    after: list[LandmarkResult | None] = []
    with VideoReader(source.video) as original, VideoReader(result) as edited:
        _check_size(result, edited, source)
        for old, new in zip_longest(original.frames(), edited.frames()):
            if new is None and may_end_early and after:
                break
            if old is None or new is None:
                shorter = source.video if old is None else result
                raise VideoReadError(
                    f"{result} and {source.video} differ in length: {shorter} ends after {len(after)} frames; compare "
                    "a result with the video it was made from, frame by frame"
                )
            before.append(scout(old, old.index))
            after.append(scout(new, old.index))
            progress("landmarks", len(after), len(source))
    return before, after


def _seen_jaw_gap_px(old: Landmarks2D, new: Landmarks2D) -> NDArray[np.float32]:
    """``[N]`` largest distance between the jaw contours seen in source and result, px; NaN without both faces."""
    jaw = list(JAW_LINE)
    return np.linalg.norm(new.points[:, jaw] - old.points[:, jaw], axis=2).max(axis=1).astype(np.float32)


def _outcomes_by_alpha(source: PreparedSource, alpha: Path) -> list[str]:
    """Per frame of the clip: edited as the alpha says, or why not."""
    with VideoReader(alpha) as reader:
        _check_size(alpha, reader, source)
        edited = [bool(frame.planes[0].any()) for frame in reader.frames()]
    if len(edited) != len(source):
        raise VideoReadError(
            f"{alpha} has {len(edited)} frames, but {source.video} has {len(source)}; give the masks that were saved "
            "with this result"
        )
    reasons = (LEFT_ALONE if reason == EDITED else reason for reason in frame_outcomes(source))
    return [EDITED if touched else reason for touched, reason in zip(edited, reasons, strict=True)]


def _check_size(video: Path, reader: VideoReader, source: PreparedSource) -> None:
    size, expected = (reader.info.width, reader.info.height), (source.info.width, source.info.height)
    if size != expected:
        raise VideoReadError(
            f"{video} is {size[0]}x{size[1]}, but {source.video} is {expected[0]}x{expected[1]}; compare a result with "
            "the video it was made from"
        )
