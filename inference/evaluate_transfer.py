"""Measure how well one frame's mouth is given to another: frame t under the tracked motion of t + k, by blend mode.

Usage: python inference/evaluate_transfer.py --src_video in.mp4 [--head_ckpt P] [--late_s 0.2 0.5] [--out figures.json]

Reads: a prepared video and its person. Writes: a JSON of figures.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

if __name__ == "__main__":  # `python inference/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from inference.command_line import CommandParser
from inference.evaluation.persons import usual_person
from inference.evaluation.transfer import comparable_rows, later_plan, measure_transfer
from inference.frame_editor import FrameEditor
from inference.jobs import BLEND_MODES, EvaluationJob
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import PreparedSource, open_source
from modules.commons.errors import ConfigError, GeneFaceError, OutputError
from modules.commons.log import configure_logging
from modules.commons.progress import ConsoleProgress, Progress
from modules.structures.frames import Frame
from modules.video.reader import VideoReader

logger = logging.getLogger("evaluate_transfer")

LATE_S = (0.2, 0.5, 0.8)


def transfer_figures(
    job: EvaluationJob, modes: Sequence[str], late_s: Sequence[float], most_rows: int, progress: Progress
) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by delay and blend mode, over frames that the person has not learnt from.

    Raises:
        GeneFaceError: an input cannot be used.
    """
    source = open_source(job.src_video, progress)
    person = usual_person(job, source, progress)
    renderer = IdentityRenderer(person.checkpoint, source.face_model, job.device)
    frame_s = float(np.median(np.diff(source.times_s)))
    held_out = np.flatnonzero(person.split.is_held_out)
    figures = {}
    for seconds in late_s:
        late = max(round(seconds / frame_s), 1)
        rows = comparable_rows(source, held_out, late)
        rows = rows[:: -(-len(rows) // most_rows)] if rows else rows
        plan = later_plan(source, late)
        editors = {
            mode: FrameEditor(replace(job, blend_mode=mode, lle_percent=0.0), source, renderer, plan) for mode in modes
        }
        scores = measure_transfer(source, _frames(source, rows, late), editors, rows, late)
        figures[f"{seconds:g} s"] = {name: asdict(score) for name, score in scores.items()}
    return figures


def _frames(source: PreparedSource, rows: Sequence[int], late: int) -> dict[int, Frame]:
    """The frames of rows and of those ``late`` frames after them."""
    wanted = {number for row in rows for number in (row, row + late)}
    found: dict[int, Frame] = {}
    if not wanted:
        return found
    with VideoReader(source.video) as reader:
        for frame in reader.frames():
            if frame.index in wanted:
                found[frame.index] = frame
            if frame.index >= max(wanted):
                break
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    configure_logging()
    parser = CommandParser(description="Measure motion transfer by blend mode.", allow_abbrev=False)
    parser.add_argument("--src_video", type=Path, required=True, help="the video")
    parser.add_argument("--head_ckpt", type=Path, help="its person (default: found, else trained)")
    parser.add_argument("--late_s", type=float, nargs="+", default=list(LATE_S), help="how much later the motion is, s")
    parser.add_argument("--modes", nargs="+", choices=BLEND_MODES, default=list(BLEND_MODES))
    parser.add_argument("--most_rows", type=int, default=20, help="frames measured per delay")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("transfer.json"), help="where the figures go")
    chosen = parser.parse_args(argv)
    try:
        if min(chosen.late_s) <= 0 or chosen.most_rows < 1:
            raise ConfigError("--late_s and --most_rows must be above 0; motion of the frame itself changes nothing")
        job = EvaluationJob(chosen.src_video, chosen.out.parent, head_ckpt=chosen.head_ckpt, device=chosen.device)
        figures = transfer_figures(job, chosen.modes, chosen.late_s, chosen.most_rows, ConsoleProgress())
        _write(chosen.out, figures)
    except GeneFaceError as error:
        logger.error("error: %s", error)
        return 1
    for late, by_mode in figures.items():
        for mode, score in by_mode.items():
            logger.info(
                "%s later, %-10s lower face %.2f dB, mouth %.2f dB, %d frames",
                late, mode, score["lower_face_db"], score["mouth_db"], score["frames"],
            )  # fmt: skip
    return 0


def _write(path: Path, figures: dict[str, dict[str, dict[str, float]]]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --out") from error


if __name__ == "__main__":
    raise SystemExit(main())
