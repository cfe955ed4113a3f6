"""Measure trials and write the report: tables, plots, worst frames, a side-by-side video.

Usage: bash scripts/evaluate.sh --src_video in.mp4 --out report    (inference/make_trials.py, then this)

Reads: <out>/trials/. Writes: <out>/report.html, metrics.json and tables.md, pictures and videos beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import platform
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from zipfile import BadZipFile

if __name__ == "__main__":  # `python tasks/evaluate.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from modules.commons.command import exit_status
from modules.commons.config import load_config
from modules.commons.errors import ConfigError
from modules.commons.hparams import parse_hparams
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import EGS
from modules.structures.evaluation import TRIAL_NAMES, TRIALS, Trial
from modules.structures.scores import Evaluation, TrialScores
from modules.structures.transfer import TRANSFER_FILE, TransferScore, load_transfer
from modules.video.reader import VideoReader
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.files import write_parts
from tasks.evaluation.judge import Networks, judge
from tasks.evaluation.metrics import CONSOLE, METRICS
from tasks.evaluation.metrics_json import write_metrics_json
from tasks.evaluation.pictures import worst_frames, write_sheet, write_side_by_side
from tasks.evaluation.report import write_report
from tasks.evaluation.tables import console_table, markdown_tables, transfer_markdown

logger = logging.getLogger("evaluate")

DEFAULT_CONFIG = EGS / "egs_bases" / "evaluation" / "base.yaml"
PACKAGES = ("torch", "numpy", "scipy", "opencv-python-headless", "av", "ai-edge-litert", "torchmetrics", "torchvision")


def evaluate_trials(
    out: Path, config: EvaluationConfig, command: str, progress: Progress, *, keep_trials: bool = False
) -> Evaluation:
    """Measure every trial below ``out / "trials"`` and write the report beside them.

    Args:
        out: folder of the report.
        config: how to measure.
        command: what to print as the command that made it.
        progress: told about the frames.
        keep_trials: leave the trials, which are large, for another look.

    Raises:
        ConfigError: there is no trial.
        GeneFaceError: a trial or a network's weights cannot be read.
    """
    folders = [out / TRIALS / name for name in TRIAL_NAMES if (out / TRIALS / name / "trial.json").is_file()]
    if not folders:
        raise ConfigError(f"{out / TRIALS} holds no trial; make them with bash scripts/evaluate.sh --out {out}")
    networks = Networks.load(config)
    trials, sheets, clips = [], [], []
    for folder in folders:
        trial = _load(folder)
        scores = judge(trial, networks, config, progress)
        trials.append(scores)
        new_sheets, new_clips = _show(trial, scores, folder.name, out, config, progress)
        sheets += new_sheets
        clips += new_clips
        logger.info("%s\n%s", trial.name, console_table(scores, METRICS, CONSOLE[trial.protocol]))
    source, transfer = _load(folders[0]).source, _load_transfer(out / TRIALS / TRANSFER_FILE)
    evaluation = Evaluation(
        source,
        _facts(source),
        command,
        _versions(),
        config.seed,
        METRICS,
        tuple(trials),
        tuple(sheets),
        tuple(clips),
        transfer,
    )
    write_metrics_json(evaluation, out / "metrics.json")
    tables = [markdown_tables(trial, METRICS) + "\n" for trial in trials]
    write_parts(out / "tables.md", [*tables, transfer_markdown(transfer)])
    write_report(evaluation, out / "report.html")
    if not keep_trials:
        shutil.rmtree(out / TRIALS)
    return evaluation


def _load(folder: Path) -> Trial:
    try:
        return Trial.load(folder)
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise ConfigError(f"{folder} cannot be used ({error}); delete it and make it again") from error


def _load_transfer(place: Path) -> tuple[TransferScore, ...]:
    try:
        return load_transfer(place) or ()
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(f"{place} cannot be used ({error}); delete it and make it again") from error


def _show(
    trial: Trial, scores: TrialScores, stem: str, out: Path, config: EvaluationConfig, progress: Progress
) -> tuple[list[tuple[str, Path]], list[tuple[str, Path]]]:
    """A sheet of the worst frames of every result and a side-by-side video; their titles and files."""
    sheets, clips = [], []
    for number, row in enumerate(scores.rows):
        if not row.is_result:
            continue
        key, worst = worst_frames(scores, row, config.worst_frames)
        if worst:
            file = out / f"worst_{stem}_{number}.jpg"
            write_sheet(trial, number, worst, np.asarray(row.frames[key]), file)
            sheets.append((f"{trial.name}, {row.name}: worst frames by {key} (source, result, difference x 4)", file))
        video = out / f"side_by_side_{stem}_{number}.mp4"
        write_side_by_side(trial, number, video, progress)
        clips.append((f"{trial.name}: source and {row.name}", video))
    return sheets, clips


def _facts(source: Path) -> Mapping[str, str]:
    with VideoReader(source) as reader:
        info = reader.info
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "video": str(source),
        "sha256": digest,
        "size": f"{info.width} x {info.height}",
        "frame rate": f"{float(info.frame_rate):.3f} fps",
        "sound": "yes" if info.has_audio else "no",
        "machine": f"{platform.machine()}, {platform.system()}",
    }


def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure the trials of an evaluation.", allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder that holds trials/; the report goes there")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    parser.add_argument("--hparams", default="", help="overrides of the configuration: draws=200,seed=1")
    parser.add_argument("--keep_trials", action="store_true", help="do not delete the trials' pictures afterwards")
    parser.add_argument("--command", default="", help="what the report calls the command that made it")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _evaluate(arguments), "the trials are kept and the same command measures them anew")


def _evaluate(arguments: argparse.Namespace) -> None:
    config = load_config(arguments.config, EvaluationConfig, parse_hparams(arguments.hparams))
    command = arguments.command or shlex.join(["python", *sys.argv])
    evaluate_trials(arguments.out, config, command, ConsoleProgress(), keep_trials=arguments.keep_trials)
    logger.info("report: %s", arguments.out / "report.html")


if __name__ == "__main__":
    raise SystemExit(main())
