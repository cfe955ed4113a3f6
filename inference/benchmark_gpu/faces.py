"""How many faces of a 512 crop a GPU paints in a second, step by step, and what that work consists of."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.benchmark_gpu.row import GpuRow
from modules.commons.progress import Progress
from modules.commons.workspace import EGS, FACE_MODEL_FILE, IDENTITIES
from modules.face_model.model import FaceModel
from modules.radnerfs.config import RADNeRFConfig
from modules.radnerfs.patch_graphs import upload
from modules.radnerfs.patch_renderer import PatchRenderer, frame_tensors
from modules.radnerfs.person import PersonField, single_code
from modules.radnerfs.surface_batch import FaceFrames
from modules.structures.cameras import CameraIntrinsics
from tasks.configs import RADNeRFTaskConfig, load_any
from tasks.radnerfs.radnerf import load_person

TABLE = "faces of a 512 crop"
CROP_PX = 512
FRAMES = 256
BATCHES = (32, 8, 1)
WARM_UPS = 3
REPEATS = 5
STEP_REPEATS = 10
GOAL_FPS, GOAL_GB = ">= 1500", "<= 2"
REGION = "lower_face"
PIXEL_BYTES = 340
"""Read and written per padded pixel outside the field: every array once per kernel, neighbours from the cache."""
CEILINGS = "an H100 has 989 TFLOP/s (half precision) and 3350 GB/s"


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """A person and what is painted of them."""

    name: str
    person: PersonField
    renderer: PatchRenderer
    frames: FaceFrames
    windows: Tensor


def rows(device: torch.device, progress: Progress) -> list[GpuRow]:
    """The lines of the table.

    Args:
        device: CUDA.
        progress: told about the people.

    Raises:
        CheckpointError: the demo's person or the face model is missing.
    """
    face_model = FaceModel.load(FACE_MODEL_FILE)
    demo = load_person(IDENTITIES / "demo", device)[0]
    large = large_person(face_model, device)
    result = []
    for number, (name, person) in enumerate((("fast.yaml", large), ("demo", demo))):
        progress("faces", number, 2)
        model = face_model.corrected(person.correction)
        frames, windows = smooth_motion(model, person.identity.cpu().numpy(), FRAMES, person.config.smo_win_size)
        result += _rows_of(_Case(name, person, PatchRenderer(person, model), frames, windows))
    progress("faces", 2, 2)
    return result


def large_person(face_model: FaceModel, device: torch.device) -> PersonField:
    """A person of the sizes in ``fast.yaml`` with random weights, believed everywhere."""
    config = load_any(EGS / "egs_bases" / "radnerf" / "fast.yaml", {})
    assert isinstance(config, RADNeRFTaskConfig)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        person = PersonField(single_code(config.radnerf), face_model.n_identity, 2)
        with torch.no_grad():
            person.radnerf.position_embedder.embeddings.uniform_(-1, 1)
            person.radnerf.ambient_embedder.embeddings.uniform_(-1, 1)
    inside = face_model.canonical_vertices[face_model.region_weights[REGION] > 0]
    low, high = inside.amin(dim=0), inside.amax(dim=0)
    person.box_center.copy_((low + high) / 2)
    person.box_scale.copy_(1.8 / (high - low).max())
    person.trust.fill_(255)
    person.best_view.fill_(200)
    person.sharpen_share.fill_(0.45)
    return person.to(device).eval()


def smooth_motion(face_model: FaceModel, identity: np.ndarray, count: int, window: int) -> tuple[FaceFrames, Tensor]:
    """A head that sways in front of the crop's camera and speaks, and conditions ``[count, window, 204]``."""
    time_s = np.arange(count, dtype=np.float32)[:, None] / 25
    expression = np.zeros((count, face_model.n_expression), np.float32)
    expression[:, face_model.unit("jawOpen")] = 0.35 + 0.35 * np.sin(2 * np.pi * 4 * time_s[:, 0])
    euler = np.array([0.08, 0.2, 0.05], np.float32) * np.sin(2 * np.pi * time_s * [0.31, 0.23, 0.17])
    translation = np.array([0.05, 0.04, 0.1], np.float32) * np.sin(2 * np.pi * time_s * [0.29, 0.37, 0.11])
    cameras = np.broadcast_to(CameraIntrinsics.geneface(CROP_PX).matrix(), (count, 3, 3))
    frames = FaceFrames(
        identity, expression, euler.astype(np.float32), translation.astype(np.float32), cameras, (CROP_PX, CROP_PX),
        np.roll(expression, 3, axis=0),
    )  # fmt: skip
    return frames, torch.randn(count, window, 204, generator=torch.Generator().manual_seed(2))


def field_flops(config: RADNeRFConfig) -> int:
    """Multiplications and additions of a sample's matrices, without what is constant per frame or density alone."""
    position, ambient = config.position_grid.width, config.ambient_grid.width

    def layers(first: int, hidden: int, count: int, last: int) -> int:
        return first * hidden + (count - 2) * hidden * hidden + hidden * last

    products = layers(position, config.hidden_dim_ambient, config.num_layers_ambient, config.ambient_dim)
    products += layers(position + ambient, config.hidden_dim_sigma, config.num_layers_sigma, config.hidden_dim_color)
    products += layers(config.sh_degree**2, config.hidden_dim_color, config.num_layers_color, 3)
    return 2 * products


