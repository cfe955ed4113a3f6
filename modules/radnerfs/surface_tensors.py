"""What goes through the batched surface path: tables of a face, frames, what their pixels see, what is shaded."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

COLUMN_CANONICAL, COLUMN_WEIGHT, COLUMN_MEMBRANE, COLUMN_NORMAL, COLUMN_MOUTH = 0, 3, 4, 5, 8
"""Columns of ``FaceTables.attributes``."""
ATTRIBUTES = 9

SIZE_WIDTH, SIZE_HEIGHT, SIZE_MOUTH, SIZE_RADIUS, SIZE_REACH = 0, 1, 2, 4, 5
"""Columns of ``FrameTensors.sizes``; the mouth has two, x and y."""
SIZES = 6


@dataclass(frozen=True, slots=True, eq=False)
class FaceTables:
    """A person's mesh on the device.

    Attributes:
        triangles: int32 ``[F, 3]``.
        attributes: float32 ``[V, 9]``: canonical xyz, region weight, membrane, resting normal xyz, mouth weight.
        neutral: float32 ``[V·3]`` dm without expression. basis: float32 ``[E, V·3]``.
        teeth_origin: float32 ``[3]`` middle of the resting membrane, dm. teeth_place: ``[3]`` its canonical place.
        box_center: float32 ``[3]`` dm. box_scale: ``[]`` 1/dm: canonical space to the field's cube.
        trust, best_view: float32 ``[G, G, G]`` 0..1 (z, y, x).
    """

    triangles: Tensor
    attributes: Tensor
    neutral: Tensor
    basis: Tensor
    teeth_origin: Tensor
    teeth_place: Tensor
    box_center: Tensor
    box_scale: Tensor
    trust: Tensor
    best_view: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class FrameTensors:
    """``B`` frames and their windows, padded to one size.

    Attributes:
        expression: float32 ``[N, E]``, N = B, or 2·B with what the frames show behind what is to be painted.
        pixel_from_head: float64 ``[B, 3, 4]``, see ``torch_surface.project``.
        rays: float32 ``[B, 3, 3]``: head-space ray of a window point is ``x · row 0 + y · row 1 + row 2``.
        edge_px: float32 ``[B]`` half width of the alpha's soft edge.
        sizes: int32 ``[B, 6]``: width and height in use, x and y of the mouth box, whole radius of the soft edge, how
            far distances to silhouettes matter; px.
    """

    expression: Tensor
    pixel_from_head: Tensor
    rays: Tensor
    edge_px: Tensor
    sizes: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceTensors:
    """What the pixels of ``B`` windows see; 0 where nothing.

    Attributes:
        seen: bool ``[B, H, W]``.
        canonical: float32 ``[B, H, W, 3]`` dm.
        weight: float32 ``[B, H, W]`` region weight 0..1, the larger of the new face's and the shown one's.
        mouth: float32 ``[B, H, W]`` weight of the region 'mouth'.
        cosine: float32 ``[B, H, W]`` between the resting normal and the way to the camera; 1 in the mouth.
        depth: float32 ``[B, H, W]`` dm, infinite where nothing is seen.
    """

    seen: Tensor
    canonical: Tensor
    weight: Tensor
    mouth: Tensor
    cosine: Tensor
    depth: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceSamples:
    """Points to be shaded.

    Attributes:
        position: float32 ``[M, 3]`` in the field's cube.
        direction: float32 unit ``[M, 3]`` in head space, from the camera on.
        frame: int32 ``[M]``.
        slots: int32 ``[B, H, W]`` row of the sample that shows each pixel, -1 = not painted.
        fine_slots: int32 ``[B, h, w]`` likewise of the fine rays over the mouth boxes, -1 = not followed, or no hit.
        count: int32 ``[1]``: rows in use; None = all.
    """

    position: Tensor
    direction: Tensor
    frame: Tensor
    slots: Tensor
    fine_slots: Tensor
    count: Tensor | None
