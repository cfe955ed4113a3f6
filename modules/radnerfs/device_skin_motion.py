"""The torch twin of ``skin_motion`` for batches of windows padded to one size; nothing waits for the device.

Distances are Euclidean here and OpenCV's approximation there, and of several nearest pixels another one may be taken;
beyond that results differ by the rounding of float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.face_model.model import LABEL_EYE, LABEL_MEMBRANE, FaceModel, Region
from modules.radnerfs.backends.surface_ops import SurfaceOps
from modules.radnerfs.backends.torch_surface import EMPTY, barycentric
from modules.radnerfs.skin_motion import (
    BORDER_SHARE,
    CHANGE_EDGES,
    COMPARED_DM,
    FACE_WEIGHT,
    HIDDEN_DM,
    LIPS_DM,
    MOST_STRETCHED,
    MOVED_PX,
    NEAR_LIPS_DM,
    NECK_REACH,
    OPENING,
    OUTSIDE_EDGES,
    REACH_EDGES,
    RENDERED_DM,
    RENDERED_REACH,
    RIM_EDGES,
    RIM_WEIGHTS,
    SHARPEST_EDGE_PX,
    STEP_PX,
    STILL_PX,
    TANGENT,
    USUAL_REACH,
    Reach,
    above_lips,
    gives_way,
    lip_distance,
    moves_far,
)
from modules.radnerfs.surface_tensors import SIZE_REACH, SIZES
from modules.video.device_grids import Grids, area, gaussian, linear

_FROM_LIPS, _INSIDE, _REGION, _LOWER, _FACE, _ABOVE, _MOVED, _DEPTH = 0, 1, 2, 3, 4, 5, 6, 8
"""Columns of what is read off the meshes; the motion has two."""


@dataclass(frozen=True, slots=True, eq=False)
class MotionTables:
    """What is the same in all frames of a region.

    Attributes:
        triangles: int32 ``[F, 3]``.
        values: float32 ``[V, 6]``: ``lip_distance``, 1 inside mouth and eyes, weights of the region, the lower face,
            the face, ``above_lips``.
    """

    triangles: Tensor
    values: Tensor

    @classmethod
    def of(cls, face_model: FaceModel, region: Region, device: torch.device) -> MotionTables:
        """Those of a CPU model."""
        labels, weights = face_model.labels, face_model.region_weights
        inside = ((labels == LABEL_MEMBRANE) | (labels == LABEL_EYE)).float()
        columns = [torch.from_numpy(lip_distance(face_model)), inside]
        columns += [weights[region], weights["lower_face"], weights["face"]]
        columns += [torch.from_numpy(above_lips(face_model))]
        return cls(
            face_model.triangles.int().to(device).contiguous(), torch.stack(columns, 1).float().to(device).contiguous()
        )


@dataclass(frozen=True, slots=True, eq=False)
class CastMeshes:
    """A batch of windows cast on their meshes.

    Attributes:
        keys: int64 ``[2·B, H, W]`` of ``rasterize``: the new expressions' meshes, then the shown ones'.
        screen: float32 ``[2·B, V, 3]`` of ``project``.
        grids: the windows' true sizes.
        edge_px: float64 ``[B]`` half width of a soft edge, in main memory.
        shut_px, lip_px: float64 ``[B]`` of ``skin_motion.shut_px`` and ``lip_motion_px``, in main memory.
    """

    keys: Tensor
    screen: Tensor
    grids: Grids
    edge_px: NDArray[np.float64]
    shut_px: NDArray[np.float64]
    lip_px: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceMotion:
    """``SkinMotion`` of a batch: ``flow`` float32 ``[B, 2, H, W]`` px, the others ``[B, H, W]``."""

    flow: Tensor
    rendered: Tensor
    paintable: Tensor
    compared: Tensor
    matched: Tensor
    mouth_shown: Tensor
    region: Tensor


def skin_motions(tables: MotionTables, cast: CastMeshes, ops: SurfaceOps) -> DeviceMotion:
    """``skin_motion`` of each window of a batch.

    Args:
        tables: of the region.
        cast: the windows.
        ops: of their device.
    """
    grids, half = cast.grids, len(cast.keys) // 2
    edges, inside = _Edges.of(cast, ops), grids.inside()
    moved = torch.cat([cast.screen[half:, :, :2] - cast.screen[:half, :, :2], 1 / cast.screen[half:, :, 2:]], dim=2)
    new_seen, new, _ = _read(cast.keys[:half], cast.screen[:half], tables, moved)
    old_seen, old, shown_depth = _read(cast.keys[half:], cast.screen[half:], tables, None)
    new_seen, old_seen = new_seen & inside, old_seen & inside
    shown_depth = torch.where(old_seen, shown_depth, torch.inf)
    read_flow = new[:, _MOVED : _MOVED + 2] * new_seen[:, None]
    from_lips = new[:, _FROM_LIPS]
    skin = new_seen & (torch.maximum(new[:, _REGION], new[:, _LOWER]) > 0)
    hidden = skin & (new[:, _DEPTH] > _nearest(shown_depth, read_flow, grids) + HIDDEN_DM)
    known = skin & ~hidden & ~(_stretched(read_flow) & (from_lips > NEAR_LIPS_DM))
    flow = _carried_on(read_flow, edges.eroded(known), edges)
    yields = gives_way(cast.shut_px, cast.edge_px)
    if yields.any():
        known &= new[:, _FACE] >= FACE_WEIGHT
        released = _carried_on(read_flow, edges.eroded(known), edges, NECK_REACH)
        flow = flow + per_window(yields, grids.device)[:, None] * (released - flow)
    inner = _towards_rim(new, new_seen)
    flow = _within_picture(flow * inner[:, None], grids)
    most = (flow.abs().amax(1) * skin).amax((1, 2))[:, None, None]
    low, high = (share * edges.px for share in CHANGE_EDGES)
    far = new[:, _ABOVE] * per_window(moves_far(cast.lip_px, cast.edge_px), grids.device)
    share = 1 - _ramp(from_lips, *(near + far * (most - near) for near, most in RENDERED_REACH))
    rendered = _rendered(share, new[:, _INSIDE] > 0.5, hidden & (from_lips < NEAR_LIPS_DM), skin, grids)
    rendered = rendered * inner * _ramp(most, low, high)
    old_skin = old_seen & (torch.maximum(old[:, _REGION], old[:, _LOWER]) > 0)
    old_lips = old[:, _FROM_LIPS] * old_seen
    compared = edges.inside(old_skin) * _towards_rim(old, old_seen) * (1 - _ramp(old_lips, *COMPARED_DM))
    beyond = flow.abs().amax(1) > MOVED_PX
    return DeviceMotion(
        flow=flow,
        rendered=rendered,
        paintable=skin.float(),
        compared=compared,
        matched=compared * _ramp(old_lips, *LIPS_DM),
        mouth_shown=(1 - _ramp(old_lips, *RENDERED_DM)) * old_skin,
        region=edges.softened((skin & (inner > 0)) | beyond) * inside,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """Distances to the edges of masks."""

    ops: SurfaceOps
    grids: Grids
    sizes: Tensor
    px: Tensor
    host_px: NDArray[np.float64]

    @classmethod
    def of(cls, cast: CastMeshes, ops: SurfaceOps) -> _Edges:
        grids = cast.grids
        sizes = np.zeros((len(cast.edge_px), SIZES), np.int32)
        sizes[:, 0], sizes[:, 1] = grids.size_hw[:, 1], grids.size_hw[:, 0]
        px = per_window(cast.edge_px, grids.device)
        return cls(ops, grids, torch.from_numpy(sizes).to(grids.device, non_blocking=True), px, cast.edge_px)

    def distance(self, zero: Tensor, reach_px: NDArray[np.float64] | float) -> Tensor:
        """Distance ``[B, H, W]`` to the nearest marked pixel, right up to ``reach_px``, larger beyond."""
        reach = np.broadcast_to(np.ceil(reach_px), self.host_px.shape).astype(np.int32)
        sizes = self.sizes.clone()
        sizes[:, SIZE_REACH] = torch.from_numpy(reach.copy()).to(sizes.device, non_blocking=True)
        return self.ops.bounded_distance(zero.contiguous(), sizes, SIZE_REACH)

    def eroded(self, mask: Tensor) -> Tensor:
        return mask & (self.distance(~mask, self.host_px / 2 + 1) > self.px / 2)

    def inside(self, mask: Tensor) -> Tensor:
        low, high = (share * self.px for share in RIM_EDGES)
        return _ramp(self.distance(~mask, RIM_EDGES[1] * self.host_px), low, high) * mask

    def softened(self, mask: Tensor) -> Tensor:
        low, high = (share * self.px for share in OUTSIDE_EDGES)
        return 1 - _ramp(self.distance(mask, OUTSIDE_EDGES[1] * self.host_px), low, high)


def _read(keys: Tensor, screen: Tensor, tables: MotionTables, more: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Whether pixels see a mesh, bool ``[B, H, W]``, values there ``[B, C, H, W]``, 0 elsewhere, and depth (dm).

    ``more [B, V, D]`` are further values of each mesh's own vertices.
    """
    seen, corners, weights, nearness = _corners(keys, screen, tables)
    count = tables.values.shape[1] + (0 if more is None else more.shape[2])
    values = torch.zeros((*keys.shape, count), device=keys.device)
    for corner in range(3):
        vertex = corners[..., corner]
        parts = [tables.values[vertex]]
        if more is not None:
            frame = torch.arange(len(keys), device=keys.device)[:, None, None]
            parts.append(more[frame, vertex])
        values += weights[..., corner, None] * torch.cat(parts, dim=-1)
    return seen, torch.where(seen[..., None], values, 0).permute(0, 3, 1, 2), 1 / nearness


