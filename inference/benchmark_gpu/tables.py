"""Measure one GPU: rendering, training, networks and the whole command; print the tables and write them as JSON.

Usage: bash scripts/benchmark.sh --gpu [--only PART ...] [--out F]

Reads: what each part names. Writes: the JSON file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import torch

from inference.benchmark_gpu.row import GpuRow
from inference.command_line import CommandParser
from inference.output_checks import check_output
from modules.commons.device import pick_device
from modules.commons.errors import GeneFaceError
from modules.commons.machine import Machine
from modules.commons.progress import ConsoleProgress, Progress
from tasks.evaluation.files import write_parts

logger = logging.getLogger(__name__)

GPU_SCHEMA = "benchmark-gpu/1"
DEFAULT_OUT = Path("out") / "benchmark.json"
PARTS = ("same_work", "faces", "training", "networks", "end_to_end")
"""Modules of this folder, in the order they run; each has ``rows(device, progress)``."""


@dataclass(frozen=True, slots=True)
class GpuBenchmarkOptions:
    """What is measured, where the JSON goes, and the command to note in it."""

    only: tuple[str, ...] = PARTS
    out: Path = DEFAULT_OUT
    command: str = ""


def run(options: GpuBenchmarkOptions, progress: Progress) -> tuple[list[GpuRow], dict[str, str]]:
    """Measure the parts; one that cannot run here is left out, and why is returned by its name.

    Raises:
        GeneFaceError: there is no CUDA device.
    """
    device = pick_device("cuda")
    found: list[GpuRow] = []
    left_out: dict[str, str] = {}
    for number, part in enumerate(options.only):
        progress("benchmark", number, len(options.only))
        try:
            found += _rows_of(part)(device, progress)
        except GeneFaceError as error:
            left_out[part] = str(error)
        torch.cuda.empty_cache()
    progress("benchmark", len(options.only), len(options.only))
    return found, left_out


def _rows_of(part: str) -> Callable[[torch.device, Progress], list[GpuRow]]:
    return importlib.import_module(f"inference.benchmark_gpu.{part}").rows


def report(rows: Sequence[GpuRow], left_out: dict[str, str], machine: Machine) -> str:
    """The tables as aligned text, the machine first."""
    lines = [
        f"{machine.gpu}; {machine.cpu}, {machine.cores} cores; Python {machine.python}, torch {machine.torch}",
    ]
    for name, group in groupby(rows, key=lambda row: row.table):
        lines += ["", name, *_aligned([_cells(row) for row in group])]
    lines += [f"left out: {part}: {why}" for part, why in left_out.items()]
    return "\n".join(lines)


def _cells(row: GpuRow) -> tuple[str, ...]:
    spread = f"({row.spread[0]:.4g}..{row.spread[1]:.4g})" if row.spread else ""
    return row.what, f"{row.value:.4g} {row.unit}", spread, row.goal, row.detail


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]


def as_json(rows: Sequence[GpuRow], left_out: dict[str, str], machine: Machine, command: str) -> dict:
    """What ``benchmark.json`` holds."""
    return {
        "schema": GPU_SCHEMA,
        "command": command,
        "machine": asdict(machine),
        "rows": [asdict(row) for row in rows],
        "left_out": left_out,
    }


def parse_arguments(argv: Sequence[str]) -> GpuBenchmarkOptions:
    """The command line as options.

    Raises:
        GeneFaceError: a flag is wrong, or the JSON cannot be written where it is to go.
    """
    parser = CommandParser(description="Measure one GPU.", allow_abbrev=False)
    parser.add_argument("--gpu", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (default: all)")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the JSON file")
    given = parser.parse_args(argv)
    check_output(given.out, inputs=(), flag="--out", example="benchmark.json")
    return GpuBenchmarkOptions(tuple(given.only), given.out, shlex.join(["bash", "scripts/benchmark.sh", *argv]))


def main(argv: Sequence[str]) -> int:
    """What ``inference/benchmark.py --gpu`` does; returns the exit status.

    Raises:
        GeneFaceError: an argument is wrong, there is no GPU, or the table cannot be written.
    """
    options = parse_arguments(argv)
    machine = Machine.here()
    rows, left_out = run(options, ConsoleProgress())
    content = as_json(rows, left_out, machine, options.command)
    write_parts(options.out, (json.dumps(content, indent=1, allow_nan=False), "\n"))
    logger.info("benchmark\n%s", report(rows, left_out, machine))
    logger.info("result: %s", options.out)
    return 0 if rows else 1
