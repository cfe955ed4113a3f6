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
        vertices_px: ``[V, 2]`` px.
        depth: ``[V]`` dm, positive in front of the camera.
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
    size_hw = (y1 - y0, x1 - x0)
    x, y = (vertices_px.astype(np.float64) - [x0, y0]).T
    nearness = _inverse_depth(x, y, depth)
    kept = _drawable(x[triangles], y[triangles], nearness[triangles], size_hw, cull_back_faces)
    corners = triangles[kept].T  # [3, F]
    faces = _Faces(kept, x[corners], y[corners], nearness[corners])
    winner = _resolve(_spans(faces, size_hw), faces, size_hw)
    return _fragments(winner, faces, bounds)


def interpolate(
    fragments: Fragments, triangles: NDArray[np.integer], attributes: NDArray[np.floating], fill: float = 0.0
) -> NDArray[np.float32]:
    """Spread vertex attributes over the pixels: ``[V, C]`` to float32 ``[h, w, C]``, ``fill`` where nothing is seen."""
    height, width = fragments.triangle_id.shape
    out = np.full((height * width, attributes.shape[1]), fill, dtype=np.float32)
    seen = np.flatnonzero(fragments.covered)  # whole rows by number are read several times faster than by a mask
    found = np.take(fragments.triangle_id.reshape(-1), seen)
    weights = np.take(fragments.barycentric.reshape(-1, 3), seen, axis=0)  # [P, 3]
    values = attributes.astype(np.float32, copy=False)
    spread = np.zeros((len(seen), attributes.shape[1]), np.float32)
    for k in range(3):
        spread += np.take(values, np.take(triangles[:, k], found), axis=0) * weights[:, k : k + 1]
    out[seen] = spread
    return out.reshape(height, width, -1)


