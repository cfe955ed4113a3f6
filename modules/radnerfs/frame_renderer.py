"""Whole frames of an occupancy field on the GPU: several at once, no waiting for the GPU, one CUDA graph per shape."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from modules.commons.errors import BackendUnavailableError
from modules.radnerfs.occupancy_grid import all_cells
from modules.radnerfs.packed_condition import PackedCondition
from modules.radnerfs.packed_field import FrameTerms, PackedField
from modules.radnerfs.radnerf import RADNeRF
from modules.radnerfs.rays import RayBundle
from modules.radnerfs.renderer import march_config

MOST_FRAMES = 8
"""Frames of one batch; their constant parts share one product of the tensor cores."""
MOST_STEPS = 62


@dataclass(frozen=True, slots=True, eq=False)
class FrameBatch:
    """What ``F`` frames show, 1..8 of them. Tensors may lie anywhere; those on the GPU cost no waiting.

    Attributes:
        windows: ``[F, W, time, C]`` raw condition windows.
        codes: ``[D]`` or ``[F, D]`` appearance codes.
        background: ``[3]``, ``[H, W, 3]`` or ``[F, H, W, 3]`` colour behind the head, 0..1.
        image_from_camera: ``[F, 3, 3]`` camera matrices (rotation allowed) with ``world_from_camera`` ``[F, 4, 4]``.
        rays: ``F * H * W`` rays, frame after frame and row after row, instead of cameras.
        mask: bool ``[F, H, W]``: only these pixels are rendered, the others show the background; None = all.
        eye_areas: ``[F]`` eye openings of fields with a blink encoder; None counts as 0.
    """

    windows: Tensor
    codes: Tensor
    background: Tensor
    image_from_camera: Tensor | None = None
    world_from_camera: Tensor | None = None
    rays: RayBundle | None = None
    mask: Tensor | None = None
    eye_areas: Tensor | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.windows) <= MOST_FRAMES:
            raise ValueError(f"a batch holds 1 to {MOST_FRAMES} frames, got {len(self.windows)}")
        has_camera = self.image_from_camera is not None and self.world_from_camera is not None
        if has_camera == (self.rays is not None):
            raise ValueError("a batch needs either cameras (both matrices) or rays")


@dataclass(frozen=True, slots=True, eq=False)
class RenderedFrames:
    """Rendered frames, in memory that the renderer's next batch of the same shape overwrites.

    Attributes:
        rgb: ``[F, H, W, 3]`` 0..1, or 0..255 for uint8, background included.
        opacity: ``[F, H, W]`` 0..1. depth: ``[F, H, W]`` 0..1 from where the ray enters the box to where it leaves.
        counters: int32; ``n_samples`` reads them.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    counters: Tensor

    def n_samples(self) -> int:
        """Field samples that were evaluated; waits for the GPU."""
        from modules.radnerfs.backends.triton_kernels.frame import SAMPLED

        return int(self.counters[SAMPLED.value])

    def __repr__(self) -> str:
        return f"RenderedFrames(shape={tuple(self.rgb.shape)}, dtype={self.rgb.dtype})"


