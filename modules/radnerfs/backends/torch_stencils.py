"""Neighbourhood operations on batches of padded windows, in plain torch: the specification of the Triton kernels.

They are OpenCV's, frame by frame with radii of its own, as if each window were cut to its true size first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules.radnerfs.backends.torch_surface import inside_windows
from modules.radnerfs.surface_tensors import SIZE_HEIGHT, SIZE_RADIUS, SIZE_WIDTH, FaceTables, SurfaceTensors
from modules.radnerfs.trust import CELLS, GOOD_SHARE, UNSEEN_SHARE

FAR_PX = 1e4
"""Distance where nothing was met within reach."""


def silhouettes(depth: Tensor, sizes: Tensor, step_dm: float) -> Tensor:
    """Pixels ``[B, H, W]`` beside a step in depth of more than ``step_dm``, as ``surface.silhouettes``."""
    own = inside_windows(sizes, *depth.shape[1:])
    finite = torch.where(depth.isfinite(), depth, 1e3)
    edges = torch.zeros_like(own)
    for axis in (1, 2):
        length = depth.shape[axis] - 1
        step = finite.diff(dim=axis).abs() > step_dm
        step = step & own.narrow(axis, 0, length) & own.narrow(axis, 1, length)
        edges.narrow(axis, 0, length).logical_or_(step)
        edges.narrow(axis, 1, length).logical_or_(step)
    return edges


def bounded_distance(zero: Tensor, sizes: Tensor, reach_column: int) -> Tensor:
    """Euclidean distance of every pixel to the nearest marked one.

    Args:
        zero: bool ``[B, H, W]``; marks beyond a window's own size do not count.
        sizes: int32 ``[B, 6]``.
        reach_column: of ``sizes``: how far to look, px (``SIZE_REACH``; ``SIZE_RADIUS`` looks twice as far).

    Returns:
        float32 ``[B, H, W]`` px, exact up to the reach, larger than it beyond (``FAR_PX`` where nothing was met, and
        outside the windows).
    """
    reach = sizes[:, reach_column] * (2 if reach_column == SIZE_RADIUS else 1)
    own = inside_windows(sizes, *zero.shape[1:])
    squared = torch.where(zero & own, 0.0, FAR_PX**2)
    for axis in (1, 2):
        squared = _nearest_along(squared, reach, axis)
    return torch.where(own, squared.sqrt(), FAR_PX)


def _nearest_along(squared: Tensor, reach: Tensor, axis: int) -> Tensor:
    """min over shifts along one axis of ``squared`` + shift², shifts of at most ``reach [B]``."""
    best = squared.clone()
    length = squared.shape[axis]
    for shift in range(1, min(int(reach.max()), length - 1) + 1):
        near = torch.where(shift <= reach[:, None, None], squared + shift * shift, FAR_PX**2)
        kept = length - shift
        for into, out_of in ((0, shift), (shift, 0)):
            part = best.narrow(axis, into, kept)
            torch.minimum(part, near.narrow(axis, out_of, kept), out=part)
    return best


def known(
    surface: SurfaceTensors, distance: Tensor, edge_px: Tensor, face: FaceTables, silhouette_edges: int
) -> Tensor:
    """How far the field is to be believed, as ``surface.view_quality`` and ``PersonField.known``: ``[B, H, W]`` 0..1.

    Args:
        surface: what the pixels see.
        distance: ``[B, H, W]`` px to the nearest silhouette.
        edge_px: ``[B]``.
        face: with trust, best views and the cube.
        silhouette_edges: views are worse within that many of ``edge_px`` of a silhouette.
    """
    quality = view_quality(surface, distance, edge_px, face, silhouette_edges)
    quality = torch.maximum(quality, surface.mouth)  # lips are always replaced
    unit = (surface.canonical - face.box_center) * face.box_scale
    best = _read_cells(face.best_view, unit)
    good = ((quality / best.clamp(min=1e-3) - UNSEEN_SHARE) / (GOOD_SHARE - UNSEEN_SHARE)).clamp(0, 1)
    return torch.where(surface.seen, _read_cells(face.trust, unit) * good, 0.0)


def view_quality(
    surface: SurfaceTensors, distance: Tensor, edge_px: Tensor, face: FaceTables, silhouette_edges: int
) -> Tensor:
    """``surface.view_quality`` of a batch: ``[B, H, W]`` 0..1; arguments as for ``known``."""
    near = (distance / (silhouette_edges * edge_px[:, None, None])).clamp(max=1)
    return torch.where(surface.seen, (surface.cosine * near).clamp(0, 1), 0.0)


def _read_cells(cells: Tensor, unit: Tensor) -> Tensor:
    """A grid ``[G, G, G]`` read at points ``[..., 3]`` of the cube, trilinearly; 0 beyond the outer cells' centres."""
    at = (unit + 1) / 2 * CELLS - 0.5
    inside = ((at >= 0) & (at <= CELLS - 1)).all(dim=-1)
    low = at.floor().clamp(0, CELLS - 2)
    share, low = at - low, low.long()
    value = torch.zeros_like(at[..., 0])
    for corner in range(8):
        offset = [(corner >> axis) & 1 for axis in range(3)]
        weight = torch.ones_like(value)
        for axis in range(3):
            weight = weight * (share[..., axis] if offset[axis] else 1 - share[..., axis])
        x, y, z = (low[..., axis] + offset[axis] for axis in range(3))
        value = value + weight * cells[z, y, x]
    return torch.where(inside, value, 0.0)


