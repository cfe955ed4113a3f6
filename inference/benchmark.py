"""Time every stage of the pipeline per frame, and what memory it needs: one table and ``benchmark.json``.

Usage: python inference/benchmark.py [--src_video V] [--drv_aud A] [--head_ckpt C] [--frames N] [--repeats R] [--out F]
       python inference/benchmark.py --gpu [--only PART ...] [--out F]      (inference/benchmark_gpu/tables.py)

Reads: a video, a sound file, a person's checkpoint (all by default the demo's), the models below checkpoints/.
Writes: the JSON file; the video's prepared tables, cached by content: data/processed/videos/<id>/.

Each stage is run once unmeasured, which loads its networks and warms its caches (memory is watched then), and then
``--repeats`` times alone. Stages overlap in the commands (decoding and encoding have threads of their own).
"""

from __future__ import annotations

import itertools
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # `python inference/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from inference.benchmark_gpu.tables import main as measure_gpu
from inference.benchmark_result import Benchmark, StageTiming, report, write_json
from inference.benchmark_stages import Stage, open_scene, stages_of
from inference.command_line import CommandParser
from inference.output_checks import check_output
from modules.commons.checkpoint import is_checkpoint
from modules.commons.command import exit_status
from modules.commons.device import DeviceName, pick_device
from modules.commons.errors import (
    AudioReadError,
    CheckpointError,
    ConfigError,
    VideoReadError,
)
from modules.commons.machine import Machine
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import DEMO_SPEECH, DEMO_VIDEO, IDENTITIES
from modules.metrics.timing import PeakMemory, Spread, release_free_memory, timed_runs

logger = logging.getLogger("benchmark")

LEAST_REPEATS = 5
MIB = 2**20


@dataclass(frozen=True, slots=True)
class BenchmarkOptions:
    """What is timed.

    Attributes:
        src_video: its first frames with a face are worked on.
        drv_aud: the speech.
        head_ckpt: the person who is rendered; of anybody, since speed depends on the size of the face alone.
        frames: of the video.
        repeats: measured runs of each stage.
        device: 'cpu' or 'cuda' for the stages that can run on either, 'auto' for both where there is CUDA.
        out: where the JSON goes.
        command: what to note as the command.
    """

    src_video: Path = DEMO_VIDEO
    drv_aud: Path = DEMO_SPEECH
    head_ckpt: Path = IDENTITIES / "demo"
    frames: int = 100
    repeats: int = LEAST_REPEATS
    device: DeviceName = "auto"
    out: Path = Path("out") / "benchmark.json"
    command: str = ""

    def __post_init__(self) -> None:
        fetch = "or fetch the demo with scripts/setup.sh"
        if not self.src_video.is_file():
            raise VideoReadError(f"{self.src_video}: there is no such video file; check --src_video {fetch}")
        if not self.drv_aud.is_file():
            raise AudioReadError(f"{self.drv_aud}: there is no such sound file; check --drv_aud {fetch}")
        if not is_checkpoint(self.head_ckpt):
            raise CheckpointError(f"{self.head_ckpt}: there is no such checkpoint; check --head_ckpt")
        if self.frames < 1:
            raise ConfigError(f"--frames {self.frames}: at least one frame is needed")
        if self.repeats < 1:
            raise ConfigError(f"--repeats {self.repeats}: each stage must be run at least once")
        check_output(self.out, inputs=(self.src_video, self.drv_aud), flag="--out", example="benchmark.json")


def run_benchmark(options: BenchmarkOptions, progress: Progress) -> Benchmark:
    """Time every stage.

    Raises:
        GeneFaceError: an input cannot be used, or CUDA was asked for and there is none.
    """
    machine = Machine.here()
    devices = _devices(options.device)
    scene = open_scene(options.src_video, options.drv_aud, options.head_ckpt, options.frames, progress)
    stages = stages_of(scene, devices)
    steps, total = itertools.count(1), len(stages) * (options.repeats + 1)
    timings = tuple(
        measure(stage, options.repeats, lambda: progress("benchmark", next(steps), total)) for stage in stages
    )
    info = scene.source.info
    return Benchmark(
        command=options.command,
        machine=machine,
        src_video=options.src_video,
        drv_aud=options.drv_aud,
        head_ckpt=options.head_ckpt,
        frame_size=(info.width, info.height),
        frame_rate=float(info.frame_rate),
        face_px=round(scene.source.face_height_px, 1),
        speech_s=round(scene.speech.duration_s, 2),
        repeats=options.repeats,
        timings=timings,
    )