class FrameRenderer:
    """Renders frames of one size as ``render_occupancy(training=False)`` does, in half precision.

    It keeps a copy of the field and its occupancy: make a new one after training on. Each combination of batch size,
    cameras or rays, mask and kind of background is captured as a CUDA graph when it first comes.
    """

    def __init__(
        self,
        field: RADNeRF,
        height: int,
        width: int,
        *,
        t_thresh: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Pack a field.

        Args:
            field: on a CUDA device, with occupancy buffers (``sampler: occupancy``).
            height: of the frames, px.
            width: px.
            t_thresh: transmittance at which a ray ends; default of the config.
            dtype: of the pictures: float32, float16 or uint8 (rounded).

        Raises:
            BackendUnavailableError: no GPU or no triton here, or sizes the kernels do not have.
            ValueError: the field carries no occupancy grid, or a dtype that is not one of the three.
        """
        if field.config.render.sampler != "occupancy":
            raise ValueError("this field has no occupancy grid; its config says sampler: surface")
        if dtype not in (torch.float32, torch.float16, torch.uint8):
            raise ValueError(f"frames are float32, float16 or uint8, not {dtype}")
        self._kernels = _kernels_for(field.density_bitfield.device)
        self.field, self.height, self.width, self.dtype = field, height, width, dtype
        self.packed, self.condition = PackedField.of(field), PackedCondition.of(field)
        self.settings = _ray_settings(field, t_thresh)
        self.boxes = torch.cat([field.aabb_infer, occupied_box(field)]).float()
        self.bits = field.density_bitfield.clone()
        self._captured: dict[tuple[Any, ...], _Captured] = {}

    def render(self, batch: FrameBatch) -> RenderedFrames:
        """Start rendering a batch; the answer is ready when the current stream has got there."""
        key = _key(batch)
        if key not in self._captured:
            self._captured[key] = _Captured(self, batch)
        return self._captured[key].run(batch)


def _kernels_for(device: torch.device) -> ModuleType:
    """The kernels' module, where it can run: on CUDA, or on the CPU in Triton's interpreter."""
    if importlib.util.find_spec("triton") is None:
        raise BackendUnavailableError("the fused renderer needs triton, which is not installed; use render_occupancy.")
    frame = importlib.import_module("modules.radnerfs.backends.triton_kernels.frame")
    if not frame.can_run(device):
        raise BackendUnavailableError(
            f"the fused renderer needs an NVIDIA GPU, but the field is on {device}; use render_occupancy."
        )
    return frame


def occupied_box(field: RADNeRF) -> Tensor:
    """A box ``[6]`` (low xyz, high xyz) around all occupied cells; low above high when there are none."""
    size, device = field.config.render.grid_size, field.density_bitfield.device
    cells = all_cells(size, device, field.backend)
    shifts = torch.arange(8, device=device)
    bits = (field.density_bitfield[:, None] >> shifts & 1).bool().view(field.cascades, -1)
    low = torch.full((3,), 1e30, device=device)
    high = -low
    for cascade, occupied in enumerate(bits):
        extent = min(2.0**cascade, field.config.bound)
        margin = 1e-4 * extent  # a sample's cell is found with rounding errors
        corners = (cells / size * 2 - 1) * extent
        apart = torch.where(occupied, 0.0, 1e30)[:, None]
        low = torch.minimum(low, (corners - margin + apart).amin(dim=0))
        high = torch.maximum(high, (corners + 2 * extent / size + margin - apart).amax(dim=0))
    return torch.cat([low, high])


def _ray_settings(field: RADNeRF, t_thresh: float | None) -> Any:
    from modules.radnerfs.backends.triton_kernels.frame import RaySettings

    march, render = march_config(field), field.config.render
    if render.max_steps > MOST_STEPS:
        raise BackendUnavailableError(
            f"the fused renderer takes at most {MOST_STEPS} samples per ray, but max_steps is {render.max_steps}; "
            "lower it, or use render_occupancy."
        )
    return RaySettings(
        bound=float(march.bound),
        grid_size=march.grid_size,
        cascades=march.cascades,
        dt_gamma=march.dt_gamma,
        dt_min=march.dt_min,
        dt_max=march.dt_max,
        min_near=render.min_near,
        t_thresh=render.t_thresh if t_thresh is None else t_thresh,
        density_scale=render.density_scale,
        max_steps=render.max_steps,
        bins=32 if render.max_steps < 31 else 64,
    )


def _key(batch: FrameBatch) -> tuple[Any, ...]:
    parts = (batch.windows, batch.codes, batch.background, batch.mask, batch.eye_areas)
    return (batch.rays is not None, *(None if part is None else tuple(part.shape) for part in parts))


class _Captured:
    """One shape of batch: its inputs' and outputs' memory, and the CUDA graph over them (none in the interpreter)."""

    def __init__(self, renderer: FrameRenderer, batch: FrameBatch) -> None:
        self.renderer = renderer
        device, kernels = renderer.packed.device, renderer._kernels
        n_frames, shape = len(batch.windows), (len(batch.windows), renderer.height, renderer.width)
        self.windows, self.codes = _like(batch.windows, device), _like(batch.codes, device)
        self.eye_areas = None if batch.eye_areas is None else _like(batch.eye_areas, device)
        given, n_rays = batch.rays is not None, renderer.height * renderer.width
        self.buffers = kernels.FrameBuffers(
            cameras=torch.zeros(n_frames, 3, 3, device=device),
            poses=torch.zeros(n_frames, 4, 4, device=device),
            origins=torch.zeros(n_frames * n_rays, 3, device=device) if given else None,
            directions=torch.ones(n_frames * n_rays, 3, device=device) if given else None,
            mask=None if batch.mask is None else torch.zeros(shape, dtype=torch.uint8, device=device),
            background=_like(batch.background, device),
            boxes=renderer.boxes,
            bits=renderer.bits,
            **kernels.working_memory(n_frames, n_rays, renderer.settings, device),
            rgb=torch.empty(*shape, 3, dtype=renderer.dtype, device=device),
            opacity=torch.empty(shape, device=device),
            depth=torch.empty(shape, device=device),
        )
        self.beside = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.graph = _capture(self._work, device) if device.type == "cuda" else None

    @torch.no_grad()
    def _work(self) -> None:
        """Everything for one batch; conditions are encoded beside the start of the rays."""
        renderer, kernels = self.renderer, self.renderer._kernels
        if self.beside is not None:
            here, beside = torch.cuda.current_stream(self.windows.device), self.beside
            beside.wait_stream(here)
            with torch.cuda.stream(beside):
                terms = self._terms()
            kernels.start_rays(self.buffers, renderer.settings)
            here.wait_stream(beside)
        else:
            terms = self._terms()
            kernels.start_rays(self.buffers, renderer.settings)
        kernels.trace_rays(self.buffers, renderer.settings, renderer.packed, terms)

    def _terms(self) -> FrameTerms:
        renderer = self.renderer
        if renderer.condition is None:
            features = renderer.field.encode_conditions(self.windows, self.eye_areas)
            return renderer.packed.terms(features, self.codes)
        return renderer._kernels.encode_terms(
            renderer.packed, renderer.condition, self.windows, self.codes, self.eye_areas
        )

    def run(self, batch: FrameBatch) -> RenderedFrames:
        buffers = self.buffers
        pairs: list[tuple[Tensor | None, Tensor | None]] = [
            (self.windows, batch.windows),
            (self.codes, batch.codes),
            (self.eye_areas, batch.eye_areas),
            (buffers.background, batch.background),
            (buffers.mask, batch.mask),
        ]
        if batch.rays is None:
            pairs += [(buffers.cameras, batch.image_from_camera), (buffers.poses, batch.world_from_camera)]
        else:
            pairs += [(buffers.origins, batch.rays.origins), (buffers.directions, batch.rays.directions)]
        _copy_all([(own, given.view(own.shape)) for own, given in pairs if own is not None and given is not None])
        if self.graph is None:
            self._work()
        else:
            self.graph.replay()
        return RenderedFrames(buffers.rgb, buffers.opacity, buffers.depth, buffers.counters)


def _copy_all(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Copy tensors into others; those of one device and type in a single launch."""
    alike = [(own, given) for own, given in pairs if own.device == given.device and own.dtype == given.dtype]
    if alike:
        torch._foreach_copy_([own for own, _ in alike], [given for _, given in alike])
    for own, given in pairs:
        if own.device != given.device or own.dtype != given.dtype:
            own.copy_(given, non_blocking=True)


def _like(given: Tensor, device: torch.device) -> Tensor:
    return torch.zeros(given.shape, dtype=torch.float32, device=device)


def _capture(work: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph:
    """A CUDA graph of some work, after a run that compiles kernels and fills caches."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
            work()
    return graph
