"""The original's own work on one GPU: 512 × 512 frames of a head of GeneFace++'s sizes through the occupancy grid."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from inference.benchmark_gpu.row import GpuRow
from modules.commons.progress import Progress
from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import RADNeRFConfig, RenderConfig
from modules.radnerfs.frame_renderer import FrameBatch, FrameRenderer
from modules.radnerfs.occupancy_grid import all_cells, cell_centres
from modules.radnerfs.packed_field import layer_weights
from modules.radnerfs.radnerf import RADNeRF
from modules.radnerfs.rays import pixel_centres, pixel_rays
from modules.radnerfs.renderer import render_occupancy

TABLE = "Same work as the original (8.0 ms per frame with its own CUDA extensions on an H100)"
SIZE = 512
FOVY_RAD = math.radians(21.24)
CAMERA_DISTANCE = 3.35
BALL_RADIUS = 0.4
DENSITY_FACTOR = 100.0
T_THRESH = 0.01
BATCH = 8
REPEATS = 200
SLOW_REPEATS = 5
CORNER_BYTES = 4
"""Two half-precision features."""


def rows(device: torch.device, progress: Progress) -> list[GpuRow]:
    """Measure one frame at a time and batches of eight, and the same frame op by op."""
    torch.cuda.reset_peak_memory_stats(device)
    field, scene = ball_head(device), Scene(device)
    renderer = FrameRenderer(field, SIZE, SIZE, t_thresh=T_THRESH)
    progress("same work", 0, 4)
    one = _median_ms(lambda index: renderer.render(scene.batch(index, 1)), REPEATS)
    n_samples = renderer.render(scene.batch(0, 1)).n_samples()
    progress("same work", 1, 4)
    eight = _median_ms(lambda index: renderer.render(scene.batch(index, BATCH)), REPEATS // BATCH)
    memory = torch.cuda.max_memory_allocated(device) / 1e9
    found = [
        _row("one frame, waited for", one, "<= 0.5", f"{n_samples} field samples a frame, {SIZE} x {SIZE} rays"),
        _row(
            f"a frame in batches of {BATCH}", tuple(v / BATCH for v in eight), "<= 0.5", f"{REPEATS // BATCH} batches"
        ),
        *_ceilings(field, n_samples, eight[0] / BATCH, device),
        GpuRow(TABLE, "peak GPU memory", memory, "GB", "<= 2", detail=f"batches of 1 and of {BATCH}"),
    ]
    for number, backend in enumerate(("triton", "torch")):
        progress("same work", 2 + number, 4)
        field.backend = get_backend(backend, device)
        for encoder in (field.position_embedder, field.ambient_embedder, field.view_embedder):
            encoder.backend = field.backend
        slow = _median_ms(lambda index: _op_by_op(field, scene, index), SLOW_REPEATS)
        found.append(_row(f"one frame, op by op, backend {backend}", slow, "", "float32, a kernel per operation"))
    progress("same work", 4, 4)
    return found


def ball_head(device: torch.device) -> RADNeRF:
    """A head of the original's sizes with fresh weights, seeded; occupied is a ball."""
    config = RADNeRFConfig(render=RenderConfig(density_scale=DENSITY_FACTOR))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = RADNeRF(config, get_backend("torch"))
    field = field.to(device).eval()
    grid_size = config.render.grid_size
    centres = cell_centres(all_cells(grid_size, device, field.backend), grid_size, config.bound)
    inside = (centres.norm(dim=1) < BALL_RADIUS).float()
    field.density_bitfield.copy_(field.backend.pack_bits(inside, 0.5))
    return field


class Scene:
    """The camera, a background, and random conditions on the GPU."""

    def __init__(self, device: torch.device) -> None:
        focal = SIZE / 2 / math.tan(FOVY_RAD / 2)
        self.camera = torch.tensor([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1]], device=device)
        self.pose = torch.tensor(
            [[1.0, 0, 0, 0], [0, 0, 1, -CAMERA_DISTANCE], [0, -1, 0, 0], [0, 0, 0, 1]], device=device
        )
        generator = torch.Generator(device).manual_seed(0)
        self.windows = torch.randn(64, 5, 1, 204, generator=generator, device=device)
        self.codes = 0.1 * torch.randn(4, generator=generator, device=device)
        self.background = torch.rand(SIZE, SIZE, 3, generator=generator, device=device)
        self.cameras, self.poses = self.camera.repeat(BATCH, 1, 1), self.pose.repeat(BATCH, 1, 1)

    def batch(self, index: int, count: int) -> FrameBatch:
        """Frames with the ``index``-th conditions."""
        first = index * count % (len(self.windows) - count)
        return FrameBatch(
            self.windows[first : first + count], self.codes, self.background, self.cameras[:count], self.poses[:count]
        )


@torch.no_grad()
def _op_by_op(field: RADNeRF, scene: Scene, index: int) -> Tensor:
    rays = pixel_rays(pixel_centres(SIZE, SIZE, scene.pose.device), scene.camera, scene.pose)
    feature = field.encode_condition(scene.windows[index])
    background = scene.background.view(-1, 3)
    return render_occupancy(
        field, rays, feature, scene.codes, background, training=False, t_thresh=T_THRESH
    ).rgb  # fmt: skip


def _median_ms(work: Callable[[int], object], repeats: int) -> tuple[float, float, float]:
    """Median, least and greatest wall clock of a call that is waited for, ms; after three calls that do not count."""
    for index in range(3):
        work(index)
    torch.cuda.synchronize()
    times = []
    for index in range(repeats):
        start = time.perf_counter()
        work(index)
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times)), min(times), max(times)


def _row(what: str, times: tuple[float, ...], goal: str, detail: str) -> GpuRow:
    return GpuRow(TABLE, what, times[0], "ms", goal, (times[1], times[2]), detail)


def _ceilings(field: RADNeRF, n_samples: int, frame_ms: float, device: torch.device) -> list[GpuRow]:
    """Operations and table reads of a frame beside what the GPU was measured to do."""
    nets = (field.ambient_net, field.sigma_net, field.color_net)
    flop = 2.0 * sum(weight.numel() for net in nets for weight in layer_weights(net))
    corners = sum(len(e.levels.scales) << e.levels.n_dims for e in (field.position_embedder, field.ambient_embedder))
    peak_tflops, peak_tbs = _matmul_tflops(device), _copy_tbs(device)
    tflops = flop * n_samples / frame_ms / 1e9
    tbs = corners * CORNER_BYTES * n_samples / frame_ms / 1e9
    arithmetic = (
        f"{flop * n_samples / 1e9:.1f} GFLOP a frame, {tflops / peak_tflops:.0%} of the {peak_tflops:.0f} TFLOP/s of a "
        "large half-precision product"
    )
    reads = (
        f"{corners * CORNER_BYTES * n_samples / 1e6:.0f} MB a frame in 4-byte pieces, from caches; copying memory "
        f"reaches {peak_tbs:.2f} TB/s"
    )
    return [
        GpuRow(TABLE, "network arithmetic", tflops, "TFLOP/s", detail=arithmetic),
        GpuRow(TABLE, "table reads", tbs, "TB/s", detail=reads),
    ]


def _matmul_tflops(device: torch.device) -> float:
    size = 8192
    a = torch.randn(size, size, device=device, dtype=torch.float16)
    return 2 * size**3 / _median_ms(lambda _: a @ a, 10)[0] / 1e9


def _copy_tbs(device: torch.device) -> float:
    source = torch.zeros(1 << 28, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / _median_ms(lambda _: target.copy_(source), 10)[0] / 1e9
