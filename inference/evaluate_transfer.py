"""Measure how well one frame's mouth is given to another: frame t under the tracked motion of t + k, by blend mode.

Usage: python inference/evaluate_transfer.py --src_video in.mp4 [--head_ckpt P] [--late_s 0.2 0.5] [--out figures.json]

Reads: a prepared video and its person. Writes: a JSON of figures.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # `python inference/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inference.command_line import CommandParser
from inference.evaluation.persons import usual_person
from inference.evaluation.transfer import LATE_S, MOST_ROWS, transfer_scores
from inference.jobs import BLEND_MODES, EvaluationJob
from inference.prepared import open_source
from modules.commons.command import exit_status
from modules.commons.errors import ConfigError, OutputError
from modules.commons.progress import ConsoleProgress
from modules.structures.transfer import TransferScore, save_transfer

logger = logging.getLogger("evaluate_transfer")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    return exit_status(lambda: _measure(argv))


def _measure(argv: Sequence[str] | None) -> None:
    parser = CommandParser(description="Measure motion transfer by blend mode.", allow_abbrev=False)
    parser.add_argument("--src_video", type=Path, required=True, help="the video")
    parser.add_argument("--head_ckpt", type=Path, help="its person (default: found, else trained)")
    parser.add_argument("--late_s", type=float, nargs="+", default=list(LATE_S), help="how much later the motion is, s")
    parser.add_argument("--modes", nargs="+", choices=BLEND_MODES, default=list(BLEND_MODES))
    parser.add_argument("--most_rows", type=int, default=MOST_ROWS, help="frames measured per delay")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("transfer.json"), help="where the figures go")
    chosen = parser.parse_args(argv)
    if min(chosen.late_s) <= 0 or chosen.most_rows < 1:
        raise ConfigError("--late_s and --most_rows must be above 0; motion of the frame itself changes nothing")
    job = EvaluationJob(chosen.src_video, chosen.out.parent, head_ckpt=chosen.head_ckpt, device=chosen.device)
    progress = ConsoleProgress()
    source = open_source(job.src_video, progress)
    person = usual_person(job, source, progress)
    scores = transfer_scores(job, source, person, chosen.modes, progress, chosen.late_s, chosen.most_rows)
    write_scores(chosen.out, scores, str(job.src_video))
    for score in scores:
        logger.info(
            "%g s later, %-10s lower face %.2f dB, mouth %.2f dB, %d frames",
            score.late_s, score.row, score.lower_face_db, score.mouth_db, score.frames,
        )  # fmt: skip


def write_scores(path: Path, scores: Sequence[TransferScore], made_from: str) -> None:
    """Write what was measured.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        save_transfer(path, scores, made_from)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another --out") from error


if __name__ == "__main__":
    raise SystemExit(main())