def grid_bytes(config: RADNeRFConfig) -> int:
    """Bytes a sample gathers from both grids' half-precision tables."""
    corners = config.position_grid.n_levels * 8 + config.ambient_grid.n_levels * 2**config.ambient_dim
    return corners * 4


def _rows_of(case: _Case) -> list[GpuRow]:
    torch.cuda.reset_peak_memory_stats(case.person.device)
    before = torch.cuda.memory_allocated(case.person.device)
    result = [_speed_row(case, size) for size in BATCHES]
    peak = torch.cuda.max_memory_reserved(case.person.device) / 1e9
    result.append(_latency_row(case))
    result += _step_rows(case, BATCHES[0])
    detail = f"{before / 1e9:.2f} GB of it before the first frame"
    return [*result, GpuRow(TABLE, f"{case.name}: peak memory", peak, "GB", GOAL_GB, detail=detail)]


def _speed_row(case: _Case, size: int) -> GpuRow:
    parts = [np.arange(start, start + size) for start in range(0, FRAMES - size + 1, size)]

    def paint() -> None:
        for part in parts:
            case.renderer.render(case.frames.rows(part), case.windows[torch.from_numpy(part)], REGION)

    times = _timed(paint, case.person.device)
    rates = sorted(len(parts) * size / t for t in times)
    what = f"{case.name}: batches of {size}"
    detail = f"{FRAMES} frames, poses and mouths all different, wall clock with the CPU's part"
    return GpuRow(TABLE, what, statistics.median(rates), "frames/s", GOAL_FPS, (rates[0], rates[-1]), detail)


def _latency_row(case: _Case) -> GpuRow:
    device, waits = case.person.device, []
    for row in range(FRAMES):
        part = np.array([row])
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        case.renderer.render(case.frames.rows(part), case.windows[row : row + 1], REGION)
        torch.cuda.synchronize(device)
        waits.append((time.perf_counter() - start) * 1e3)
    spread = float(np.percentile(waits, 5)), float(np.percentile(waits, 95))
    detail = "from coefficients to a patch on the GPU; spread is 5 to 95 % of the frames"
    return GpuRow(TABLE, f"{case.name}: one frame", statistics.median(waits), "ms", "", spread, detail)


def _step_rows(case: _Case, size: int) -> list[GpuRow]:
    """Time of each step on the GPU, and what the batch consists of."""
    part = np.arange(size)
    (batch, *_) = case.renderer.batches(case.frames.rows(part), case.windows[:size], REGION)
    inputs = upload(batch.arrays, case.person.device)
    times: dict[str, list[float]] = {}
    with torch.no_grad():
        for _ in range(WARM_UPS + STEP_REPEATS):
            _time_steps(case, batch.face, inputs, batch.shape, times)
        painting = case.renderer.prepare(batch.face, frame_tensors(inputs), batch.shape)
    medians = {name: statistics.median(values[WARM_UPS:]) for name, values in times.items()}
    total, count = sum(medians.values()), len(batch.rows)
    result = [
        GpuRow(TABLE, f"{case.name}: {name}", t / count, "ms/frame", detail=f"{t / total:.0%} of the GPU's time")
        for name, t in medians.items()
    ]
    samples = int(painting.samples.count[0]) if painting.samples.count is not None else len(painting.samples.frame)
    window = batch.shape.height * batch.shape.width
    return [*result, *_work_rows(case, samples / count, window, medians["shading"] / count, total / count)]


def _time_steps(case: _Case, face: object, inputs: dict, shape: object, times: dict[str, list[float]]) -> None:
    marks: list[tuple[str, torch.cuda.Event]] = []

    def mark(step: str) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        marks.append((step, event))

    # a long kernel first: the CPU queues all that follows while it runs, so its own speed does not show
    torch.cuda._sleep(20_000_000)
    mark("start")
    case.renderer.paint(face, frame_tensors(inputs), inputs["windows"], shape, mark)  # pyright: ignore[reportArgumentType]
    torch.cuda.synchronize(case.person.device)
    for (_, begin), (step, end) in zip(marks, marks[1:], strict=False):
        times.setdefault(step, []).append(begin.elapsed_time(end))


def _work_rows(case: _Case, samples: float, window: int, shading_ms: float, total_ms: float) -> list[GpuRow]:
    config = case.person.config
    flops = samples * field_flops(config)
    gathered, moved = samples * grid_bytes(config), window * PIXEL_BYTES
    rate = f"{flops / shading_ms / 1e9:.0f} TFLOP/s and {gathered / shading_ms / 1e6:.0f} GB/s gathered; {CEILINGS}"
    return [
        GpuRow(TABLE, f"{case.name}: samples", samples, "per frame", detail=f"windows of {window} px"),
        GpuRow(TABLE, f"{case.name}: matrix products", flops / 1e9, "GFLOP/frame", detail=rate),
        GpuRow(
            TABLE, f"{case.name}: pixels' traffic", moved / 1e6, "MB/frame",
            detail=f"{moved / (total_ms - shading_ms) / 1e6:.0f} GB/s outside the field; all steps {total_ms:.3f} ms",
        ),
    ]  # fmt: skip


def _timed(work: Callable[[], None], device: torch.device) -> Sequence[float]:
    """Seconds of each of some repeats, after warming up."""
    times = []
    for repeat in range(WARM_UPS + REPEATS):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        torch.cuda.synchronize(device)
        if repeat >= WARM_UPS:
            times.append(time.perf_counter() - start)
    return times
