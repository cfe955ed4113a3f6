"""How fast a GPU trains a person: steps per second at GeneFace++'s sizes, and the curve of a prepared clip."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from inference.benchmark_gpu.row import GpuRow
from inference.prepared import open_source, prepare_training
from modules.commons.errors import CheckpointError, VideoReadError
from modules.commons.progress import Progress
from modules.commons.workspace import DEMO_VIDEO, EGS, FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import RADNeRFConfig, RenderConfig
from modules.radnerfs.person import PersonField
from modules.radnerfs.trust import CELLS
from modules.structures.dataset import NeRFDataset, last_eleventh
from tasks.configs import PlateauConfig, RADNeRFTaskConfig, load_any
from tasks.distributed import Ranks
from tasks.radnerfs.dataset_utils import RADNeRFDataset
from tasks.radnerfs.engine import TrainingEngine
from tasks.radnerfs.plateau import HeldOutRays, held_out_rays
from tasks.radnerfs.radnerf import RADNeRFTask
from tasks.radnerfs.ray_table import RayGroup, RayTable

TABLE = "training"
PRESET = EGS / "egs_bases" / "radnerf" / "fast.yaml"
RAYS_PER_STEP = 65536
SYNTHETIC_FRAMES = 400
SYNTHETIC_RAYS_PER_FRAME = 20000
TIMED_STEPS = 200
REPEATS = 3
LOOK_EVERY = 100
NEAR_FINAL_DB = 0.5


def rows(device: torch.device, progress: Progress, dataset_file: Path | None = None) -> list[GpuRow]:
    """The training lines of the GPU tables.

    Args:
        device: CUDA.
        progress: told about the parts.
        dataset_file: a prepared clip's ``trainval_dataset.npz``; None takes the demo, prepared at first use.

    Raises:
        GeneFaceError: the file given does not exist or is no prepared clip; the demo is not there.
    """
    result = []
    for done, n_samples in enumerate((1, 2)):
        result.append(speed_row(device, n_samples))
        progress("training speed", done + 1, 2)
    return result + curve_rows(dataset_file or prepared_demo(progress), device, progress)


def prepared_demo(progress: Progress) -> Path:
    """The demo's training frames; its video is prepared when it is not yet.

    Raises:
        GeneFaceError: the video is not there or cannot be used.
    """
    if not DEMO_VIDEO.is_file():
        raise VideoReadError(f"{DEMO_VIDEO}: there is no such video; fetch the demo with scripts/setup.sh")
    source = open_source(DEMO_VIDEO, progress)
    prepare_training(source, progress)
    return source.workspace.dataset


def speed_row(device: torch.device, n_samples: int) -> GpuRow:
    """Steps per second at GeneFace++'s network sizes, median of ``REPEATS``."""
    engine = synthetic_engine(device, n_samples)
    _forget_peak(device)
    rates = sorted(steps_per_second(engine, TIMED_STEPS) for _ in range(REPEATS))
    return GpuRow(
        TABLE,
        f"steps of {RAYS_PER_STEP} rays, {n_samples} sample{'s' if n_samples > 1 else ''} each, GeneFace++'s sizes",
        rates[REPEATS // 2],
        "steps/s",
        ">= 150" if n_samples == 1 else "",
        (rates[0], rates[-1]),
        f"{engine.precision}, backend {engine.person.radnerf.backend.name}, peak memory {_peak_gb(device):.2f} GB",
    )


def synthetic_engine(device: torch.device, n_samples: int, **changes: object) -> TrainingEngine:
    """An engine of GeneFace++'s network sizes over random rays; ``changes`` go into the task's configuration."""
    random = torch.Generator().manual_seed(0)
    radnerf = RADNeRFConfig(
        individual_embedding_num=SYNTHETIC_FRAMES, render=RenderConfig(sampler="surface", n_samples=n_samples)
    )
    config = RADNeRFTaskConfig(rays_per_step=RAYS_PER_STEP, rays_per_frame=256, max_updates=4000, radnerf=radnerf)
    config = replace(config, **changes)
    count = SYNTHETIC_FRAMES * SYNTHETIC_RAYS_PER_FRAME
    starts = torch.arange(SYNTHETIC_FRAMES + 1) * SYNTHETIC_RAYS_PER_FRAME
    numbers = [torch.randint(-30000, 30000, (count, 3), generator=random, dtype=torch.int16) for _ in range(2)]
    rays = RayTable(
        position=numbers[0],
        direction=numbers[1],
        rgb=torch.randint(0, 255, (count, 3), generator=random, dtype=torch.uint8),
        pixel=torch.zeros(count, 2, dtype=torch.int16),
        starts=starts,
        row=torch.arange(SYNTHETIC_FRAMES),
        mouth=RayGroup.where(torch.arange(count) % 4 == 0, starts),
        eyes=RayGroup.where(torch.zeros(count, dtype=torch.bool), starts),
        best_view=torch.zeros(CELLS, CELLS, CELLS, dtype=torch.uint8),
    )
    torch.manual_seed(0)
    person = PersonField(config.radnerf, 80, 1, None, get_backend(config.backend, device)).to(device)
    windows = torch.randn(SYNTHETIC_FRAMES, radnerf.smo_win_size, radnerf.cond_in_dim, generator=random)
    return TrainingEngine(config, person, rays.to(device), windows.to(device), 100.0, Ranks())


def steps_per_second(engine: TrainingEngine, steps: int) -> float:
    """Rate of ``steps`` steps, after some that warm up and record."""
    for _ in range(10):
        engine.step()
    _wait(engine.device)
    began_s = time.perf_counter()
    for _ in range(steps):
        engine.step()
    _wait(engine.device)
    return steps / (time.perf_counter() - began_s)


@dataclass(frozen=True, slots=True)
class Curve:
    """Held-out PSNR while training.

    Attributes:
        cast_s: time until all rays lay on the GPU.
        seconds, psnr: of training, and dB then.
        peak_gb: most GPU memory.
    """

    cast_s: float
    seconds: list[float]
    psnr: list[float]
    peak_gb: float

    @property
    def near_final_s(self) -> float:
        """When the curve first came within ``NEAR_FINAL_DB`` of its last value."""
        return next(
            s for s, value in zip(self.seconds, self.psnr, strict=True) if value > self.psnr[-1] - NEAR_FINAL_DB
        )


def training_curve(dataset_file: Path, device: torch.device, config: RADNeRFTaskConfig, progress: Progress) -> Curve:
    """Train on the first 10/11 of a clip, looking at the rest every ``LOOK_EVERY`` steps; looks are not counted.

    Raises:
        CheckpointError: the file does not exist or is no prepared clip.
    """
    _forget_peak(device)
    began_s = time.perf_counter()
    dataset = open_clip(dataset_file, config, progress)
    task = RADNeRFTask(config, dataset, device)
    _wait(device)
    cast_s = time.perf_counter() - began_s
    rays = held_out_rays(dataset, PlateauConfig(), device)
    if rays is None:
        raise CheckpointError(f"{dataset_file} holds out no frame that shows the face; prepare a longer clip")
    seconds, values = _follow(task, rays, progress)
    return Curve(cast_s, seconds, values, _peak_gb(device))


def _follow(task: RADNeRFTask, rays: HeldOutRays, progress: Progress) -> tuple[list[float], list[float]]:
    spent_s, seconds, values = 0.0, [], []
    for start in range(0, task.config.max_updates, LOOK_EVERY):
        began_s = time.perf_counter()
        for step in range(start, min(start + LOOK_EVERY, task.config.max_updates)):
            task.training_step(step)
        _wait(task.device)
        spent_s += time.perf_counter() - began_s
        seconds.append(spent_s)
        values.append(rays.psnr(task.engine))
        progress("training curve", start + LOOK_EVERY, task.config.max_updates)
    return seconds, values


def open_clip(dataset_file: Path, config: RADNeRFTaskConfig, progress: Progress) -> RADNeRFDataset:
    """A prepared clip whose last eleventh is held out.

    Raises:
        CheckpointError: the file does not exist or is no prepared clip.
    """
    try:
        source = NeRFDataset.load(dataset_file)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{dataset_file} is no prepared clip ({error}); prepare the video first") from error
    is_train = last_eleventh(len(source.coeffs)).is_train[source.rows]
    return RADNeRFDataset(
        replace(source, is_train=is_train),
        FaceModel.load(FACE_MODEL_FILE),
        region=config.data.region,
        margin_px=round(config.data.margin_share * source.crop_size),
        window=config.radnerf.smo_win_size,
        ray_stride=config.data.ray_stride,
        progress=progress,
    )


def curve_rows(dataset_file: Path, device: torch.device, progress: Progress) -> list[GpuRow]:
    """What the ``fast`` preset reaches on a clip, and when."""
    config = load_any(PRESET, {"device": device.type})
    curve = training_curve(dataset_file, device, config, progress)
    name = dataset_file.parent.name
    points = ", ".join(f"{s:.1f} s {value:.2f} dB" for s, value in _some(curve))
    return [
        GpuRow(TABLE, f"{name}: casting all frames", curve.cast_s, "s", "", None, f"{os.cpu_count()} CPU cores"),
        GpuRow(TABLE, f"{name}: whole training", curve.seconds[-1], "s", "<= 60", None, points),
        GpuRow(TABLE, f"{name}: held-out rays at the end", curve.psnr[-1], "dB"),
        GpuRow(TABLE, f"{name}: within {NEAR_FINAL_DB} dB of the end", curve.near_final_s, "s", "<= 90"),
        GpuRow(TABLE, f"{name}: peak GPU memory", curve.peak_gb, "GB", "<= 6"),
    ]


def _some(curve: Curve, count: int = 8) -> list[tuple[float, float]]:
    chosen = np.unique(np.geomspace(1, len(curve.psnr), count).round().astype(int)) - 1
    return [(curve.seconds[i], curve.psnr[i]) for i in chosen]


def _wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gb(device: torch.device) -> float:
    """Most memory of a GPU since ``_forget_peak``; 0 on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