def _corners(keys: Tensor, screen: Tensor, tables: MotionTables) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each pixel: whether it sees a mesh, its triangle's corners and weights ``[B, H, W, 3]``, and 1/depth."""
    batch, height, width = keys.shape
    seen = keys != EMPTY
    triangle = torch.where(seen, keys & 0xFFFFFFFF, 0)
    corners = tables.triangles[triangle].long()
    frame = torch.arange(batch, device=keys.device)[:, None, None, None]
    row, column = (torch.arange(length, device=keys.device) + 0.5 for length in (height, width))
    y, x = (axis.expand(batch, height, width).flatten() for axis in (row[:, None], column[None]))
    weights, nearness = barycentric(screen[frame, corners].flatten(0, 2), x, y)
    return seen, corners, weights.view(batch, height, width, 3), nearness.view(batch, height, width)


def _nearest(values: Tensor, flow: Tensor, grids: Grids) -> Tensor:
    """``values [B, H, W]`` at the pixel nearest to where ``flow`` points; infinite outside the window."""
    row = torch.arange(values.shape[1], device=values.device)[:, None] + flow[:, 1]
    column = torch.arange(values.shape[2], device=values.device) + flow[:, 0]
    row, column = row.round().long(), column.round().long()
    there = (row >= 0) & (row < grids.tensor(0)) & (column >= 0) & (column < grids.tensor(1))
    frame = torch.arange(len(values), device=values.device)[:, None, None]
    found = values[frame, row.clamp(0, values.shape[1] - 1), column.clamp(0, values.shape[2] - 1)]
    return torch.where(there, found, torch.inf)


