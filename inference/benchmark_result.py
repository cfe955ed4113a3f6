"""What a benchmark found: the machine, the figures of each stage, and both as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modules.commons.machine import Machine
from modules.metrics.timing import Spread
from tasks.evaluation.files import write_parts

BENCHMARK_SCHEMA = "benchmark/1"


@dataclass(frozen=True, slots=True)
class StageTiming:
    """Figures of one stage on one device.

    Attributes:
        name, device, frames, covers: see ``Stage``; the device as 'CPU' or 'CUDA'.
        ms_per_frame: over the repeats.
        ms_per_second: the same per second of sound; None for pictures.
        memory_mib: growth of resident memory while the stage was loaded and run once; None where unknown.
        cuda_memory_mib: likewise of memory that torch holds on the GPU; None on the CPU.
    """

    name: str
    device: str
    frames: int
    covers: str
    ms_per_frame: Spread
    ms_per_second: Spread | None
    memory_mib: float | None
    cuda_memory_mib: float | None

    @property
    def frames_per_second(self) -> float:
        return 1000 / self.ms_per_frame.median


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A finished benchmark.

    Attributes:
        command: that made it.
        machine: it ran on.
        src_video, drv_aud, head_ckpt: what was worked on.
        frame_size: width and height. frame_rate: frames a second. face_px: median height of the face's outline.
        speech_s: length of the speech.
        repeats: measured runs of each stage; one more was discarded.
        timings: in the order of the pipeline.
    """

    command: str
    machine: Machine
    src_video: Path
    drv_aud: Path
    head_ckpt: Path
    frame_size: tuple[int, int]
    frame_rate: float
    face_px: float
    speech_s: float
    repeats: int
    timings: tuple[StageTiming, ...]


def report(found: Benchmark) -> str:
    """Everything as text: what was timed, the machine, and one aligned row per stage."""
    machine = found.machine
    width, height = found.frame_size
    worked_on = (
        f"{found.src_video.name} {width}x{height} at {found.frame_rate:.2f} frames/s, face {found.face_px:.0f} px",
        f"{found.drv_aud.name} {found.speech_s:.1f} s",
        f"person {found.head_ckpt.name}",
        f"median of {found.repeats} after a discarded run",
    )
    ran_on = (
        f"{machine.cpu}, {machine.cores} cores, {machine.torch_threads} torch threads, {machine.gpu or 'no GPU'}",
        f"Python {machine.python}, torch {machine.torch}, numpy {machine.numpy}",
        f"load before: {'unknown' if machine.load is None else format(machine.load, 'g')}",
    )
    return "\n".join(["; ".join(worked_on), "; ".join(ran_on), *table(found.timings)])


def table(timings: Sequence[StageTiming]) -> list[str]:
    """Aligned lines: a heading, then one per stage."""
    heading = ("stage", "device", "ms/frame", "min", "max", "frames/s", "MiB", "GPU MiB", "frames", "what a run does")
    rows = [heading, *(_cells(timing) for timing in timings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heading) - 1)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join([*cells, row[-1]]))
    return lines


def _cells(timing: StageTiming) -> tuple[str, ...]:
    spread = timing.ms_per_frame
    covers = timing.covers
    if timing.ms_per_second is not None:
        covers += f"; {timing.ms_per_second.median:.1f} ms per second of it"
    return (
        timing.name,
        timing.device,
        *(f"{value:.2f}" for value in (spread.median, spread.low, spread.high)),
        f"{timing.frames_per_second:.1f}",
        *("-" if size is None else f"{size:.1f}" for size in (timing.memory_mib, timing.cuda_memory_mib)),
        str(timing.frames),
        covers,
    )


def as_json(found: Benchmark) -> dict[str, Any]:
    """What ``benchmark.json`` holds."""
    return {
        "schema": BENCHMARK_SCHEMA,
        "command": found.command,
        "machine": asdict(found.machine),
        "input": {
            "src_video": str(found.src_video),
            "width": found.frame_size[0],
            "height": found.frame_size[1],
            "frame_rate": found.frame_rate,
            "face_px": found.face_px,
            "drv_aud": str(found.drv_aud),
            "speech_s": found.speech_s,
            "head_ckpt": str(found.head_ckpt),
        },
        "repeats": found.repeats,
        "discarded_runs": 1,
        "stages": [_stage_json(timing) for timing in found.timings],
    }


def _stage_json(timing: StageTiming) -> dict[str, Any]:
    return {
        "stage": timing.name,
        "device": timing.device,
        "covers": timing.covers,
        "frames": timing.frames,
        "ms_per_frame": _spread_json(timing.ms_per_frame),
        "frames_per_second": timing.frames_per_second,
        "ms_per_second_of_sound": None if timing.ms_per_second is None else _spread_json(timing.ms_per_second),
        "memory_mib": timing.memory_mib,
        "cuda_memory_mib": timing.cuda_memory_mib,
    }


def _spread_json(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "min": spread.low, "max": spread.high}


def write_json(found: Benchmark, path: Path) -> None:
    """Write through a temporary name.

    Raises:
        OutputError: the file cannot be written.
    """
    write_parts(path, (json.dumps(as_json(found), indent=1, allow_nan=False), "\n"))