def _devices(name: DeviceName) -> tuple[torch.device, ...]:
    """Where stages that can run on either device are timed; the CPU first."""
    picked = pick_device(name)
    cpu = torch.device("cpu")
    return (cpu, picked) if name == "auto" and picked.type != "cpu" else (picked,)


def measure(stage: Stage, repeats: int, tick: Callable[[], object]) -> StageTiming:
    """Load and run a stage once with an eye on memory, then time ``repeats`` runs; ``tick`` is called after each."""
    is_cuda = stage.device.type == "cuda"
    settle = torch.cuda.synchronize if is_cuda else None
    release_free_memory()
    with PeakMemory() as memory, _CudaMemory(stage.device) as cuda_memory:
        run = stage.open()
        run()
        if settle is not None:
            settle()
    tick()
    seconds: list[float] = []
    for taken in timed_runs(run, repeats, settle=settle):
        seconds.append(taken)
        tick()
    spread = Spread.of(seconds)
    return StageTiming(
        name=stage.name,
        device=stage.device.type.upper(),
        frames=stage.frames,
        covers=stage.covers,
        ms_per_frame=spread.scaled(1000 / stage.frames),
        ms_per_second=spread.scaled(1000 / stage.sound_s) if stage.sound_s else None,
        memory_mib=_mib(memory.rise_bytes),
        cuda_memory_mib=_mib(cuda_memory.rise_bytes),
    )


class _CudaMemory:
    """``PeakMemory`` of what torch holds on a GPU, exactly; ``rise_bytes`` stays None on another device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._first = 0
        self.rise_bytes: int | None = None

    def __enter__(self) -> _CudaMemory:
        if self._device.type == "cuda":
            torch.cuda.init()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
            self._first = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._device.type == "cuda":
            self.rise_bytes = torch.cuda.max_memory_allocated(self._device) - self._first


def _mib(size: int | None) -> float | None:
    return None if size is None else round(size / MIB, 1)


def parse_arguments(argv: Sequence[str] | None = None) -> BenchmarkOptions:
    """The command line as options.

    Raises:
        GeneFaceError: a flag is wrong or an input is missing.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    default = BenchmarkOptions.__dataclass_fields__
    parser = CommandParser(description="Time every stage of the pipeline per frame.", allow_abbrev=False)
    for flag, kind, text in (
        ("src_video", Path, "the video to work on (default: the demo's)"),
        ("drv_aud", Path, "the speech (default: the demo's)"),
        ("head_ckpt", Path, "the person to render (default: the demo's)"),
        ("frames", int, "frames per run (default: 100)"),
        ("repeats", int, f"measured runs of each stage, at least {LEAST_REPEATS}, the default"),
        ("out", Path, "the JSON file (default: out/benchmark.json)"),
    ):
        parser.add_argument(f"--{flag}", type=kind, default=default[flag].default, help=text)
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: the CPU, and CUDA too where it is there",
    )
    given = vars(parser.parse_args(argv))
    if given["repeats"] < LEAST_REPEATS:
        raise ConfigError(f"--repeats {given['repeats']}: a median needs at least {LEAST_REPEATS} runs")
    return BenchmarkOptions(**given, command=shlex.join(["bash", "scripts/benchmark.sh", *argv]))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return exit_status(lambda: measure_gpu(argv) if "--gpu" in argv else _measure(argv))


def _measure(argv: Sequence[str]) -> None:
    options = parse_arguments(argv)
    found = run_benchmark(options, ConsoleProgress())
    write_json(found, options.out)
    logger.info("benchmark\n%s", report(found))
    logger.info("result: %s", options.out)


if __name__ == "__main__":
    raise SystemExit(main())
