"""Batches of posed meshes seen through pixel windows, in plain torch: the specification of the Triton kernels.

Windows of a batch share one padded size ``[H, W]``; ``sizes`` says how much of it each frame uses. Pixels beyond that
see nothing and count for nothing. Meshes ``[N]`` belong to frames ``[B]`` by ``mesh % B``: the new faces come first,
then what the frames show.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules.radnerfs.surface import FLATTEST_RAY, TEETH_DEPTH_DM, TEETH_REACH_DM
from modules.radnerfs.surface_tensors import (
    COLUMN_MEMBRANE,
    COLUMN_MOUTH,
    COLUMN_NORMAL,
    COLUMN_WEIGHT,
    SIZE_HEIGHT,
    SIZE_MOUTH,
    SIZE_WIDTH,
    FaceTables,
    FrameTensors,
    SurfaceSamples,
    SurfaceTensors,
)

EMPTY = torch.iinfo(torch.int64).max
"""Key of a pixel that sees nothing."""
INFINITY_BITS = 0x7F800000


def project(head: Tensor, pixel_from_head: Tensor) -> Tensor:
    """Vertices on the screen.

    Args:
        head: float32 ``[N, V, 3]`` dm.
        pixel_from_head: float64 ``[B, 3, 4]``: head space to window pixels times depth, and depth.

    Returns:
        float32 ``[N, V, 3]``: x, y in window px and 1/depth; NaN where a vertex cannot be drawn.
    """
    matrices = pixel_from_head.repeat(len(head) // len(pixel_from_head), 1, 1)
    seen = head.double() @ matrices[:, :, :3].mT + matrices[:, None, :, 3]
    depth = seen[..., 2:]
    screen = torch.cat([seen[..., :2] / depth, 1 / depth], dim=-1)
    return torch.where((depth > 0) & screen.isfinite().all(dim=-1, keepdim=True), screen, torch.nan).float()


def rasterize(
    screen: Tensor, triangles: Tensor, height: int, width: int, origin: Tensor | None = None, scale: int = 1
) -> Tensor:
    """The nearest triangle at every pixel centre, as ``mesh_renderer.rasterize`` finds it, back faces left out.

    Args:
        screen: float32 ``[N, V, 3]`` of ``project``.
        triangles: int32 ``[F, 3]``.
        height: of the windows.
        width: of the windows.
        origin: int32 ``[N, 2]`` x, y: where the window begins, px of ``screen``; None = at 0.
        scale: pixels of the window per px of ``screen``.

    Returns:
        int64 keys ``[N, height, width]``: depth order in the upper half, triangle number in the lower; the smallest
        is nearest, the first listed wins ties. ``EMPTY`` where nothing is seen.
    """
    screen = window_screen(screen, origin, scale)
    keys = torch.full((len(screen), height * width), EMPTY, dtype=torch.int64, device=screen.device)
    for mesh, row in zip(screen, keys, strict=True):
        _rasterize_one(mesh, triangles, height, width, row)
    return keys.view(-1, height, width)


def window_screen(screen: Tensor, origin: Tensor | None, scale: int) -> Tensor:
    """``screen`` in the pixels of a window that begins at ``origin`` and is ``scale`` times finer."""
    if origin is None:
        return screen
    return torch.cat([(screen[..., :2] - origin[:, None].float()) * scale, screen[..., 2:]], dim=-1)


def _rasterize_one(mesh: Tensor, triangles: Tensor, height: int, width: int, keys: Tensor) -> None:
    """Write the smallest keys of one mesh ``[V, 3]`` into ``keys [height · width]``."""
    corners = mesh[triangles.long()]  # [F, 3, 3]
    x, y, near = corners.unbind(-1)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    left, right = (x.amin(1) - 0.5).floor().clamp(0, width), (x.amax(1) + 0.5).ceil().clamp(0, width)
    top, bottom = (y.amin(1) - 0.5).ceil().clamp(0, height), (y.amax(1) - 0.5).ceil().clamp(0, height)
    kept = ((area < 0) & (left < right) & (top < bottom)).nonzero()[:, 0]  # NaN compares as False
    x, y, near, area = x[kept], y[kept], near[kept], area[kept]
    columns = (right - left)[kept].long()
    owner = torch.repeat_interleave(columns * (bottom - top)[kept].long())
    step = torch.arange(len(owner), device=mesh.device)
    starts = torch.searchsorted(owner, torch.arange(len(kept), device=mesh.device))
    step = step - starts[owner]
    column, row = left[kept].long()[owner] + step % columns[owner], top[kept].long()[owner] + step // columns[owner]
    inside = _covers(x[owner], y[owner], column + 0.5, row + 0.5).nonzero()[:, 0]
    owner, column, row = owner[inside], column[inside], row[inside]
    _, nearness = barycentric(torch.stack([x, y, near], dim=-1)[owner], column + 0.5, row + 0.5, clip=False)
    nearness = torch.minimum(torch.maximum(nearness, near.amin(1)[owner]), near.amax(1)[owner])
    order = INFINITY_BITS - nearness.contiguous().view(torch.int32).long()
    keys.scatter_reduce_(0, row * width + column, (order << 32) | kept[owner], "amin")


def _covers(x: Tensor, y: Tensor, center_x: Tensor, center_y: Tensor) -> Tensor:
    """Whether pixel centres ``[P]`` are their triangles' (corners ``[P, 3]``): top ≤ y < bottom, left ≤ x < right."""
    xs, ys = list(x.unbind(1)), list(y.unbind(1))
    for i, j in ((0, 1), (1, 2), (0, 1)):  # both owners of an edge name its ends alike
        swap = (ys[i] > ys[j]) | ((ys[i] == ys[j]) & (xs[i] > xs[j]))
        xs[i], xs[j] = torch.where(swap, xs[j], xs[i]), torch.where(swap, xs[i], xs[j])
        ys[i], ys[j] = torch.where(swap, ys[j], ys[i]), torch.where(swap, ys[i], ys[j])

    def crossing(upper: int, lower: int) -> Tensor:
        rise = ys[lower] - ys[upper]
        slope = torch.where(rise > 0, (xs[lower] - xs[upper]) / rise.clamp(min=1e-30), 0.0)
        return xs[upper] + (center_y - ys[upper]) * slope

    long = crossing(0, 2)
    short = torch.where(center_y >= ys[1], crossing(1, 2), crossing(0, 1))
    in_row = (center_y >= ys[0]) & (center_y < ys[2])
    return in_row & (center_x >= torch.minimum(long, short)) & (center_x < torch.maximum(long, short))


