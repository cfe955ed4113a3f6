"""Draw a fitted face over a picture: wireframe, landmarks, how far they are off, and the head's axes.

Pure functions on arrays. Points are continuous pixels of the video's frame; a ``View`` says which part of it a canvas
shows and how large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.face_model.mesh_renderer import rasterize, vertex_normals
from modules.structures.frames import RgbImage

Rgb = tuple[int, int, int]

GOOD, BAD = 1.0, 4.0
"""Errors, % of the distance between the eyes, up to which a point is green and from which on it is red."""
GREEN, YELLOW, RED = (64, 222, 100), (255, 214, 64), (255, 56, 48)
HIDDEN = (206, 212, 220)
MESH, MODEL_LIPS = (150, 226, 255), (120, 224, 255)
AXES: tuple[Rgb, Rgb, Rgb] = ((255, 70, 60), (70, 220, 90), (80, 150, 255))
RIM, OUTSIDE = (12, 14, 18), (24, 26, 30)
_FIXED = 16
"""OpenCV draws at sixteenths of a pixel."""
_FAR = 2.0**16
_LEVELS = 6
_RASTER_PX = 192
_BEHIND_DM = 0.06
_RIM_FROM = 1.5
"""Smaller dots would be all rim."""


@dataclass(frozen=True, slots=True)
class View:
    """A window of the frame: its top left corner in frame px, canvas px per frame px, and the canvas's size."""

    x: float
    y: float
    scale: float
    width: int
    height: int

    @classmethod
    def around(cls, center: NDArray[np.floating], scale: float, width: int, height: int) -> View:
        """The window whose middle is ``center`` ``[2]`` px."""
        x, y = (float(value) for value in center)
        return cls(x - width / scale / 2, y - height / scale / 2, scale, width, height)

    def points(self, points_px: NDArray[np.floating]) -> NDArray[np.float64]:
        """Frame px ``[..., 2]`` to canvas px."""
        return (np.asarray(points_px, np.float64) - [self.x, self.y]) * self.scale

    def sample(self, rgb: RgbImage) -> RgbImage:
        """What the window shows of a frame ``[H, W, 3]``; dark outside the frame."""
        high, wide = rgb.shape[:2]
        margin = 3 / self.scale
        x0, y0 = max(math.floor(self.x - margin), 0), max(math.floor(self.y - margin), 0)
        x1 = min(math.ceil(self.x + self.width / self.scale + margin), wide)
        y1 = min(math.ceil(self.y + self.height / self.scale + margin), high)
        if x0 >= x1 or y0 >= y1:
            return np.full((self.height, self.width, 3), OUTSIDE, np.uint8)
        part, shrunk = rgb[y0:y1, x0:x1], (1.0, 1.0)
        if self.scale < 1.0:  # over areas, so that nothing flickers
            size = max(round((x1 - x0) * self.scale), 1), max(round((y1 - y0) * self.scale), 1)
            part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
            shrunk = size[0] / (x1 - x0), size[1] / (y1 - y0)
        # pixel centres lie at +0.5 in our coordinates and at whole numbers in OpenCV's
        ratio = [self.scale / factor for factor in shrunk]
        starts = (self.x - x0, self.y - y0)
        shift = [0.5 * r - 0.5 - self.scale * start for r, start in zip(ratio, starts, strict=True)]
        matrix = np.array([[ratio[0], 0.0, shift[0]], [0.0, ratio[1], shift[1]]])
        how = cv2.INTER_CUBIC if self.scale > 1.0 else cv2.INTER_LINEAR
        warped = cv2.warpAffine(part, matrix, (self.width, self.height), flags=how, borderValue=OUTSIDE)
        return np.asarray(warped, np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Wires:
    """Which edges of a mesh are drawn.

    Attributes:
        triangles: int64 ``[F, 3]`` of the whole mesh, which hide what lies behind them.
        edges: int64 ``[E, 2]`` vertex ids.
        owners: int64 ``[E, 2]`` the one or two triangles of each edge (one: named twice).
    """

    triangles: NDArray[np.int64]
    edges: NDArray[np.int64]
    owners: NDArray[np.int64]


def wires_of(vertices: NDArray[np.floating], triangles: NDArray[np.int64], drawn: NDArray[np.bool_]) -> Wires:
    """The edges of a mesh without the diagonals of its four-sided faces, which would only make it look busier.

    Args:
        vertices: ``[V, 3]`` at rest.
        triangles: ``[F, 3]``.
        drawn: ``[F]`` triangles that are shown at all.
    """
    sides = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]], axis=2)  # [F, 3, 2]
    length = np.linalg.norm(vertices[sides[..., 0]] - vertices[sides[..., 1]], axis=2)
    is_longest = np.arange(3) == length.argmax(axis=1)[:, None]
    owner = np.repeat(np.arange(len(triangles)), 3)
    edges, inverse, count = np.unique(sides.reshape(-1, 2), axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    order = np.argsort(inverse, kind="stable")
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    owners = np.stack([owner[order[first]], owner[order[first + count - 1]]], axis=1)
    longest = np.bincount(inverse, weights=is_longest.reshape(-1), minlength=len(edges))
    is_diagonal = (count == 2) & (longest == 2)
    kept = ~is_diagonal & drawn[owners].any(axis=1)
    return Wires(triangles, edges[kept], owners[kept])


def error_colours(errors: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Green, yellow, red: errors ``[N]``, % of the distance between the eyes, to RGB ``[N, 3]``; NaN = not seen."""
    stops = np.array([GOOD, (GOOD + BAD) / 2, BAD])
    table = np.array([GREEN, YELLOW, RED], np.float64)
    rgb = np.stack([np.interp(np.nan_to_num(errors), stops, table[:, k]) for k in range(3)], axis=1)
    return np.where(np.isfinite(errors)[:, None], rgb, HIDDEN).round().astype(np.uint8)


def visible_wires(
    wires: Wires, vertices: NDArray[np.floating], vertices_px: NDArray[np.floating], depth: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Edges that the camera sees, and how squarely it sees them.

    Args:
        wires: the mesh.
        vertices: ``[V, 3]`` dm in camera axes.
        vertices_px: ``[V, 2]``.
        depth: ``[V]`` dm.

    Returns:
        ``[N, 2]`` vertex ids and ``[N]`` in 0..1: 1 = faced, 0 = seen along the surface.
    """
    corners = vertices_px[wires.triangles]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    faces_camera = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0] < 0  # y points down, so front faces run clockwise
    seen = _unobstructed(wires.triangles, vertices_px, depth)
    kept = faces_camera[wires.owners].any(axis=1) & seen[wires.edges].all(axis=1)
    normals = vertex_normals(vertices, wires.triangles)
    away = np.array([0.0, 0.0, 10.0]) - vertices
    facing = (normals * away).sum(axis=1) / np.maximum(np.linalg.norm(away, axis=1), 1e-9)
    return wires.edges[kept], np.clip(facing[wires.edges[kept]].mean(axis=1), 0.0, 1.0)


def _unobstructed(
    triangles: NDArray[np.int64], vertices_px: NDArray[np.floating], depth: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """``[V]``: nothing of the mesh lies before a vertex; judged on a small raster."""
    low, high = vertices_px.min(axis=0), vertices_px.max(axis=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (depth > 0).all() and (high > low).all()):
        return np.zeros(len(vertices_px), bool)
    small = (vertices_px - low) * ((_RASTER_PX - 4) / (high - low).max()) + 2
    fragments = rasterize(small, depth, triangles, (0, 0, _RASTER_PX, _RASTER_PX))
    nearest = np.where(fragments.covered, fragments.depth, np.float32(1e9))
    # the farthest surface near the vertex: its own slope and the raster's steps must not hide it
    nearest = np.asarray(cv2.dilate(nearest, np.ones((3, 3), np.uint8)))
    column, row = small.astype(int).T
    return depth <= nearest[row, column] + _BEHIND_DM


def draw_wires(
    canvas: RgbImage,
    points: NDArray[np.floating],
    edges: NDArray[np.int64],
    facing: NDArray[np.floating],
    *,
    opacity: float,
    colour: Rgb = MESH,
) -> None:
    """Lay thin lines over ``canvas``, fainter where the surface turns away and where the mesh is too fine to be told.

    Args:
        canvas: uint8 ``[H, W, 3]``, drawn on.
        points: ``[V, 2]`` canvas px.
        edges: ``[N, 2]`` vertex ids.
        facing: ``[N]`` 0..1.
        opacity: of a line that is faced.
        colour: RGB.
    """
    finite = np.flatnonzero(np.isfinite(points[edges]).all(axis=(1, 2)))
    ends, facing = points[edges[finite]], facing[finite]
    if not len(ends):
        return
    typical_px = float(np.median(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)))
    opacity *= float(np.clip(typical_px / 7.0, 0.3, 1.0))
    window = _window(canvas, ends.reshape(-1, 2))
    if window is None:
        return
    part, corner = window
    near = ((ends.max(axis=1) >= corner) & (ends.min(axis=1) <= corner + part.shape[1::-1])).all(axis=1)
    mask = np.zeros(part.shape[:2], np.uint8)
    level = np.ceil(np.clip(0.25 + 0.75 * facing, 0, 1) * _LEVELS).astype(int)
    lines = _fixed(ends - corner)
    for step in range(1, _LEVELS + 1):  # the brighter later: where lines cross, the one that is faced shows
        chosen = lines[near & (level == step)]
        if len(chosen):
            cv2.polylines(mask, list(chosen), False, round(255 * step / _LEVELS), 1, cv2.LINE_AA, 4)
    _tint(part, mask, colour, opacity)


def draw_contour(canvas: RgbImage, points: NDArray[np.floating], *, opacity: float, colour: Rgb = MODEL_LIPS) -> None:
    """A closed thin line through ``points`` ``[N, 2]`` canvas px."""
    window = _window(canvas, points)
    if window is not None:
        part, corner = window
        mask = np.zeros(part.shape[:2], np.uint8)
        cv2.polylines(mask, [_fixed(points - corner)], True, 255, 1, cv2.LINE_AA, 4)
        _tint(part, mask, colour, opacity)


def draw_offsets(
    canvas: RgbImage,
    start: NDArray[np.floating],
    stop: NDArray[np.floating],
    colours: NDArray[np.uint8],
    *,
    magnified: float,
) -> None:
    """Lines from tracked points ``[N, 2]`` towards where the model has them, ``magnified`` times as long."""
    known = np.flatnonzero(np.isfinite(start).all(axis=1) & np.isfinite(stop).all(axis=1))
    start, stop = start[known], stop[known]
    ends = _fixed(np.stack([start, start + magnified * (stop - start)], axis=1))
    for line, colour in zip(ends, colours[known].tolist(), strict=True):
        cv2.line(canvas, line[0].tolist(), line[1].tolist(), colour, 1, cv2.LINE_AA, 4)


def draw_dots(
    canvas: RgbImage,
    points: NDArray[np.floating],
    colours: NDArray[np.uint8],
    hollow: NDArray[np.bool_],
    *,
    radius: float,
) -> None:
    """Round dots ``[N, 2]`` canvas px with a dark rim where there is room for one; rings where ``hollow``."""
    height, width = canvas.shape[:2]
    reach = math.ceil(radius + 1.5)
    inside = (points > -reach) & (points < [width + reach, height + reach])  # NaN is neither
    near = np.flatnonzero(inside.all(axis=1))
    points, colours, hollow = points[near], colours[near], hollow[near]
    if not len(points):
        return
    steps = np.arange(-reach, reach + 1)
    columns = np.floor(points[:, 0]).astype(int)[:, None, None] + steps[None, None, :]
    rows = np.floor(points[:, 1]).astype(int)[:, None, None] + steps[None, :, None]
    away = np.hypot(columns + 0.5 - points[:, 0, None, None], rows + 0.5 - points[:, 1, None, None])  # [N, K, K]
    disc = np.clip(radius + 0.5 - away, 0.0, 1.0)
    ring = np.clip(1.1 - np.abs(away - radius), 0.0, 1.0)
    rim = np.where(hollow[:, None, None], 0.0, np.clip(radius + 1.3 - away, 0.0, 0.8)) if radius >= _RIM_FROM else None
    shown = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixel = (np.where(shown, rows, 0) * width + np.where(shown, columns, 0)).ravel()
    if rim is not None:
        _stamp(canvas, pixel, np.where(shown, rim, 0.0), np.tile(np.array(RIM, np.uint8), (len(points), 1)))
    _stamp(canvas, pixel, np.where(shown, np.where(hollow[:, None, None], ring, disc), 0.0), colours)


def _stamp(canvas: RgbImage, pixel: NDArray[np.int64], cover: NDArray[np.float64], colours: NDArray[np.uint8]) -> None:
    """Lay marks over ``canvas``: flat pixel numbers ``[N·K·K]``, coverage ``[N, K, K]`` and colours ``[N, 3]``.

    Where marks overlap they mix by their coverage and cover as much as the strongest of them.
    """
    touched, place = np.unique(pixel, return_inverse=True)
    cover = cover.reshape(len(cover), -1)
    share, weight = np.zeros(len(touched)), cover.ravel()
    np.maximum.at(share, place, weight)
    total = np.bincount(place, weight, len(touched))
    flat = canvas.reshape(-1, 3)
    for k in range(3):
        colour = np.bincount(place, (cover * colours[:, k : k + 1]).ravel(), len(touched)) / np.maximum(total, 1e-9)
        under = flat[touched, k].astype(np.float64)
        flat[touched, k] = np.rint(under + share * (colour - under)).astype(np.uint8)


def draw_axes(canvas: RgbImage, axes: NDArray[np.floating], *, thickness: int = 2) -> None:
    """The head's axes, x red, y green, z blue: ``[4, 2]`` canvas px of their origin and three ends."""
    if not np.isfinite(axes).all():
        return
    origin, *ends = (np.asarray(point, np.float64) for point in axes)
    shafts = [_fixed(np.stack([origin, end])) for end in ends]
    heads = [_arrow_head(origin, end, 2.0 + 2.5 * thickness) for end in ends]
    for shaft, head in zip(shafts, heads, strict=True):
        cv2.polylines(canvas, [shaft], False, RIM, thickness + 2, cv2.LINE_AA, 4)
        cv2.polylines(canvas, [head], True, RIM, 3, cv2.LINE_AA, 4)
    for shaft, head, colour in zip(shafts, heads, AXES, strict=True):
        cv2.polylines(canvas, [shaft], False, colour, thickness, cv2.LINE_AA, 4)
        cv2.fillConvexPoly(canvas, head, colour, cv2.LINE_AA, 4)


def _arrow_head(start: NDArray[np.float64], stop: NDArray[np.float64], size: float) -> NDArray[np.int32]:
    """A slim triangle at the end of an axis, smaller on a short one: ``[3, 2]``, fixed point."""
    along = stop - start
    length = max(float(np.linalg.norm(along)), 1e-6)
    along = along / length * min(size, 0.5 * length)
    across = 0.5 * np.array([-along[1], along[0]])
    return _fixed(np.stack([stop + 0.6 * along, stop - along + across, stop - along - across]))


def _fixed(points: NDArray[np.floating]) -> NDArray[np.int32]:
    """Canvas px to OpenCV's fixed point; points far off stay where they do not overflow it."""
    near = np.clip(np.nan_to_num(points, posinf=_FAR, neginf=-_FAR), -_FAR, _FAR)
    return ((near - 0.5) * _FIXED).round().astype(np.int32)


def _window(canvas: RgbImage, points: NDArray[np.floating]) -> tuple[RgbImage, NDArray[np.int64]] | None:
    """The part of ``canvas`` that ``points`` ``[N, 2]`` span, as a view, and its corner; None = they are outside."""
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return None
    low = np.clip(np.floor(points.min(axis=0)) - 2, 0, None).astype(np.int64)
    high = np.minimum(np.ceil(points.max(axis=0)) + 3, canvas.shape[1::-1]).astype(np.int64)
    return (canvas[low[1] : high[1], low[0] : high[0]], low) if (low < high).all() else None


def _tint(part: RgbImage, mask: NDArray[np.uint8], colour: Rgb, opacity: float) -> None:
    """Mix ``colour`` into ``part`` where ``mask`` is set."""
    share = mask.astype(np.float32)[..., None] * np.float32(opacity / 255)
    under = part.astype(np.float32)
    part[:] = np.rint(under + share * (np.array(colour, np.float32) - under)).astype(np.uint8)