def dilate(values: Tensor, sizes: Tensor) -> Tensor:
    """Largest value ``[B, H, W]`` in a disc, as ``cv2.dilate`` with an ellipse of radius ``SIZE_RADIUS``."""
    own = inside_windows(sizes, *values.shape[1:])
    grown = torch.zeros_like(values)
    for frame, radius in enumerate(sizes[:, SIZE_RADIUS].tolist()):
        padded = torch.nn.functional.pad(torch.where(own, values, 0.0)[frame], [radius] * 4)
        for down in range(-radius, radius + 1):
            half = int((radius * radius - down * down) ** 0.5 + 0.5)
            rows = padded[radius + down : radius + down + values.shape[1]]
            for right in range(-half, half + 1):
                torch.maximum(
                    grown[frame], rows[:, radius + right : radius + right + values.shape[2]], out=grown[frame]
                )
    return torch.where(own, grown, 0.0)


def soften(values: Tensor, sizes: Tensor) -> Tensor:
    """Gaussian blur ``[B, H, W]`` as ``cv2.GaussianBlur`` with sigma = ``SIZE_RADIUS`` / 2 does it on floats."""
    out = torch.zeros_like(values)
    for frame, (width, height, radius) in enumerate(sizes[:, [SIZE_WIDTH, SIZE_HEIGHT, SIZE_RADIUS]].tolist()):
        window = values[frame, :height, :width]
        out[frame, :height, :width] = gaussian(window[..., None], radius / 2)[..., 0]
    return out


def gaussian(image: Tensor, sigma: float) -> Tensor:
    """Blur of ``[h, w, C]`` with mirrored borders; the kernel reaches four sigma."""
    half = round(sigma * 8 + 1) // 2
    offsets = torch.arange(-half, half + 1, device=image.device)
    taps = torch.exp(-offsets.double().square() / (2 * sigma * sigma))
    taps = (taps / taps.sum()).float()
    for axis in (1, 0):
        places = mirrored(torch.arange(image.shape[axis], device=image.device)[:, None] + offsets, image.shape[axis])
        image = torch.stack([t * image.index_select(axis, p) for t, p in zip(taps, places.T, strict=True)]).sum(dim=0)
    return image


def mirrored(index: Tensor, length: int) -> Tensor:
    """Places ``index`` beyond 0 .. length - 1 reflected at the first and last one, as BORDER_REFLECT_101."""
    if length == 1:
        return torch.zeros_like(index)
    folded = index.abs() % (2 * (length - 1))
    return torch.where(folded >= length, 2 * (length - 1) - folded, folded)


def fade(soft: Tensor, distance: Tensor, reliable: Tensor, sizes: Tensor, least: float) -> Tensor:
    """The end of ``surface.soft_alpha``, times what is known.

    Args:
        soft: ``[B, H, W]`` grown and blurred weight.
        distance: ``[B, H, W]`` px to the nearest pixel that cannot be painted.
        reliable: ``[B, H, W]`` of ``known``; at most ``least`` cannot be painted.
        sizes: int32 ``[B, 6]``.
        least: see ``reliable``.
    """
    inside = (distance / (2 * sizes[:, SIZE_RADIUS, None, None])).clamp(0, 1)
    faded = inside * inside * (3 - 2 * inside)
    return torch.where(reliable > least, ((soft * faded).clamp(0, 1) * reliable).clamp(max=1), 0.0)


def sharpen(image: Tensor, inside: Tensor, share: Tensor, sizes: Tensor, sigma: float) -> Tensor:
    """``antialias.sharpened`` of a batch.

    Args:
        image: ``[B, H, W, 3]`` 0..1.
        inside: bool ``[B, H, W]``; pixels outside neither change nor count.
        share: ``[B, H, W]`` share of the difference from the blurred picture that is added.
        sizes: int32 ``[B, 6]``.
        sigma: px.
    """
    out = image.clone()
    for frame, (width, height) in enumerate(sizes[:, [SIZE_WIDTH, SIZE_HEIGHT]].tolist()):
        rgb, weight = image[frame, :height, :width], inside[frame, :height, :width, None].float()
        blurred = gaussian(torch.cat([rgb * weight, weight], dim=-1), sigma)
        smooth = blurred[..., :3] / blurred[..., 3:].clamp(min=1e-6)
        lifted = (rgb + share[frame, :height, :width, None] * (rgb - smooth)).clamp(0, 1)
        out[frame, :height, :width] = torch.where(weight > 0, lifted, rgb)
    return out