def barycentric(corners: Tensor, x: Tensor, y: Tensor, *, clip: bool = True) -> tuple[Tensor, Tensor]:
    """Perspective-correct weights ``[P, 3]`` and nearness ``[P]`` of points in triangles ``[P, 3, 3]``.

    1/depth is linear on the screen, and so is each corner's part of it; ``clip`` keeps a centre that rounding put a
    hair outside its own triangle inside.
    """
    cx, cy, near = corners.unbind(-1)
    x1, y1, x2, y2 = cx[:, 1] - cx[:, 0], cy[:, 1] - cy[:, 0], cx[:, 2] - cx[:, 0], cy[:, 2] - cy[:, 0]
    dx, dy = x - cx[:, 0], y - cy[:, 0]
    area = x1 * y2 - y1 * x2
    second, third = (dx * y2 - dy * x2) / area, (x1 * dy - y1 * dx) / area
    shares = torch.stack([(1 - second - third) * near[:, 0], second * near[:, 1], third * near[:, 2]], dim=1)
    if clip:
        shares = shares.clamp(min=0)
    nearness = shares.sum(dim=1)
    return shares / nearness[:, None], nearness


def inside_windows(sizes: Tensor, height: int, width: int) -> Tensor:
    """Pixels of the padded windows that belong to their frames: bool ``[B, height, width]``."""
    rows = torch.arange(height, device=sizes.device)[None, :, None]
    columns = torch.arange(width, device=sizes.device)[None, None]
    return (rows < sizes[:, SIZE_HEIGHT, None, None]) & (columns < sizes[:, SIZE_WIDTH, None, None])