def vertex_normals(vertices: NDArray[np.floating], triangles: NDArray[np.integer]) -> NDArray[np.float64]:
    """Area-weighted unit normals ``[V, 3]`` of a mesh ``[V, 3]``, ``[F, 3]``."""
    a, b, c = (vertices[triangles[:, k]].astype(np.float64) for k in range(3))
    faces = np.cross(b - a, c - a)
    normals = np.zeros((len(vertices), 3))
    for axis in range(3):
        for k in range(3):
            normals[:, axis] += np.bincount(triangles[:, k], weights=faces[:, axis], minlength=len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


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
        rgb: uint8 ``[H, W, 3]``, left as it is.
        vertices_px: ``[V, 2]`` px of that image.
        triangles: ``[F, 3]``; pass only those that should be seen.
        color: RGB 0..255.
        opacity: of the lines, 0..1.
        scale: enlarge the picture first, so that thin meshes stay readable.

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


@dataclass(frozen=True, slots=True, eq=False)
class _Faces:
    """Triangles that may be seen: their ids ``[F]``, corners ``[3, F]`` in window px and 1/depth there ``[3, F]``."""

    ids: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    nearness: NDArray[np.float64]


def _inverse_depth(x: NDArray[np.float64], y: NDArray[np.float64], depth: NDArray[np.floating]) -> NDArray[np.float64]:
    """1/depth, NaN for vertices that cannot be drawn."""
    drawable = np.isfinite(x) & np.isfinite(y) & np.isfinite(depth) & (depth > 0)
    return np.divide(1.0, depth, out=np.full(len(depth), np.nan), where=drawable)


def _drawable(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    nearness: NDArray[np.float64],
    size_hw: tuple[int, int],
    cull_back_faces: bool,
) -> NDArray[np.int64]:
    """Ids of triangles (corners ``[F, 3]``) that can touch the window."""
    height, width = size_hw
    with np.errstate(invalid="ignore"):
        area = _doubled_area(x.T, y.T)
        # y points down, so front faces run clockwise
        kept = np.isfinite(nearness.sum(axis=1)) & ((area < 0) if cull_back_faces else (area != 0))
        for values, limit in ((x, width), (y, height)):
            kept &= ((values[:, 0] > 0) | (values[:, 1] > 0) | (values[:, 2] > 0)) & (
                (values[:, 0] < limit) | (values[:, 1] < limit) | (values[:, 2] < limit)
            )
    return np.flatnonzero(kept)


def _doubled_area(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twice the signed area of triangles with corners ``[3, F]``."""
    return (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])


def _spans(faces: _Faces, size_hw: tuple[int, int]) -> _Spans:
    """Cut triangles into rows: a row is theirs when top ≤ its centre < bottom, a pixel likewise from left to right."""
    height, width = size_hw
    x, y = _top_to_bottom(faces.x, faces.y)
    first_row = np.clip(np.ceil(y[0] - 0.5), 0, height).astype(np.int64)
    stop_row = np.clip(np.ceil(y[2] - 0.5), 0, height).astype(np.int64)
    triangle, step = _expand(np.maximum(stop_row - first_row, 0))
    row = first_row[triangle] + step
    center = row + 0.5
    long_x = _edge_x(x, y, 0, 2, triangle, center)
    below = center >= y[1][triangle]
    short_x = np.where(below, _edge_x(x, y, 1, 2, triangle, center), _edge_x(x, y, 0, 1, triangle, center))
    start = np.clip(np.ceil(np.minimum(long_x, short_x) - 0.5), 0, width).astype(np.int64)
    stop = np.clip(np.ceil(np.maximum(long_x, short_x) - 0.5), 0, width).astype(np.int64)
    filled = np.flatnonzero(stop > start)
    return _Spans(triangle[filled], row[filled], start[filled], stop[filled])


def _top_to_bottom(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Order the corners ``[3, F]`` by y, equal y by x, so that both owners of an edge name its ends alike."""
    xs, ys = list(x), list(y)
    for i, j in ((0, 1), (1, 2), (0, 1)):
        swap = (ys[i] > ys[j]) | ((ys[i] == ys[j]) & (xs[i] > xs[j]))
        xs[i], xs[j] = np.where(swap, xs[j], xs[i]), np.where(swap, xs[i], xs[j])
        ys[i], ys[j] = np.where(swap, ys[j], ys[i]), np.where(swap, ys[i], ys[j])
    return xs, ys


def _edge_x(
    x: list[NDArray[np.float64]],
    y: list[NDArray[np.float64]],
    upper: int,
    lower: int,
    triangle: NDArray[np.int64],
    height: NDArray[np.floating],
) -> NDArray[np.float64]:
    """x where the edge ``upper`` → ``lower`` of each named triangle crosses ``height``."""
    rise = y[lower] - y[upper]
    slope = np.divide(x[lower] - x[upper], rise, out=np.zeros_like(rise), where=rise > 0)
    return x[upper][triangle] + (height - y[upper][triangle]) * slope[triangle]


def _expand(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Owner and running number of each of ``counts[i]`` items: [2, 1] gives ([0, 0, 1], [0, 1, 0])."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _plane(faces: _Faces, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Planes ``a·x + b·y + c`` through ``values [3, F]`` at the corners."""
    x, y = faces.x, faces.y
    area = _doubled_area(x, y)
    rise_1, rise_2 = values[1] - values[0], values[2] - values[0]
    a = (rise_1 * (y[2] - y[0]) - rise_2 * (y[1] - y[0])) / area
    b = (rise_2 * (x[1] - x[0]) - rise_1 * (x[2] - x[0])) / area
    return a, b, values[0] - a * x[0] - b * y[0]


def _resolve(spans: _Spans, faces: _Faces, size_hw: tuple[int, int]) -> NDArray[np.int64]:
    """Index of the nearest face per pixel of the flat window, -1 where none.

    1/depth is linear on the screen, and the nearest has the largest.
    """
    height, width = size_hw
    a, b, c = _plane(faces, faces.nearness)
    slope = a[spans.triangle]
    at_start = slope * (spans.start + 0.5) + b[spans.triangle] * (spans.row + 0.5) + c[spans.triangle]
    # a sliver's plane is steep: a centre that rounding put outside it must not run away
    low, high = faces.nearness.min(axis=0)[spans.triangle], faces.nearness.max(axis=0)[spans.triangle]
    span, step = _expand(spans.stop - spans.start)
    nearness = np.clip(at_start[span] + slope[span] * step, low[span], high[span])
    pixel = (spans.row * width + spans.start)[span] + step
    best = np.full(height * width, -np.inf)
    np.maximum.at(best, pixel, nearness)
    wins = np.flatnonzero(nearness == best[pixel])[::-1]  # reversed: the first listed is written last
    winner = np.full(height * width, -1, dtype=np.int64)
    winner[pixel[wins]] = spans.triangle[span[wins]]
    return winner


def _fragments(winner: NDArray[np.int64], faces: _Faces, bounds: Bounds) -> Fragments:
    """Barycentric weights and depth of the winners."""
    height, width = bounds[3] - bounds[1], bounds[2] - bounds[0]
    triangle_id = np.full(height * width, -1, dtype=np.int32)
    barycentric = np.zeros((height * width, 3), dtype=np.float32)
    depth = np.full(height * width, np.inf, dtype=np.float32)
    seen = np.flatnonzero(winner >= 0)
    face = winner[seen]
    x, y = seen % width + 0.5, seen // width + 0.5
    shares = []  # each corner's part of 1/depth, linear on the screen
    for k in range(3):
        values = np.zeros_like(faces.nearness)
        values[k] = faces.nearness[k]
        a, b, c = _plane(faces, values)
        # rounding can put a centre a hair outside its own triangle
        shares.append(np.maximum(a[face] * x + b[face] * y + c[face], 0.0))
    nearness = shares[0] + shares[1] + shares[2]
    triangle_id[seen] = faces.ids[face]
    for k in range(3):
        barycentric[seen, k] = shares[k] / nearness
    depth[seen] = 1.0 / nearness
    return Fragments(
        triangle_id.reshape(height, width), barycentric.reshape(height, width, 3), depth.reshape(height, width), bounds
    )
