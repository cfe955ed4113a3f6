"""How good is a trained person? Held-out frames against the source, a retrieval baseline and lips that never move.

    python tasks/radnerfs/evaluate.py --exp_name demo

Reads: checkpoints/identities/<exp_name>, the prepared clip. Writes: data/training/<exp_name>/evaluation/ (scores.json
and strips source | rendered | difference | retrieval around the mouth at 300 %).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":  # `python tasks/radnerfs/evaluate.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from modules.commons.command import exit_status
from modules.commons.hparams import parse_hparams
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import IDENTITIES
from modules.radnerfs.person import PersonField
from modules.video.png import write_png
from tasks.configs import RADNeRFTaskConfig, load_any
from tasks.radnerfs.dataset_utils import RADNeRFDataset
from tasks.radnerfs.held_out_table import (
    MATCHED,
    RENDERED,
    RETRIEVAL,
    STILL,
    HeldOutTable,
    held_out_table,
    open_checkpoint,
)
from tasks.radnerfs.radnerf import work_dir
from tasks.radnerfs.validation import write_validation_images

log = logging.getLogger(__name__)

SCORED = (RENDERED, RETRIEVAL, MATCHED, STILL)
"""Rows of the table that are written, in the order of ``Scores``."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over held-out frames.

    Attributes:
        frames: how many were evaluated.
        psnr, psnr_mouth: of the rendering over the edited region and over the mouth's box, dB.
        retrieval_psnr, retrieval_psnr_mouth: of the nearest training frame, warped onto the landmarks.
        matched_retrieval_psnr, matched_retrieval_psnr_mouth: the same with the compositor's colour match, which the
            rendering has too.
        mean_psnr, mean_psnr_mouth: of the mean training frame, warped onto the landmarks.
        sharpness: median ratio, rendered to source, of the variance of the Laplacian in the mouth's box.
        retrieval_sharpness: the same of the retrieval baseline.
    """

    frames: int
    psnr: float
    psnr_mouth: float
    retrieval_psnr: float
    retrieval_psnr_mouth: float
    matched_retrieval_psnr: float
    matched_retrieval_psnr_mouth: float
    mean_psnr: float
    mean_psnr_mouth: float
    sharpness: float
    retrieval_sharpness: float


def evaluate(
    dataset: RADNeRFDataset, person: PersonField, folder: Path, progress: Progress, pictures: int = 12
) -> Scores:
    """Score every held-out frame and write strips of some.

    Raises:
        CheckpointError: the clip has no held-out frame.
    """
    rows = dataset.source.rows[dataset.val_indices]
    shown = rows[np.linspace(0, len(rows) - 1, min(pictures, len(rows))).round().astype(int)].tolist()
    table = held_out_table(dataset, person, progress, methods=SCORED, pictures=shown)
    for row, picture in table.pictures.items():
        write_png(picture, folder / f"{row:06d}.png")
    scores = _scores(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(asdict(scores), indent=1))
    return scores


def _scores(table: HeldOutTable) -> Scores:
    """The figures of ``table`` by their names in scores.json."""
    decibels = [value for name in SCORED for value in (table.rows[name].psnr_edited, table.rows[name].psnr_mouth)]
    return Scores(table.frames, *decibels, *(table.rows[name].sharpness for name in (RENDERED, RETRIEVAL)))


def evaluate_checkpoint(directory: Path, config: RADNeRFTaskConfig | None, progress: Progress) -> Scores:
    """Score a checkpoint on its clip's held-out frames and log the figures."""
    dataset, person, used = open_checkpoint(directory, config, progress)
    folder = work_dir(used, directory) / "evaluation"
    scores = evaluate(dataset, person, folder, progress)
    for name, value in asdict(scores).items():
        log.info("%-22s %s", name, f"{value:.3f}" if isinstance(value, float) else value)
    log.info("pictures: %s", folder)
    return scores


def write_pictures(directory: Path, config: RADNeRFTaskConfig | None, progress: Progress, count: int = 12) -> None:
    """Write strips of held-out frames without scoring them."""
    dataset, person, used = open_checkpoint(directory, config, progress)
    folder = work_dir(used, directory) / "pictures"
    write_validation_images(dataset, person, folder, count)
    log.info("pictures: %s", folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description="Evaluate a trained person on held-out frames.", allow_abbrev=False)
    parser.add_argument("--exp_name", required=True)
    parser.add_argument("--hparams", default="", help="overrides of the saved configuration: data_root=...,device=cpu")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _evaluate(arguments))


def _evaluate(arguments: argparse.Namespace) -> None:
    directory = IDENTITIES / arguments.exp_name
    overrides = parse_hparams(arguments.hparams)
    config = load_any(directory / "config.yaml", overrides) if overrides else None
    evaluate_checkpoint(directory, config, ConsoleProgress())


if __name__ == "__main__":
    raise SystemExit(main())
