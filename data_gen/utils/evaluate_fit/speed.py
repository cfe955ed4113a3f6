"""How fast the fit is, and what memory twenty minutes of video need."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_gen.utils.evaluate_fit.fitter import Fitter
from data_gen.utils.evaluate_fit.made_up_speakers import MadeUpSpeaker
from data_gen.utils.evaluate_fit.tables import Column, Row, Table
from modules.commons.errors import GeneFaceError, first_line
from modules.commons.progress import Progress, silent
from modules.commons.workspace import ROOT
from modules.metrics.timing import Spread, timed_runs
from modules.structures.landmarks import Landmarks2D
from modules.structures.scores import Measure

MIB = 2**20
COLUMNS = (
    Column("rate", "frames/s", 1),
    Column("slowest", "slowest", 1),
    Column("fastest", "fastest", 1),
    Column("frames", "frames", 0),
    Column("peak", "peak memory MiB", 0),
    Column("before", "of it before the fit MiB", 0),
    Column("gpu", "peak GPU memory MiB", 0),
)
_BLOCK = 500


@dataclass(frozen=True, slots=True)
class SpeedOptions:
    """What is timed.

    Attributes:
        repeats: measured runs, after one that is not counted.
        long_frames: of the clip whose memory is watched (36,000 are 20 minutes at 30 frames/s); 0 = none.
        long_timeout_s: it may take as long.
    """

    repeats: int = 3
    long_frames: int = 36_000
    long_timeout_s: float = 3600.0


def speed_table(speaker: MadeUpSpeaker, fitter: Fitter, options: SpeedOptions, progress: Progress = silent) -> Table:
    """Rate of the whole fit of a made-up clip, focal length and identity included, and the long clip's memory."""
    rows = [Row("made-up clip", variant, timed(run, len(speaker.landmarks), fitter.device, options.repeats, progress))
            for variant, run in _variants(speaker, fitter).items()]  # fmt: skip
    if options.long_frames:
        progress("long clip", 0, 1)
        rows.append(Row("long clip, in a process of its own", "whole fit", _long_clip(speaker, fitter, options)))
        progress("long clip", 1, 1)
    threads = f"{torch.get_num_threads()} torch threads on the CPU"
    where = str(fitter.device)
    notes = (
        f"Device {where}; {threads}; median, least and most of {options.repeats} runs after one that is not counted; "
        "landmarks in memory.",
        "Whole fit: focal length, identity and all frames; person given: the frames alone.",
        "Long clip: the made-up clip over and over, read from a landmark file; peak resident memory of the process, "
        "with what Python, torch and the model take before the fit.",
    )
    return Table("speed", "Speed and memory", COLUMNS, tuple(rows), notes)


def _variants(speaker: MadeUpSpeaker, fitter: Fitter) -> dict[str, Callable[[], object]]:
    person = fitter.fit(speaker.landmarks, speaker.size_wh).person
    corrected = fitter.corrected(True)
    return {
        "whole fit": lambda: fitter.fit(speaker.landmarks, speaker.size_wh),
        "whole fit, correction on": lambda: corrected.fit(speaker.landmarks, speaker.size_wh),
        "person given": lambda: fitter.fit(speaker.landmarks, speaker.size_wh, person=person),
    }


def timed(
    run: Callable[[], object], frames: int, device: torch.device | str, repeats: int, progress: Progress = silent
) -> dict[str, Measure]:
    """Frames per second of ``run``; on CUDA the queue is waited for, and the peak of its memory told."""
    is_cuda = torch.device(device).type == "cuda"
    settle = torch.cuda.synchronize if is_cuda else None
    run()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for taken in timed_runs(run, repeats, settle=settle):
        seconds.append(taken)
        progress("speed", len(seconds), repeats)
    spread = Spread.of(seconds)
    figures = {
        "rate": Measure(frames / spread.median),
        "slowest": Measure(frames / spread.high),
        "fastest": Measure(frames / spread.low),
        "frames": Measure(float(frames)),
    }
    if is_cuda:
        figures["gpu"] = Measure(torch.cuda.max_memory_allocated() / MIB)
    return figures


def write_repeated(landmarks: Landmarks2D, count: int, path: Path) -> None:
    """A landmark file of ``count`` frames: the clip forwards and backwards until there are enough."""
    total = len(landmarks)
    there_and_back = np.concatenate([np.arange(total), np.arange(total)[-2:0:-1]])
    with Landmarks2D.writer(path, np.ones(count, bool)) as writer:
        for start in range(0, count, _BLOCK):
            rows = there_and_back[np.arange(start, min(start + _BLOCK, count)) % len(there_and_back)]
            writer.append(
                points=landmarks.points[rows], depth=landmarks.depth[rows], blendshapes=landmarks.blendshapes[rows]
            )


def _long_clip(speaker: MadeUpSpeaker, fitter: Fitter, options: SpeedOptions) -> dict[str, Measure]:
    """Fit a long clip in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="evaluate_fit_") as folder:
        landmarks, result = Path(folder) / "landmarks.npz", Path(folder) / "result.json"
        write_repeated(speaker.landmarks, options.long_frames, landmarks)
        width, height = speaker.size_wh
        command = [
            sys.executable, "-m", "data_gen.utils.evaluate_fit.long_clip", str(landmarks), str(result),
            str(width), str(height), str(fitter.device), str(torch.get_num_threads()),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=options.long_timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            return {"frames": Measure(float(options.long_frames)), "rate": Measure.missing("it took too long")}
        if done.returncode != 0 or not result.is_file():
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise GeneFaceError(f"the long clip of {options.long_frames} frames was not fitted: {reason[0]}")
        try:
            found = json.loads(result.read_text(encoding="utf-8"))
        except ValueError as error:
            raise GeneFaceError(f"the long clip's result cannot be read: {first_line(error)}") from error
    return {
        "rate": Measure(options.long_frames / found["seconds"]),
        "frames": Measure(float(options.long_frames)),
        "peak": Measure(found["peak_bytes"] / MIB),
        "before": Measure(found["before_bytes"] / MIB),
    }
