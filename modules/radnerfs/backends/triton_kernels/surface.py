"""The batched surface path in Triton kernels."""

from __future__ import annotations

from modules.radnerfs.backends.surface_ops import SurfaceOps
from modules.radnerfs.backends.triton_kernels import rasterize, stencils, surface_pixels, surface_points

TRITON_OPS = SurfaceOps(
    project=rasterize.project,
    rasterize=rasterize.rasterize,
    surface_points=surface_points.surface_points,
    mouth_jumps=surface_pixels.mouth_jumps,
    collect_samples=surface_points.collect_samples,
    assemble=surface_pixels.assemble,
    silhouettes=stencils.silhouettes,
    bounded_distance=stencils.bounded_distance,
    known=surface_pixels.known,
    view_quality=surface_pixels.view_quality,
    dilate=stencils.dilate,
    soften=stencils.soften,
    fade=surface_pixels.fade,
    sharpen=stencils.sharpen,
)