def view_rays(rays: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Unit directions ``[..., 3]`` of window points ``x, y [...]``; ``rays [..., 3, 3]`` as in ``FrameTensors``."""
    ray = x[..., None] * rays[..., 0, :] + y[..., None] * rays[..., 1, :] + rays[..., 2, :]
    return ray / ray.square().sum(dim=-1, keepdim=True).sqrt()


def surface_points(
    keys: Tensor, screen: Tensor, head: Tensor, face: FaceTables, frames: FrameTensors
) -> SurfaceTensors:
    """What every pixel sees of the new faces, and the region weight of what is seen of both.

    Args:
        keys: int64 ``[N, H, W]`` of ``rasterize``; N = B, or 2·B with the source's meshes behind the new ones.
        screen: float32 ``[N, V, 3]``.
        head: float32 ``[N, V, 3]`` dm, before posing.
        face: the person's tables.
        frames: the frames.
    """
    batch, height, width = len(frames.sizes), *keys.shape[1:]
    own = inside_windows(frames.sizes, height, width)
    frame, row, column = ((keys[:batch] != EMPTY) & own).nonzero(as_tuple=True)
    triangle = (keys[frame, row, column] & 0xFFFFFFFF).long()
    direction = view_rays(frames.rays[frame], column + 0.5, row + 0.5)
    values, point, depth = _at_points(triangle, frame, column + 0.5, row + 0.5, screen, head, face)
    normal = values[:, COLUMN_NORMAL : COLUMN_NORMAL + 3]
    cosine = -(normal * direction).sum(1) / normal.norm(dim=1).clamp(min=1e-6)
    mouth = values[:, COLUMN_MOUTH]
    canonical = _with_teeth(values, point, direction, face)

    def spread(of: Tensor, fill: float = 0.0) -> Tensor:
        full = of.new_full((batch, height, width, *of.shape[1:]), fill)
        full[frame, row, column] = of
        return full

    weight = spread(values[:, COLUMN_WEIGHT])
    if len(keys) > batch:
        weight = torch.maximum(weight, _source_weight(keys, own, screen, head, face))
    return SurfaceTensors(
        seen=spread(torch.ones_like(mouth)) > 0,
        canonical=spread(canonical),
        weight=weight,
        mouth=spread(mouth),
        cosine=spread(torch.where(mouth > 0, 1.0, cosine)),
        depth=spread(depth, torch.inf),
    )


def _source_weight(keys: Tensor, own: Tensor, screen: Tensor, head: Tensor, face: FaceTables) -> Tensor:
    batch = len(own)
    weight = torch.zeros(own.shape, device=own.device)
    frame, row, column = ((keys[batch:] != EMPTY) & own).nonzero(as_tuple=True)
    triangle = (keys[frame + batch, row, column] & 0xFFFFFFFF).long()
    values = _at_points(triangle, frame + batch, column + 0.5, row + 0.5, screen, head, face)[0]
    weight[frame, row, column] = values[:, COLUMN_WEIGHT]
    return weight


def _at_points(
    triangle: Tensor, mesh: Tensor, x: Tensor, y: Tensor, screen: Tensor, head: Tensor, face: FaceTables
) -> tuple[Tensor, Tensor, Tensor]:
    """Attributes ``[P, C]``, head-space points ``[P, 3]`` and depth ``[P]`` at points of triangles."""
    corners = face.triangles[triangle].long()  # [P, 3]
    weights, nearness = barycentric(screen[mesh[:, None], corners], x, y)
    values = (weights[..., None] * face.attributes[corners]).sum(dim=1)
    point = (weights[..., None] * head[mesh[:, None], corners]).sum(dim=1)
    return values, point, 1 / nearness


def _with_teeth(values: Tensor, point: Tensor, direction: Tensor, face: FaceTables) -> Tensor:
    """Canonical positions ``[P, 3]``; where a pixel looks into the mouth, as ``surface.teeth_positions`` has them."""
    onward = (face.teeth_origin[2] - TEETH_DEPTH_DM - point[:, 2]) / direction[:, 2].clamp(max=-FLATTEST_RAY)
    on_plane = point + onward.clamp(-TEETH_REACH_DM, TEETH_REACH_DM)[:, None] * direction
    inside = values[:, COLUMN_MEMBRANE, None] > 0.5
    return torch.where(inside, on_plane - face.teeth_origin + face.teeth_place, values[:, :3])


def mouth_jumps(surface: SurfaceTensors, alpha: Tensor, jump_dm: float) -> Tensor:
    """Painted pixels ``[B, H, W]`` of the mouth beside a step in canonical space, as ``antialias.depth_jumps``."""
    jumps = torch.zeros_like(surface.seen)
    for axis in (1, 2):
        length = surface.seen.shape[axis] - 1
        far = (surface.canonical.diff(dim=axis).abs() > jump_dm).any(dim=-1)
        far = far & surface.seen.narrow(axis, 0, length) & surface.seen.narrow(axis, 1, length)
        jumps.narrow(axis, 0, length).logical_or_(far)
        jumps.narrow(axis, 1, length).logical_or_(far)
    return jumps & (surface.mouth > 0) & (alpha > 0)


def collect_samples(
    surface: SurfaceTensors,
    alpha: Tensor,
    jumps: Tensor,
    fine_keys: Tensor,
    screen: Tensor,
    head: Tensor,
    face: FaceTables,
    frames: FrameTensors,
    finer: int,
) -> SurfaceSamples:
    """Everything that has to be shaded: painted pixels, and ``finer²`` rays of each pixel on a jump.

    Args:
        surface: what the pixels see.
        alpha: float32 ``[B, H, W]``; pixels above 0 are painted.
        jumps: bool ``[B, H, W]`` of ``mouth_jumps``.
        fine_keys: int64 ``[B, finer·h, finer·w]`` over the mouth boxes.
        screen: float32 ``[N, V, 3]``.
        head: float32 ``[N, V, 3]``.
        face: the person's tables.
        frames: the frames.
        finer: rays per pixel and axis.
    """
    place = ((alpha > 0) & surface.seen).nonzero(as_tuple=True)
    frame, row, column = place
    coarse = surface.canonical[place], view_rays(frames.rays[frame], column + 0.5, row + 0.5), frame
    fine, fine_place = _fine_samples(jumps, fine_keys, screen, head, face, frames, finer)
    canonical, direction, owner = (torch.cat(pair) for pair in zip(coarse, fine, strict=True))
    numbers = torch.arange(len(owner), dtype=torch.int32, device=alpha.device)
    slots = torch.full_like(jumps, -1, dtype=torch.int32)
    slots[place] = numbers[: len(frame)]
    fine_slots = torch.full_like(fine_keys, -1, dtype=torch.int32)
    fine_slots[fine_place] = numbers[len(frame) :]
    position = (canonical - face.box_center) * face.box_scale
    return SurfaceSamples(position, direction, owner.int(), slots, fine_slots, None)


def _fine_samples(
    jumps: Tensor, keys: Tensor, screen: Tensor, head: Tensor, face: FaceTables, frames: FrameTensors, finer: int
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Canonical points, directions and frames of the fine rays that hit, and their place in ``keys``."""
    left, top = frames.sizes[:, SIZE_MOUTH].long(), frames.sizes[:, SIZE_MOUTH + 1].long()
    frame, row, column = (keys != EMPTY).nonzero(as_tuple=True)
    coarse_row, coarse_column = top[frame] + row // finer, left[frame] + column // finer
    there = (coarse_row < jumps.shape[1]) & (coarse_column < jumps.shape[2])
    there &= jumps[frame, coarse_row.clamp(max=jumps.shape[1] - 1), coarse_column.clamp(max=jumps.shape[2] - 1)]
    frame, row, column = frame[there], row[there], column[there]
    triangle = (keys[frame, row, column] & 0xFFFFFFFF).long()
    origin = frames.sizes[:, SIZE_MOUTH : SIZE_MOUTH + 2]
    window = window_screen(screen[: len(origin)], origin, finer)
    values, point, _ = _at_points(triangle, frame, column + 0.5, row + 0.5, window, head, face)
    x, y = left[frame] + (column + 0.5) / finer, top[frame] + (row + 0.5) / finer
    direction = view_rays(frames.rays[frame], x, y)
    return (_with_teeth(values, point, direction, face), direction, frame), (frame, row, column)


def assemble(colours: Tensor, samples: SurfaceSamples, jumps: Tensor, frames: FrameTensors, finer: int) -> Tensor:
    """Put shaded samples ``[M, 3]`` in place: float32 ``[B, H, W, 3]``, black where nothing is painted.

    Pixels on a jump get the mean of their fine rays that hit.
    """
    image = torch.where(samples.slots[..., None] >= 0, colours[samples.slots.clamp(min=0).long()], 0.0)
    frame, row, column = jumps.nonzero(as_tuple=True)
    left, top = frames.sizes[frame, SIZE_MOUTH].long(), frames.sizes[frame, SIZE_MOUTH + 1].long()
    total, count = image.new_zeros(len(frame), 3), image.new_zeros(len(frame), 1)
    for down in range(finer):
        for right in range(finer):
            slot = samples.fine_slots[frame, (row - top) * finer + down, (column - left) * finer + right][:, None]
            total += torch.where(slot >= 0, colours[slot[:, 0].clamp(min=0).long()], 0.0)
            count += slot >= 0
    image[frame, row, column] = torch.where(count > 0, total / count.clamp(min=1), image[frame, row, column])
    return image
