"""Which implementation of the batched surface path runs where: plain torch, or Triton kernels on CUDA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from modules.radnerfs.backends import torch_stencils, torch_surface
from modules.radnerfs.surface_tensors import SurfaceSamples, SurfaceTensors


@dataclass(frozen=True, slots=True)
class SurfaceOps:
    """The steps; ``torch_surface`` and ``torch_stencils`` say what each takes and gives."""

    project: Callable[..., Tensor]
    rasterize: Callable[..., Tensor]
    surface_points: Callable[..., SurfaceTensors]
    mouth_jumps: Callable[..., Tensor]
    collect_samples: Callable[..., SurfaceSamples]
    assemble: Callable[..., Tensor]
    silhouettes: Callable[..., Tensor]
    bounded_distance: Callable[..., Tensor]
    known: Callable[..., Tensor]
    view_quality: Callable[..., Tensor]
    dilate: Callable[..., Tensor]
    soften: Callable[..., Tensor]
    fade: Callable[..., Tensor]
    sharpen: Callable[..., Tensor]


TORCH_OPS = SurfaceOps(
    project=torch_surface.project,
    rasterize=torch_surface.rasterize,
    surface_points=torch_surface.surface_points,
    mouth_jumps=torch_surface.mouth_jumps,
    collect_samples=torch_surface.collect_samples,
    assemble=torch_surface.assemble,
    silhouettes=torch_stencils.silhouettes,
    bounded_distance=torch_stencils.bounded_distance,
    known=torch_stencils.known,
    view_quality=torch_stencils.view_quality,
    dilate=torch_stencils.dilate,
    soften=torch_stencils.soften,
    fade=torch_stencils.fade,
    sharpen=torch_stencils.sharpen,
)


def surface_ops(device: torch.device) -> SurfaceOps:
    """The steps for tensors of ``device``."""
    if device.type != "cuda":
        return TORCH_OPS
    from modules.radnerfs.backends.triton_kernels.surface import TRITON_OPS

    return TRITON_OPS
