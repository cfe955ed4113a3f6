"""Time the pass that finds what stands before a face, on the CPU's arrays and on a GPU, over a prepared video.

    bash scripts/time_occlusion.sh VIDEO --data_root DIR --first 100 --frames 96 --device cuda

Reads the tables that ``process_video`` left up to the stage ``fit``; keeps nothing. The expected face is made before
and not counted. Only one thread of OpenCV and of torch is used, so that the figures are of one core, but for the few
threads that a GPU's pass has of its own.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that this file runs as a script from anywhere

from data_gen.runs.judged_clip import JudgedClip, learnt_face  # noqa: E402
from data_gen.runs.process_config import OcclusionStageConfig  # noqa: E402
from data_gen.utils.evaluate_occlusion.cost import PassCost, pass_costs  # noqa: E402
from modules.commons.command import exit_status  # noqa: E402
from modules.commons.device import pick_device  # noqa: E402
from modules.commons.errors import ConfigError  # noqa: E402
from modules.commons.machine import Machine  # noqa: E402
from modules.commons.workspace import VideoWorkspace  # noqa: E402

logger = logging.getLogger("time_occlusion")


@dataclass(frozen=True, slots=True)
class TimeOcclusionOptions:
    """What is timed.

    Attributes:
        video: a prepared one. data: root of prepared videos.
        first: first frame. frames: how many, at most.
        device: "cpu" = arrays alone, "cuda" = a GPU beside them.
        repeats: runs of each; the fastest counts.
    """

    video: Path
    data: Path
    first: int = 0
    frames: int = 96
    device: str = "cpu"
    repeats: int = 3

    def __post_init__(self) -> None:
        if self.first < 0 or self.frames < 1 or self.repeats < 1:
            raise ConfigError("--first must be at least 0, --frames and --repeats at least 1")


def time_occlusion(options: TimeOcclusionOptions) -> list[PassCost]:
    """The costs, arrays first.

    Raises:
        GeneFaceError: the video was not prepared, or there is no such device.
    """
    devices = [] if options.device == "cpu" else [pick_device("cuda")]
    workspace = VideoWorkspace(options.video.stem, options.data)
    if not workspace.hands.is_file():
        raise ConfigError(f"{options.video}: is not prepared below {options.data}; run data_gen/runs/process_video.py")
    try:
        clip = JudgedClip.open(options.video, workspace, OcclusionStageConfig())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{options.video}: {error}; run data_gen/runs/process_video.py again") from error
    with tempfile.TemporaryDirectory() as folder:
        face = learnt_face(clip, Path(folder) / "appearance.npz")
    last = min(options.first + options.frames, len(clip.tables.landmarks))
    crops = list(clip.crops(np.arange(options.first, last)))
    if not crops:
        raise ConfigError(f"--first {options.first}: the video has only {len(clip.tables.landmarks)} frames")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    return pass_costs(crops, clip.tables, face, clip.config.judge, clip.hints(), devices, options.repeats)


def parse_arguments(argv: Sequence[str] | None = None) -> TimeOcclusionOptions:
    """The command line as options.

    Raises:
        GeneFaceError: a value is wrong.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("video", type=Path, help="a prepared video")
    parser.add_argument(
        "--data_root", dest="data", type=Path, default=ROOT / "data", help="root of prepared videos (default: data/)"
    )
    parser.add_argument("--first", type=int, default=0, help="first frame (default: 0)")
    parser.add_argument("--frames", type=int, default=96, help="how many frames (default: 96)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda = a GPU besides")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; the fastest counts (default: 3)")
    return TimeOcclusionOptions(**vars(parser.parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    return exit_status(lambda: _time(argv))


def _time(argv: Sequence[str] | None) -> None:
    costs = time_occlusion(parse_arguments(argv))
    machine = Machine.here()
    logger.info("%s, %d cores, %s", machine.cpu, machine.cores, machine.gpu or "no GPU")
    for cost in costs:
        logger.info("%s", cost)


if __name__ == "__main__":
    raise SystemExit(main())
