"""A small z-buffer rasteriser: which triangle does each pixel see, and where in it.

Triangles are cut into pixel rows, rows into pixels, all of it vectorised; only pixels inside a triangle are ever
made, so the cost follows the covered area. An edge's crossing of a row is computed from the same two end points in
the same order by both triangles that share it, and a row owns its pixels half-open, so neighbours neither overlap
nor leave a hole. Pixel (row r, column c) is sampled at its centre (c + 0.5, r + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Bounds = tuple[int, int, int, int]
"""Integer half-open (x0, y0, x1, y1), px."""


@dataclass(frozen=True, slots=True, eq=False)
class Fragments:
    """What the pixels of a window see.

    Attributes:
        triangle_id: int32 ``[h, w]``; -1 where nothing is seen.
        barycentric: float32 ``[h, w, 3]``, perspective-correct weights of the triangle's vertices, 0 where empty.
        depth: float32 ``[h, w]``, dm; +inf where empty.
        bounds: the window, px.
    """

    triangle_id: NDArray[np.int32]
    barycentric: NDArray[np.float32]
    depth: NDArray[np.float32]
    bounds: Bounds

    @property
    def covered(self) -> NDArray[np.bool_]:
        """``[h, w]``: True where a triangle is seen."""
        return self.triangle_id >= 0

    def __repr__(self) -> str:
        return f"Fragments(bounds={self.bounds}, covered={float(self.covered.mean()):.3f})"


@dataclass(frozen=True, slots=True, eq=False)
class _Spans:
    """Runs of pixels ``[start, stop)`` of one triangle in one row, window coordinates."""

    triangle: NDArray[np.int64]
    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def rasterize(
    vertices_px: NDArray[np.floating],
    depth: NDArray[np.floating],
    triangles: NDArray[np.integer],
    bounds: Bounds,
    *,
    cull_back_faces: bool = False,
) -> Fragments:
    """Find the nearest triangle at every pixel centre of a window.

    Triangles with a vertex that is not finite or not in front of the camera are left out whole; there is no near
    clipping. Where two triangles are equally near, the one listed first wins.

    Args:
        vertices_px: ``[V, 2]`` px. depth: ``[V]`` dm, positive in front of the camera.
        triangles: ``[F, 3]`` vertex ids, counter-clockwise seen from outside with y up.
        bounds: the window; may reach outside the image.
        cull_back_faces: drop triangles that turn their back to the camera.

    Raises:
        ValueError: when the window is empty or shapes disagree.
    """
    x0, y0, x1, y1 = bounds
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"empty raster window: {bounds}")
    if vertices_px.shape != (len(depth), 2) or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(f"vertices {vertices_px.shape}, depth {depth.shape}, triangles {triangles.shape} disagree")
    origin = np.array([x0, y0], dtype=np.float64)
    points = vertices_px.astype(np.float64) - origin
    inverse_depth = _inverse_depth(points, depth)
    corners = points[triangles]  # [F, 3, 2]
    kept = _drawable(corners, inverse_depth[triangles], (y1 - y0, x1 - x0), cull_back_faces)
    spans = _spans(corners[kept], (y1 - y0, x1 - x0))
    planes = _plane_gradients(corners[kept], inverse_depth[triangles[kept]])
    winner = _resolve(spans, planes, (y1 - y0, x1 - x0))
    return _fragments(winner, kept, corners, inverse_depth[triangles], bounds)


def interpolate(
    fragments: Fragments, triangles: NDArray[np.integer], attributes: NDArray[np.floating], fill: float = 0.0
) -> NDArray[np.float32]:
    """Spread vertex attributes over the pixels: ``[V, C]`` to float32 ``[h, w, C]``, ``fill`` where nothing is seen."""
    height, width = fragments.triangle_id.shape
    out = np.full((height, width, attributes.shape[1]), fill, dtype=np.float32)
    covered = fragments.covered
    corners = triangles[fragments.triangle_id[covered]]  # [P, 3]
    weights = fragments.barycentric[covered]  # [P, 3]
    values = attributes.astype(np.float32, copy=False)
    out[covered] = sum(weights[:, k, None] * values[corners[:, k]] for k in range(3))
    return out


def draw_wireframe(
    rgb: NDArray[np.uint8],
    vertices_px: NDArray[np.floating],
    triangles: NDArray[np.integer],
    color: tuple[int, int, int] = (0, 255, 0),
    *,
    opacity: float = 0.5,
    scale: int = 1,
) -> NDArray[np.uint8]:
    """Draw a mesh over an image, for looking at fits.

    Args:
        rgb: uint8 ``[H, W, 3]``, left as it is. vertices_px: ``[V, 2]`` px of that image.
        triangles: ``[F, 3]``; pass only those that should be seen. color: RGB 0..255.
        opacity: of the lines, 0..1. scale: enlarge the picture first, so that thin meshes stay readable.

    Returns:
        uint8 ``[H·scale, W·scale, 3]``.
    """
    height, width = rgb.shape[:2]
    base = cv2.resize(rgb, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC) if scale != 1 else rgb
    lines = np.ascontiguousarray(base).copy()
    finite = np.isfinite(vertices_px[triangles]).all(axis=(1, 2))
    # OpenCV centres pixels on whole numbers and takes 1/16 px fixed point; far-off points would overflow it
    fixed = np.clip((np.nan_to_num(vertices_px) * scale - 0.5) * 16, -(2**20), 2**20).round().astype(np.int32)
    cv2.polylines(lines, list(fixed[triangles[finite]]), True, color, 1, cv2.LINE_AA, 4)
    return cv2.addWeighted(lines, opacity, np.ascontiguousarray(base), 1.0 - opacity, 0.0).astype(np.uint8)


def draw_points(
    rgb: NDArray[np.uint8],
    points_px: NDArray[np.floating],
    color: tuple[int, int, int] = (255, 0, 0),
    *,
    radius_px: float = 1.5,
) -> NDArray[np.uint8]:
    """Draw dots ``[N, 2]`` px over a copy of an image, with sub-pixel centres."""
    out = np.ascontiguousarray(rgb).copy()
    for x, y in points_px[np.isfinite(points_px).all(axis=1)]:
        center = (round((float(x) - 0.5) * 16), round((float(y) - 0.5) * 16))
        cv2.circle(out, center, round(radius_px * 16), color, -1, cv2.LINE_AA, 4)
    return out


def _inverse_depth(points: NDArray[np.float64], depth: NDArray[np.floating]) -> NDArray[np.float64]:
    """1/depth, NaN for vertices that cannot be drawn."""
    drawable = np.isfinite(points).all(axis=1) & np.isfinite(depth) & (depth > 0)
    return np.divide(1.0, depth, out=np.full(len(depth), np.nan), where=drawable)


def _drawable(
    corners: NDArray[np.float64], inverse_depth: NDArray[np.float64], size_hw: tuple[int, int], cull: bool
) -> NDArray[np.int64]:
    """Ids of triangles that can touch the window."""
    height, width = size_hw
    low, high = corners.min(axis=1), corners.max(axis=1)
    with np.errstate(invalid="ignore"):
        kept = np.isfinite(inverse_depth).all(axis=1)
        kept &= (high > 0).all(axis=1) & (low[:, 0] < width) & (low[:, 1] < height)
        area = _doubled_area(corners)
        kept &= (area < 0) if cull else (area != 0)  # y points down, so front faces run clockwise
    return np.flatnonzero(kept)


def _doubled_area(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _spans(corners: NDArray[np.float64], size_hw: tuple[int, int]) -> _Spans:
    """Cut triangles ``[F, 3, 2]`` into rows: a row is theirs when y_top ≤ its centre < y_bottom, likewise in x."""
    height, width = size_hw
    # top to bottom; equal y by x, so that both owners of an edge name its ends in the same order
    order = np.lexsort((corners[..., 0], corners[..., 1]), axis=1)
    sorted_corners = np.take_along_axis(corners, order[..., None], axis=1)
    top, middle, bottom = sorted_corners.transpose(1, 0, 2)
    first_row = np.clip(np.ceil(top[:, 1] - 0.5), 0, height).astype(np.int64)
    stop_row = np.clip(np.ceil(bottom[:, 1] - 0.5), 0, height).astype(np.int64)
    triangle, step = _expand(np.maximum(stop_row - first_row, 0))
    row = first_row[triangle] + step
    center = row + 0.5
    long_x = _edge_x(top[triangle], bottom[triangle], center)
    above = center < middle[triangle, 1]
    upper = np.where(above[:, None], top[triangle], middle[triangle])
    lower = np.where(above[:, None], middle[triangle], bottom[triangle])
    short_x = _edge_x(upper, lower, center)
    start = np.clip(np.ceil(np.minimum(long_x, short_x) - 0.5), 0, width).astype(np.int64)
    stop = np.clip(np.ceil(np.maximum(long_x, short_x) - 0.5), 0, width).astype(np.int64)
    return _Spans(triangle, row, start, np.maximum(start, stop))


def _edge_x(upper: NDArray[np.float64], lower: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """x where the edge ``upper`` → ``lower`` (``[S, 2]`` each) crosses height ``y``."""
    rise = lower[:, 1] - upper[:, 1]
    along = np.divide(y - upper[:, 1], rise, out=np.zeros_like(y), where=rise > 0)
    return upper[:, 0] + along * (lower[:, 0] - upper[:, 0])


def _expand(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Owner and running number of each of ``counts[i]`` items: [2, 1] gives ([0, 0, 1], [0, 1, 0])."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _plane_gradients(corners: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Planes ``a·x + b·y + c`` through ``values [F, 3]`` at the corners: ``[F, 3]``."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    rise_1, rise_2 = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    area = _doubled_area(corners)
    a = (rise_1 * second[:, 1] - rise_2 * first[:, 1]) / area
    b = (rise_2 * first[:, 0] - rise_1 * second[:, 0]) / area
    return np.stack([a, b, values[:, 0] - a * corners[:, 0, 0] - b * corners[:, 0, 1]], axis=1)


def _resolve(spans: _Spans, planes: NDArray[np.float64], size_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Index (into ``planes``) of the nearest triangle per pixel of the flat window, -1 where none.

    1/depth is linear on the screen, so the nearest has the largest; slivers are held to it by their own span.
    """
    height, width = size_hw
    span, step = _expand(spans.stop - spans.start)
    slope = planes[spans.triangle, 0]
    at_start = (
        slope * (spans.start + 0.5) + planes[spans.triangle, 1] * (spans.row + 0.5) + planes[spans.triangle, 2]
    )
    nearness = at_start[span] + slope[span] * step
    pixel = (spans.row * width + spans.start)[span] + step
    best = np.full(height * width, -np.inf)
    np.maximum.at(best, pixel, nearness)
    wins = np.flatnonzero(nearness == best[pixel])[::-1]  # reversed: the first listed is written last
    winner = np.full(height * width, -1, dtype=np.int64)
    winner[pixel[wins]] = spans.triangle[span[wins]]
    return winner