def _stretched(flow: Tensor) -> Tensor:
    """``skin_motion._stretched``: Sobel's slope of each component along its own axis."""
    padded = torch.nn.functional.pad(flow, (1, 1, 1, 1), mode="replicate")
    least = None
    for component in (0, 1):
        image = padded[:, component]
        along, across = (2, 1) if component == 0 else (1, 2)
        length = image.shape[along] - 2
        slope = image.narrow(along, 2, length) - image.narrow(along, 0, length)
        count = slope.shape[across] - 2
        smooth = slope.narrow(across, 0, count) + 2 * slope.narrow(across, 1, count) + slope.narrow(across, 2, count)
        least = smooth if least is None else torch.minimum(least, smooth)
    assert least is not None
    return least / 8 < 1 / MOST_STRETCHED - 1


def per_window(values: NDArray[np.floating], device: torch.device) -> Tensor:
    """Numbers ``[B]`` of windows as float32 ``[B, 1, 1]`` on the device."""
    return torch.from_numpy(values.astype(np.float32)[:, None, None]).to(device, non_blocking=True)


def _carried_on(flow: Tensor, known: Tensor, edges: _Edges, far: Reach = USUAL_REACH) -> Tensor:
    """``skin_motion.carried_on``: ``[B, 2, H, W]`` of ``flow`` read where ``known``."""
    grids = edges.grids
    cells = grids.coarser(np.maximum(-(-grids.size_hw // STEP_PX), 1))
    down, up = area(grids, cells), linear(cells, grids)
    share = down(known.float())
    inside = share >= 0.5
    coarse = down(flow * known[:, None]) / share.clamp(min=1e-3)[:, None]
    near, distance, unit = _from_contour(coarse, inside)
    across = -(near * unit).sum(1)
    along = (near[:, 0] * unit[:, 1] - near[:, 1] * unit[:, 0]).abs()
    reach = REACH_EDGES * edges.px + torch.where(across > 0, OPENING * across, -far.closing * across) + TANGENT * along
    held = torch.minimum((-far.held * across).clamp(min=0), far.most_held_edges * edges.px)
    lengths = torch.stack([reach.clamp(min=1), held], 1) * cells.inside()[:, None]
    reach, held = gaussian(cells, 1.5)(lengths).unbind(1)
    fading = (1 - (STEP_PX * distance - held) / reach.clamp(min=1e-3)).clamp(0, 1)
    outside = torch.where(inside[:, None], coarse, near * fading[:, None]) * cells.inside()[:, None]
    smooth = up(gaussian(cells, 0.7)(outside))
    own = (edges.distance(~known, SHARPEST_EDGE_PX) / SHARPEST_EDGE_PX).clamp(0, 1)[:, None] * known[:, None]
    merged = smooth + own * (torch.where(known[:, None], flow, smooth) - smooth)
    return torch.where(merged.abs().amax(1, keepdim=True) < STILL_PX, 0, merged)


def _within_picture(flow: Tensor, grids: Grids) -> Tensor:
    """``skin_motion.within_picture`` of ``[B, 2, H, W]``."""
    height, width = flow.shape[2:]
    column, row = torch.arange(width, device=flow.device), torch.arange(height, device=flow.device)[:, None]
    place = torch.stack([column.expand(height, width), row.expand(height, width)])
    last = torch.stack([grids.tensor(1), grids.tensor(0)], 1) - 1
    low, high = -BORDER_SHARE * place, BORDER_SHARE * (last - place).clamp(min=0)
    return torch.minimum(torch.maximum(flow, low), high)


def _from_contour(coarse: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each cell: motion of the nearest inner cell ``[B, 2, h, w]``, its distance ``[B, h, w]`` in cells and the
    direction ``[B, 2, h, w]`` from it (x, y); where there is none the distance is very large."""
    height, width = inside.shape[1:]
    row, column = (torch.arange(length, device=inside.device) for length in (height, width))
    up_down, nearest_row = _nearest_along_columns(inside, row)
    squared = up_down.square()
    chosen = []
    for frame in squared:  # [h, w] against each column of the same row: h · w · w numbers at once
        total = frame[:, None] + (column[:, None] - column[None]).square()
        chosen.append(total.min(dim=2))
    distance = torch.stack([found.values for found in chosen]).sqrt()
    from_column = torch.stack([found.indices for found in chosen])
    batch = torch.arange(len(inside), device=inside.device)[:, None, None]
    from_row = nearest_row[batch, row[None, :, None], from_column]
    near = coarse.permute(0, 2, 3, 1)[batch, from_row, from_column].permute(0, 3, 1, 2)
    away = torch.stack([(column - from_column).float(), (row[:, None] - from_row).float()], 1)
    return near, distance, away / distance.clamp(min=1)[:, None]


def _nearest_along_columns(inside: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Distance ``[B, h, w]`` to the nearest inner cell of the same column, and its row; large where there is none."""
    far = 10_000
    rows = row[None, :, None].expand(inside.shape)
    above = torch.where(inside, rows, -far).cummax(1).values
    below = torch.where(inside, rows, far).flip(1).cummin(1).values.flip(1)
    is_above = rows - above <= below - rows
    nearest = torch.where(is_above, above, below)
    return (rows - nearest).abs().float(), nearest.clamp(0, inside.shape[1] - 1)


def _towards_rim(values: Tensor, seen: Tensor) -> Tensor:
    """``skin_motion._towards_rim`` of values that ``_read`` gave."""
    own = values[:, _REGION]
    face = torch.maximum(values[:, _FACE], own)
    return torch.where(seen & (face > 0), _ramp(own / face.clamp(min=1e-3), *RIM_WEIGHTS), 1)


def _rendered(share: Tensor, inside: Tensor, hidden: Tensor, skin: Tensor, grids: Grids) -> Tensor:
    """``skin_motion._rendered``."""
    uncovered = gaussian(grids, 1.0)(hidden.float())
    return torch.maximum(torch.where(inside, 1, share), (2 * uncovered).clamp(max=1)) * skin


def _ramp(values: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """0 up to ``low``, 1 from ``high`` on, smooth in between."""
    width = (high - low).clamp(min=1e-6) if isinstance(high, Tensor) else max(high - float(low), 1e-6)
    t = ((values - low) / width).clamp(0, 1)
    return t * t * (3 - 2 * t)