def _fragments(
    winner: NDArray[np.int64],
    kept: NDArray[np.int64],
    corners: NDArray[np.float64],
    inverse_depth: NDArray[np.float64],
    bounds: Bounds,
) -> Fragments:
    """Barycentric weights and depth of the winners."""
    height, width = bounds[3] - bounds[1], bounds[2] - bounds[0]
    triangle_id = np.full(height * width, -1, dtype=np.int32)
    barycentric = np.zeros((height * width, 3), dtype=np.float32)
    depth = np.full(height * width, np.inf, dtype=np.float32)
    seen = np.flatnonzero(winner >= 0)
    ids = kept[winner[seen]]
    triangle_id[seen] = ids
    center = np.stack([seen % width + 0.5, seen // width + 0.5], axis=1)
    a, b, c = corners[ids].transpose(1, 0, 2)
    area = _doubled_area(corners[ids])
    flat = np.stack([_cross(b - center, c - center), _cross(c - center, a - center)], axis=1) / area[:, None]
    # rounding can put a centre a hair outside its own triangle
    screen = np.clip(np.column_stack([flat, 1.0 - flat.sum(axis=1)]), 0.0, 1.0)
    weighted = screen * inverse_depth[ids]
    nearness = weighted.sum(axis=1)
    barycentric[seen] = weighted / nearness[:, None]
    depth[seen] = screen.sum(axis=1) / nearness
    return Fragments(
        triangle_id.reshape(height, width), barycentric.reshape(height, width, 3), depth.reshape(height, width), bounds
    )


def _cross(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
